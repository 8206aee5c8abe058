"""Logits and labels go in; the loss of each row comes out. `LOSSES` says which losses there are for which problem.

Shapes: B rows, C classes, K labels or targets of a row that has several, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from featherfit.config.schema import OptimConfig
from featherfit.data.messages import count
from featherfit.data.processors.several import Target
from featherfit.errors import ConfigError, did_you_mean
from featherfit.types import ProblemType


@dataclass(frozen=True)
class Objective:
    """The loss of a run.

    Attributes:
        name: One of `optim.loss_func`, never `auto`.
        problem_type: What the label is.
        outputs: Width of the logits.
        smoothing: `optim.label_smoothing`.
        gamma, alpha: `optim.focal_loss`.
        delta: `optim.huber.delta`.
        levels: Quantile levels, Q of them.
    """

    name: str
    problem_type: ProblemType
    outputs: int
    smoothing: float = 0.0
    gamma: float = 2.0
    alpha: tuple[float, ...] | None = None
    delta: float = 1.0
    levels: tuple[float, ...] = ()

    def smoothed(self, smoothing: float) -> Objective:
        """The same with other smoothing, where there is any."""
        return replace(self, smoothing=smoothing) if LOSSES[self.problem_type, self.name].smooths else self

    def blank_labels(self, rows: int) -> torch.Tensor:
        """Labels of the shape and type this loss takes, all zero."""
        if self.problem_type in ("binary", "multiclass"):
            return torch.zeros(rows, dtype=torch.int64)
        return torch.zeros(rows) if self.outputs == 1 or self.levels else torch.zeros(rows, self.outputs)


def row_losses(logits: torch.Tensor, labels: torch.Tensor, objective: Objective) -> torch.Tensor:
    """The loss of every row, (B,) float32; of a row with several labels, targets or levels their mean.

    Args:
        logits: (B, C), or (B, K) for several labels or targets, or (B, Q); regression of one target has (B, 1).
        labels: Class ids (B,) int64; scaled targets (B,) or (B, K) float32; or (B, K) of 0 and 1, float32.
        objective: From `objective_of`.
    """
    return LOSSES[objective.problem_type, objective.name].of(logits.float(), labels, objective)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor, objective: Objective) -> torch.Tensor:
    """With label smoothing, arXiv 1512.00567, section 7."""
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=objective.smoothing)


def _focal(logits: torch.Tensor, labels: torch.Tensor, objective: Objective) -> torch.Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t of the class's probability p_t (arXiv 1708.02002, equation 5)."""
    log_p = -functional.cross_entropy(logits, labels, reduction="none")
    losses = _focused(log_p, objective.gamma)
    return losses if objective.alpha is None else losses * logits.new_tensor(objective.alpha)[labels]


def _focal_of_each(logits: torch.Tensor, labels: torch.Tensor, objective: Objective) -> torch.Tensor:
    """The same of each label; alpha weighs rows that have it, and 1 - alpha those that do not, as in the paper."""
    log_p = -functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    losses = _focused(log_p, objective.gamma)
    if objective.alpha is not None:
        alpha = logits.new_tensor(objective.alpha)
        losses = losses * (labels * alpha + (1 - labels) * (1 - alpha))
    return losses.mean(dim=1)


def _focused(log_p: torch.Tensor, gamma: float) -> torch.Tensor:
    # 1 - p by expm1, which keeps its digits near 0; bounded, so that the power has a gradient there.
    return -((-torch.expm1(log_p)).clamp_min(1e-12) ** gamma) * log_p


def _binary_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, objective: Objective) -> torch.Tensor:
    """Of each label against its absence, or of a target from 0 to 1."""
    smooth = labels * (1 - objective.smoothing) + objective.smoothing / 2
    return _mean(functional.binary_cross_entropy_with_logits(*_alike(logits, smooth), reduction="none"))


def _squared(logits: torch.Tensor, labels: torch.Tensor, objective: Objective) -> torch.Tensor:
    return _mean(functional.mse_loss(*_alike(logits, labels), reduction="none"))


def _absolute(logits: torch.Tensor, labels: torch.Tensor, objective: Objective) -> torch.Tensor:
    return _mean(functional.l1_loss(*_alike(logits, labels), reduction="none"))


def _huber(logits: torch.Tensor, labels: torch.Tensor, objective: Objective) -> torch.Tensor:
    """Half the square of errors up to delta, linear beyond (Huber, Annals of Mathematical Statistics 35, 1964)."""
    return _mean(functional.huber_loss(*_alike(logits, labels), reduction="none", delta=objective.delta))


