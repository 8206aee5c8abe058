"""An artifact holds what was trained and nothing that runs; whatever is wrong with one is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import quick_fit, reviews, same, weights, write_checkpoint

from featherfit import MultiModalPredictor
from featherfit.artifact import format as files
from featherfit.artifact.store import inspect_artifact
from featherfit.checkpoints import fingerprints
from featherfit.checkpoints.fingerprints import sha256
from featherfit.errors import ArtifactError, CheckpointError, PathExistsError

PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


@pytest.fixture
def artifact(fitted: MultiModalPredictor, tmp_path: Path) -> Path:
    """A copy of an artifact, to spoil."""
    return Path(shutil.copytree(fitted.path, tmp_path / "artifact"))


def load(path: Path) -> MultiModalPredictor:
    return MultiModalPredictor.load(path, verbosity=0)


def change_json(file: Path, change: Callable[[dict], None]) -> None:
    """Changes a document and records its checksum, as a mistaken tool might."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    files.write_checksums(file.parent)


def change_weights(artifact: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Changes tensors and records the checksum of the result, as a mistaken tool might."""
    file = artifact / files.WEIGHTS
    state = load_file(file)
    change(state)
    save_file(state, file)
    files.write_checksums(artifact)


def first_name(state: dict[str, torch.Tensor]) -> str:
    return min(state)


class TestContents:
    def test_only_json_safetensors_and_a_card(self, fitted):
        found = [file for file in Path(fitted.path).rglob("*") if file.is_file()]
        assert sorted(file.name for file in found) == [
            "README.md", "SHA256SUMS", "config.json", "metrics.json", "schema.json", "trainable.safetensors",
        ]  # fmt: skip
        for file in found:
            assert not file.read_bytes().startswith(PICKLE)

    def test_standalone_too(self, checkpoint, tmp_path):
        quick_fit(checkpoint, tmp_path / "artifact", standalone=True)
        found = [file for file in (tmp_path / "artifact").rglob("*") if file.is_file()]
        assert {file.suffix for file in found if file.name != "SHA256SUMS"} == {".json", ".safetensors", ".md"}

    def test_weights_are_the_trainable_ones(self, fitted):
        state = load_file(Path(fitted.path) / files.WEIGHTS)
        model = fitted._fitted.model
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert same(state, trainable)
        assert sum(tensor.numel() for tensor in state.values()) == fitted.trainable_parameters

    @pytest.mark.parametrize("peft", ["norm_fit", "ia3_norm", "lora_norm", "dora"])
    def test_everything_trained_is_saved(self, peft, checkpoint, tmp_path):
        """AutoMM loses trained norms."""
        predictor = quick_fit(checkpoint, tmp_path / "artifact", hyperparameters={"optim.peft": peft})
        assert same(weights(predictor), weights(load(tmp_path / "artifact")))

    def test_inspect(self, fitted):
        found = inspect_artifact(fitted.path)
        assert found["label"] == "label" and found["problem_type"] == "binary" and found["classes"] == [0, 1]
        assert found["columns"] == {"text": "text"} and found["standalone"] is False
        assert found["parameters"]["trainable"] == fitted.trainable_parameters
        assert found["bytes"] == sum(file.stat().st_size for file in Path(fitted.path).iterdir())

    def test_card(self, fitted):
        card = (Path(fitted.path) / files.CARD).read_text()
        assert "`label`" in card and f"{fitted.trainable_parameters:,}" in card


class TestRefusals:
    def test_missing_tensor(self, artifact):
        change_weights(artifact, lambda state: state.pop(first_name(state)))
        with pytest.raises(ArtifactError, match=r"do not fit this model\. missing: encoder\."):
            load(artifact)

    def test_extra_tensor(self, artifact):
        change_weights(artifact, lambda state: state.update(extra=torch.zeros(2)))
        with pytest.raises(ArtifactError, match=r"do not fit this model\. unknown: extra\."):
            load(artifact)

    def test_misshapen_tensor(self, artifact):
        change_weights(artifact, lambda state: state.update({"head.linear.bias": torch.zeros(5)}))
        with pytest.raises(ArtifactError, match=r"of another shape: head\.linear\.bias \(5,\) instead of \(2,\)"):
            load(artifact)

    @pytest.mark.parametrize("name", [files.WEIGHTS, files.SCHEMA, files.CONFIG, files.METRICS])
    def test_changed_content(self, name, artifact):
        raw = bytearray((artifact / name).read_bytes())
        raw[-3] ^= 1
        (artifact / name).write_bytes(bytes(raw))
        with pytest.raises(ArtifactError, match=rf"{name} was changed or damaged: its checksum"):
            load(artifact)

    def test_a_recorded_name_outside_is_not_opened(self, artifact):
        """Even with the right checksum: what an artifact names has to be in it."""
        outside = artifact.parent / "outside"
        outside.write_text("x")
        digest = sha256(outside)
        sums = artifact / files.CHECKSUMS
        sums.write_text(f"{sums.read_text()}{digest}  ../outside\n")
        with pytest.raises(ArtifactError, match=r"It lacks: \.\./outside"):
            load(artifact)

    @pytest.mark.parametrize("name", [files.WEIGHTS, files.CONFIG, files.CARD, files.BASE])
    def test_links(self, name, artifact):
        """Even to a sound copy: what a link points to may be anything tomorrow."""
        if (artifact / name).exists():
            (artifact / name).rename(artifact.parent / "elsewhere")
        else:
            (artifact.parent / "elsewhere").mkdir()
        (artifact / name).symlink_to(artifact.parent / "elsewhere")
        for read in (load, inspect_artifact):
            with pytest.raises(ArtifactError, match=rf"{name} is a symbolic link"):
                read(artifact)

    def test_cut_off_weights(self, artifact):
        raw = (artifact / files.WEIGHTS).read_bytes()
        (artifact / files.WEIGHTS).write_bytes(raw[: len(raw) // 2])
        with pytest.raises(ArtifactError, match="was cut off or added to"):
            load(artifact)

    def test_newer_format(self, artifact):
        change_json(artifact / files.CONFIG, lambda config: config.update(format_version=files.FORMAT_VERSION + 1))
        with pytest.raises(ArtifactError, match=r"has format 5; this featherfit reads up to 4\. Upgrade it"):
            load(artifact)

    def test_no_format(self, artifact):
        change_json(artifact / files.CONFIG, lambda config: config.pop("format_version"))
        with pytest.raises(ArtifactError, match="not written by featherfit"):
            load(artifact)

    def test_broken_json(self, artifact):
        (artifact / files.CONFIG).write_text("{")
        files.write_checksums(artifact)
        with pytest.raises(ArtifactError, match=r"config\.json cannot be read"):
            load(artifact)

    @pytest.mark.parametrize("key", ["settings", "checkpoint", "eval_metric", "pooling"])
    def test_config_without_a_part(self, key, artifact):
        change_json(artifact / files.CONFIG, lambda config: config.pop(key))
        with pytest.raises(ArtifactError, match=rf"is damaged: config\.{key}: Field required"):
            load(artifact)

    @pytest.mark.parametrize("part", ["name", "fingerprint"])
    def test_checkpoint_without_a_part(self, part, artifact):
        change_json(artifact / files.CONFIG, lambda config: config["checkpoint"].pop(part))
        with pytest.raises(ArtifactError, match="is damaged"):
            load(artifact)

    @pytest.mark.parametrize("name", [files.CONFIG, files.SCHEMA, files.WEIGHTS])
    def test_partial_folder(self, name, artifact):
        (artifact / name).unlink()
        with pytest.raises(ArtifactError, match=rf"is not a complete artifact\. It lacks: {name}\."):
            load(artifact)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ArtifactError, match=r"There is no artifact at .*: nothing is there\."):
            load(tmp_path / "nowhere")
        (tmp_path / "file").write_text("x")
        with pytest.raises(ArtifactError, match=r"a file is there\."):
            load(tmp_path / "file")

    def test_other_checkpoint(self, tmp_path):
        folder = write_checkpoint(tmp_path / "bert")
        predictor = quick_fit(folder, tmp_path / "artifact")
        expected = predictor.predict_proba(reviews())
        assert load(tmp_path / "artifact").predict_proba(reviews()).equals(expected)
        shutil.rmtree(folder)
        write_checkpoint(folder, seed=1)
        with pytest.raises(CheckpointError, match="not the ones that were recorded") as caught:
            load(tmp_path / "artifact")
        assert predictor._fitted.checkpoint.fingerprint in str(caught.value)

    def test_checkpoint_gone(self, tmp_path):
        folder = write_checkpoint(tmp_path / "bert")
        quick_fit(folder, tmp_path / "artifact")
        shutil.rmtree(folder)
        with pytest.raises(CheckpointError, match="There are no pretrained weights for"):
            load(tmp_path / "artifact")


@pytest.mark.parametrize(
    ("peft", "standalone"), [("ia3_bias", True), ("lora", True), (None, None), (None, False), (None, True)]
)
def test_stands_alone(peft, standalone, tmp_path):
    """Loads after the checkpoint is gone, with the same bits; full fine-tuning always does."""
    folder = write_checkpoint(tmp_path / "bert")
    more = {"optim.peft": peft, "optim.lr": 1e-3, "model.hf_text.pooling_mode": "mean"}
    predictor = quick_fit(folder, tmp_path / "artifact", hyperparameters=more, standalone=standalone)
    expected, before = predictor.predict_proba(reviews()), weights(predictor)
    shutil.rmtree(folder)
    loaded = load(tmp_path / "artifact")
    pd.testing.assert_frame_equal(loaded.predict_proba(reviews()), expected, check_exact=True)
    assert same(weights(loaded), before)
    assert loaded._fitted.model.encoder.pooling == "mean"


@pytest.mark.parametrize("peft", ["ia3_bias", None])
def test_standalone_artifact_can_be_saved_and_trained_again(peft, tmp_path):
    folder = write_checkpoint(tmp_path / "bert")
    more = {"optim.peft": peft, "optim.lr": 1e-3}
    expected = quick_fit(folder, tmp_path / "one", hyperparameters=more, standalone=True).predict_proba(reviews())
    shutil.rmtree(folder)
    loaded = load(tmp_path / "one")
    loaded.save(tmp_path / "two", standalone=True)
    shutil.rmtree(tmp_path / "one")
    assert load(tmp_path / "two").predict_proba(reviews()).equals(expected)
    again = load(tmp_path / "two")
    again.fit(reviews(), save_path=tmp_path / "three", standalone=True)
    shutil.rmtree(tmp_path / "two")
    assert load(tmp_path / "three").predict_proba(reviews()).equals(again.predict_proba(reviews()))


def test_base_weights_of_a_standalone_artifact_are_checked(checkpoint, tmp_path):
    """The encoder inside is protected like the adapters are."""
    quick_fit(checkpoint, tmp_path / "artifact", standalone=True)
    file = tmp_path / "artifact" / "base" / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 64
    file.write_bytes(bytes(raw))
    with pytest.raises((ArtifactError, CheckpointError)):
        load(tmp_path / "artifact")


def test_large_base_weights_are_read_for_their_checksum_once(checkpoint, tmp_path, monkeypatch):
    quick_fit(checkpoint, tmp_path / "artifact", standalone=True)
    base = tmp_path / "artifact" / "base" / "model.safetensors"
    os.utime(base, (1e9, 1e9))
    monkeypatch.setenv("FEATHERFIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(files, "LARGE", base.stat().st_size)
    hashed = []
    original = fingerprints.sha256
    monkeypatch.setattr(fingerprints, "sha256", lambda path: hashed.append(path.name) or original(path))
    load(tmp_path / "artifact")
    assert hashed.count(base.name) == 1
    load(tmp_path / "artifact")
    assert hashed.count(base.name) == 1 and hashed.count(files.WEIGHTS) == 2
    raw = bytearray(base.read_bytes())
    raw[-3] ^= 64
    base.write_bytes(bytes(raw))
    with pytest.raises(ArtifactError, match="changed or damaged"):
        load(tmp_path / "artifact")


LOADED = """
import gc, json, sys
import pandas as pd
from featherfit import MultiModalPredictor
predictor = MultiModalPredictor.load({path!r}, verbosity=0)
predictor.predict(pd.DataFrame({{"text": ["a lovely kettle"]}}))
names = ("sklearn", "scipy.optimize", "peft", "matplotlib", "datasets")
print(json.dumps([gc.isenabled(), [name for name in names if name in sys.modules]]))
"""


def test_predicting_imports_nothing_it_does_not_need(fitted):
    code = LOADED.format(path=str(fitted.path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [True, []]


class TestSaveOver:
    def test_an_earlier_artifact_is_replaced(self, checkpoint, tmp_path):
        one = quick_fit(checkpoint, tmp_path / "one", seed=1)
        two = quick_fit(checkpoint, tmp_path / "two", seed=2, standalone=True)
        two.save(tmp_path / "one")
        assert not same(weights(one), weights(two)) and same(weights(load(tmp_path / "one")), weights(two))
        assert sorted(file.name for file in tmp_path.iterdir()) == ["one", "two"]  # nothing half-written beside it

    @pytest.mark.parametrize("step", ["_describe", "model_card", "_write_base"])
    def test_failure_leaves_the_earlier_one(self, step, checkpoint, tmp_path, monkeypatch):
        one = quick_fit(checkpoint, tmp_path / "one", seed=1)
        two = quick_fit(checkpoint, tmp_path / "two", seed=2)

        def fail(*arguments, **options):
            raise OSError("disk full")

        monkeypatch.setattr(f"featherfit.artifact.store.{step}", fail)
        with pytest.raises(OSError, match="disk full"):
            two.save(tmp_path / "one", standalone=True)
        monkeypatch.undo()
        assert same(weights(load(tmp_path / "one")), weights(one))
        assert sorted(file.name for file in tmp_path.iterdir()) == ["one", "two"]

    def test_failed_rename_leaves_the_earlier_one(self, checkpoint, tmp_path, monkeypatch):
        one = quick_fit(checkpoint, tmp_path / "one", seed=1)
        two = quick_fit(checkpoint, tmp_path / "two", seed=2)
        (tmp_path / "one" / "notes.txt").write_text("mine")
        rename = Path.rename

        def fail(path: Path, target: Path):
            if Path(target) == tmp_path / "one" and "-old-" not in path.name:
                raise OSError("no")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", fail)
        monkeypatch.setattr(files, "exchanged", lambda one, other: False)
        with pytest.raises(OSError, match="no"):
            two.save(tmp_path / "one")
        monkeypatch.undo()
        assert same(weights(load(tmp_path / "one")), weights(one))
        assert (tmp_path / "one" / "notes.txt").read_text() == "mine"

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot swap two folders")
    def test_at_no_time_is_there_no_artifact(self, fitted, artifact):
        (artifact / "notes.txt").write_text("mine")
        seen: list[tuple[str, bool]] = []
        watching = True

        def look(event: str, arguments: tuple) -> None:
            if watching and event.startswith(("os.", "shutil.")):
                seen.append((event, files.is_artifact(artifact)))

        sys.addaudithook(look)
        fitted.save(artifact)
        watching = False
        assert {"os.rename", "shutil.rmtree"} <= {event for event, _ in seen} and all(there for _, there in seen)

    @pytest.mark.parametrize("at_once", [True, False])
    def test_other_files_move_along(self, at_once, fitted, artifact, monkeypatch):
        if not at_once:
            monkeypatch.setattr(files, "exchanged", lambda one, other: False)
        (artifact / "notes.txt").write_text("mine")
        fitted.save(artifact)
        assert (artifact / "notes.txt").read_text() == "mine"
        assert [file.name for file in artifact.parent.iterdir()] == [artifact.name]
        load(artifact)

    def test_a_link_stays_one(self, fitted, artifact):
        link = artifact.with_name("latest")
        link.symlink_to(artifact, target_is_directory=True)
        fitted.save(link)
        assert link.is_symlink() and same(weights(load(artifact)), weights(fitted))

    def test_something_else_is_refused(self, fitted, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("mine")
        with pytest.raises(PathExistsError, match="is not empty and not an artifact"):
            fitted.save(tmp_path / "mine")
        (tmp_path / "file").write_text("mine")
        with pytest.raises(PathExistsError):
            fitted.save(tmp_path / "file")
        assert (tmp_path / "file").read_text() == (tmp_path / "mine" / "notes.txt").read_text() == "mine"
        (tmp_path / "empty").mkdir()
        fitted.save(tmp_path / "empty")
        load(tmp_path / "empty")

    def test_a_folder_that_merely_has_a_training_folder_is_refused(self, fitted, tmp_path):
        (tmp_path / "project" / "training").mkdir(parents=True)
        (tmp_path / "project" / "README.md").write_text("mine")
        with pytest.raises(PathExistsError):
            fitted.save(tmp_path / "project")
        assert (tmp_path / "project" / "README.md").read_text() == "mine"


def test_nan_in_the_summary_is_null(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": 0.1}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [1.5, None], "c": {"d": 0.1}}


def test_sha256_is_hashlibs(tmp_path):
    import hashlib

    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)
    assert hashlib.sha256(b"abc" * 1_000_000).hexdigest() == sha256(tmp_path / "a")


def test_settings_of_a_wholly_trained_encoder_survive_loading(checkpoint, tmp_path):
    more = {
        "optim.peft": None,
        "optim.max_epochs": 1,
        "model.hf_text.dropout": "off",
        "model.hf_text.gradient_checkpointing": True,
    }
    quick_fit(checkpoint, tmp_path / "whole", hyperparameters=more)
    encoder = load(tmp_path / "whole")._fitted.model.encoder
    assert {m.p for m in encoder.backbone.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}
    assert all("forward" in vars(layer) for layer in encoder.layers().values())  # it recomputes
