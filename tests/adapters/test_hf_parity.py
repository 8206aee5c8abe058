"""Outputs and gradients against Hugging Face peft with the same numbers in both."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_backbone, tiny_batch, tiny_model
from tiny_vision import TINY_VISION, image_batch, tiny_vision_backbone, tiny_vision_model
from torch import nn

from featherfit.adapters.apply import apply_adapters
from featherfit.adapters.base import Adapter
from featherfit.config.schema import LoraConfig, OptimConfig

peft = pytest.importorskip("peft")

BATCH = tiny_batch()
RANK, ALPHA = 4, 6.0


def ours(model_type: str, method: str, filter: str) -> nn.Module:
    lora = LoraConfig(filter=filter) if method == "ia3" else LoraConfig(filter=filter, r=RANK, alpha=ALPHA)
    model = tiny_vision_model(model_type) if model_type in TINY_VISION else tiny_model(model_type)
    apply_adapters(model, OptimConfig(peft=method, lora=lora), seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Adapter):
                for parameter in module.parameters(recurse=False):
                    parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    (encoder,) = model.pretrained().values()
    return encoder.backbone


def plain(model_type: str) -> nn.Module:
    return tiny_vision_backbone(model_type) if model_type in TINY_VISION else tiny_backbone(model_type)


def adapters(backbone: nn.Module) -> dict[str, Adapter]:
    return {name: module for name, module in backbone.named_modules() if isinstance(module, Adapter)}


def theirs(model_type: str, method: str, ours: nn.Module) -> nn.Module:
    placed = adapters(ours)
    if method == "ia3":
        inputs = [name for name, adapter in placed.items() if adapter.scales_input]
        config = peft.IA3Config(target_modules=list(placed), feedforward_modules=inputs)
    else:
        config = peft.LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            target_modules=list(placed),
            use_rslora=method == "rslora",
            use_dora=method == "dora",
        )
    return peft.get_peft_model(plain(model_type), config).eval()


THEIR_NAMES = {
    "lora_a": "lora_A.default.weight",
    "lora_b": "lora_B.default.weight",
    "magnitude": "lora_magnitude_vector.default.weight",
    "vector": "ia3_l.default",
}


def counterparts(ours: nn.Module, theirs: nn.Module) -> list[tuple[str, nn.Parameter, nn.Parameter]]:
    """Pairs of the same parameter, ours and theirs."""
    others = dict(theirs.base_model.model.named_parameters())
    return [
        (f"{name}.{key}", parameter, others[f"{name}.{THEIR_NAMES[key]}"])
        for name, adapter in adapters(ours).items()
        for key, parameter in adapter.named_parameters(recurse=False)
    ]


@pytest.mark.parametrize(
    ("method", "filter"),
    [("lora", "automm"), ("lora", "all-linear"), ("rslora", "automm"), ("dora", "automm"), ("dora", "all-linear")]
    + [("ia3", "automm"), ("ia3", "paper")],
)
@pytest.mark.parametrize("model_type", ["bert", "t5", "llama", "vit", "swin", "convnext", "efficientnet"])
@pytest.mark.filterwarnings("ignore")  # peft's advice on its own settings
def test_same_outputs_and_gradients(model_type, method, filter):
    mine = ours(model_type, method, filter)
    reference = theirs(model_type, method, mine)
    pairs = counterparts(mine, reference)
    with torch.no_grad():
        for _, parameter, other in pairs:
            other.copy_(parameter.view_as(other))
    assert sum(p.numel() for p in reference.parameters() if p.requires_grad) == sum(p.numel() for _, p, _ in pairs)

    inputs = {"input_ids": BATCH.input_ids, "attention_mask": BATCH.attention_mask}
    if model_type in TINY_VISION:
        inputs = {"pixel_values": image_batch().parts["timm_image"]["pixels"]}
    out, expected = (model(**inputs).last_hidden_state for model in (mine, reference))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert (out - plain(model_type)(**inputs).last_hidden_state).abs().max() > 0.01

    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    for states in (out, expected):
        (states * direction).sum().backward()
    for name, parameter, other in pairs:
        assert parameter.grad.abs().max() > 0, name
        torch.testing.assert_close(
            parameter.grad, other.grad.view_as(parameter), rtol=1e-4, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )
