"""Image columns as rows of pixels: values, odd cells, several images, augmentation, and what an artifact keeps."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_vision import PROCESSOR, SIDE, picture

from featherfit.config.schema import TimmImageConfig
from featherfit.data.images import FOLDER
from featherfit.data.processors.image import ImageProcessor
from featherfit.data.processors.pixels import Pixels
from featherfit.errors import CheckpointError, ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        picture(number).save(tmp_path / f"{number}.png")
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "0.png").read_bytes()[:200])
    return tmp_path


def table(cells: list, folder: Path, index=None) -> pd.DataFrame:
    frame = pd.DataFrame({"photo": pd.Series(cells, index=index, dtype=object)})
    frame.attrs[FOLDER] = str(folder)
    return frame


def processor(types=None, **settings) -> ImageProcessor:
    config = TimmImageConfig(**settings)
    return ImageProcessor(types or {"photo": "image_path"}, Pixels(PROCESSOR), config)


def test_pixels_are_resized_cropped_and_normalised(folder):
    part = processor()(table(["1.png"], folder)).tensors(np.array([0]))
    assert part["image_rows"].tolist() == [0] and part["pixels"].shape == (1, 3, SIDE, SIDE)
    resized = picture(1).resize((40 * SIDE // 36, SIDE), Image.Resampling.BICUBIC)
    left = (resized.width - SIDE) // 2
    expected = (np.asarray(resized, dtype=np.float32)[:, left : left + SIDE] / 255 - 0.5) / 0.25
    np.testing.assert_allclose(part["pixels"][0].numpy(), expected.transpose(2, 0, 1), atol=1e-5)


def test_rows_take_only_their_own_images(folder):
    rows = processor(max_image_num_per_column=2)(table(["0.png", None, "1.png;2.png", ""], folder))
    assert len(rows) == 4 and rows.lengths.tolist() == [5, 0, 10, 0]
    alone = {name: processor()(table([f"{name}.png"], folder)).tensors(np.array([0]))["pixels"][0] for name in range(3)}
    part = rows.tensors(np.array([2, 1, 0]))
    assert part["image_rows"].tolist() == [0, 0, 2]
    for pixels, name in zip(part["pixels"], (1, 2, 0), strict=True):
        assert (pixels == alone[name]).all()
    nothing = rows.tensors(np.array([1, 3]))
    assert nothing["pixels"].shape == (0, 3, SIDE, SIDE) and nothing["image_rows"].shape == (0,)


def test_images_of_a_row_may_be_averaged_first(folder):
    cells = ["0.png;1.png", "2.png"]
    separate = processor(max_image_num_per_column=2)(table(cells, folder)).tensors(np.array([0, 1]))
    rows = processor(max_image_num_per_column=2, mix_choice="all_images")(table(cells, folder))
    joined = rows.tensors(np.array([0, 1]))
    assert joined["image_rows"].tolist() == [0, 1] and rows.lengths.tolist() == [5, 5]
    np.testing.assert_allclose(joined["pixels"][0], separate["pixels"][:2].mean(dim=0), atol=1e-6)


def test_images_beyond_the_most_are_told_of(folder):
    with pytest.warns(UserWarning, match=r"'photo' holds 2 images beyond the first 1 .*max_image_num_per_column=1"):
        rows = processor()(table(["0.png;1.png;2.png"], folder))
    assert len(rows.tensors(np.array([0]))["pixels"]) == 1


def test_a_cell_that_is_no_image_is_named_with_row_and_column(folder):
    frame = table(["0.png", "gone.png", "http://a/b.png"], folder, index=[10, 20, 30])
    with pytest.raises(DataError, match=r"Row 20, column 'photo': there is no file .*gone\.png'\. 1 more cell"):
        processor()(frame)
    found = processor().unreadable(frame)
    assert [(position, column) for position, column, _ in found] == [(1, "photo"), (2, "photo")]
    with pytest.raises(DataError, match="lacks the image columns 'photo'"):
        processor()(frame.rename(columns={"photo": "image"}))


def test_a_torn_image_is_an_error_when_it_is_decoded(folder):
    frame = table(["0.png", "torn.jpg"], folder, index=["a", "b"])
    rows = processor()(frame)
    assert len(rows.tensors(np.array([0]))["pixels"]) == 1
    with pytest.raises(DataError, match=r"Row 'b', column 'photo': .*torn\.jpg' is damaged or cut off"):
        rows.tensors(np.array([0, 1]))
    assert [cell[:2] for cell in processor().unreadable(frame)] == [(1, "photo")]


def test_content_is_that_of_the_images_and_not_of_the_place(folder):
    rows = processor(max_image_num_per_column=2)(table(["0.png", "1.png", "0.png", None, "0.png;1.png"], folder))
    contents = [rows.content(position) for position in range(5)]
    assert contents[0] == contents[2] and len(set(contents)) == 4


def test_augmentation_changes_a_batch_by_seed_epoch_and_row(folder):
    words = ["random_resize_crop", "random_horizontal_flip", "trivial_augment"]
    rows = processor()(table(["0.png"] * 6, folder))
    plain = rows.tensors(np.arange(6))["pixels"]
    first = rows.augmented(words, 0, 1).tensors(np.arange(6))["pixels"]
    assert all((first[row] != plain[row]).any() for row in range(6))
    assert len({row.numpy().tobytes() for row in first}) == 6
    again = rows.augmented(words, 0, 1).tensors(np.array([4, 2]))["pixels"]
    assert (again[0] == first[4]).all() and (again[1] == first[2]).all(), "whatever the batch a row is in"
    for seed, epoch in ((0, 2), (1, 1)):
        assert (rows.augmented(words, seed, epoch).tensors(np.arange(6))["pixels"] != first).any()
    assert (rows.tensors(np.arange(6))["pixels"] == plain).all()


def test_words_decide_the_size_at_prediction(folder):
    squared = processor(val_transforms=["resize_to_square"])(table(["1.png"], folder)).tensors(np.array([0]))["pixels"]
    expected = np.asarray(picture(1).resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    np.testing.assert_allclose(squared[0].numpy(), ((expected - 0.5) / 0.25).transpose(2, 0, 1), atol=1e-5)


def test_it_comes_back_from_json(folder):
    before = processor()
    state = json.loads(json.dumps(before.to_json()))
    after = ImageProcessor.from_json(state, before.config)
    frame = table(["0.png", "3.png"], folder)
    assert (after(frame).tensors(np.arange(2))["pixels"] == before(frame).tensors(np.arange(2))["pixels"]).all()
    assert (after.columns, after.types, after.cost) == (before.columns, before.types, before.cost)


def checkpoint(folder: Path, processor: dict, **config) -> SimpleNamespace:
    folder.mkdir(exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2", **config}))
    return SimpleNamespace(folder=folder, config={"model_type": "dinov2", **config})


def test_settings_of_the_checkpoint_and_what_changes_them(tmp_path):
    stored = checkpoint(tmp_path / "c", PROCESSOR, patch_size=8, num_hidden_layers=2)
    types = {"photo": "image_path"}
    own = ImageProcessor.from_checkpoint(stored, types, TimmImageConfig())
    assert own.pixels.shape == (3, SIDE, SIDE) and own.cost == 17
    larger = ImageProcessor.from_checkpoint(stored, types, TimmImageConfig(image_size=64, image_norm="clip"))
    assert larger.pixels.shape == (3, 64, 64) and larger.pixels.settings["size"] == {"shortest_edge": 64}
    assert larger.pixels.settings["image_mean"][0] == pytest.approx(0.48145466)


@pytest.mark.parametrize(
    "name",
    ["ViTImageProcessor", "ViTImageProcessorFast", "CLIPImageProcessor", "SiglipImageProcessor", "BeitImageProcessor"]
    + [
        "ConvNextImageProcessor",
        "EfficientNetImageProcessor",
        "MobileNetV2ImageProcessor",
        "MobileNetV1ImageProcessor",
    ],
)
def test_every_familys_processor_is_kept_as_settings(tmp_path, name):
    stored = checkpoint(tmp_path / "c", {"image_processor_type": name})
    first = Pixels.from_checkpoint(stored.folder, image_size=None, image_norm=None)
    again = Pixels(json.loads(json.dumps(first.settings)))
    image = picture(0, 300, 200)
    assert (again(image, (), None) == first(image, (), None)).all()
    assert Pixels.from_checkpoint(stored.folder, image_size=96, image_norm=None).side == 96


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"image_processor_type": "os.system"}, "is no image processor"),
        ({"image_processor_type": "PreTrainedModel"}, "is no image processor"),
        ({}, "None is no image processor"),
        ({**PROCESSOR, "size": {"height": 10**9, "width": 10**9}}, "at most 4096"),
    ],
)
def test_settings_that_are_none_are_refused(settings, why):
    with pytest.raises(CheckpointError, match=why):
        Pixels(settings)


def test_a_checkpoint_without_settings_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no preprocessor_config\.json"):
        Pixels.from_checkpoint(tmp_path, image_size=None, image_norm=None)


def test_processors_that_keep_proportions_need_words(folder):
    settings = {**PROCESSOR, "do_center_crop": False}
    with pytest.raises(ConfigError, match="this checkpoint keeps proportions"):
        Pixels(settings)(picture(0), (), None)
    assert Pixels(settings)(picture(0), ("resize_to_square",), None).shape == (3, SIDE, SIDE)
