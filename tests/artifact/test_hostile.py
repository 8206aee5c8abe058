"""Mutated artifacts are refused or predict exactly as before; none runs code, opens what is not its own, or takes memory."""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mutations import ATTACKS, DAMAGE, Mutation, Target
from tiny_checkpoints import quick_fit, reviews

from featherfit import MultiModalPredictor
from featherfit.artifact.store import inspect_artifact
from featherfit.errors import ArtifactError, CheckpointError, FeatherfitError
from featherfit.memory import release_freed_memory

FAST, SLOW = 10, 70
"""Mutated artifacts of each kind; there are 15 kinds or so."""

ROOM = 100 * 10**6
NEVER = (
    "pickle.find_class",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "socket.connect",
    "socket.getaddrinfo",
)


@dataclass
class Watch:
    """Listens to what Python does while it is on.

    Attributes:
        allowed: Folders under `root` that may be read.
        seen: What should not have happened.
    """

    root: Path = Path("/nowhere")
    allowed: tuple[Path, ...] = ()
    on: bool = False
    seen: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in NEVER:
            self.seen.append(f"{event} {arguments}")
        elif event == "exec" and self._is_ours(getattr(arguments[0], "co_filename", "")):
            self.seen.append(f"code of {arguments[0].co_filename}")
        elif event == "import" and self._is_ours(arguments[1] or ""):
            self.seen.append(f"import of {arguments[1]}")
        elif event == "open" and isinstance(arguments[0], str) and self._is_ours(arguments[0]):
            file = Path(arguments[0]).absolute()
            # The kernel follows "..", and so does this.
            if not any(Path(file).resolve().is_relative_to(folder) for folder in self.allowed):
                self.seen.append(f"open {file}")

    def _is_ours(self, file: Any) -> bool:
        return (
            isinstance(file, str)
            and not file.startswith("<")
            and Path(file).absolute().resolve().is_relative_to(self.root)
        )


WATCH = Watch()
sys.addaudithook(WATCH)  # there is no way to take a hook away again


@contextmanager
def watched(root: Path, *allowed: Path) -> Iterator[list[str]]:
    WATCH.root, WATCH.allowed, WATCH.seen, WATCH.on = root, allowed, [], True
    try:
        yield WATCH.seen
    finally:
        WATCH.on = False


def reset_peak() -> int:
    """Bytes in memory now; from here on, `peak` counts. What was freed and kept would hide what is taken."""
    release_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.fixture(scope="module", params=["ia3_bias", "alone", "whole"])
def sound(request, checkpoint, tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """A sound artifact and what it predicts; two of the three stand alone."""
    folder = tmp_path_factory.mktemp("sound") / "artifact"
    options = {
        "ia3_bias": {},
        "alone": {"standalone": True, "hyperparameters": {"optim.peft": "lora"}},
        "whole": {"hyperparameters": {"optim.peft": None, "optim.max_epochs": 1, "optim.lr": 1e-3}},
    }[request.param]
    return folder, quick_fit(checkpoint, folder, **options).predict_proba(reviews(8))


def mutate(mutation: Mutation, seed: int, sound: tuple[Path, pd.DataFrame], root: Path) -> Target:
    """A fresh copy of the sound artifact, mutated."""
    folder, outside = root / "artifact", root / "outside"
    for old in (folder, outside):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(sound[0], folder)
    outside.mkdir()
    target = Target(folder, outside, random.Random(seed))
    mutation(target)
    return target


def outcome(target: Target, expected: pd.DataFrame, root: Path, checkpoint: Path) -> str:
    """`refused`, `same` or `other`, for predictions that differ; fails where anything happened that must not."""
    result: Any = None
    try:
        with watched(root.parent, target.folder, checkpoint, root / "home") as seen:
            for reader in (inspect_artifact, lambda path: MultiModalPredictor.load(path, verbosity=0)):
                try:
                    result = reader(target.folder)
                except (ArtifactError, CheckpointError) as error:
                    result = error
            if isinstance(result, FeatherfitError):
                return "refused"
            try:
                return "same" if result.predict_proba(reviews(8)).equals(expected) else "other"
            except FeatherfitError:
                return "other"
    finally:
        assert not target.canary.exists(), "it ran code"
        assert not seen, seen[:3]


def run(mutations: list[Mutation], each: int, sound: Any, root: Path, checkpoint: Path, measure: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    for mutation in mutations:
        for seed in range(each):
            target = mutate(mutation, seed, sound, root)
            size = sum(file.lstat().st_size for file in target.folder.rglob("*"))
            before = reset_peak() if measure else 0
            try:
                found = outcome(target, sound[1], root, checkpoint)
                assert mutation in ATTACKS or found != "other", "damage changed predictions"
                taken = peak() - before - size if measure else 0
                assert taken < ROOM, f"it took {taken / 1e6:.0f} MB"
            except AssertionError as error:
                raise AssertionError(f"{mutation.__name__}, seed {seed}: {error}") from None
            counts[found] += 1
    return counts


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEATHERFIT_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # settings that were changed may be old spellings, or have no effect
class TestMutated:
    def test_damage(self, sound, root, checkpoint):
        counts = run(DAMAGE, FAST // 3, sound, root, checkpoint, measure=False)
        assert counts["refused"] > 3 * counts["same"] > 0

    def test_attacks(self, sound, root, checkpoint):
        counts = run(ATTACKS, FAST // 3, sound, root, checkpoint, measure=False)
        assert counts["refused"] > 2 * (counts["same"] + counts["other"])

    @pytest.mark.slow
    @pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured where Linux tells it")
    @pytest.mark.parametrize("mutations", [DAMAGE, ATTACKS], ids=["damage", "attacks"])
    def test_many(self, mutations, sound, root, checkpoint):
        sound_again = MultiModalPredictor.load(sound[0], verbosity=0)  # what is imported once does not count
        assert sound_again.predict_proba(reviews(8)).equals(sound[1])
        counts = run(mutations, SLOW // 3, sound, root, checkpoint, measure=True)
        assert sum(counts.values()) >= 160


class TestTheWatch:
    """Without these, nothing would show that the tests above can fail."""

    def test_sees_a_pickle(self, root):
        import pickle

        from mutations import Bomb

        content = pickle.dumps(Bomb(root / "canary"))
        with watched(root, root) as seen:
            pickle.loads(content)
        assert seen and (root / "canary").is_dir()

    def test_sees_files_outside(self, root):
        (root / "in").mkdir()
        (root / "out.json").write_text("{}")
        (root / "in" / "ok.json").write_text("{}")
        with watched(root, root / "in") as seen:
            (root / "in" / "ok.json").read_text()
            assert not seen
            (root / "in" / ".." / "out.json").read_text()
        assert len(seen) == 1

    def test_sees_code_from_files(self, root, monkeypatch):
        (root / "evil_module.py").write_text("x = 1")
        monkeypatch.syspath_prepend(str(root))
        with watched(root, root) as seen:
            import evil_module  # noqa: F401
        assert seen

    @pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured where Linux tells it")
    def test_sees_memory(self):
        before = reset_peak()
        filled = bytearray(150 * 10**6)
        filled[::4096] = b"x" * len(filled[::4096])
        del filled
        assert peak() - before > ROOM
