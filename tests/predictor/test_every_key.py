"""Every setting of `model`, `data` and `optim` changes what comes out of a fit, but for those listed with the reason why not."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_checkpoints import quick_fit, reviews, write_checkpoint
from tiny_tables import picture, table, with_photos
from tiny_vision import save_tiny_vision

from featherfit import MultiModalPredictor
from featherfit.config.dotted import known_keys

ONE_VALUE = "there is one value, the others are refused"
MEMORY = "what changes is memory, not a number"
CHECKPOINT = "every test with another checkpoint shows it"
NO_CHANGE = {
    "model.hf_text.checkpoint_name": CHECKPOINT,
    "model.timm_image.checkpoint_name": CHECKPOINT,
    "model.hf_text.low_cpu_mem_usage": ONE_VALUE,
    "data.image.missing_value_strategy": ONE_VALUE,
    "optim.focal_loss.reduction": ONE_VALUE,
    **{
        f"model.{encoder}.{name}": MEMORY
        for encoder in ("hf_text", "timm_image")
        for name in ("gradient_checkpointing", "activation_offload")
    },
    "optim.calibration": "tests/inference/test_decide.py",
    "optim.prefix_cache": "tests/predictor/test_prefix_cache.py",
    "optim.validation_by": "tests/inference/test_validate.py",
    "optim.validation_average": "tests/inference/test_validate.py",
}

LORA: dict[str, Any] = {"optim.peft": "lora"}
STANDARD = {"data.numerical.transform": "standard"}
MIXUP = {"data.mixup.turn_on": True, "optim.max_epochs": 4}
CLIPPED = {"optim.optim_type": "sgd", "optim.gradient_clip_val": 1e-3}
FOCAL = {"optim.loss_func": "focal_loss"}
TO_TEXT = {"data.categorical.convert_to_text": True}
TWO_IMAGES = {"model.timm_image.max_image_num_per_column": 2}
EDITS = {"model.hf_text.text_trivial_aug_maxscale": 0.5, "model.hf_text.text_aug_detect_length": 2}
LONG = {"optim.max_epochs": 12, "optim.lr": 0.03}

CHANGES: dict[str, dict[str, tuple[Any, ...]]] = {
    "text": {
        "model.hf_text.pooling_mode": ("mean",),
        "model.hf_text.max_text_len": (6,),
        "model.hf_text.insert_sep": (False,),
        "model.hf_text.text_segment_num": (1,),
        "model.hf_text.base_precision": ("int8",),
        "model.hf_text.dropout": ("on",),
        "model.hf_text.text_trivial_aug_maxscale": (0.2, EDITS),
        "model.hf_text.text_aug_detect_length": (4, EDITS),
        "optim.peft": ("lora",),
        "optim.top_layers": (1,),
        "optim.extra_trainable_params": ([r".*layer\.1\..*dense\.weight"],),
        "optim.lr_choice": ("single_stage",),
        "optim.lr_decay": (0.5,),
        "optim.lr_mult": (10.0, {"optim.lr_choice": "two_stages"}),
        "optim.few_shot": ("on",),
        "optim.few_shot_epochs": (1, {"optim.few_shot": "on"}),
        "optim.lora.filter": ("all-linear", LORA),
        "optim.lora.module_filter": ([r".*layer\.0\..*"], LORA),
        "optim.lora.r": (2, LORA),
        "optim.lora.alpha": (32.0, LORA),
        "optim.lora.dropout": (0.5, LORA),
    },
    "images": {
        "model.timm_image.pooling_mode": ("mean",),
        "model.timm_image.image_size": (48,),
        "model.timm_image.image_norm": ("clip",),
        "model.timm_image.train_transforms": (["random_resize_crop"],),
        "model.timm_image.val_transforms": (["resize_to_square"],),
        "model.timm_image.max_image_num_per_column": (2,),
        "model.timm_image.mix_choice": ("all_images", TWO_IMAGES),
        "model.timm_image.use_learnable_image": (True,),
        "model.timm_image.base_precision": ("int4",),
        "model.timm_image.dropout": ("on",),
    },
    "pictures": {
        "data.mixup.turn_on": (True,),
        "data.mixup.mixup_alpha": (0.0, MIXUP),
        "data.mixup.cutmix_alpha": (0.0, MIXUP),
        "data.mixup.prob": (0.2, MIXUP),
        "data.mixup.switch_prob": (0.0, MIXUP),
        "data.mixup.mode": ("elem", MIXUP),
        "data.mixup.turn_off_epoch": (1, MIXUP),
        "data.mixup.label_smoothing": (0.6, MIXUP),
    },
    "columns": {
        "data.pos_label": (0,),
        "data.categorical.minimum_cat_count": (30,),
        "data.categorical.maximum_num_cat": (1,),
        "data.numerical.transform": ("standard",),
        "data.numerical.scaler_with_mean": (False, STANDARD),
        "data.numerical.scaler_with_std": (False, STANDARD),
        "model.ft_transformer.token_dim": (16,),
        "model.ft_transformer.hidden_size": (32,),
        "model.ft_transformer.num_blocks": (1,),
        "model.ft_transformer.attention_num_heads": (2,),
        "model.ft_transformer.attention_dropout": (0.0,),
        "model.ft_transformer.residual_dropout": (0.3,),
        "model.ft_transformer.ffn_dropout": (0.0,),
        "model.ft_transformer.ffn_hidden_size": (16,),
        "model.ft_transformer.ffn_activation": ("gelu",),
        "model.ft_transformer.head_activation": ("gelu",),
        "model.ft_transformer.pooling_mode": ("mean",),
        "model.ft_transformer.numerical_bins": (2,),
        "optim.optim_type": ("sgd",),
        "optim.lr": (0.01,),
        "optim.lr_schedule": ("constant",),
        "optim.end_lr": (0.002,),
        "optim.warmup_steps": (0,),
        "optim.max_epochs": (3,),
        "optim.max_steps": (3,),
        "optim.weight_decay": (0.5,),
        "optim.gradient_clip_val": (1e-2, CLIPPED),
        "optim.gradient_clip_algorithm": ("value", CLIPPED),
        "optim.label_smoothing": (0.3,),
        "optim.class_weights": ({"1": 5.0},),
        "optim.loss_func": ("focal_loss",),
        "optim.focal_loss.alpha": ([1.0, 4.0], FOCAL),
        "optim.focal_loss.gamma": (5.0, FOCAL),
        "optim.head_init": ("probe",),
        "optim.ema_decay": (0.9,),
        "optim.patience": (1, LONG),
        "optim.val_check_interval": (1.0, LONG),
        "optim.check_val_every_n_epoch": (3, LONG),
        "optim.skip_final_val": (True, {"optim.val_check_interval": 4}),
        "optim.top_k": (1, LONG),
        "optim.top_k_average_method": ("best", LONG),
    },
    "numbers": {
        "data.label.numerical_preprocessing": ("minmaxscaler",),
        "optim.huber.delta": (0.1, {"optim.loss_func": "huber"}),
    },
    "both": {
        "model.names": (["hf_text"],),
        "data.categorical.convert_to_text": (True,),
        "data.categorical.convert_to_text_template": ("list", TO_TEXT),
        "data.numerical.convert_to_text": (True,),
        "data.modality_dropout": (0.5,),
        "model.fusion_mlp.aux_loss_weight": (1.0,),
        "model.fusion_mlp.hidden_sizes": ([16],),
        "model.fusion_mlp.activation": ("relu",),
        "model.fusion_mlp.adapt_in_features": ("min",),
        "model.fusion_mlp.dropout": (0.0,),
    },
    "tokens": {
        "model.fusion_transformer.hidden_size": (32,),
        "model.fusion_transformer.num_blocks": (1,),
        "model.fusion_transformer.attention_num_heads": (2,),
        "model.fusion_transformer.attention_dropout": (0.0,),
        "model.fusion_transformer.residual_dropout": (0.3,),
        "model.fusion_transformer.ffn_dropout": (0.0,),
        "model.fusion_transformer.ffn_hidden_size": (16,),
        "model.fusion_transformer.ffn_activation": ("gelu",),
        "model.fusion_transformer.head_activation": ("gelu",),
        "model.fusion_transformer.aux_loss_weight": (1.0,),
    },
}
"""By kind of table: a value that is not the default, and what else is set, with it and without."""

CASES = [(kind, key) for kind, keys in CHANGES.items() for key in keys]


def several_images(row: int, label: int) -> list[bytes]:
    """Two images a row, of different colours; every seventh row has none."""
    return [] if row % 7 == 3 else [picture(60 + 100 * label + row, 40), picture(20, 90 + row, 32, 44)]


def frames(folder: Path) -> dict[str, pd.DataFrame]:
    """A table of every kind."""
    from PIL import Image

    rows = table()
    cells = []
    for row, label in enumerate(rows["label"]):
        files = [folder / f"{row}-{place}.png" for place in range(2)]
        images = several_images(row, label)
        for file, content in zip(files, images, strict=False):
            Image.open(io.BytesIO(content)).save(file)
        cells.append(";".join(map(str, files)) if images else None)
    columns = rows.drop(columns="text")
    return {
        "text": reviews(48).assign(title=reviews(48, seed=7)["text"].tolist()),
        "images": pd.DataFrame({"photo": cells, "label": rows["label"].tolist()}),
        "pictures": with_photos(rows)[["photo", "label"]],
        "columns": columns,
        "numbers": columns.assign(label=np.log(columns["price"]) + columns["label"]).drop(columns="price"),
        "both": rows,
        "tokens": rows,
    }


NAMES = {
    "columns": ["ft_transformer"],
    "numbers": ["ft_transformer"],
    "tokens": ["ft_transformer", "hf_text", "fusion_transformer"],
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> Callable[..., tuple[Any, ...]]:
    """What a fit gives that a setting could change; asked for twice, it is fitted once."""
    folder = tmp_path_factory.mktemp("every_key")
    vision = save_tiny_vision("vit", folder / "tiny-vit")
    file = vision / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_dropout_prob": 0.5}))
    split = write_checkpoint(folder / "tiny-bert")
    file = split / "tokenizer_config.json"
    names = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    file.write_text(json.dumps(json.loads(file.read_text()) | names))
    tables, known = frames(folder), {}

    def fitted(kind: str, settings: dict[str, Any]) -> tuple[Any, ...]:
        asked = json.dumps([kind, settings])
        if asked not in known:
            more = {"optim.lr": 0.003, "model.timm_image.checkpoint_name": str(vision)}
            more |= {"model.names": NAMES[kind]} if kind in NAMES else {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = quick_fit(split, folder / str(len(known)), tables[kind], hyperparameters={**more, **settings})
                known[asked] = observed(made, tables[kind])
        return known[asked]

    return fitted


def observed(predictor: MultiModalPredictor, frame: pd.DataFrame) -> tuple[Any, ...]:
    """Its outputs, its positive class, and how long it trained."""
    regression = predictor.problem_type == "regression"
    outputs = predictor.predict(frame) if regression else predictor.predict_proba(frame)
    positive = predictor.positive_class if predictor.problem_type == "binary" else None
    return outputs.to_numpy().tobytes(), positive, predictor.fit_summary()["steps"]


def test_every_key_is_in_one_of_the_two_lists():
    wanted = {key for key in known_keys() if not key.startswith("env.")}
    tried = [key for _, key in CASES]
    assert len(tried) == len(set(tried)) and not set(tried) & set(NO_CHANGE)
    assert set(tried) | set(NO_CHANGE) == wanted


@pytest.mark.parametrize(("key", "file"), [(key, why) for key, why in NO_CHANGE.items() if why.endswith(".py")])
def test_those_shown_elsewhere_are(key, file):
    assert key in (Path(__file__).parents[2] / file).read_text("utf-8")


@pytest.mark.parametrize("key", [key for key, why in NO_CHANGE.items() if why == ONE_VALUE])
def test_those_of_one_value_have_one(key):
    assert len(known_keys()[key].choices) == 1


@pytest.mark.parametrize(("kind", "key"), CASES, ids=[key for _, key in CASES])
def test_it_changes_what_comes_out(kind, key, seen):
    value, *more = CHANGES[kind][key]
    around = {name: other for name, other in (more[0] if more else {}).items() if name != key}
    assert seen(kind, {**around, key: value}) != seen(kind, more[0] if more else {})
