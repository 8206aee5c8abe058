"""A model and rows go in; the rows with what the frozen layers beneath all that trains make of them come out.

Rows are batched as for a prediction, by length and content alone. So what is kept of a row is the same whenever it is computed,
and a fit that goes on after an interruption goes on with the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from featherfit.config.schema import Config
from featherfit.data.batch import inference_plan, load_batches
from featherfit.data.dataset import Dataset
from featherfit.data.row_states import RowStates, keep_states
from featherfit.errors import DataError
from featherfit.memory import released_now_and_then
from featherfit.models.build import MultiModalModel
from featherfit.models.prefix import layers_beneath
from featherfit.models.recompute import has_dropout
from featherfit.training.device import Device
from featherfit.training.oom import TokenLimit, fits, until_it_fits
from featherfit.types import Batch

IN_MEMORY = 1 << 29
"""Bytes of states that are kept in memory; more go to disk."""
WORTH_IT = 0.05
"""Share of the time in layers that has to be saved for `optim.prefix_cache=auto` to keep them."""


def why_not(model: MultiModalModel, config: Config, device: Device) -> str | None:
    """Why nothing can be kept, as a sentence; None if it can."""
    if model.encoder is None:
        return "the table is read without the text encoder."
    encoder, ranks = model.text, device.ranks
    beneath = layers_beneath(encoder)
    if beneath == 0:
        ids, deepest = encoder.layer_ids(), len(encoder.layers())
        lowest = next(name for name, p in encoder.named_parameters() if p.requires_grad and ids[name] >= deepest)
        return f"{lowest.removeprefix('backbone.')!r} trains, and no layer lies beneath it. Set optim.top_layers."
    if config.model.hf_text.text_trivial_aug_maxscale > 0:
        return "model.hf_text.text_trivial_aug_maxscale changes the texts from epoch to epoch."
    if ranks.world > 1:
        return f"each of the {ranks.world} processes would need what the others compute."
    if not encoder.listed:
        return "where layers of this architecture draw random numbers is not known."
    kept = {id(part) for layer in list(encoder.layers().values())[beneath:] for part in layer.modules()}
    if has_dropout(encoder, apart=kept):
        return "frozen layers drop numbers at random. Set model.hf_text.dropout=off."
    return None


def keeps_states(model: MultiModalModel, config: Config, device: Device, visits: float) -> bool:
    """Whether `optim.prefix_cache` has states kept where every row is trained on so many times."""
    wanted = config.optim.prefix_cache
    if wanted == "off" or why_not(model, config, device) is not None:
        return False
    return wanted == "on" or share_saved(model, visits) >= WORTH_IT


def share_saved(model: MultiModalModel, visits: float) -> float:
    """Share of the time in layers that is saved where every row is trained on so many times.

    A frozen layer costs a forward, one above a forward and the backward pass of its input, which are products of the same size.
    """
    layers, beneath = len(model.text.layers()), layers_beneath(model.text)
    once = beneath + 2 * (layers - beneath)
    return max(0.0, (visits - 1) * beneath / (visits * once))


def with_states(
    model: MultiModalModel, dataset: Dataset, *, tokens: int, pad_id: int, device: Device, in_memory: int, folder: Path
) -> Dataset:
    """The rows with the states that enter the lowest layer in which anything trains.

    Args:
        model: On `device`; left in evaluation mode. Its text encoder takes such states from here on.
        dataset: Rows that are not changed from epoch to epoch.
        tokens: Most tokens per forward.
        pad_id: Token to pad with.
        device: Where to compute.
        in_memory: Most bytes to keep in memory.
        folder: Where to keep more.

    Raises:
        StorageError: There is no room on the disk.
        DataError: Memory does not suffice for a single row.
    """
    model.eval()
    texts = replace(dataset, labels=None, weights=None, slices=None, parts={}, augment=None)
    plan = inference_plan(texts.rows, tokens, padded=model.padded)
    lengths = texts.rows.lengths
    total = int(sum(lengths[rows].sum() for rows in plan.batches))
    parts = _computed(model, texts, plan.batches, tokens=tokens, pad_id=pad_id, device=device)
    kept = keep_states(parts, lengths, total, in_memory=in_memory, folder=folder)
    states = RowStates(kept.flat, kept.file, kept.starts[plan.same_as], lengths)
    return replace(dataset, rows=replace(dataset.rows, states=states))


def _computed(
    model: MultiModalModel, texts: Dataset, plan: list[np.ndarray], *, tokens: int, pad_id: int, device: Device
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Rows and their states, batch by batch; in smaller forwards where memory does not suffice."""
    layer = layers_beneath(model.text)
    remedy = "A smaller env.inference_batch_size_ratio or env.per_gpu_batch_size does so from the first row."
    limit = TokenLimit(tokens, texts, pad_id, padded=model.padded, remedy=remedy)

    def compute(batch: Batch) -> list[tuple[np.ndarray, torch.Tensor]]:
        found = []
        for part in limit.within([batch]):
            with fits(part), device.inference():
                states = model.text.below(part.to(device.place), layer).cpu()
            found.append((part.rows.numpy(), states.clone()))
        return found

    def make_room(batch: Batch) -> None:
        if len(batch) == 1:
            raise DataError(
                f"Memory does not suffice for the row with index {texts.index[int(batch.rows[0])]!r} alone, of "
                f"{batch.input_ids.shape[1]} tokens. Shorten its text, or fit with a smaller model.hf_text.max_text_len."
            )
        limit.lower(batch, "The frozen layers")

    for batch in released_now_and_then(load_batches(texts.rows, plan, pad_id)):
        yield from until_it_fits(partial(compute, batch), make_room)
