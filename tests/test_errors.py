"""Errors: their families, and how several problems read."""

import inspect

import pytest

from featherfit import errors
from featherfit.errors import ConfigError, FeatherfitError, did_you_mean

FAMILIES = {
    "ConfigError": ValueError,
    "UnsupportedError": ValueError,
    "DataError": ValueError,
    "CheckpointError": OSError,
    "TargetError": ValueError,
    "TrainingError": RuntimeError,
    "RankLostError": RuntimeError,
    "StorageError": OSError,
    "QualityError": RuntimeError,
    "ArtifactError": ValueError,
    "PathExistsError": ValueError,
    "NotFittedError": RuntimeError,
    "MissingDependencyError": ImportError,
}


def test_these_are_all_the_errors():
    classes = {name for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)}
    assert classes == {"FeatherfitError", *FAMILIES}
    for name in FAMILIES:
        assert name in errors.__doc__


@pytest.mark.parametrize(("name", "builtin"), FAMILIES.items())
def test_each_error_is_also_a_builtin_one(name, builtin):
    cls = getattr(errors, name)
    assert cls.__bases__ == (FeatherfitError, builtin)
    assert str(cls("what to do")) == "what to do"


def test_a_wish_to_stop_is_no_error():
    stopped = errors.Interrupted("stopped", 15)
    assert isinstance(stopped, KeyboardInterrupt) and not isinstance(stopped, Exception)
    assert (stopped.signal, stopped.exit_code, str(stopped)) == (15, 143, "stopped")


@pytest.mark.parametrize("given", ["only one", ["only one"], iter(["only one"])])
def test_one_problem_is_one_line(given):
    error = ConfigError(given)
    assert error.problems == ["only one"]
    assert str(error) == "only one"


def test_several_problems_are_listed():
    error = ConfigError(("first", "second"))
    assert error.problems == ["first", "second"]
    assert str(error) == "2 problems in the settings:\n  - first\n  - second"


@pytest.mark.parametrize(
    ("given", "allowed", "hint"),
    [
        ("lorra", ["lora", "ia3"], " Did you mean 'lora'?"),
        ("zzz", ["lora", "ia3"], ""),
        ("lora", [], ""),
        (12, [123], " Did you mean '123'?"),
    ],
)
def test_the_nearest_word_is_suggested(given, allowed, hint):
    assert did_you_mean(given, allowed) == hint
