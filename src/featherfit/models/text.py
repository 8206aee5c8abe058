"""A Hugging Face backbone goes in; a `TextEncoder`, token ids to one vector a row, comes out."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import nn

from featherfit.checkpoints.families import Family, family_of
from featherfit.errors import ConfigError
from featherfit.memory import Tidier
from featherfit.models.attention import IMPLEMENTATION, register_attention
from featherfit.models.generic import generic_family
from featherfit.models.packing import Packing, pack
from featherfit.models.pooling import POOLINGS
from featherfit.models.prefix import Entry, in_layout, row_after_row, run_above, run_below
from featherfit.models.recompute import has_dropout, recompute, turn_off_dropout
from featherfit.types import PoolingMode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from featherfit.types import Batch


class TextEncoder(nn.Module):
    """Token ids to one vector a row.

    Attributes:
        backbone: The Hugging Face model, encoder only.
        family: Names inside the backbone.
        listed: Whether the family is one we list, not worked out from the modules.
        entry: Where forwards begin that are given states; None until `below` was called.
        pooling: How token states become one vector: `cls`, `mean` or `last`.
        out_dim: Width D of the vector.
    """

    def __init__(self, backbone: PreTrainedModel, *, pooling: str | None = None):
        """Wraps a backbone.

        Args:
            backbone: A model of `build_backbone` or `build_backbone_from_config`.
            pooling: `cls`, `mean`, `last`, or None for the family's default.

        Raises:
            CheckpointError: An architecture without a recognisable stack of layers.
        """
        super().__init__()
        if pooling is not None and pooling not in POOLINGS:
            raise ConfigError(
                f"model.hf_text.pooling_mode is {pooling!r}. Allowed: {', '.join(get_args(PoolingMode))}."
            )
        self.backbone = backbone
        listed = family_of(backbone.config.model_type)
        self.listed: bool = listed is not None
        self.entry: Entry | None = None
        self.family: Family = listed or generic_family(backbone)
        self.pooling: str = pooling or self.family.pooling
        self.out_dim: int = backbone.config.hidden_size
        accepted = inspect.signature(backbone.forward).parameters
        # A single segment means there is nothing to tell apart, and id 1 would be out of its table.
        self._takes_segments: bool = "token_type_ids" in accepted and getattr(backbone.config, "type_vocab_size", 0) > 1
        first = self.family.first_position
        self._first_position: int = backbone.config.pad_token_id + 1 if first is None else first
        if self.family.packs:
            register_attention()
            backbone.set_attn_implementation(IMPLEMENTATION)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Pooled states, (B, D) float32. `batch` is padded on the right."""
        packing = self._packing(batch)
        run = partial(self._states, batch, packing)
        if batch.states is None:
            states = run()
        else:
            assert self.entry is not None
            given = in_layout(batch.states, batch.attention_mask, packing)
            words: Any = self.backbone.get_input_embeddings()
            states = run_above(words, list(self.layers().values()), self.entry, given, run)
        if packing is None:
            return POOLINGS[self.pooling](states[batch.attention_mask.bool()], batch.attention_mask.sum(dim=1))
        pooled = POOLINGS[self.pooling](states[0, : packing.real], packing.lengths)
        return pooled[packing.order.argsort()]

    def below(self, batch: Batch, layer: int) -> torch.Tensor:
        """What enters a layer, counted from 0: (T, D) of the tokens without padding, one row after another.

        Batches with `states` enter that layer from here on.

        Args:
            batch: Padded on the right.
            layer: From 1.
        """
        packing = self._packing(batch)
        states, self.entry = run_below(list(self.layers().values()), layer, partial(self._states, batch, packing))
        return row_after_row(states, batch.attention_mask, packing)

    def _packing(self, batch: Batch) -> Packing | None:
        return pack(batch.attention_mask, self.backbone.config.num_attention_heads) if self.family.packs else None

    def _states(self, batch: Batch, packing: Packing | None) -> torch.Tensor:
        """The backbone's last states; over the rows' tokens one after another, where nothing is computed for padding, if packed."""
        if packing is None:
            return self.backbone(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, **self._segments(batch, None)
            ).last_hidden_state
        return self.backbone(
            input_ids=batch.input_ids.flatten()[packing.tokens].unsqueeze(0),
            position_ids=(packing.positions + self._first_position).unsqueeze(0),
            # A mask of four dimensions is handed through as it is; any other would be expanded to (T, T).
            attention_mask=torch.zeros(1, 1, 1, 1, device=batch.input_ids.device),
            packing=packing,
            **self._segments(batch, packing),
        ).last_hidden_state

    def _segments(self, batch: Batch, packing: Packing | None) -> dict[str, torch.Tensor]:
        if not self._takes_segments or batch.token_type_ids is None:
            return {}
        segments = batch.token_type_ids
        return {"token_type_ids": segments if packing is None else segments.flatten()[packing.tokens].unsqueeze(0)}

    def layers(self) -> dict[str, nn.Module]:
        """The transformer layers by their name in the backbone, from the input up."""
        stack = self.backbone.get_submodule(self.family.layers)
        return {f"{self.family.layers}.{index}": layer for index, layer in enumerate(stack.children())}

    def layer_ids(self) -> dict[str, int]:
        """Depth of every parameter, by its name in this encoder, as AutoMM numbers it.

        The norm after the layers is 0, as the head is; the last of L layers is 1, the first is L; embeddings and all
        else that the layers are fed from (relative position tables, projections of the embeddings) are L + 1.
        """
        depths = {f"backbone.{name}.": len(self.layers()) - index for index, name in enumerate(self.layers())}
        if self.family.final_norm is not None:
            depths[f"backbone.{self.family.final_norm}."] = 0
        before = len(self.layers()) + 1

        def depth(parameter: str) -> int:
            return next((depth for prefix, depth in depths.items() if parameter.startswith(prefix)), before)

        return {name: depth(name) for name, _ in self.named_parameters()}

    def disable_dropout(self) -> None:
        """Turns off every dropout of the backbone, also where a module keeps its rate as a plain number."""
        turn_off_dropout(self.backbone)

    def enable_gradient_checkpointing(self, *, offload: bool = False) -> None:
        """Recomputes the activations of every layer in the backward pass; the same gradients, whatever the architecture.

        Call it when dropouts and adapters are as they are to be.

        Args:
            offload: Keep the inputs of the layers in the host's memory, where the model is on another device.
        """
        tidy = Tidier()
        for layer in self.layers().values():
            # Where a layer that is not listed keeps its rates of dropout is anyone's guess.
            draws = not self.listed or has_dropout(layer)
            recompute(layer, offload=offload, draws=draws, tidy=tidy)
