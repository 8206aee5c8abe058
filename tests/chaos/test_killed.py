"""A fit that is killed at any moment goes on to the same bytes; and what can be loaded meanwhile is never wrong."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import chaos_runs
import pytest
from tiny_checkpoints import write_checkpoint

SECONDS = 120
KINDS = ("step", "validation", "state", "artifact")
COUNT = 25


@pytest.fixture(scope="module")
def server():
    """Forks processes in which everything is imported already."""
    # For the server, which looks for what it is to import in the environment.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["chaos_runs"])
    return context


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-bert")


def run(server: Any, target: Any, *arguments: Any) -> int:
    """The exit code of a process that does this; none is left behind."""
    process = server.Process(target=target, args=arguments)
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        pytest.fail(f"{target.__name__}{arguments} hangs")
    return process.exitcode


def facts(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def whole(server, checkpoint, tmp_path_factory) -> Path:
    """The run that is never interrupted."""
    path = tmp_path_factory.mktemp("whole") / "artifact"
    assert run(server, chaos_runs.begin, checkpoint, path) == 0
    return path


def drawn(seen: dict[str, list[int]], draw: random.Random, kind: str) -> tuple[str, int, int]:
    """A moment of this kind that the uninterrupted run went through."""
    if kind in ("step", "validation"):
        return kind, draw.randint(1, seen[kind][0]), 0
    number = draw.randint(1, len(seen[kind]))
    return kind, number, draw.randint(1, seen[kind][number - 1])


def assert_the_same(path: Path, whole: Path) -> None:
    found, expected = facts(path), facts(whole)
    assert (path / "trainable.safetensors").read_bytes() == (whole / "trainable.safetensors").read_bytes()
    assert found["proba"] == expected["proba"] and found["summary"] == expected["summary"]
    left = {file.name for file in path.iterdir()} - {file.name for file in whole.iterdir()}
    assert left <= {"training"} and not (path / "training" / "fit.json").exists()  # killed while it tidied up
    assert sorted(file.name for file in path.parent.iterdir()) == ["artifact", "artifact.json"]


def killed_and_gone_on_with(server, checkpoint, whole, path, moment):
    assert run(server, chaos_runs.begin, checkpoint, path, *moment) == -signal.SIGKILL, moment
    assert run(server, chaos_runs.go_on, path) == 0, moment
    assert facts(path)["loaded"] in (None, {key: facts(whole)[key] for key in ("proba", "summary")}), moment
    assert_the_same(path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("place", range(COUNT))
def test_killed_once(server, checkpoint, whole, tmp_path, place):
    moment = drawn(facts(whole)["seen"], random.Random(place), KINDS[place % len(KINDS)])
    killed_and_gone_on_with(server, checkpoint, whole, tmp_path / "artifact", moment)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [("state", 2), ("artifact", 1)])
def test_killed_at_every_operation_on_files(server, checkpoint, whole, tmp_path, kind, number):
    """Of one state that comes after another, and of the artifact: drawn moments may miss the only one that matters."""
    for operation in range(1, facts(whole)["seen"][kind][number - 1] + 1):
        path = tmp_path / str(operation) / "artifact"
        path.parent.mkdir()
        killed_and_gone_on_with(server, checkpoint, whole, path, (kind, number, operation))


@pytest.mark.slow
def test_killed_again_and_again(server, checkpoint, whole, tmp_path):
    """In every process that goes on, too."""
    draw, path, target, arguments = random.Random(7), tmp_path / "artifact", chaos_runs.begin, (checkpoint,)
    killed = 0
    for kind in KINDS * 3:
        _, number, operation = drawn(facts(whole)["seen"], draw, kind)
        killed += run(server, target, *arguments, path, kind, min(number, 5), operation) == -signal.SIGKILL
        target, arguments = chaos_runs.go_on, ()
        if path.is_dir() and not (path / "training").is_dir():
            break
    run(server, chaos_runs.go_on, path)
    assert killed >= 4
    assert_the_same(path, whole)


@pytest.mark.slow
def test_there_is_something_to_lose(whole):
    """The run has all that a state has to hold, and the soup is of more than one state."""
    seen, summary = facts(whole)["seen"], facts(whole)["summary"]
    assert seen["step"][0] > 30 and seen["validation"][0] > 10 and len(seen["state"]) > 10
    assert min(seen["state"]) >= 6 and seen["artifact"][0] >= 12
    assert len(summary["averaged_steps"]) > 1
