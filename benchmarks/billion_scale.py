"""Memory and time of fitting a model of 1.2 billion parameters, by how its frozen matrices are kept.

    python benchmarks/billion_scale.py FOLDER [--precisions bfloat16 int8 int4] [--steps 4] [--scratch DIR] [--json FILE]

FOLDER holds `en_train.tsv` with the columns `label` and `text`. The model has the architecture of flan-t5-xl's encoder at
full size and random weights, since only what it takes is of interest; it is written to the scratch folder in bfloat16, a
layer at a time, and takes 2.5 GB there. Its tokenizer is trained on the given texts.

Every precision is fitted in a process of its own, with `ia3_bias`, gradient checkpointing and one row of `--tokens` tokens
a step. The peak is the process's highest resident set (VmHWM), from its start to the saved artifact, pages mapped from the
weights' files included; seconds per step are a median without the first. `forecast` is what `predictor.plan` said in a
process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from memory_use import peak_mb

XL_ENCODER = {
    "model_type": "t5",
    "d_model": 2048,
    "d_kv": 64,
    "num_heads": 32,
    "d_ff": 5120,
    "num_layers": 24,
    "feed_forward_proj": "gated-gelu",
    "vocab_size": 32128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
}
PRECISIONS = ("bfloat16", "int8", "int4")
TRAIN_ROWS, TUNING_ROWS = 8, 2
PIECES = 8000


def write_checkpoint(folder: Path, texts: list[str]) -> None:
    """Config, tokenizer, and random weights in shards of one layer, so that never more than one is in memory."""
    from featherfit.models.backbone import build_backbone_from_config

    model = build_backbone_from_config(XL_ENCODER, device="meta")
    model.config.save_pretrained(folder)
    write_tokenizer(folder, texts)
    write_weights(folder, dict(model.named_parameters()))


def write_weights(folder: Path, parameters: dict[str, Any]) -> None:
    """Matrices with a variance of one over their inputs, which keeps states at their size; vectors of ones."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)

    def drawn(name: str, shape: Any) -> torch.Tensor:
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bfloat16)
        size = 1.0 if name.startswith("shared") else shape[1] ** -0.5
        return torch.empty(shape, dtype=torch.bfloat16).normal_(0, size, generator=generator)

    shards = [list(names) for _, names in itertools.groupby(parameters, key=lambda name: name.split(".")[:3])]
    where: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: drawn(name, parameters[name].shape) for name in names}, folder / file, {"format": "pt"})
        where |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 2 * sum(p.numel() for p in parameters.values())}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_tokenizer(folder: Path, texts: list[str]) -> None:
    """A small WordPiece vocabulary of the texts, with T5's padding and end."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=PIECES, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def long_rows(table: pd.DataFrame, tokens: int) -> pd.DataFrame:
    """A few rows of at least `tokens` words: texts of one label after another, so that all are cut to one length."""
    groups = [itertools.cycle(group) for _, group in table.groupby("label")["text"]]
    labels = sorted(table["label"].unique())

    def long_text(texts: Iterator[str]) -> str:
        words: list[str] = []
        while len(words) < tokens:
            words += next(texts).split()
        return " ".join(words)

    rows = [
        (labels[row % len(labels)], long_text(groups[row % len(labels)])) for row in range(TRAIN_ROWS + TUNING_ROWS)
    ]
    return pd.DataFrame(rows, columns=["label", "text"])


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Dotted keys of the run."""
    return {
        "model.hf_text.checkpoint_name": str(options.folder),
        "model.hf_text.base_precision": options.precision,
        "model.hf_text.gradient_checkpointing": True,
        "model.hf_text.max_text_len": options.tokens,
        "optim.peft": "ia3_bias",
        "optim.max_steps": options.steps,
        "optim.skip_final_val": True,
        "optim.val_check_interval": 1000,
        "env.batch_size": 1,
        "env.per_gpu_batch_size": 1,
        "env.inference_batch_size_ratio": 1.0,
    }


