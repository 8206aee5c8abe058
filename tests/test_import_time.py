"""`import featherfit` costs next to nothing, and the command line answers at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time

HEAVY = ["torch", "transformers", "pandas", "sklearn", "accelerate", "numpy", "datasets", "matplotlib"]
PROBE = """
import json, sys, time
began = time.perf_counter()
import {module}
seconds = time.perf_counter() - began
print(json.dumps([seconds, [name for name in {heavy} if name in sys.modules]]))
"""


def fresh_import(module: str) -> tuple[float, list[str]]:
    """Seconds of the import in a new process, and which heavy modules it brought."""
    code = PROBE.format(module=module, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, heavy = json.loads(done.stdout)
    return seconds, heavy


def test_the_probe_sees_heavy_modules():
    assert fresh_import("numpy")[1] == ["numpy"]


def test_import_featherfit():
    runs = [fresh_import("featherfit") for _ in range(5)]
    assert [heavy for _, heavy in runs] == [[]] * 5
    assert min(seconds for seconds, _ in runs) < 0.3


def test_import_cli():
    runs = [fresh_import("featherfit.cli") for _ in range(3)]
    assert [heavy for _, heavy in runs] == [[], [], []]
    assert min(seconds for seconds, _ in runs) < 0.6


def test_help_answers_within_a_second():
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "featherfit", "--help"], capture_output=True, check=True)
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 1
