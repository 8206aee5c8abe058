"""Lets the tests here use the tiny models and checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("predictor", "models")]
