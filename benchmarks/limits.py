"""How much of the machine's matrix rate training and prediction reach, and where the rest of the time goes.

    python benchmarks/limits.py FOLDER [--checkpoint NAME_OR_DIR ...] [--batch-size N ...] [--forward N ...] [--free-attention] [--json FILE] [--plot FILE]

FOLDER holds `en_train.tsv` and `<language>_test.tsv` with the columns `label` and `text`. A checkpoint is anything `fit`
takes, or `base`: a BERT of base size with random weights and the vocabulary of multilingual-e5-small.

The machine's rate is that of a product of two 2048 x 2048 matrices, a median, measured before and after every step and
prediction that is compared with it, since others may share the machine; shares are medians, too. What 2,048 tokens reach with the
model's own weights, brought into the blocked order beforehand, stands beside it and can be higher. Floating-point operations are
counted for the tokens alone, not for padding, norms or anything else. `--free-attention` shows what no kernel for attention
could exceed: everything is measured again with the sum of queries, keys and values in its place, and its operations counted all
the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice, product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from measure import E5_SMALL, WARM_STEPS, Setup, Turn, Work, set_up, shape_rates, square_rate, stopwatch, turns
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from featherfit.data.dataset import Dataset
from featherfit.models import attention

BASE = "base"
BASE_ARCHITECTURE = {
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 250_037,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "pad_token_id": 1,
}

GROUPS: dict[str, frozenset[str]] = {
    "linear products": frozenset(
        {"aten::mm", "aten::addmm", "aten::addmm_", "aten::linear", "aten::mkldnn_linear", "mkldnn::_linear_pointwise"}
        | {"mkldnn::_reorder_linear_weight"}
    ),
    "attention products": frozenset({"aten::bmm", "aten::baddbmm"}),
    "softmax": frozenset({"aten::_softmax", "aten::_softmax_backward_data", "aten::bernoulli_"}),
    "activation": frozenset(
        {f"aten::{name}{end}" for name in ("gelu", "silu", "tanh", "relu", "threshold") for end in ("", "_backward")}
    ),
    "norms": frozenset({"aten::native_layer_norm", "aten::native_layer_norm_backward", "aten::rsqrt"}),
    "copies and gathers": frozenset(
        {f"aten::{name}" for name in ("copy_", "index_select", "index_fill_", "index", "index_put_", "gather", "cat")}
        | {f"aten::{name}" for name in ("fill_", "zero_", "embedding", "masked_fill_", "repeat_interleave", "_to_copy")}
        | {"aten::_index_put_impl_", "aten::segment_reduce", "aten::_segment_reduce_backward"}
    ),
    "sums and factors": frozenset(
        {f"aten::{name}{end}" for name in ("add", "mul", "sub", "div", "sum", "addcmul") for end in ("", "_")}
    ),
    "optimiser": frozenset(
        {"aten::_fused_adamw_", "aten::_foreach_norm", "aten::linalg_vector_norm", "aten::_foreach_mul_"}
        | {"aten::_foreach_lerp_", "Optimizer.step#AdamW.step", "Optimizer.zero_grad#AdamW.zero_grad"}
    ),
}
"""Operations of PyTorch by what they are for."""
OTHER = "interpreter and the rest"
"""Our own functions and transformers', autograd's engine, allocations, views: what computes nothing."""


def group_of(operation: str) -> str:
    """The group an operation's own time belongs to."""
    return next((group for group, operations in GROUPS.items() if operation in operations), OTHER)


def where_time_goes(call: Callable[[], Any]) -> dict[str, float]:
    """Share of the time of a call in every group, 1 in all. The profiler itself slows small operations down."""
    with stopwatch() as taken, profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    seconds = dict.fromkeys([*GROUPS, OTHER], 0.0)
    for event in found.key_averages():
        seconds[group_of(event.key)] += event.self_cpu_time_total / 1e6
    total = max(taken[0], sum(seconds.values()))
    seconds[OTHER] += total - sum(seconds.values())  # between operations
    return {group: value / total for group, value in seconds.items()}


