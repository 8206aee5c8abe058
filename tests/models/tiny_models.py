"""Random two-layer models of every model type we know, a batch to feed them, and a checkpoint on disk."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from featherfit.checkpoints.families import FAMILIES
from featherfit.models.backbone import build_backbone_from_config
from featherfit.models.build import MultiModalModel
from featherfit.models.heads import Head
from featherfit.models.text import TextEncoder
from featherfit.types import Batch

torch.set_num_threads(1)  # models this small lose more to threads than they gain

_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BERT: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    **_SPECIAL,
}
_DECODER = {**_BERT, "num_key_value_heads": 2, "head_dim": 8}
_T5 = {
    "vocab_size": 50,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 8,
}
_OWN: dict[str, dict[str, Any]] = {
    "electra": {**_BERT, "embedding_size": 16},
    "albert": {**_BERT, "embedding_size": 16},
    "deberta-v2": {
        **_BERT,
        "type_vocab_size": 0,
        "relative_attention": True,
        "pos_att_type": "p2c|c2p",
        "position_buckets": 8,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
    "distilbert": {
        "vocab_size": 50,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 48,
        "max_position_embeddings": 24,
        **_SPECIAL,
    },
    "modernbert": {**_BERT, "cls_token_id": 1, "sep_token_id": 2},
    "eurobert": {**_DECODER, "mask_token_id": 3},
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
}
_PLAIN = {model_type: _DECODER if family.decoder else _BERT for family in FAMILIES for model_type in family.model_types}
TINY: dict[str, dict[str, Any]] = {
    model_type: {"model_type": model_type, **_OWN.get(model_type, plain)} for model_type, plain in _PLAIN.items()
}
"""Contents of `config.json` by model type; vocabulary 50, width 32, two layers."""

UNLISTED: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2},
    "longformer": {**_BERT, "attention_window": 4},
    "ernie": _BERT,
    "olmo2": {**_BERT, "num_key_value_heads": 2},
}
"""Settings of model types that `FAMILIES` does not list."""


@functools.cache
def _pristine(model_type: str) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone_from_config(TINY[model_type])
        for parameter in backbone.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)  # so that no bias is zero and no norm is one
    return backbone


def tiny_backbone(model_type: str) -> torch.nn.Module:
    """A fresh copy of the random model of this type, always with the same numbers, in evaluation mode."""
    return copy.deepcopy(_pristine(model_type))


def tiny_model(model_type: str, *, outputs: int = 3, pooling: str | None = None) -> MultiModalModel:
    """The same with a head on it."""
    encoder = TextEncoder(tiny_backbone(model_type), pooling=pooling)
    return MultiModalModel(encoder, Head(encoder.out_dim, outputs, seed=0)).eval()


def shaken(model: MultiModalModel, by: float = 0.2) -> MultiModalModel:
    """The model with every trainable number moved, reproducibly."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += by * torch.randn(parameter.shape, generator=generator)
    return model


def tiny_batch() -> Batch:
    """Three rows of up to 7 tokens, the second padded from the fifth, with two segments."""
    ids = torch.randint(4, 50, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1]]).repeat(3, 1)
    return Batch(ids.masked_fill(mask == 0, 0), mask, segments, None, None, torch.arange(3))


@dataclass
class Saved:
    """A checkpoint on disk."""

    folder: Path
    config: dict[str, Any]
    pooling: str | None = None

    @property
    def model_type(self) -> str:
        return self.config["model_type"]


def save(model: Any, folder: Path) -> Saved:
    """Saves a Hugging Face model; its config is the checkpoint's."""
    model.save_pretrained(folder)
    return Saved(folder, model.config.to_dict())
