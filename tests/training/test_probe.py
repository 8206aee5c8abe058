"""A probed head is scikit-learn's fit, standardisation folded in."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch import nn

from featherfit.training.probe import probe_head


@pytest.mark.parametrize(("problem_type", "classes"), [("binary", 2), ("multiclass", 3)])
def test_probabilities_are_the_logistic_regressions(problem_type, classes):
    generator = np.random.default_rng(0)
    embeddings = generator.normal(2.0, [0.1, 1.0, 10.0, 3.0], (60, 4)).astype(np.float32)
    labels = (embeddings[:, 1] * classes / 4).astype(int).clip(0, classes - 1)
    head = nn.Linear(4, classes)
    probe_head(head, embeddings, labels, problem_type, None)
    scaler = StandardScaler().fit(embeddings)
    reference = LogisticRegression(max_iter=1000).fit(scaler.transform(embeddings), labels)
    wanted = reference.predict_proba(scaler.transform(embeddings))
    given = head(torch.from_numpy(embeddings)).softmax(1).detach().numpy()
    np.testing.assert_allclose(given, wanted, atol=2e-3)


def test_regression_is_ridge_with_row_weights():
    generator = np.random.default_rng(1)
    embeddings = generator.normal(size=(40, 3)).astype(np.float32)
    labels = embeddings @ np.array([1.0, -2.0, 0.5], np.float32) + 0.3
    weights = generator.uniform(0.5, 2, 40)
    head = nn.Linear(3, 1)
    probe_head(head, embeddings, labels, "regression", weights)
    scaler = StandardScaler().fit(embeddings)
    reference = Ridge().fit(scaler.transform(embeddings), labels, weights)
    wanted = reference.predict(scaler.transform(embeddings))
    np.testing.assert_allclose(head(torch.from_numpy(embeddings))[:, 0].detach(), wanted, atol=1e-4)