def measured_training(setup: Setup, dataset: Dataset, budget: float) -> dict[str, Any]:
    """Steps of training for about `budget` seconds, then a few under the profiler."""
    work, lengths = Work.of(setup.model.text), dataset.rows.lengths
    reports, rows = setup.steps(dataset), setup.rows_of_steps(dataset)
    for _ in zip(range(WARM_STEPS), reports, rows, strict=False):
        pass

    def step() -> tuple[int, float]:
        next(reports)
        own = lengths[next(rows)]
        return int(own.sum()), work.flops(own, training=True)

    found = turns(step, setup.dtype, budget)
    few = max(1, round(1.5 / median(turn.seconds for turn in found)))
    groups = where_time_goes(lambda: list(islice(reports, few)))
    return figures("training", found) | {"steps": len(found), "groups": groups}


def measured_prediction(setup: Setup, dataset: Dataset, what: str) -> dict[str, Any]:
    """Three predictions of all rows, after one that is not counted."""
    lengths = distinct_lengths(dataset)
    computed = int(lengths.sum()), Work.of(setup.model.text).flops(lengths, training=False)

    def predict() -> tuple[int, float]:
        setup.predict(dataset)
        return computed

    predict()
    found = turns(predict, setup.dtype, budget=0)
    seconds = median(turn.seconds for turn in found)
    return figures(what, found) | {"rows_per_s": len(dataset) / seconds}


def distinct_lengths(dataset: Dataset) -> np.ndarray:
    """Tokens of the rows that are computed: of equal ones, one."""
    ids = {row.tobytes(): length for row, length in zip(dataset.rows.ids, dataset.rows.lengths, strict=True)}
    return np.array(list(ids.values()), dtype=np.int64)


def figures(what: str, found: list[Turn]) -> dict[str, Any]:
    """What measurements of one thing come to: medians."""
    return {
        "what": what,
        "tokens_per_s": median(turn.tokens / turn.seconds for turn in found),
        "gflops": median(turn.flops / turn.seconds for turn in found) / 1e9,
        "machine_gflops": median(turn.rate for turn in found) / 1e9,
        "share": median(turn.share for turn in found),
    }


@contextmanager
def free_attention() -> Iterator[None]:
    """A block in which attention on a CPU is a sum of its inputs, which costs next to nothing and has gradients."""
    real = attention._by_products
    attention._by_products = lambda q, k, v, settings: q + k + v
    try:
        yield
    finally:
        attention._by_products = real


def read(folder: Path, name: str, rows: int) -> pd.DataFrame:
    """At most `rows` rows of a file, drawn with a fixed seed."""
    table = pd.read_csv(folder / f"{name}.tsv", sep="\t", keep_default_na=False)[["label", "text"]]
    return table.sample(min(rows, len(table)), random_state=123).reset_index(drop=True)


