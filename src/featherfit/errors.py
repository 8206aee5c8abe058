"""Every exception featherfit raises on purpose.

    FeatherfitError
    |-- ConfigError             (ValueError)     wrong dotted keys, values, presets, arguments
    |-- UnsupportedError        (ValueError)     a known AutoMM argument or key we do not offer yet, with the reason
    |-- DataError               (ValueError)     the table cannot be used as given
    |-- CheckpointError         (OSError)        pretrained weights not found, unreadable or not the recorded ones
    |-- TargetError             (ValueError)     adapter targets that match nothing, or match far too much
    |-- TrainingError           (RuntimeError)   training cannot go on
    |-- RankLostError           (RuntimeError)   another process of a fit on several devices ended
    |-- StorageError            (OSError)        a disk that is full, a folder that cannot be written to
    |-- QualityError            (RuntimeError)   a faster form of the model predicts too differently
    |-- ArtifactError           (ValueError)     a saved predictor that is damaged, partial or from elsewhere
    |-- PathExistsError         (ValueError)     an output path that already holds something
    |-- NotFittedError          (RuntimeError)   a method that needs `fit` or `load` first
    `-- MissingDependencyError  (ImportError)    an optional package is not installed

`Interrupted` is a KeyboardInterrupt and stands outside the tree, so that no `except Exception` swallows a wish to stop.
`did_you_mean` is the one helper messages share.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FeatherfitError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(FeatherfitError, ValueError):
    """One or more wrong settings; `problems` holds one line each, in the user's own keys."""

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        if len(self.problems) == 1:
            message = self.problems[0]
        else:
            lines = "\n".join(f"  - {problem}" for problem in self.problems)
            message = f"{len(self.problems)} problems in the settings:\n{lines}"
        super().__init__(message)


class UnsupportedError(FeatherfitError, ValueError):
    """An argument AutoMM knows and this version does not offer; never accepted and ignored."""


class DataError(FeatherfitError, ValueError):
    """The given table cannot be used as it is; the message names rows, columns and the way out."""


class CheckpointError(FeatherfitError, OSError):
    """Pretrained weights are missing, unreadable or differ from the recorded fingerprint."""


class TargetError(FeatherfitError, ValueError):
    """Adapter targets match nothing, or would leave most of the model trainable."""


class TrainingError(FeatherfitError, RuntimeError):
    """Training cannot go on; `diverged` where that is because the loss is no longer a number."""

    def __init__(self, message: str, *, diverged: bool = False):
        super().__init__(message)
        self.diverged = diverged


class RankLostError(FeatherfitError, RuntimeError):
    """Another process of a fit on several devices ended or does not answer; the message says which."""


class StorageError(FeatherfitError, OSError):
    """Something cannot be written: the disk is full, the folder is read-only or gone."""


class QualityError(FeatherfitError, RuntimeError):
    """A faster form of the model predicts too differently from the trained one; the message has the figures."""


class ArtifactError(FeatherfitError, ValueError):
    """A saved predictor is damaged, partial, or of an unknown format."""


class PathExistsError(FeatherfitError, ValueError):
    """The output path exists and is not empty."""


class NotFittedError(FeatherfitError, RuntimeError):
    """The predictor has to be fitted or loaded first."""


class MissingDependencyError(FeatherfitError, ImportError):
    """An optional package is missing; the message carries the install line."""


class Interrupted(KeyboardInterrupt):
    """A fit was asked to end by a signal, and has; `signal` is its number and `exit_code` what a shell expects then."""

    def __init__(self, message: str, number: int = 2):
        super().__init__(message)
        self.signal, self.exit_code = number, 128 + number


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the closest allowed word, or an empty string."""
    close = difflib.get_close_matches(str(given), [str(word) for word in allowed], n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
