"""Tables with images, from fit to prediction: every form of cell, odd ones, and artifacts."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_checkpoints import reviews, same, settings, weights
from tiny_vision import PROCESSOR, SIDE, save_tiny_vision

from featherfit import MultiModalPredictor
from featherfit.errors import ArtifactError, ConfigError, DataError

ROWS = 24


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vision("vit", tmp_path_factory.mktemp("vision") / "tiny-vit")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red images for even rows, blue ones for odd rows; files, and a table beside them that names them."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    for row in range(ROWS):
        colour = (200 + row, 10, 10) if row % 2 == 0 else (10, 10, 200 + row)
        Image.new("RGB", (SIDE, SIDE), colour).save(folder / "images" / f"{row}.png")
    frame = pd.DataFrame(
        {"photo": [f"images/{row}.png" for row in range(ROWS)], "label": ["red", "blue"] * (ROWS // 2)}
    )
    frame.to_csv(folder / "table.csv", index=False)
    return folder


def table(pictures: Path, form: str = "path") -> pd.DataFrame:
    files = [pictures / "images" / f"{row}.png" for row in range(ROWS)]
    cells: dict[str, Any] = {
        "path": [str(file) for file in files],
        "bytes": [file.read_bytes() for file in files],
        "base64": [base64.b64encode(file.read_bytes()).decode() for file in files],
        "pil": [Image.open(file).copy() for file in files],
        "dict": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "several": [f"{file};{file}" for file in files],
    }
    photo = pd.Series(cells[form], index=range(10, 10 + ROWS), dtype=object)
    return pd.DataFrame({"photo": photo, "label": ["red", "blue"] * (ROWS // 2)})


def fit(train: Any, path: Path, vision: Path, *, column_types: dict[str, str] | None = None, **more: Any) -> Any:
    own = {"model.timm_image.checkpoint_name": str(vision), "optim.max_epochs": 6, "env.batch_size": 8}
    given = {"env.precision": "32", "optim.lr": 0.02, **own, **{name.replace("__", "."): v for name, v in more.items()}}
    predictor = MultiModalPredictor(label="label", path=path, verbosity=0)
    return predictor.fit(train, hyperparameters=given, column_types=column_types)


@pytest.fixture(scope="module")
def fitted(vision: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> MultiModalPredictor:
    """A predictor that saw files; not to be trained further."""
    return fit(str(pictures / "table.csv"), tmp_path_factory.mktemp("fitted") / "artifact", vision)


def test_it_learns_colours(fitted, pictures):
    assert fitted.evaluate(table(pictures), metrics="accuracy")["accuracy"] == 1.0
    assert fitted._fitted.model.fusion is None and list(fitted._fitted.model.encoders()) == ["timm_image"]


@pytest.mark.parametrize("form", ["path", "bytes", "base64", "pil", "dict"])
def test_every_form_of_a_cell_is_found_and_gives_the_same_model(form, vision, pictures, tmp_path):
    names = {"path": "image_path", "pil": "image", "base64": "image_base64_str"}
    train = table(pictures, form)
    before = train.copy()
    predictor = fit(train, tmp_path / form, vision)
    reference = fit(table(pictures), tmp_path / "reference", vision)
    assert predictor._fitted.schema.columns == {"photo": names.get(form, "image_bytearray")}
    assert same(weights(predictor), weights(reference))
    pd.testing.assert_frame_equal(train, before)


def test_paths_are_relative_to_the_tables_file(fitted, pictures, tmp_path):
    expected = fitted.predict_proba(table(pictures), as_pandas=False)
    found = fitted.predict_proba(str(pictures / "table.csv"), as_pandas=False)
    np.testing.assert_array_equal(found, expected)
    fitted.predict_file(pictures / "table.csv", tmp_path / "out.csv", proba=True)
    written = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(written.iloc[:, -2:].to_numpy(), expected, atol=1e-6)
    frame = pd.read_csv(pictures / "table.csv")
    with pytest.raises(DataError, match=r"Row 0, column 'photo': there is no file 'images/0\.png'"):
        fitted.predict(frame)


def test_a_row_does_not_depend_on_the_others(fitted, pictures):
    whole = fitted.predict_proba(table(pictures), as_pandas=False)
    some = table(pictures).iloc[[7, 2, 19]]
    np.testing.assert_allclose(fitted.predict_proba(some, as_pandas=False), whole[[7, 2, 19]], atol=1e-6)


def broken(pictures: Path) -> pd.DataFrame:
    """Row 12 is torn, row 13 is not there, row 14 is a URL, row 15 is missing."""
    frame = table(pictures)
    torn = pictures / "torn.png"
    torn.write_bytes((pictures / "images" / "0.png").read_bytes()[:60])
    for label, cell in ((12, str(torn)), (13, "gone.png"), (14, "https://example.org/a.png"), (15, None)):
        frame.loc[label, "photo"] = cell
    return frame


def test_broken_images_are_set_aside_and_change_no_other_row(fitted, pictures):
    expected = fitted.predict_proba(table(pictures), as_pandas=False)
    with pytest.warns(UserWarning, match="3 rows of 24 could not be processed"):
        found = fitted.predict_proba(broken(pictures), on_error="report")
    assert found.index[found.isna().all(axis=1)].tolist() == [12, 13, 14]
    others = [row for row in range(ROWS) if row + 10 not in (12, 13, 14, 15)]
    np.testing.assert_allclose(found.to_numpy()[others], expected[others], atol=1e-6)
    assert not found.loc[15].isna().any() and not np.allclose(found.loc[15], expected[5])
    told = fitted.rejected_rows
    assert told["index"].tolist() == [12, 13, 14] and set(told["column"]) == {"photo"}
    assert "damaged or cut off" in told["reason"].iloc[0] and "URL" in told["reason"].iloc[2]


def test_a_broken_image_is_an_error_with_its_row(fitted, vision, pictures, tmp_path):
    frame = broken(pictures)
    for call in (fitted.predict, fitted.evaluate):
        with pytest.raises(DataError, match=r"Row 1[23], column 'photo'"):
            call(frame)
    with pytest.raises(DataError, match=r"Row 1[23], column 'photo'"):
        fit(frame, tmp_path / "never", vision)


def test_fit_leaves_broken_images_out_where_that_is_asked_for(vision, pictures, tmp_path):
    frame = broken(pictures)
    predictor = MultiModalPredictor(label="label", path=tmp_path / "made", verbosity=0)
    given = {
        "model.timm_image.checkpoint_name": str(vision),
        "optim.max_epochs": 6,
        "optim.lr": 0.02,
        "env.batch_size": 8,
        "env.precision": "32",
    }
    with pytest.warns(UserWarning, match="3 rows of 24 in train_data could not be processed and are left out"):
        predictor.fit(frame, hyperparameters=given, on_error="report")
    assert predictor.rejected_rows["index"].tolist() == [12, 13, 14]
    reference = fit(frame.drop(index=[12, 13, 14]), tmp_path / "reference", vision)
    assert same(weights(predictor), weights(reference))


def test_missing_images_are_learned_from_or_zeros(vision, pictures, tmp_path):
    frame = table(pictures)
    frame.loc[[20, 21, 22], "photo"] = None
    plain = fit(frame, tmp_path / "plain", vision)
    learned = fit(frame, tmp_path / "learned", vision, model__timm_image__use_learnable_image=True)
    empty = frame.assign(photo=None).iloc[:2]
    assert (plain.extract_embedding(empty, as_pandas=False) == 0).all()
    assert (learned.extract_embedding(empty, as_pandas=False) != 0).any()
    again = MultiModalPredictor.load(tmp_path / "learned")
    np.testing.assert_array_equal(
        again.predict_proba(empty, as_pandas=False), learned.predict_proba(empty, as_pandas=False)
    )


def test_several_images_a_cell(vision, pictures, tmp_path):
    single = fit(table(pictures), tmp_path / "single", vision, model__timm_image__max_image_num_per_column=2)
    expected = single.predict_proba(table(pictures), as_pandas=False)
    found = single.predict_proba(table(pictures, "several"), as_pandas=False)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_text_images_and_numbers_in_one_model(checkpoint, vision, pictures, tmp_path):
    frame = table(pictures)
    frame["text"] = reviews(ROWS)["text"].tolist()
    frame["size"] = np.linspace(0, 1, ROWS) ** 2
    more = {"model.timm_image.checkpoint_name": str(vision), "optim.max_epochs": 4}
    predictor = MultiModalPredictor(label="label", path=tmp_path / "all", verbosity=0)
    predictor.fit(frame, hyperparameters={**settings(checkpoint), **more})
    assert set(predictor._fitted.model.encoders()) == {"hf_text", "timm_image", "ft_transformer"}
    expected = predictor.predict_proba(frame, as_pandas=False)
    again = MultiModalPredictor.load(tmp_path / "all")
    np.testing.assert_array_equal(again.predict_proba(frame, as_pandas=False), expected)
    without = frame.assign(photo=None)
    assert not np.allclose(again.predict_proba(without, as_pandas=False), expected)
    assert "tiny-vit" in str(predictor.plan(frame))


@pytest.mark.parametrize("peft", ["ia3_bias", "lora", "norm_fit", None])
@pytest.mark.parametrize("model_type", ["vit", "efficientnet"])
def test_artifacts(model_type, peft, pictures, tmp_path):
    folder = save_tiny_vision(model_type, tmp_path / "checkpoint")
    predictor = fit(table(pictures), tmp_path / "made", folder, optim__peft=peft, optim__max_epochs=2)
    expected = predictor.predict_proba(table(pictures), as_pandas=False)
    if peft is not None:
        again = MultiModalPredictor.load(tmp_path / "made")
        np.testing.assert_array_equal(again.predict_proba(table(pictures), as_pandas=False), expected)
    predictor.save(tmp_path / "alone", standalone=True)
    shutil.rmtree(folder)
    alone = MultiModalPredictor.load(tmp_path / "alone")
    np.testing.assert_allclose(alone.predict_proba(table(pictures), as_pandas=False), expected, atol=1e-6)


def test_an_artifact_needs_no_settings_of_the_checkpoint(fitted, vision, pictures, tmp_path):
    """What the checkpoint's folder says later does not change how images are read."""
    moved = tmp_path / "checkpoint"
    shutil.copytree(vision, moved)
    predictor = fit(table(pictures), tmp_path / "made", moved, optim__max_epochs=1)
    expected = predictor.predict_proba(table(pictures), as_pandas=False)
    (moved / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "image_mean": [0.9, 0.9, 0.9]}))
    again = MultiModalPredictor.load(tmp_path / "made")
    np.testing.assert_array_equal(again.predict_proba(table(pictures), as_pandas=False), expected)