def _pinball(logits: torch.Tensor, labels: torch.Tensor, objective: Objective) -> torch.Tensor:
    """level * error where the target is above, (1 - level) * -error where it is below (Koenker and Bassett, 1978)."""
    levels = logits.new_tensor(objective.levels)
    errors = labels.unsqueeze(1) - logits
    return torch.maximum(levels * errors, (levels - 1) * errors).mean(dim=1)


def _alike(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both (B, K)."""
    return logits, labels.reshape(logits.shape)


def _mean(losses: torch.Tensor) -> torch.Tensor:
    return losses.mean(dim=1)


@dataclass(frozen=True)
class Loss:
    """A loss for a problem.

    Attributes:
        of: (logits, labels, objective) -> (B,).
        smooths: Whether label smoothing means something.
        link: How logits become predicted numbers, where these are what is predicted: `identity` or `sigmoid`.
    """

    of: Callable[[torch.Tensor, torch.Tensor, Objective], torch.Tensor]
    smooths: bool = False
    link: str = "identity"


_CLASSES = {"cross_entropy": Loss(_cross_entropy, smooths=True), "focal_loss": Loss(_focal)}
_BY_PROBLEM: dict[str, dict[str, Loss]] = {
    "binary": _CLASSES,
    "multiclass": _CLASSES,
    "multilabel": {
        "bcewithlogitsloss": Loss(_binary_cross_entropy, smooths=True),
        "focal_loss": Loss(_focal_of_each),
    },
    "regression": {
        "mse": Loss(_squared),
        "mae": Loss(_absolute),
        "huber": Loss(_huber),
        "bcewithlogitsloss": Loss(_binary_cross_entropy, link="sigmoid"),
    },
    "quantile": {"pinball": Loss(_pinball)},
}
LOSSES: dict[tuple[str, str], Loss] = {
    (problem, name): loss for problem, losses in _BY_PROBLEM.items() for name, loss in losses.items()
}
"""By problem type and name; of a problem's losses the first is what `auto` stands for."""


def loss_name(problem_type: ProblemType, wanted: str) -> str:
    """The loss that `optim.loss_func` asks for.

    Raises:
        ConfigError: It does not fit the problem.
    """
    fitting = list(_BY_PROBLEM[problem_type])
    if wanted == "auto":
        return fitting[0]
    if wanted not in fitting:
        raise ConfigError(
            f"optim.loss_func={wanted!r} does not fit a {problem_type} problem.{did_you_mean(wanted, fitting)} Allowed: "
            f"auto, {', '.join(fitting)}."
        )
    return wanted


def objective_of(label: Target, optim: OptimConfig) -> Objective:
    """The loss of a run.

    Args:
        label: Fitted to the training labels.
        optim: `loss_func`, `label_smoothing`, `focal_loss` and `huber` are read.

    Raises:
        ConfigError: Settings that do not fit the problem or each other, all of them at once.
    """
    name, problems = loss_name(label.problem_type, optim.loss_func), []
    if optim.label_smoothing > 0 and not LOSSES[label.problem_type, name].smooths:
        smooths = [f"{other} ({problem})" for (problem, other), loss in LOSSES.items() if loss.smooths]
        problems.append(
            f"optim.label_smoothing={optim.label_smoothing:g} does not go with optim.loss_func={name!r} of a "
            f"{label.problem_type} problem. Leave it out. It goes with: {', '.join(smooths)}."
        )
    if LOSSES[label.problem_type, name].link != label.link:
        problems.append(
            f"optim.loss_func={name!r} reads the model's outputs otherwise than the loss of the first fit did. Use a new "
            "MultiModalPredictor."
        )
    alpha = optim.focal_loss.alpha if name == "focal_loss" else None
    if alpha is not None and len(alpha) != label.outputs:
        problems.append(
            f"optim.focal_loss.alpha has {count(len(alpha), 'number')}, and there are {label.outputs} classes. Give one for "
            f"each, in this order: {', '.join(map(repr, label.classes.tolist()))}."
        )
    if alpha is not None and label.problem_type == "multilabel" and max(alpha) > 1:
        problems.append(
            f"optim.focal_loss.alpha={alpha}: of several labels alpha weighs rows with the label, and 1 - alpha the others, "
            "so numbers are from 0 to 1."
        )
    if problems:
        raise ConfigError(problems)
    return Objective(
        name,
        label.problem_type,
        label.outputs,
        optim.label_smoothing,
        optim.focal_loss.gamma,
        None if alpha is None else tuple(alpha),
        optim.huber.delta,
        label.levels,
    )