def build(checkpoint: str, frame: pd.DataFrame, batch_size: int, forward: int) -> Setup:
    """The model of that name, trained with so many rows a step and a forward."""
    sizes: dict[str, Any] = {"env__batch_size": batch_size, "env__per_gpu_batch_size": forward}
    if checkpoint == BASE:
        torch.manual_seed(0)
        return set_up(frame, E5_SMALL, architecture=BASE_ARCHITECTURE, **sizes)
    return set_up(frame, checkpoint, **sizes)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All measurements."""
    frame = read(options.folder, "en_train", options.rows)
    languages = sorted(path.name.removesuffix("_test.tsv") for path in options.folder.glob("*_test.tsv"))
    models = {}
    for checkpoint in options.checkpoint:
        setup = build(checkpoint, frame, options.batch_size[0], options.forward[0])
        rates = {
            name: {"square_gflops": square_rate(dtype) / 1e9, "best_shape_gflops": max(by_shape.values()) / 1e9}
            | {"by_shape_gflops": {shape: rate / 1e9 for shape, rate in by_shape.items()}}
            for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32))
            for by_shape in [shape_rates(setup.model.text, dtype)]
        }
        found = measurements(checkpoint, frame, options, languages)
        if options.free_attention:
            with free_attention():
                free = measurements(checkpoint, frame, options, languages)
            found += [each | {"what": f"{each['what']}, free attention"} for each in free]
        models[checkpoint] = {"precision": setup.device.precision, "rates": rates, "measured": found}
        show(console, checkpoint, models[checkpoint])
    return {
        "models": models,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    } | {
        "machine": platform.machine(),
        "rows": len(frame),
    }


def measurements(
    checkpoint: str, frame: pd.DataFrame, options: argparse.Namespace, languages: list[str]
) -> list[dict[str, Any]]:
    """Training with every size of batch and of forward, and prediction in every language and of all of them at once."""
    found = []
    for batch_size, forward in product(options.batch_size, options.forward):
        setup = build(checkpoint, frame, batch_size, forward)
        measured = measured_training(setup, setup.dataset(frame), options.seconds)
        found.append(measured | {"what": f"training, {batch_size} a step, per_gpu_batch_size {forward}"})
    return [*found, *predictions(setup, options, languages)]


def predictions(setup: Setup, options: argparse.Namespace, languages: list[str]) -> Iterator[dict[str, Any]]:
    """One measurement per language and one of all, and the groups of the first."""
    frames = {name: read(options.folder, f"{name}_test", options.predict_rows) for name in languages}
    frames["all languages"] = pd.concat(frames.values(), ignore_index=True)
    for place, (name, frame) in enumerate(frames.items()):
        dataset = setup.dataset(frame)
        measured = measured_prediction(setup, dataset, f"prediction, {name}")
        if place == 0:
            measured["groups"] = where_time_goes(partial(setup.predict, dataset))
        yield measured


def show(console: Console, checkpoint: str, model: dict[str, Any]) -> None:
    """Three tables for one model."""
    rates = Table(title=f"{checkpoint}: matrix rates, GFLOP/s (products in {model['precision']})")
    for title in ("type", "2048 x 2048", "best of the model's shapes"):
        rates.add_column(title, justify="left" if title == "type" else "right")
    for name, rate in model["rates"].items():
        rates.add_row(name, f"{rate['square_gflops']:,.0f}", f"{rate['best_shape_gflops']:,.0f}")
    reached = Table(title=f"{checkpoint}: what is reached")
    for title in ("", "tokens/s", "rows/s", "GFLOP/s", "machine", "share"):
        reached.add_column(title, justify="right" if title else "left")
    for each in model["measured"]:
        rows = f"{each['rows_per_s']:,.0f}" if "rows_per_s" in each else ""
        numbers = [f"{each['tokens_per_s']:,.0f}", rows, f"{each['gflops']:,.0f}", f"{each['machine_gflops']:,.0f}"]
        reached.add_row(each["what"], *numbers, f"{each['share']:.0%}")
    profiled = [each for each in model["measured"] if "groups" in each]
    groups = Table(title=f"{checkpoint}: where the time goes")
    groups.add_column("")
    for each in profiled:
        groups.add_column(each["what"], justify="right")
    for group in (*GROUPS, OTHER):
        groups.add_row(group, *(f"{each['groups'][group]:.1%}" for each in profiled))
    for table in (rates, reached, groups):
        console.print(table)


def plot(result: dict[str, Any], file: Path) -> None:
    """A stacked bar for everything that was profiled: time per group, in all 1."""
    from matplotlib.figure import Figure

    bars = [
        (f"{checkpoint.rpartition('/')[2]}\n{each['what']}", each)
        for checkpoint, model in result["models"].items()
        for each in model["measured"]
        if "groups" in each
    ]
    figure = Figure(figsize=(10, 1.2 + 0.75 * len(bars)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(bars))
    for group in (*GROUPS, OTHER):
        shares = np.array([100 * each["groups"][group] for _, each in bars])
        axes.barh(range(len(bars)), shares, left=left, label=group)
        left += shares
    for place, (_, each) in enumerate(bars):
        axes.plot([100 * each["share"]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=2)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the time; the line is what the products would take at the machine's rate")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25 if len(bars) < 4 else -0.12), ncols=4, frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    """Measures, and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", nargs="+", default=[E5_SMALL, BASE], help="names, folders, or base")
    parser.add_argument("--batch-size", nargs="+", type=int, default=[32, 128], help="rows of a training step")
    parser.add_argument("--forward", nargs="+", type=int, default=[8, 32], help="env.per_gpu_batch_size in training")
    parser.add_argument("--rows", type=int, default=1000, help="training rows")
    parser.add_argument("--predict-rows", type=int, default=100, help="rows per language")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a training measurement")
    parser.add_argument("--free-attention", action="store_true", help="again with attention that costs nothing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if not (options.folder / "en_train.tsv").is_file():
        sys.exit(f"{options.folder} has no en_train.tsv.")
    result = run(options, Console(width=120))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if options.plot:
        plot(result, options.plot)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
