"""Artifacts of earlier formats load as ever; what no format is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_checkpoints import quick_fit, reviews

from featherfit import MultiModalPredictor
from featherfit.artifact import format as files
from featherfit.artifact.store import inspect_artifact
from featherfit.artifact.versions import UPGRADES, upgraded
from featherfit.errors import ArtifactError

ADDED_IN_3 = ("model.ft_transformer.", "model.fusion_", "data.modality_dropout", "data.categorical.", "data.numerical.")


def to_format_3(artifact: Path) -> None:
    """As featherfit wrote it before there were weights of rows, quantiles and several labels."""
    file = artifact / files.SCHEMA
    schema = json.loads(file.read_text())
    for block, added in (("schema", ("sample_weight", "weight_evaluation")), ("label", ("levels", "link"))):
        for name in added:
            del schema[block][name]
    file.write_text(json.dumps(schema))
    config = json.loads((artifact / files.CONFIG).read_text())
    (artifact / files.CONFIG).write_text(json.dumps({**config, "format_version": 3}))
    files.write_checksums(artifact)


def to_format_2(artifact: Path) -> None:
    """As featherfit wrote it when there was text and nothing else."""
    to_format_3(artifact)
    config = json.loads((artifact / files.CONFIG).read_text())
    settings = {key: value for key, value in config["settings"].items() if not key.startswith(ADDED_IN_3)}
    del config["further"]
    settings["model.names"] = ["hf_text"]
    (artifact / files.CONFIG).write_text(json.dumps({**config, "format_version": 2, "settings": settings}))
    schema = json.loads((artifact / files.SCHEMA).read_text())
    del schema["processors"]
    (artifact / files.SCHEMA).write_text(json.dumps(schema))
    files.write_checksums(artifact)


def to_format_1(artifact: Path) -> None:
    """As featherfit wrote it before SHA256SUMS."""
    to_format_2(artifact)
    sums = files.parse_checksums((artifact / files.CHECKSUMS).read_bytes(), artifact)
    config = json.loads((artifact / files.CONFIG).read_text())
    covered = {name: digest for name, digest in sums.items() if name not in (files.CONFIG, files.METRICS)}
    (artifact / files.CONFIG).write_text(json.dumps({**config, "format_version": 1, "files": covered}))
    (artifact / files.CHECKSUMS).unlink()


@pytest.fixture(params=[False, True], ids=["", "standalone"])
def old(request, checkpoint, tmp_path):
    predictor = quick_fit(checkpoint, tmp_path / "artifact", standalone=request.param)
    to_format_1(tmp_path / "artifact")
    return tmp_path / "artifact", predictor


def test_format_2(checkpoint, tmp_path):
    frame = reviews().assign(price=[place / 7 for place in range(40)])  # which format 2 did not read
    with pytest.warns(UserWarning, match="Columns 'price' \\(numerical\\) are not used"):
        predictor = quick_fit(checkpoint, tmp_path / "a", frame, hyperparameters={"model.names": ["hf_text"]})
    to_format_2(tmp_path / "a")
    loaded = MultiModalPredictor.load(tmp_path / "a", verbosity=0)
    assert loaded.predict_proba(reviews()).equals(predictor.predict_proba(reviews()))
    assert loaded._fitted.config.model.names == ["hf_text"] and not loaded._fitted.parts


def test_format_1(old):
    folder, predictor = old
    loaded = MultiModalPredictor.load(folder, verbosity=0)
    assert loaded.predict_proba(reviews()).equals(predictor.predict_proba(reviews()))
    assert (
        loaded.fit_summary() == predictor.fit_summary()
        and inspect_artifact(folder)["format_version"] == files.FORMAT_VERSION
    )
    loaded.save(folder)
    assert (
        json.loads((folder / files.CONFIG).read_text())["format_version"] == files.FORMAT_VERSION
        and (folder / files.CHECKSUMS).is_file()
    )
    assert MultiModalPredictor.load(folder, verbosity=0).predict(reviews()).equals(predictor.predict(reviews()))


@pytest.mark.parametrize("problem", ["binary", "regression"])
def test_format_3(problem, checkpoint, tmp_path):
    labels = (0, 1) if problem == "binary" else (1.5, 2.5, 3.5)
    predictor = quick_fit(checkpoint, tmp_path / "artifact", reviews(labels=labels), problem_type=problem)
    to_format_3(tmp_path / "artifact")
    loaded = MultiModalPredictor.load(tmp_path / "artifact", verbosity=0)
    assert loaded.predict(reviews()).equals(predictor.predict(reviews()))


@pytest.mark.parametrize("name", [files.WEIGHTS, files.SCHEMA])
def test_what_format_1_covers(name, old):
    raw = bytearray((old[0] / name).read_bytes())
    raw[-3] ^= 1
    (old[0] / name).write_bytes(bytes(raw))
    with pytest.raises(ArtifactError):
        MultiModalPredictor.load(old[0], verbosity=0)


@pytest.mark.parametrize("recorded", [None, {}, [], "x", {files.WEIGHTS: 1}])
def test_format_1_without_its_checksums(recorded, old):
    config = json.loads((old[0] / files.CONFIG).read_text())
    config["files"] = recorded
    (old[0] / files.CONFIG).write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"checksums|does not speak of"):
        MultiModalPredictor.load(old[0], verbosity=0)


def test_checksums_cannot_be_left_out_of_format_2(fitted, tmp_path):
    copy = Path(shutil.copytree(fitted.path, tmp_path / "copy"))
    (copy / files.CHECKSUMS).unlink()
    with pytest.raises(ArtifactError, match="does not speak of config.json"):
        MultiModalPredictor.load(copy, verbosity=0)


def test_there_is_a_way_from_every_format():
    assert sorted(UPGRADES) == list(range(1, files.FORMAT_VERSION))


@pytest.mark.parametrize("version", [0, -1, True, "2", 2.0, None])
def test_no_format(version, tmp_path):
    with pytest.raises(ArtifactError, match="not written by featherfit"):
        upgraded({"config": {"format_version": version}}, tmp_path)


def test_sha256sum_reads_the_checksums(fitted):
    import subprocess

    if shutil.which("sha256sum") is None:
        pytest.skip("there is no sha256sum here")
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", files.CHECKSUMS], cwd=fitted.path, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.count(": OK") == 4
