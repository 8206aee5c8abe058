"""A fit that was interrupted, in whatever way, goes on to the bytes of one that was not; and says what keeps it from that."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_checkpoints import quick_fit, reviews, same, settings, weights, write_checkpoint

from featherfit import MultiModalPredictor
from featherfit.errors import ArtifactError, ConfigError, DataError, Interrupted, StorageError, TrainingError
from featherfit.training import keeping, loop

STEPS = 12
SETTINGS = {
    "optim.peft": "lora",
    "optim.lora.dropout": 0.3,
    "optim.max_epochs": 3,
    "optim.ema_decay": 0.7,
    "model.hf_text.dropout": "on",
    "env.state_interval": 0,
}
"""Everything that remembers something from step to step; four steps an epoch, two validations."""
NEW = reviews(20, seed=5)


class Stop(Exception):
    """What a test raises in the middle of a fit."""


@pytest.fixture
def at_step(monkeypatch) -> Callable[..., None]:
    """Does something in the middle of a step, once."""

    def arrange(number: int, do: Callable[[], Any]) -> None:
        count, accumulate = iter(range(1, 1000)), loop.accumulate

        def step(*args: Any, **named: Any) -> float:
            loss = accumulate(*args, **named)
            return loss if next(count) != number or (result := do()) is None else result

        monkeypatch.setattr(loop, "accumulate", step)

    return arrange


def fail(error: BaseException) -> Callable[[], None]:
    def raised() -> None:
        raise error

    return raised


def go_on(path: Path, data: Any = None, **arguments: Any) -> MultiModalPredictor:
    predictor = MultiModalPredictor.load(path, resume=True, verbosity=0)
    return predictor.fit(reviews() if data is None else data, **arguments)


def content(predictor: MultiModalPredictor) -> tuple[bytes, Any, dict[str, Any]]:
    """All that is to be the same: weights, predictions, what training came to."""
    summary = {key: value for key, value in predictor.fit_summary().items() if key != "training_time"}
    stored = (Path(predictor.path) / "trainable.safetensors").read_bytes()
    return stored, predictor.predict_proba(NEW).to_numpy().tolist(), summary


@pytest.fixture(scope="module")
def expected(checkpoint, tmp_path_factory) -> tuple[bytes, Any, dict[str, Any]]:
    """Of the fit that is not interrupted, and keeps no state but the last."""
    path = tmp_path_factory.mktemp("whole") / "artifact"
    found = content(quick_fit(checkpoint, path, hyperparameters={**SETTINGS, "env.state_interval": 1e9}))
    assert found[2]["steps"] == STEPS and len(found[2]["averaged_steps"]) > 1
    return found


@pytest.fixture
def broken_off(checkpoint, tmp_path, at_step) -> Callable[..., Path]:
    """Leaves a fit behind that failed in the middle of a step."""

    def leave(step: int = 8, frame: pd.DataFrame | None = None, **arguments: Any) -> Path:
        at_step(step, fail(Stop()))
        more = {**SETTINGS, **arguments.pop("hyperparameters", {})}
        with pytest.raises(Stop):
            quick_fit(checkpoint, tmp_path / "artifact", frame, hyperparameters=more, **arguments)
        return tmp_path / "artifact"

    return leave


class TestTheSameBytes:
    @pytest.mark.parametrize("step", [2, 5, 8, 12])
    def test_after_a_failure(self, broken_off, expected, step):
        """In the middle of an epoch and at its beginning, and in the last step."""
        path = broken_off(step)
        assert content(go_on(path)) == expected
        assert not (path / "training").exists()

    def test_before_any_state_it_begins_anew(self, checkpoint, tmp_path, expected, monkeypatch):
        monkeypatch.setattr("featherfit.artifact.workspace._leave", lambda *arguments: None)  # as if it had been killed
        monkeypatch.setattr(loop, "accumulate", fail(Stop()))
        with pytest.raises(TypeError):
            quick_fit(checkpoint, tmp_path / "artifact", hyperparameters=SETTINGS)
        monkeypatch.undo()
        assert content(go_on(tmp_path / "artifact")) == expected

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_after_a_signal(self, checkpoint, tmp_path, expected, at_step, number):
        """The step is finished first."""
        at_step(7, lambda: os.kill(os.getpid(), number))
        with pytest.raises(
            Interrupted, match=r"Interrupted after step 7 of 12\. The state of step 7 is kept"
        ) as stopped:
            quick_fit(checkpoint, tmp_path / "a", hyperparameters={**SETTINGS, "env.state_interval": "auto"})
        assert stopped.value.exit_code == 128 + number
        with pytest.raises(ArtifactError, match=r"An interrupted fit is there; load\(path, resume=True\) goes on"):
            MultiModalPredictor.load(tmp_path / "a")
        assert content(go_on(tmp_path / "a")) == expected

    def test_after_a_time_limit(self, checkpoint, tmp_path, expected):
        """There is an artifact, and the state to go on from; going on has its own limit."""
        path = tmp_path / "a"
        predictor = quick_fit(checkpoint, path, hyperparameters=SETTINGS, time_limit=1e-6)
        assert predictor.fit_summary()["steps"] == 1 and len(predictor.predict(NEW)) == 20
        assert len(list((path / "training").glob("state-*.json"))) == 1
        again = go_on(path, time_limit=1e-6)
        assert again.fit_summary()["steps"] == 2 and again.fit_summary()["training_time"] > 0
        assert content(go_on(path)) == expected
        assert not (path / "training").exists()

    def test_where_only_the_artifact_could_not_be_written(self, checkpoint, tmp_path, expected, monkeypatch):
        monkeypatch.setattr("featherfit.artifact.store.model_card", lambda *arguments: fail(OSError(28, "full"))())
        with pytest.raises(StorageError, match=r"The artifact cannot be written to .*No space left on device"):
            quick_fit(checkpoint, tmp_path / "a", hyperparameters=SETTINGS)
        monkeypatch.undo()
        monkeypatch.setattr(loop, "accumulate", fail(AssertionError("trained again")))
        assert content(go_on(tmp_path / "a")) == expected

    @pytest.mark.parametrize("step", [5, 7, 9])
    def test_validations_without_a_better_score_are_counted_on(self, checkpoint, tmp_path, broken_off, step):
        """Four of them end the fit, two before the interruption or more, the others after it."""
        more = {"optim.lr": 1e-30, "optim.patience": 4, "optim.max_epochs": 9}
        whole = content(quick_fit(checkpoint, tmp_path / "whole", hyperparameters={**SETTINGS, **more}))
        assert whole[2]["stopped"] == "no better score in 4 validations" and whole[2]["steps"] == 10
        assert content(go_on(broken_off(step, hyperparameters=more))) == whole

    def test_the_time_it_took_counts_from_the_first_beginning(self, broken_off):
        path = broken_off(8)
        file = sorted((path / "training").glob("state-*.json"))[-1]
        state = json.loads(file.read_text())["state"]
        state["elapsed"] += 1000
        file.write_text(json.dumps({"sha256": keeping._digest_of(state), "state": state}))
        assert 1000 < go_on(path).fit_summary()["training_time"] < 1100

    def test_with_a_head_that_starts_from_a_probe(self, checkpoint, tmp_path, broken_off):
        more = {"optim.head_init": "probe"}
        whole = content(quick_fit(checkpoint, tmp_path / "whole", hyperparameters={**SETTINGS, **more}))
        assert content(go_on(broken_off(hyperparameters=more))) == whole

    def test_with_arguments_that_are_not_given_again(self, checkpoint, tmp_path, broken_off):
        frame = reviews(48, labels=("a", "b", "c")).assign(more="a kettle")
        given = dict(
            column_types={"more": "text"}, holdout_frac=0.25, seed=3,
            hyperparameters={"optim.class_weights": {"b": 2.5}, "optim.optim_type": "sgd", "optim.lr_choice": ""},
        )  # fmt: skip
        whole = content_of(quick_fit(checkpoint, tmp_path / "whole", frame, **with_settings(given)), frame)
        assert content_of(go_on(broken_off(8, frame, **given), frame), frame) == whole

    def test_where_memory_was_planned(self, checkpoint, tmp_path, broken_off, monkeypatch):
        """It is not planned again: the machine may be busier now."""
        more = {"env.per_gpu_batch_size": "auto", "env.memory_budget": "4GB"}
        whole = content(quick_fit(checkpoint, tmp_path / "whole", hyperparameters={**SETTINGS, **more}))
        path = broken_off(hyperparameters=more)
        monkeypatch.setattr("featherfit.fitting.keep_within_budget", fail(AssertionError("planned again")))
        assert content(go_on(path)) == whole


def with_settings(arguments: dict[str, Any]) -> dict[str, Any]:
    return {**arguments, "hyperparameters": {**SETTINGS, **arguments["hyperparameters"]}}


def content_of(predictor: MultiModalPredictor, frame: pd.DataFrame) -> tuple[Any, ...]:
    stored = (Path(predictor.path) / "trainable.safetensors").read_bytes()
    return stored, predictor.predict_proba(frame).to_numpy().tolist(), predictor.fit_summary()["averaged_steps"]


class TestDamage:
    def newest(self, path: Path, ending: str) -> Path:
        return sorted((path / "training").glob(f"state-*{ending}"))[-1]

    def test_two_states_are_kept(self, broken_off):
        names = sorted(file.name for file in (broken_off(8) / "training").glob("state-*"))
        assert names == [f"state-{step:06d}.{end}" for step in (6, 7) for end in ("json", "safetensors")]

    @pytest.mark.parametrize("ending", [".json", ".safetensors"])
    @pytest.mark.parametrize("how", ["half", "flipped", "gone"])
    def test_the_state_before_is_used(self, broken_off, expected, ending, how):
        path = broken_off(8)
        file = self.newest(path, ending)
        whole = file.read_bytes()
        middle = len(whole) // 2
        if how == "gone":
            file.unlink()
        else:
            flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
            file.write_bytes(whole[:middle] if how == "half" else flipped)
        if (ending, how) == (".json", "gone"):
            assert content(go_on(path)) == expected  # no state without it, so nothing is damaged
            return
        with pytest.warns(UserWarning, match=r"The state of step 7 in .* is damaged .*; the one before it is used\."):
            predictor = go_on(path)
        assert content(predictor) == expected

    def test_damaged_best_weights_count_too(self, broken_off, expected):
        path = broken_off(12)
        newest = json.loads(self.newest(path, ".json").read_text())["state"]["best"]
        before = json.loads(sorted((path / "training").glob("state-*.json"))[0].read_text())["state"]["best"]
        [only] = {name for *_, name, _ in newest} - {name for *_, name, _ in before} or {newest[0][2]}
        (path / "training" / only).write_bytes(b"")
        both = only in {name for *_, name, _ in before}
        if both:
            with pytest.raises(ArtifactError, match="No state in .* can be used"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                go_on(path)
        else:
            with pytest.warns(UserWarning, match="is damaged"):
                assert content(go_on(path)) == expected

    def test_if_both_are_damaged_it_says_so(self, broken_off):
        path = broken_off(8)
        for file in (path / "training").glob("state-*.safetensors"):
            file.write_bytes(b"0" * 100)
        with pytest.raises(ArtifactError, match=r"No state in .* can be used .*checksum.* Remove .* and fit anew"):
            with pytest.warns(UserWarning):
                go_on(path)
        assert len(list((path / "training").glob("state-*.json"))) == 2


class TestAnotherFit:
    def test_all_that_differs_is_in_one_error(self, broken_off):
        path = broken_off(seed=3)
        before = sorted(file.name for file in (path / "training").iterdir())
        with pytest.raises(ConfigError) as caught:
            go_on(
                path, reviews(44), seed=4, holdout_frac=0.3, presets="multilingual",
                hyperparameters={"optim.lr": 0.5, "env.batch_size": 16, "env.state_interval": 5},
            )  # fmt: skip
        problems = "\n".join(caught.value.problems)
        for told in (
            "seed is 4 now and was 3.",
            "holdout_frac is 0.3 now and was None.",
            "presets is 'multilingual' now and was None.",
            "optim.lr is 0.5 now and was 0.03.",
            "env.batch_size is 16 now and was 8.",
            "train_data: 35 training rows now, and there were 32.",
            "tuning_data: 9 validation rows now, and there were 8.",
        ):
            assert told in problems
        assert len(caught.value.problems) == 7 and problems.endswith("fit anew, under another path.")
        assert sorted(file.name for file in (path / "training").iterdir()) == before

    @pytest.mark.parametrize("change", ["text", "label", "order"])
    def test_as_many_rows_with_other_content(self, broken_off, change):
        path, frame = broken_off(), reviews()
        if change == "order":
            frame = frame.iloc[::-1]
        else:
            frame.loc[frame.index[5], change] = {"text": "never broken", "label": 0}[change]
        with pytest.raises(ConfigError, match="are as many as there were, and others, or in another order"):
            go_on(path, frame)

    def test_other_names_for_the_same(self, broken_off):
        """The rows are the same to the model, and the artifact would not be."""
        path = broken_off()
        frame = reviews(labels=("bad", "good"))
        with pytest.raises(
            ConfigError, match=r"The labels are \['bad', 'good'\] \(binary\) now and were \[0, 1\] \(binary"
        ):
            go_on(path, frame)
        with pytest.raises(ConfigError, match=r"The text columns are \['words'\] now and were \['text'\]\."):
            go_on(path, reviews().rename(columns={"text": "words"}))

    def test_other_pretrained_weights(self, broken_off, tmp_path):
        own = write_checkpoint(tmp_path / "own")
        path = broken_off(hyperparameters={"model.hf_text.checkpoint_name": str(own)})
        write_checkpoint(own, seed=9)
        with pytest.raises(ConfigError, match=r"The pretrained weights are sha256:\w+ now and were sha256:\w+\."):
            go_on(path)

    def test_what_is_given_again_and_the_same_is_fine(self, broken_off, expected, checkpoint):
        given = {**settings(checkpoint), **SETTINGS, "env.state_interval": 60}
        predictor = go_on(broken_off(), hyperparameters=given, seed=0)
        assert content(predictor) == expected

    def test_another_label_on_the_command_line(self, broken_off, capsys, tmp_path):
        from featherfit.cli import main

        path = broken_off()
        reviews().to_csv(tmp_path / "data.csv", index=False)
        words = ["fit", str(tmp_path / "data.csv"), "--label", "text", "--path", str(path), "--resume"]
        assert main(words) == 2
        assert "label is 'text' now and was 'label'." in capsys.readouterr().err

    def test_other_surroundings_are_told(self, broken_off):
        path = broken_off()
        record = json.loads((path / "training" / "fit.json").read_text())
        record["surroundings"]["torch"] = "1.0"
        (path / "training" / "fit.json").write_text(json.dumps(record))
        told = rf"may differ in the last bits .*: torch {re.escape(torch.__version__)} \(was 1\.0\)"
        with pytest.warns(UserWarning, match=told):
            go_on(path)

    def test_a_table_that_has_vanished(self, broken_off, tmp_path, expected):
        path = broken_off()
        with pytest.raises(DataError, match=r"none\.csv"):
            go_on(path, str(tmp_path / "none.csv"))
        assert content(go_on(path)) == expected

    def test_nothing_to_resume(self, fitted, tmp_path):
        with pytest.raises(ArtifactError, match="is finished: there is nothing to resume"):
            MultiModalPredictor.load(fitted.path, resume=True)
        with pytest.raises(ArtifactError, match="There is no interrupted fit at"):
            MultiModalPredictor.load(tmp_path / "nothing", resume=True)


class TestTrainingFurther:
    @pytest.fixture
    def first(self, checkpoint, tmp_path) -> MultiModalPredictor:
        return quick_fit(checkpoint, tmp_path / "first", hyperparameters=SETTINGS)

    @pytest.mark.parametrize("error", [Stop(), KeyboardInterrupt()])
    def test_a_failure_gives_the_weights_back(self, first, tmp_path, at_step, error):
        before, proba = weights(first), first.predict_proba(NEW)
        at_step(6, fail(error))
        with pytest.raises(type(error)):
            first.fit(reviews(seed=3), save_path=tmp_path / "second")
        assert same(before, weights(first)) and first.path == str(tmp_path / "first")
        assert first.predict_proba(NEW).equals(proba)
        assert not any(p.grad is not None for p in first._fitted.model.parameters())

    def test_one_while_the_artifact_is_written_too(self, first, tmp_path, monkeypatch):
        before = weights(first)
        save = MultiModalPredictor._store

        def store(self: Any, *arguments: Any) -> Any:
            assert not same(before, weights(first))  # they are trained by now
            raise Stop

        monkeypatch.setattr(MultiModalPredictor, "_store", store)
        with pytest.raises(Stop):
            first.fit(reviews(seed=3), save_path=tmp_path / "second")
        monkeypatch.setattr(MultiModalPredictor, "_store", save)
        assert same(before, weights(first))

    def test_goes_on(self, first, tmp_path, at_step, monkeypatch):
        """In a process that knows nothing of the first fit but what is under the second one's path."""
        other = MultiModalPredictor.load(first.path, verbosity=0)
        more = {"optim.lr": 0.01, "optim.top_k": 2}
        whole = content(other.fit(reviews(seed=3), save_path=tmp_path / "whole", hyperparameters=more))
        at_step(6, fail(Stop()))
        with pytest.raises(Stop):
            first.fit(reviews(seed=3), save_path=tmp_path / "second", hyperparameters=more)
        for file in (tmp_path / "first").iterdir():
            file.unlink()
        assert content(go_on(tmp_path / "second", reviews(seed=3))) == whole


