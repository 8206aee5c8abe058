"""How much is tried: 200 examples a test, the same ones every time; `make fuzz` asks for more, and for others every time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from tiny_fixtures import checkpoint, fitted, own_folder

__all__ = ["checkpoint", "fitted", "own_folder"]

EXAMPLES = int(os.environ.get("FEATHERFIT_FUZZ_EXAMPLES") or 0)
settings.register_profile(
    "featherfit", max_examples=EXAMPLES or 200, derandomize=not EXAMPLES, database=None, deadline=None, print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
settings.load_profile("featherfit")
