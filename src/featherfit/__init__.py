"""featherfit: fine-tunes large multilingual models by training a sliver of their weights.

from featherfit import MultiModalPredictor

predictor = MultiModalPredictor(label="label").fit(train, presets="multilingual")
predictor.predict(test)
"""

from __future__ import annotations

from featherfit.errors import (
    ArtifactError,
    CheckpointError,
    ConfigError,
    DataError,
    FeatherfitError,
    MissingDependencyError,
    NotFittedError,
    PathExistsError,
    RankLostError,
    TargetError,
    TrainingError,
    UnsupportedError,
)
from featherfit.predictor import MultiModalPredictor

__version__ = "0.1.0"
__all__ = [
    "ArtifactError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "FeatherfitError",
    "MissingDependencyError",
    "MultiModalPredictor",
    "NotFittedError",
    "PathExistsError",
    "RankLostError",
    "TargetError",
    "TrainingError",
    "UnsupportedError",
]
