"""What differs between families of image models: a checkpoint's `model_type` goes in, a `Family` comes out. Data only.

Names are those of transformers 5.2x. Where a version calls the layers otherwise, or a model is not listed, the family is
worked out from the model itself (`models/vision_family.py`).
"""

from __future__ import annotations

from featherfit.checkpoints.families import Family


def _vit(
    *model_types: str,
    layers: str,
    final_norm: str,
    attention: str = "attention",
    out: str = "o_proj",
    up: str = "mlp.fc1",
    down: str = "mlp.fc2",
    pooler: bool = True,
    tower: str | None = None,
    bias_tables: tuple[str, ...] = (),
) -> Family:
    """A transformer over patches."""
    query, key, value = (f"{attention}.{name}_proj" for name in "qkv")
    return Family(
        model_types=model_types,
        layers=layers,
        query=query,
        key=key,
        value=value,
        out=f"{attention}.{out}",
        up=(up,),
        down=down,
        automm=(query, value),
        pooling="cls",
        final_norm=final_norm,
        pooler=pooler,
        tower=tower,
        bias_tables=bias_tables,
    )


def _convolutions(
    *model_types: str, layers: str, final_norm: str | None, up: tuple[str, ...] = (), down: str = ""
) -> Family:
    """A network without attention, whose linear layers are convolutions of one pixel (`models/pointwise.py`)."""
    return Family(
        model_types=model_types,
        layers=layers,
        query="",
        key="",
        value="",
        out="",
        up=up,
        down=down,
        automm=(*up, down),
        pooling="mean",
        final_norm=final_norm,
        pooler=True,
    )


_SWINV2 = Family(
    model_types=("swinv2",),
    layers="encoder.layers.*.blocks",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    out="attention.output.dense",
    up=("intermediate.dense",),
    down="output.dense",
    automm=("attention.self.query", "attention.self.value"),
    pooling="mean",
    final_norm="layernorm",
    pooler=True,
)

VISION_FAMILIES: tuple[Family, ...] = (
    # The dense poolers of ViT and DeiT are of use in pretraining only, and most checkpoints lack their weights.
    _vit("vit", "deit", layers="layers", final_norm="layernorm", pooler=False),
    _vit("beit", layers="layers", final_norm="pooler.layernorm"),
    _vit("dinov2", "dinov2_with_registers", layers="encoder.layer", final_norm="layernorm"),
    _vit("dinov3_vit", layers="model.layer", final_norm="norm", up="mlp.up_proj", down="mlp.down_proj"),
    _vit(
        "swin",
        layers="encoder.layers.*.blocks",
        final_norm="layernorm",
        bias_tables=("attention.relative_position_bias",),
    ),
    _SWINV2,
    _vit(
        "clip",
        "clip_vision_model",
        layers="encoder.layers",
        final_norm="post_layernorm",
        attention="self_attn",
        out="out_proj",
        tower="vision_config",
    ),
    _vit(
        "siglip",
        "siglip_vision_model",
        layers="encoder.layers",
        final_norm="post_layernorm",
        attention="self_attn",
        out="out_proj",
        tower="vision_config",
    ),
    _convolutions(
        "convnext", "convnextv2", layers="encoder.stages.*.layers", final_norm="layernorm", up=("pwconv1",), down="pwconv2"
    ),
    _convolutions(
        "efficientnet",
        layers="encoder.blocks",
        final_norm="encoder.top_bn",
        up=("expansion.expand_conv.linear",),
        down="projection.project_conv.linear",
    ),
    _convolutions(
        "mobilenet_v2",
        layers="layer",
        final_norm="conv_1x1.normalization",
        up=("expand_1x1.convolution.linear",),
        down="reduce_1x1.convolution.linear",
    ),
    _convolutions("mobilenet_v1", layers="layer", final_norm=None, up=("convolution.linear",), down=""),
    _convolutions(
        "resnet", layers="encoder.stages.*.layers", final_norm=None, up=("layer.0.convolution.linear",),
        down="layer.2.convolution.linear",
    ),
)  # fmt: skip

_BY_TYPE = {model_type: family for family in VISION_FAMILIES for model_type in family.model_types}


def vision_family_of(model_type: str) -> Family | None:
    """The family of an image model's `model_type`, or None if it is not one we know."""
    return _BY_TYPE.get(model_type)
