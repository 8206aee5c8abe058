"""Image encoders of every family: shapes, pooling, depths, missing images, and rows that do not touch each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import save
from tiny_vision import CONVOLUTIONS, SIDE, TINY_VISION, image_batch, tiny_vision_backbone, tiny_vision_model
from torch import nn

from featherfit.checkpoints.vision import VISION_FAMILIES, vision_family_of
from featherfit.errors import CheckpointError, ConfigError
from featherfit.models.backbone import build_backbone, build_backbone_from_config
from featherfit.models.pointwise import Pointwise, with_linears
from featherfit.models.vision import VisionEncoder, layers_at

BATCH = image_batch()
PIXELS = BATCH.parts["timm_image"]["pixels"]

every_family = pytest.mark.parametrize("model_type", TINY_VISION)


def test_every_listed_type_is_tried():
    towers = {"clip_vision_model", "siglip_vision_model"}
    assert {name for family in VISION_FAMILIES for name in family.model_types} - towers == set(TINY_VISION)


@every_family
def test_names_are_where_the_family_says(model_type):
    backbone = tiny_vision_backbone(model_type)
    family = vision_family_of(backbone.config.model_type)
    layers = layers_at(backbone, family.layers)
    assert len(layers) >= 2
    if family.final_norm is not None:
        assert all(parameter.dim() == 1 for parameter in backbone.get_submodule(family.final_norm).parameters())
    linears = {
        name for layer in layers.values() for name, module in layer.named_modules() if isinstance(module, nn.Linear)
    }
    for word in ("automm", "attention", "paper"):
        assert set(family.target_set(word)) <= linears | (
            {"layer.2.convolution.linear"} if model_type == "resnet" else set()
        )
    modules = {name for layer in layers.values() for name, _ in layer.named_modules()}
    assert set(family.bias_tables) <= modules


@every_family
def test_one_vector_a_row(model_type):
    encoder = tiny_vision_model(model_type).encoders()["timm_image"]
    with torch.no_grad():
        vectors, images = encoder(BATCH), encoder.vectors(PIXELS)
    assert vectors.shape == (3, encoder.out_dim) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors[0], images[0])
    torch.testing.assert_close(vectors[1], images[1:].mean(dim=0))
    assert (vectors[2] == 0).all()
    assert images.std(dim=0).max() > 1e-4, "images differ"


@every_family
def test_the_vector_is_the_models_own(model_type):
    """Against transformers without what is put in between: linear layers for convolutions, memory formats."""
    encoder = VisionEncoder(tiny_vision_backbone(model_type))
    with torch.no_grad():
        output = encoder.backbone(pixel_values=PIXELS)
        own = output.pooler_output if encoder.family.pooler else output.last_hidden_state[:, 0]
        torch.testing.assert_close(encoder.vectors(PIXELS), own.flatten(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", ["vit", "dinov2", "deit", "beit", "siglip", "clip", "dinov3_vit"])
def test_images_of_another_size(model_type):
    encoder = VisionEncoder(tiny_vision_backbone(model_type))
    with torch.no_grad():
        assert encoder.vectors(torch.randn(2, 3, 2 * SIDE, 2 * SIDE)).shape == (2, encoder.out_dim)


@every_family
def test_rows_do_not_touch_each_other_even_while_training(model_type):
    model = tiny_vision_model(model_type)
    encoder = model.encoders()["timm_image"]
    encoder.disable_dropout()
    model.train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        together, alone = encoder.vectors(PIXELS), torch.cat([encoder.vectors(one[None]) for one in PIXELS])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers()), "statistics stay"


@every_family
def test_depths_fall_towards_the_head(model_type):
    encoder = VisionEncoder(tiny_vision_backbone(model_type), learnable_missing=True)
    depths, layers = encoder.layer_ids(), list(encoder.layers())
    assert depths.keys() == dict(encoder.named_parameters()).keys() and depths["missing"] == 0
    for place, layer in enumerate(layers):
        inside = {depth for name, depth in depths.items() if name.startswith(f"backbone.{layer}.")}
        assert inside <= {len(layers) - place}
    assert max(depths.values()) == len(layers) + 1
    if encoder.family.final_norm:
        assert {d for name, d in depths.items() if name.startswith(f"backbone.{encoder.family.final_norm}.")} == {0}


@every_family
def test_recomputing_gives_the_same_gradients(model_type):
    gradients = []
    for recomputes in (False, True):
        model = tiny_vision_model(model_type)
        encoder = model.encoders()["timm_image"]
        encoder.disable_dropout()
        if recomputes:
            encoder.enable_gradient_checkpointing()
        model.train()(BATCH).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


def test_a_missing_image_can_be_learned():
    model = tiny_vision_model("vit", learnable_missing=True)
    encoder = model.encoders()["timm_image"]
    with torch.no_grad():
        encoder.missing.fill_(2.0)
    assert (encoder(BATCH)[2] == 2.0).all() and (encoder(BATCH)[0] != 2.0).any()
    encoder(BATCH)[2].sum().backward()
    assert (encoder.missing.grad == 1).all()


def test_a_batch_without_any_image():
    part = {"pixels": torch.zeros(0, 3, SIDE, SIDE), "image_rows": torch.zeros(0, dtype=torch.int64)}
    batch = replace(BATCH, parts={"timm_image": part})
    model = tiny_vision_model("swin")
    assert (model.encoders()["timm_image"](batch) == 0).all() and model(batch).shape == (3, 3)


def test_poolings():
    backbone = tiny_vision_backbone("dinov2")
    with torch.no_grad():
        states = backbone(pixel_values=PIXELS).last_hidden_state
        for pooling, expected in (("cls", states[:, 0]), ("mean", states.mean(dim=1)), ("pooler", states[:, 0])):
            torch.testing.assert_close(VisionEncoder(backbone, pooling=pooling).vectors(PIXELS), expected)
    with pytest.raises(ConfigError, match="'convnext' has no such token"):
        VisionEncoder(tiny_vision_backbone("convnext"), pooling="cls")


@pytest.mark.parametrize("model_type", CONVOLUTIONS)
def test_convolutions_of_a_pixel_are_linear_layers(model_type):
    backbone = tiny_vision_backbone(model_type)
    left = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d) and (module.kernel_size, module.stride, module.groups) == ((1, 1), (1, 1), 1)
    ]
    assert left == []


def test_a_pointwise_layer_computes_the_convolution():
    torch.manual_seed(0)
    convolution = nn.Conv2d(5, 7, 1)
    x = torch.randn(2, 5, 4, 3)
    expected = convolution(x)
    torch.testing.assert_close(Pointwise(convolution)(x), expected, rtol=1e-5, atol=1e-6)
    for other in (nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1, stride=2)):
        assert not any(isinstance(module, Pointwise) for module in with_linears(nn.Sequential(other)).modules())


@pytest.mark.parametrize(
    "model_type", ["vit", "clip", "siglip", "swin", "convnext", "efficientnet", "mobilenet_v2", "beit"]
)
def test_weights_come_back_from_disk(model_type, tmp_path):
    """From the whole model as it is published: with a classifier, or with a text encoder beside it."""
    import transformers

    config = transformers.AutoConfig.for_model(**TINY_VISION[model_type])
    mapping = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    whole_class = (
        transformers.MODEL_MAPPING[type(config)] if model_type in ("clip", "siglip") else mapping[type(config)]
    )
    torch.manual_seed(0)
    whole = whole_class._from_config(config).eval()
    stored = save(whole, tmp_path)
    with torch.no_grad():
        if model_type in ("clip", "siglip"):
            expected = whole.vision_model(pixel_values=PIXELS).pooler_output
        else:
            output = whole.base_model(pixel_values=PIXELS)
            expected = output.last_hidden_state[:, 0] if model_type == "vit" else output.pooler_output
        for settings in ({}, {"dtype": torch.bfloat16, "mapped": True}):
            encoder = VisionEncoder(build_backbone(stored, images=True, **settings))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bool(settings)):
                found = encoder.vectors(PIXELS)
            loose = 0.1 if settings else 1e-4
            torch.testing.assert_close(found, expected.flatten(1), rtol=loose, atol=loose)


def test_weights_that_are_missing_are_named(tmp_path):
    import transformers
    from safetensors.torch import load_file, save_file

    model = transformers.Dinov2Model._from_config(transformers.AutoConfig.for_model(**TINY_VISION["dinov2"]))
    stored = save(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("embeddings.mask_token", None)
    gone = next(name for name in weights if name.endswith("fc1.weight"))
    weights.pop(gone)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack 1 tensors that Dinov2Model needs: .*fc1\.weight"):
        build_backbone(stored, images=True)


def test_text_and_image_models_are_told_apart():
    bert = {"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 9}
    with pytest.raises(CheckpointError, match="'bert' is no image encoder"):
        build_backbone_from_config(bert, images=True)


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("vit_msn", {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
                     "image_size": SIDE, "patch_size": 8}),
        ("regnet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8}),
    ],
)  # fmt: skip
def test_models_that_are_not_listed_are_worked_out(model_type, settings):
    backbone = build_backbone_from_config({"model_type": model_type, **settings}, images=True)
    encoder = VisionEncoder(backbone)
    assert len(encoder.layers()) == 2
    with torch.no_grad():
        assert encoder.vectors(PIXELS).shape == (3, encoder.out_dim)
