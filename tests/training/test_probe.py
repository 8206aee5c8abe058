"""A probed head gives what scikit-learn's linear models give on the same embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from featherfit.models.heads import Head
from featherfit.training.probe import probe_head

RANDOM = np.random.default_rng(0)
EMBEDDINGS = (RANDOM.normal(size=(60, 5)) * [1, 5, 0.1, 2, 1] + [0, 10, 0, -3, 1]).astype(np.float32)
SCORES = StandardScaler().fit_transform(EMBEDDINGS) @ RANDOM.normal(size=(5, 3)) + RANDOM.normal(size=(60, 3))
WEIGHTS = RANDOM.uniform(0.2, 3, size=60).astype(np.float32)


def probed(outputs: int, labels: np.ndarray, problem: str, weights: np.ndarray | None) -> torch.Tensor:
    linear = Head(5, outputs, seed=0).linear
    probe_head(linear, EMBEDDINGS, labels, problem, weights)
    with torch.no_grad():
        return linear(torch.from_numpy(EMBEDDINGS))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
@pytest.mark.parametrize("classes", [2, 3])
def test_classification(classes, weights):
    labels = SCORES[:, :classes].argmax(1)
    problem = "binary" if classes == 2 else "multiclass"
    proba = torch.softmax(probed(classes, labels, problem, weights), 1)
    standard = StandardScaler().fit_transform(EMBEDDINGS)
    expected = LogisticRegression(max_iter=1000).fit(standard, labels, weights).predict_proba(standard)
    np.testing.assert_allclose(proba, expected, atol=2e-3)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
def test_regression(weights):
    standard = StandardScaler().fit_transform(EMBEDDINGS)
    expected = Ridge().fit(standard, SCORES[:, 0], weights).predict(standard)
    np.testing.assert_allclose(probed(1, SCORES[:, 0], "regression", weights)[:, 0], expected, atol=1e-3)
