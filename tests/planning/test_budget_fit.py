"""A fit under half of what it would take, each in a process of its own: measured, and with the same losses."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "planner.py"


def load_benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("planner_benchmark", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_half_of_the_memory_gives_the_same_losses(tmp_path):
    benchmark = load_benchmark()
    benchmark.write_checkpoint(tmp_path / "checkpoint", "decoder", "deep")
    run = {"size": "deep", "peft": "lora", "checkpointing": False, "precision": "32"}
    run |= {"checkpoint": str(tmp_path / "checkpoint"), "more": {"optim.max_steps": 6}}
    usual = benchmark.in_process("fit", run)
    budget = usual["peak"] // 2
    tight = benchmark.in_process("fit", {**run, "more": {"env.memory_budget": budget, **run["more"]}})
    assert tight["peak"] < budget
    assert len(tight["losses"]) == len(usual["losses"])
    assert tight["losses"] == pytest.approx(usual["losses"], rel=1e-3)