def tables(options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to train and to validate on."""
    table = pd.read_csv(options.folder / "rows.tsv", sep="\t", keep_default_na=False)
    return table[TUNING_ROWS:], table[:TUNING_ROWS]


def forecast(options: argparse.Namespace) -> dict[str, Any]:
    """What the planner says of the same run, without reading a weight."""
    from featherfit import MultiModalPredictor

    train, tuning = tables(options)
    predictor = MultiModalPredictor(label="label", verbosity=0)
    plan = predictor.plan(train, tuning_data=tuning, hyperparameters=settings_of(options))
    return {"forecast_mb": plan.peak / 1e6, "forecast_step_s": plan.seconds_per_step, "forecast_peak_mb": peak_mb()}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """One fit in this process; its figures."""
    from featherfit import MultiModalPredictor
    from featherfit.training import loop

    seconds: list[float] = []
    train = loop.train

    def watched(*args: Any, **named: Any) -> Iterator[Any]:
        for report in train(*args, **named):
            seconds.append(report.seconds)
            yield report

    loop.train = watched  # type: ignore[assignment]
    train_rows, tuning_rows = tables(options)
    folder = options.scratch / options.precision
    predictor = MultiModalPredictor(label="label", path=folder, verbosity=0)
    predictor.fit(train_rows, tuning_data=tuning_rows, hyperparameters=settings_of(options))
    files = [file for file in folder.rglob("*") if file.is_file()]
    steps = [after - before for before, after in itertools.pairwise(seconds)]
    assert predictor._fitted is not None
    return {
        "precision": options.precision,
        "trainable": predictor.trainable_parameters,
        "total": predictor.total_parameters,
        "model_mb": predictor.model_size,
        "peak_mb": peak_mb(),
        "first_step_s": seconds[0],
        "step_s": median(steps) if steps else seconds[0],
        "artifact_kb": sum(file.stat().st_size for file in files) / 1e3,
        "products": predictor._fitted.device.precision,
    }


def in_own_process(what: str, precision: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one precision: `measured`, or the `forecast`."""
    command = [sys.executable, __file__, str(folder), "--worker", what, "--precision", precision]
    more = ["--scratch", str(folder.parent), "--steps", str(options.steps), "--tokens", str(options.tokens)]
    done = subprocess.run([*command, *more], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


WORKERS = {"measured": measured, "forecast": forecast}


def show(results: list[dict[str, Any]], tokens: int) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"flan-t5-xl's encoder, random weights, ia3_bias, one row of {tokens} tokens a step")
    titles = ("kept in", "trained", "parameters", "model, MB", "forecast, MB", "peak, MB", "s/step", "artifact, KB")
    for title in titles:
        table.add_column(title, justify="left" if title == "kept in" else "right")
    for each in results:
        sizes = [f"{each[name]:,.0f}" for name in ("model_mb", "forecast_mb", "peak_mb")]
        counts = [f"{each['trainable']:,}", f"{each['total']:,}", *sizes]
        table.add_row(each["precision"], *counts, f"{each['step_s']:.1f}", f"{each['artifact_kb']:,.0f}")
    Console(width=120).print(table)


def main() -> None:
    """Writes the model, fits it once per precision, and shows what that took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), help="values of base_precision")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512, help="length of every row")
    parser.add_argument("--scratch", type=Path, help="a folder with 2.5 GB to spare; default: the system's")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(WORKERS[options.worker](options)))
        return
    if not (options.folder / "en_train.tsv").is_file():
        sys.exit(f"{options.folder} has no en_train.tsv.")
    given = pd.read_csv(options.folder / "en_train.tsv", sep="\t", keep_default_na=False)[["label", "text"]]
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="billion-scale-") as folder:
        checkpoint = Path(folder) / "checkpoint"
        checkpoint.mkdir()
        write_checkpoint(checkpoint, given["text"].tolist())
        long_rows(given, options.tokens).to_csv(checkpoint / "rows.tsv", sep="\t", index=False)
        results = []
        for precision in options.precisions:
            found, planned = (in_own_process(what, precision, checkpoint, options) for what in WORKERS)
            results.append({**found, **planned})
            show(results[-1:], options.tokens)
    show(results, options.tokens)
    if options.json:
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "tokens": options.tokens}
        options.json.write_text(json.dumps({"results": results, **machine}, indent=2) + "\n")


if __name__ == "__main__":
    main()
