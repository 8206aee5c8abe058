"""Embeddings of the training rows and their labels go in; a head that already fits them comes out.

A head with random weights sends noise into the encoder during the first steps and bends features that carry over to
other languages. Starting from a linear probe avoids it (Kumar et al. 2022, arXiv 2202.10054).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from featherfit.types import ProblemType


def probe_head(
    linear: nn.Linear, embeddings: np.ndarray, labels: np.ndarray, problem_type: ProblemType, weights: np.ndarray | None
) -> None:
    """Sets a head's weight and bias to a regularised linear fit, in place.

    Logistic regression (C = 1), or ridge regression (alpha = 1), on standardised embeddings; the standardisation is
    folded into weight and bias.

    Args:
        linear: The head's layer, D to C outputs.
        embeddings: What the head will see, (rows, D).
        labels: Class ids or scaled targets, (rows,).
        problem_type: Decides the model.
        weights: Weight of each row, (rows,), or None.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    center, scale = embeddings.mean(0), embeddings.std(0) + 1e-6
    standard = (embeddings - center) / scale
    if problem_type == "regression":
        ridge = Ridge().fit(standard, labels, weights)
        coefficients, intercept = ridge.coef_[None], np.array([ridge.intercept_])
    else:
        logistic = LogisticRegression(max_iter=1000).fit(standard, labels, weights)
        coefficients, intercept = logistic.coef_, logistic.intercept_
        if problem_type == "binary":
            # scikit-learn gives the difference of the two logits.
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercept = np.concatenate([-intercept, intercept]) / 2
    weight = coefficients / scale
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(intercept - weight @ center))
