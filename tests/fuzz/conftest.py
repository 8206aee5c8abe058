"""How much is tried: 200 examples a test, the same ones every time; `make fuzz` asks for more, and for others every time."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from tiny_fixtures import checkpoint, fitted, own_folder

__all__ = ["checkpoint", "fitted", "own_folder"]

EXAMPLES = int(os.environ.get("FEATHERFIT_FUZZ_EXAMPLES") or 0)
settings.register_profile(
    "featherfit", max_examples=EXAMPLES or 200, derandomize=not EXAMPLES, database=None, deadline=None, print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
settings.load_profile("featherfit")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """A failure that shows half of a surrogate pair is written with an escape: what workers send has to be Unicode."""
    report = yield
    if report.longrepr is not None and not isinstance(report.longrepr, tuple):
        report.longrepr = printable(str(report.longrepr))
    report.sections = [(printable(name), printable(content)) for name, content in report.sections]
    return report


def printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