class TestDisks:
    def test_a_limit_on_the_size_of_files(self, checkpoint, tmp_path, expected, monkeypatch):
        """The last good state stays, and is gone on from when there is room."""
        resource = pytest.importorskip("resource")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        write = keeping.StateKeeper.write

        def limited(self: Any, state: Any, *arguments: Any) -> None:
            if state.facts["step"] == 9:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
            write(self, state, *arguments)

        monkeypatch.setattr(keeping.StateKeeper, "write", limited)
        try:
            with pytest.raises(StorageError, match=r"The state of step 9 cannot be written to .*: File too large\."):
                quick_fit(checkpoint, tmp_path / "a", hyperparameters=SETTINGS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        monkeypatch.undo()
        assert not list((tmp_path / "a" / "training").glob("*.part"))
        assert content(go_on(tmp_path / "a")) == expected

    def test_a_full_disk(self, checkpoint, small_disk, expected, at_step):
        filler = small_disk / "filler"

        def fill() -> None:
            with filler.open("wb", buffering=0) as file:
                with pytest.raises(OSError):
                    while True:
                        file.write(b"0" * 4096)

        at_step(6, fill)
        with pytest.raises(StorageError, match=r"cannot be written to .*: No space left on device\. Make room"):
            quick_fit(checkpoint, small_disk / "a", hyperparameters=SETTINGS)
        with pytest.raises(StorageError, match="No space left on device"):
            go_on(small_disk / "a")
        filler.unlink()
        assert content(go_on(small_disk / "a")) == expected

    @pytest.fixture
    def small_disk(self, tmp_path) -> Iterator[Path]:
        """A disk of its own, where this user may mount one."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
        try:
            done = subprocess.run(mount, capture_output=True, timeout=20).returncode == 0
        except OSError:
            done = False
        if not done:
            pytest.skip("no file system can be mounted here")
        try:
            yield disk
        finally:
            subprocess.run(["umount", str(disk)], check=True, timeout=20)

    def test_a_folder_that_is_removed_meanwhile(self, checkpoint, tmp_path, at_step):
        import shutil

        at_step(6, lambda: shutil.rmtree(tmp_path / "a"))
        with pytest.raises(StorageError, match="The folder was removed meanwhile"):
            quick_fit(checkpoint, tmp_path / "a", hyperparameters=SETTINGS)


class TestNoNumber:
    def test_the_best_weights_until_then_are_saved(self, checkpoint, tmp_path, at_step):
        at_step(7, lambda: float("nan"))
        path = tmp_path / "a"
        with pytest.raises(TrainingError) as caught:
            quick_fit(checkpoint, path, hyperparameters=SETTINGS)
        told = str(caught.value)
        assert (
            caught.value.diverged
            and "The training loss became nan at step 7 (epoch 2), in the batch of the rows" in told
        )
        assert "optim.lr is 0.03" in told and f"are in the artifact at {path}." in told
        loaded = MultiModalPredictor.load(path, verbosity=0)
        assert loaded.fit_summary()["stopped"] == "the loss became no number" and loaded.fit_summary()["steps"] == 6
        assert max(loaded.fit_summary()["averaged_steps"]) <= 6 and not (path / "training").exists()

    def test_before_there_are_any_nothing_is_left(self, checkpoint, tmp_path, at_step):
        at_step(1, lambda: float("inf"))
        with pytest.raises(TrainingError, match="became inf at step 1"):
            quick_fit(checkpoint, tmp_path / "a", hyperparameters={**SETTINGS, "env.state_interval": "auto"})
        assert not (tmp_path / "a").exists()

    def test_the_rows_are_named_by_the_tables_index(self, checkpoint, tmp_path, at_step):
        at_step(1, lambda: float("nan"))
        frame = reviews(6).set_axis(["u", "v", "w", "x", "y", "z"])
        with pytest.raises(TrainingError, match=r"rows with index 'u', 'v', 'w', 'x', 'y', 'z'\."):
            quick_fit(checkpoint, tmp_path / "a", frame, tuning_data=reviews(6))


class TestTheCommandLine:
    def test_resume_needs_a_path(self, capsys):
        from featherfit.cli import main

        assert main(["fit", "data.csv", "--label", "label", "--resume"]) == 2
        assert "--resume needs the --path" in capsys.readouterr().err

    def test_the_same_command_with_resume_goes_on(self, checkpoint, tmp_path, expected, at_step, capsys):
        from featherfit.cli import main

        reviews().to_csv(tmp_path / "data.csv", index=False)
        given = [f"{key}={value}" for key, value in {**settings(checkpoint), **SETTINGS}.items()]
        words = ["fit", str(tmp_path / "data.csv"), "--label", "label", "--path", str(tmp_path / "a"), *given]
        at_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert main(words) == 143
        assert "Interrupted after step 5 of 12. The state of step 5 is kept" in capsys.readouterr().err
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the path is not empty
            assert main(words) == 2
        assert "was interrupted. To go on" in capsys.readouterr().err
        assert main([*words, "--resume"]) == 0
        assert content(MultiModalPredictor.load(tmp_path / "a", verbosity=0)) == expected