def test_hostile_settings_of_images_are_refused(fitted, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(fitted.path, copied)
    schema = json.loads((copied / "schema.json").read_text())
    schema["processors"]["timm_image"]["settings"]["image_processor_type"] = "PreTrainedModel"
    (copied / "schema.json").write_text(json.dumps(schema))
    (copied / "SHA256SUMS").unlink()
    with pytest.raises(ArtifactError):
        MultiModalPredictor.load(copied)


def test_augmentation_and_mixup_change_training_and_are_reproducible(vision, pictures, tmp_path):
    words = ["random_resize_crop", "random_horizontal_flip", "trivial_augment"]
    cases: dict[str, dict[str, Any]] = {
        "plain": {},
        "words": {"model__timm_image__train_transforms": words},
        "mixup": {"data__mixup__turn_on": True, "data__mixup__cutmix_alpha": 0},
        "cutmix": {"data__mixup__turn_on": True, "data__mixup__mixup_alpha": 0},
    }
    made = {
        name: weights(fit(table(pictures), tmp_path / name, vision, optim__max_epochs=2, **more))
        for name, more in cases.items()
    }
    names = list(made)
    for place, name in enumerate(names):
        assert all(not same(made[name], made[other]) for other in names[:place])
        again = weights(fit(table(pictures), tmp_path / f"{name}-again", vision, optim__max_epochs=2, **cases[name]))
        assert same(made[name], again), name
    off = fit(
        table(pictures),
        tmp_path / "off",
        vision,
        optim__max_epochs=2,
        data__mixup__turn_on=True,
        data__mixup__turn_off_epoch=0,
    )
    assert same(weights(off), made["plain"])


def test_text_edits_change_training(checkpoint, tmp_path):
    def trained(name: str, **more: Any) -> dict[str, Any]:
        predictor = MultiModalPredictor(label="label", path=tmp_path / name, verbosity=0)
        predictor.fit(
            reviews(), hyperparameters={**settings(checkpoint), **{k.replace("__", "."): v for k, v in more.items()}}
        )
        return weights(predictor)

    edits = {"model__hf_text__text_trivial_aug_maxscale": 0.5, "model__hf_text__text_aug_detect_length": 2}
    plain, edited = trained("plain"), trained("edited", **edits)
    assert not same(plain, edited) and same(edited, trained("again", **edits))
    longer = trained("longer", **{**edits, "model__hf_text__text_aug_detect_length": 100})
    assert same(longer, plain), "no text is long enough"


def test_settings_of_the_image_encoder_change_something(vision, pictures, tmp_path):
    cases: dict[str, dict[str, Any]] = {
        "plain": {},
        "image_size": {"model__timm_image__image_size": 48},
        "image_norm": {"model__timm_image__image_norm": "clip"},
        "pooling_mode": {"model__timm_image__pooling_mode": "mean"},
        "val_transforms": {"model__timm_image__val_transforms": ["resize_to_square"]},
        "base_precision": {"model__timm_image__base_precision": "int4"},
    }
    wide = table(pictures)
    wide["photo"] = [
        np.asarray(Image.open(name).resize((60, 40))) + np.arange(60, dtype=np.uint8)[None, :, None]
        for name in wide["photo"]
    ]
    seen = {name: fit(wide, tmp_path / name, vision, optim__max_epochs=1, **more) for name, more in cases.items()}
    found = {name: predictor.extract_embedding(wide, as_pandas=False) for name, predictor in seen.items()}
    for name in cases:
        assert name == "plain" or not np.allclose(found[name], found["plain"]), name
    checkpointed = fit(
        wide, tmp_path / "gc", vision, optim__max_epochs=1, model__timm_image__gradient_checkpointing=True
    )
    np.testing.assert_allclose(checkpointed.extract_embedding(wide, as_pandas=False), found["plain"], atol=1e-4)


def test_words_that_are_not_offered_say_why(vision, pictures, tmp_path):
    for words, why in (
        (["randaug"], "without numbers to tune"),
        (["center_crop(3)"], "no numbers"),
        (["crop"], "unknown"),
    ):
        with pytest.raises(ConfigError, match=why):
            fit(table(pictures), tmp_path / "never", vision, model__timm_image__train_transforms=words)
    with pytest.raises(ConfigError, match="is random"):
        fit(table(pictures), tmp_path / "never", vision, model__timm_image__val_transforms=["trivial_augment"])
    with pytest.raises(ConfigError, match="gives a row the image of another one"):
        fit(table(pictures), tmp_path / "never", vision, data__image__missing_value_strategy="skip")


def test_names_of_images_that_are_nowhere_are_told_of(checkpoint, tmp_path):
    frame = reviews().assign(photo=[f"{row}.png" for row in range(40)])
    predictor = MultiModalPredictor(label="label", path=tmp_path / "made", verbosity=0)
    with pytest.warns(UserWarning) as told:
        predictor.fit(frame, hyperparameters=settings(checkpoint, model__names=["hf_text"]))
    assert any("'photo' holds names of image files and is not read as images" in str(one.message) for one in told)


def test_a_resumed_fit_sees_the_same_images(vision, pictures, tmp_path):
    words = ["random_resize_crop", "trivial_augment"]
    more = {"model__timm_image__train_transforms": words, "env__state_interval": 0}
    whole = fit(table(pictures), tmp_path / "whole", vision, **more)
    stopped = MultiModalPredictor(label="label", path=tmp_path / "stopped", verbosity=0)
    given = {"env.precision": "32", "optim.lr": 0.02, "model.timm_image.checkpoint_name": str(vision), "optim.max_epochs": 6,
             "env.batch_size": 8, **{name.replace("__", "."): value for name, value in more.items()}}  # fmt: skip
    stopped.fit(table(pictures), hyperparameters=given, time_limit=1e-3)
    resumed = MultiModalPredictor.load(tmp_path / "stopped", resume=True).fit(table(pictures))
    assert same(weights(resumed), weights(whole))
