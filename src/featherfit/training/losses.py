"""Logits and labels go in; the loss of each row comes out. Which loss follows from the problem type alone."""

from __future__ import annotations

import torch
from torch.nn import functional

from featherfit.types import ProblemType


def row_losses(
    logits: torch.Tensor, labels: torch.Tensor, problem_type: ProblemType, label_smoothing: float = 0.0
) -> torch.Tensor:
    """The loss of every row, (B,) float32.

    Args:
        logits: (B, C) for classification, (B, 1) for regression.
        labels: Class ids (B,) int64, or scaled targets (B,) float32.
        problem_type: Cross entropy for classification, squared error for regression.
        label_smoothing: Probability spread evenly over all classes, 0 to 1 (arXiv 1512.00567, section 7).
    """
    if problem_type == "regression":
        return (logits.float().squeeze(1) - labels) ** 2
    return functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=label_smoothing)
