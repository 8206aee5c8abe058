"""Training labels and the settings of the loss go in; what turns labels into numbers and back comes out."""

from __future__ import annotations

import pandas as pd

from featherfit.config.schema import Config
from featherfit.data.processors.label import LabelProcessor
from featherfit.data.processors.several import SeveralLabels, Target
from featherfit.data.schema import Schema
from featherfit.training.losses import LOSSES, loss_name, objective_of

DECILES = tuple(tenth / 10 for tenth in range(1, 10))
"""Quantile levels unless they are given, AutoGluon's."""


def fit_target(
    schema: Schema, config: Config, frame: pd.DataFrame, train_frame: pd.DataFrame, levels: tuple[float, ...]
) -> Target:
    """What turns the labels into numbers and back.

    Args:
        schema: Has label and problem type.
        config: Settings of the loss and of `data`.
        frame: All training rows, which say which labels lists may hold.
        train_frame: Those to train on, which say the rest.
        levels: Quantile levels, if they were given.

    Raises:
        ConfigError: Settings that do not fit the problem.
        DataError: Labels that cannot be used.
    """
    problem_type, label = schema.problem_type, schema.label
    assert problem_type is not None and label is not None
    scaling = config.data.label.numerical_preprocessing
    link = LOSSES[problem_type, loss_name(problem_type, config.optim.loss_func)].link
    target: Target
    if problem_type == "multilabel":
        target = SeveralLabels.fit(frame[label], problem_type)
    elif isinstance(label, list):
        target = SeveralLabels.fit(train_frame[label], problem_type, scaling, link)
    else:
        levels = levels or (DECILES if problem_type == "quantile" else ())
        target = LabelProcessor.fit(train_frame[label], problem_type, config.data.pos_label, scaling, levels, link)
    objective_of(target, config.optim)  # says what does not fit now rather than after the tokens
    return target
