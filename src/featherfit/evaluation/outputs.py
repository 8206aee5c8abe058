"""A model and a dataset go in; logits or embeddings of every row come out, in the table's order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from featherfit.data.batch import inference_plan, load_batches
from featherfit.data.dataset import Dataset
from featherfit.errors import DataError
from featherfit.evaluation.metrics import score
from featherfit.evaluation.reading import Reading
from featherfit.memory import released_now_and_then
from featherfit.models.build import MultiModalModel
from featherfit.training.device import Device
from featherfit.training.oom import TokenLimit, fits, until_it_fits
from featherfit.types import Batch


def model_outputs(
    model: MultiModalModel,
    dataset: Dataset,
    *,
    tokens: int,
    pad_id: int,
    device: Device,
    embeddings: bool = False,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Runs the model without gradients.

    Ranks share the rows, and each has all results. Rows are batched by length and content, so a row's result does not
    depend on where it stands in the table, and rows with the same tokens are computed once. A forward that memory does not
    suffice for is done again in smaller ones, and those after it are as small.

    Args:
        model: On `device`; left in evaluation mode.
        dataset: Any number of rows.
        tokens: Most tokens per forward.
        pad_id: Token to pad with.
        device: Where to compute.
        workers: Processes that assemble batches ahead; 0 for none.
        embeddings: Give pooled embeddings instead of logits.
        progress: Called with the number of rows done after each batch; those that equal one of it count.

    Returns:
        Logits (rows, C) or embeddings (rows, D), float32.

    Raises:
        DataError: Memory does not suffice for a single row.
    """
    model.eval()
    width = model.out_dim if embeddings else model.outputs
    result = np.zeros((len(dataset), width), dtype=np.float32)
    run = model.embed if embeddings else model
    padded, ranks = model.padded, device.ranks
    most = ranks.most_tokens(tokens, int(dataset.lengths.sum()))
    plan = inference_plan(dataset.rows, most, padded=padded, parts=dataset.parts)
    copies = np.bincount(plan.same_as, minlength=len(dataset))
    remedy = "A smaller env.inference_batch_size_ratio or env.per_gpu_batch_size does so from the first row."
    limit = TokenLimit(tokens, dataset, pad_id, padded=padded, remedy=remedy)

    def compute(batch: Batch) -> None:
        for part in limit.within([batch]):
            with fits(part), device.inference():
                result[part.rows.numpy()] = run(part.to(device.place)).float().cpu().numpy()

    def make_room(batch: Batch) -> None:
        if len(batch) == 1:
            raise DataError(
                f"Memory does not suffice for the row with index {dataset.index[int(batch.rows[0])]!r} alone, of "
                f"{batch.input_ids.shape[1]} tokens. Shorten its text, or fit with a smaller model.hf_text.max_text_len."
            )
        ranks.refuse_to_repeat()
        limit.lower(batch, "Prediction")

    batches = load_batches(dataset.rows, ranks.share(plan.batches), pad_id, workers=workers, parts=dataset.parts)
    for batch in released_now_and_then(batches):
        until_it_fits(partial(compute, batch), make_room)
        if progress is not None:
            progress(int(copies[batch.rows.numpy()].sum()))
    return ranks.joined(result, plan.batches, device.place)[plan.same_as]


def score_outputs(
    names: list[str],
    logits: np.ndarray,
    labels: np.ndarray,
    reading: Reading,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Metrics of a model's outputs.

    Args:
        names: Standard names of metrics.
        logits: (rows, outputs).
        labels: What `reading.label.encode` gave.
        reading: How logits are read; numbers are scored in the label's own unit.
        weights: Of rows, (rows,).
    """
    rows = reading.predicted(logits, labels, weights)
    return {name: score(name, rows) for name in names}
