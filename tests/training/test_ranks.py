"""Fits in two processes against the same fits in one; and a process that is killed.

Processes are started as a launcher starts them, with its environment variables; the slow tests use `torchrun` itself.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_checkpoints import reviews, write_checkpoint

from featherfit import MultiModalPredictor

SCRIPT = Path(__file__).with_name("ranks_script.py")
ONE = ("plain", "resumed", "single_rows", "stops_early", "probe", "checkpointing", "int8", "int4", "everything")
SHARDED = ("plain", "resumed", "single_rows", "stops_early", "probe", "checkpointing", "int8", "int4")
TWO = (*(f"{case}:ddp" for case in ONE), *(f"{case}:fsdp" for case in SHARDED), "time_limit", "another_table")
ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT / path) for path in ("src", "tests/models", "tests/predictor")]
RTOL, ATOL = 1e-4, 2e-5
"""What float32 sums in another order come to after two dozen steps of AdamW at a rate of 0.03."""


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What a launcher tells a process."""
    own = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(PATHS)}
    if world == 1:
        return own
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    return {**own, "MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in told.items()}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(world: int, *arguments: str) -> list[subprocess.Popen]:
    """Processes that a launcher would have started."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *arguments], env=environment(rank, world, port), text=True, stdout=-1, stderr=-1
        )
        for rank in range(world)
    ]


def finish(processes: list[subprocess.Popen], seconds: float = 120) -> list[tuple[str, str]]:
    """What each said on stdout and stderr; none is left behind."""
    try:
        return [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


def results(folder: Path, world: int, *words: str) -> list[dict[str, Any]]:
    processes = start(world, str(SCRIPT), str(folder), *words)
    said = finish(processes)
    assert [process.returncode for process in processes] == [0] * world, said
    return [json.loads((folder / f"result-{world}-{rank}.json").read_text()) for rank in range(world)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process came to, by case, and what two did, by rank and case."""
    folder = tmp_path_factory.mktemp("ranks")
    write_checkpoint(folder / "checkpoint")
    return results(folder, 1, *ONE, "time_limit")[0], results(folder, 2, *TWO)


@pytest.mark.slow
@pytest.mark.parametrize("word", TWO[:-2])
class TestTwoProcessesGiveWhatOneGives:
    def test_losses_scores_and_the_step_it_stops_at(self, runs, word):
        one, two = runs[0][word.partition(":")[0]]["reports"], [rank[word]["reports"] for rank in runs[1]]
        assert two[0] == two[1]
        assert [(step, rows) for step, _, rows, _ in two[0]] == [(step, rows) for step, _, rows, _ in one]
        assert [loss for _, loss, _, _ in two[0]] == pytest.approx([loss for _, loss, _, _ in one], rel=1e-4)
        assert [score for *_, score in two[0]] == pytest.approx([score for *_, score in one], nan_ok=True)
        assert len({round(loss, 3) for _, loss, _, _ in one}) > 2  # there is something to compare

    def test_weights_and_predictions(self, runs, word):
        one, two = runs[0][word.partition(":")[0]], runs[1][0][word]
        expected, found = (load_file(Path(run["path"]) / "trainable.safetensors") for run in (one, two))
        assert expected.keys() == found.keys()
        for name, values in expected.items():
            torch.testing.assert_close(found[name], values, rtol=RTOL, atol=ATOL, msg=name)
        torch.testing.assert_close(torch.tensor(two["proba"]), torch.tensor(one["proba"]), rtol=1e-3, atol=1e-5)

    def test_one_artifact_with_the_same_summary(self, runs, word):
        one, (two, other) = runs[0][word.partition(":")[0]], [rank[word] for rank in runs[1]]
        path = Path(two["path"])
        assert two["path"] == other["path"] and not list(path.parent.glob(f".{path.name}-*"))
        assert sorted(file.name for file in path.iterdir()) == sorted(file.name for file in Path(one["path"]).iterdir())
        for key in ("steps", "stopped", "averaged_steps", "train_rows", "validation_rows"):
            assert two["summary"][key] == other["summary"][key] == one["summary"][key]
        assert two["summary"]["val_roc_auc"] == pytest.approx(one["summary"]["val_roc_auc"])
        loaded = MultiModalPredictor.load(path, verbosity=0)
        assert loaded.fit_summary()["val_roc_auc"] == two["summary"]["val_roc_auc"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["one", "ddp", "fsdp"])
def test_a_fit_that_went_on_is_one_that_was_never_stopped(runs, strategy):
    """To the bit, in as many processes as before."""
    found = (
        runs[0]
        if strategy == "one"
        else {word.partition(":")[0]: run for word, run in runs[1][0].items() if word.endswith(strategy)}
    )
    plain, resumed = (Path(found[case]["path"]) / "trainable.safetensors" for case in ("plain", "resumed"))
    assert plain.read_bytes() == resumed.read_bytes()
    assert (
        found["plain"]["reports"] == found["resumed"]["reports"]
        and found["plain"]["proba"] == found["resumed"]["proba"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", SHARDED)
def test_each_rank_keeps_half_of_the_frozen_matrices(runs, case):
    frozen = runs[1][0][f"{case}:ddp"]["kept"][1]
    for rank in runs[1]:
        assert rank[f"{case}:ddp"]["kept"] == [frozen, frozen]
        assert rank[f"{case}:fsdp"]["kept"] == [frozen / 2, frozen] and frozen > 5_000


@pytest.mark.slow
def test_ranks_have_unequal_shares_of_some_steps(runs):
    assert runs[0]["plain"]["summary"]["train_rows"] % 8 % 2 == 1


@pytest.mark.slow
def test_some_run_stops_early(runs):
    assert runs[0]["stops_early"]["summary"]["stopped"].startswith("no better score")


@pytest.mark.slow
def test_the_first_rank_has_the_clock(runs):
    assert [rank["time_limit"]["summary"]["steps"] for rank in runs[1]] == [5, 5]


@pytest.mark.slow
def test_ranks_with_different_tables_are_refused(runs):
    assert {rank["another_table"]["error"] for rank in runs[1]} == {
        "DataError: The training rows of rank 1 are not those of rank 0. Give all processes the same table."
    }


def wait_for(file: Path, seconds: float = 60) -> None:
    """Until training has begun, which the first state on disk says."""
    until = time.monotonic() + seconds
    while not file.is_file():
        assert time.monotonic() < until, f"{file} did not appear"
        time.sleep(0.05)


def start_endless_fit(tmp_path: Path, path: Path, setting: str) -> list[subprocess.Popen]:
    """Two processes that train until they are stopped."""
    write_checkpoint(tmp_path / "checkpoint")
    reviews(60).to_csv(tmp_path / "data.csv", index=False)
    checkpoint = f"model.hf_text.checkpoint_name={tmp_path / 'checkpoint'}"
    endless = ("optim.max_epochs=100000", "optim.patience=1000000", "env.batch_size=8")
    words = ("fit", str(tmp_path / "data.csv"), "--label", "label", "--path", str(path))
    return start(2, "-m", "featherfit", *words, checkpoint, *endless, setting)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "how", "told"),
    [
        (1, signal.SIGKILL, r"Error: Rank 1 \(process \d+ on .*\) ended before the others were done\."),
        (0, signal.SIGKILL, r"Error: Rank 0 \(process \d+ on .*\) ended before the others were done\."),
        (1, signal.SIGSTOP, r"Error: Another rank, one on another machine or one that hangs, did not answer\."),
    ],
    ids=["the second is killed", "the first is killed", "the second hangs"],
)
def test_a_lost_rank(tmp_path, victim, how, told):
    """The other one says so, soon, and leaves nothing behind; the path can be used again."""
    path = tmp_path / "out" / "artifact"
    processes = start_endless_fit(tmp_path, path, "env.rank_timeout=4")
    try:
        wait_for(path / "training" / "step-000003.safetensors")
        processes[victim].send_signal(how)
        began = time.monotonic()
        _, said = processes[1 - victim].communicate(timeout=30)
        assert time.monotonic() - began < (15 if how == signal.SIGSTOP else 6)
    finally:
        processes[victim].kill()
        finish(processes)
    assert processes[1 - victim].returncode == 5
    assert len(re.findall("Error:", said)) == 1 and re.search(told, said), said
    assert list(path.parent.iterdir()) == []


@pytest.mark.slow
def test_a_signal_to_one_ends_all_after_the_same_step(tmp_path):
    """With a state to go on from, and one word about it."""
    path = tmp_path / "artifact"
    processes = start_endless_fit(tmp_path, path, "env.state_interval=0")
    try:
        wait_for(path / "training" / "state-000003.json")
        processes[1].send_signal(signal.SIGTERM)
        said = [text for _, text in finish(processes, 60)]
    finally:
        finish(processes)
    assert [process.returncode for process in processes] == [143, 143], said
    [step] = re.findall(r"Interrupted after step (\d+) of \d+\. The state of step \1 is kept", said[0])
    assert "Error" not in said[1] and int(step) >= 3
    assert (path / "training" / f"state-{int(step):06d}.json").is_file() and not (path / "config.json").exists()
