"""What a plan forecasts beside what a fit takes: peak memory and time, every run in a process of its own.

    python benchmarks/planner.py [--only TEXT ...] [--json FILE]

Encoder (BERT), T5 and decoder (Llama) with random weights in three sizes, `lora` and full fine-tuning, with and without
gradient checkpointing, in bfloat16 and float32: 36 runs, or those whose name contains every `--only`. Measured is the most
the process had in memory (VmHWM, so Linux only), libraries included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

SIZES: dict[str, tuple[int, int, int]] = {
    "small": (384, 6, 30_000),
    "deep": (256, 24, 8_000),
    "wide": (640, 8, 30_000),
}
"""Width, layers, words."""
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
SETTINGS = (("lora", False, "bf16"), ("lora", True, "32"), (None, False, "32"), (None, True, "bf16"))
"""`optim.peft`, checkpointing and precision: half of all combinations, with every pair of two of them."""
ROWS, BATCH = 256, 32
STEPS = {"small": 10, "deep": 8, "wide": 4}


def architecture(family: str, size: str) -> dict[str, Any]:
    """Contents of `config.json`."""
    width, layers, words = SIZES[size]
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    shared = {
        "vocab_size": words,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
    }
    if family == "t5":
        t5 = {"d_model": width, "d_kv": 64, "d_ff": 4 * width, "num_layers": layers, "num_heads": width // 64}
        return {"model_type": "t5", "vocab_size": words, **t5, "pad_token_id": 0, "eos_token_id": 2}
    if family == "decoder":
        inner = width * 8 // 3 // 64 * 64
        return {"model_type": "llama", **shared, "num_key_value_heads": width // 64, "intermediate_size": inner, **ids}
    return {"model_type": "bert", **shared, "intermediate_size": 4 * width, "max_position_embeddings": 512, **ids}


def write_checkpoint(folder: Path, family: str, size: str) -> None:
    """Random weights in safetensors, and a tokenizer whose words are `w5`, `w6`, ..."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from featherfit.models.backbone import build_backbone_from_config

    torch.manual_seed(0)
    build_backbone_from_config(architecture(family, size)).save_pretrained(folder)
    words = [*SPECIAL, *(f"w{number}" for number in range(len(SPECIAL), SIZES[size][2]))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name[1:-1].lower()}_token": name for name in SPECIAL} | {"eos_token": "[SEP]"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def table(words: int) -> Any:
    """Rows of 8 to 250 words, 60 or so in the mean, and a label."""
    import pandas as pd

    draw = random.Random(0)
    texts = []
    for _ in range(ROWS):
        length = min(250, max(8, round(draw.lognormvariate(3.9, 0.6))))
        texts.append(" ".join(f"w{draw.randrange(5, words)}" for _ in range(length)))
    return pd.DataFrame({"text": texts, "label": [row % 2 for row in range(ROWS)]})


def settings_of(run: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys of a run."""
    return {
        "model.hf_text.checkpoint_name": run["checkpoint"],
        "model.hf_text.gradient_checkpointing": run["checkpointing"],
        "optim.peft": run["peft"],
        "optim.max_steps": STEPS[run["size"]],
        "env.batch_size": BATCH,
        "env.precision": run["precision"],
        **run.get("more", {}),
    }


def work(what: str, run: dict[str, Any]) -> dict[str, Any]:
    """Plans or fits in this process."""
    from featherfit import MultiModalPredictor
    from featherfit.planning.machine import process_memory

    folder = Path(tempfile.mkdtemp())
    predictor = MultiModalPredictor(label="label", path=folder / "artifact", verbosity=0)
    frame, given = table(SIZES[run["size"]][2]), settings_of(run)
    started = time.monotonic()
    if what == "plan":
        plan = predictor.plan(frame, hyperparameters=given)
        took = time.monotonic() - started
        return {**plan.to_json(), "took": took, "own_peak": process_memory()[1]}
    from featherfit.training import loop

    times: list[float] = []
    losses: list[float] = []
    plain = loop.train

    def timed(*arguments: Any, **options: Any) -> Any:
        for report in plain(*arguments, **options):
            times.append(report.seconds)
            losses.append(report.loss)
            yield report

    loop.train = timed
    predictor.fit(frame, hyperparameters=given)
    steps = [after - before for before, after in itertools.pairwise(times)]
    artifact = sum(file.stat().st_size for file in (folder / "artifact").rglob("*") if file.is_file())
    return {"peak": process_memory()[1], "seconds_per_step": median(steps), "artifact": artifact, "losses": losses}


def in_process(what: str, run: dict[str, Any]) -> dict[str, Any]:
    """`work` in a new process."""
    command = [sys.executable, __file__, "--work", what, json.dumps(run)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{run}\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def runs(only: list[str]) -> list[dict[str, Any]]:
    """All runs whose name contains every text."""
    found = []
    for family, size, (peft, checkpointing, precision) in itertools.product(
        ("encoder", "t5", "decoder"), SIZES, SETTINGS
    ):
        name = f"{family}-{size}-{peft or 'full'}-{'ckpt' if checkpointing else 'plain'}-{precision}"
        run = {"family": family, "size": size, "peft": peft, "checkpointing": checkpointing, "precision": precision}
        if all(text in name for text in only):
            found.append({"name": name, **run})
    return found


def compare(chosen: list[dict[str, Any]], cache: Path, file: Path | None) -> list[dict[str, Any]]:
    """A line for each run, forecast and measured; those that `file` has already are not run again."""
    lines = json.loads(file.read_text()) if file is not None and file.is_file() else []
    done = {line["run"] for line in lines}
    for run in chosen:
        if run["name"] in done:
            continue
        folder = cache / f"{run['family']}-{run['size']}"
        if not folder.exists():
            write_checkpoint(folder, run["family"], run["size"])
        run = {**run, "checkpoint": str(folder)}
        plan, fit = in_process("plan", run), in_process("fit", run)
        line = {"run": run["name"], "forecast": plan["peak"], "measured": fit["peak"]}
        line |= {"error": plan["peak"] / fit["peak"] - 1, "process": plan["process"], "plan_seconds": plan["took"]}
        line |= {"step_forecast": plan["seconds_per_step"], "step": fit["seconds_per_step"]}
        line |= {"artifact_forecast": plan["artifact"], "artifact": fit["artifact"], "phases": plan["phases"]}
        lines.append(line)
        if file is not None:
            file.write_text(json.dumps(lines, indent=1))
        print(
            f"{line['run']:34} forecast {line['forecast'] / 1e6:7.0f} MB  measured {line['measured'] / 1e6:7.0f} MB  "
            f"{100 * line['error']:+6.1f} %   step {line['step_forecast']:6.2f} s, {line['step']:6.2f} s   "
            f"artifact {line['artifact_forecast'] / 1e6:.3f}, {line['artifact'] / 1e6:.3f} MB   "
            f"plan took {line['plan_seconds']:.1f} s",
            flush=True,
        )
    return lines


def markdown(lines: list[dict[str, Any]]) -> str:
    """The table for the docs, and how many forecasts are near."""
    errors = sorted(abs(line["error"]) for line in lines)
    within = {limit: sum(error <= limit for error in errors) for limit in (0.05, 0.1)}
    rows = [
        f"| {line['run']} | {line['forecast'] / 1e6:.0f} | {line['measured'] / 1e6:.0f} | {100 * line['error']:+.1f} % |"
        for line in lines
    ]
    found = (
        f"{len(errors)} runs: {within[0.05]} within 5 %, {within[0.1]} within 10 %, median {100 * median(errors):.1f} %"
    )
    return "\n".join(["| run | forecast, MB | measured, MB | off by |", "|---|---|---|---|", *rows, "", found])


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="texts that a run's name has to contain")
    parser.add_argument("--cache", type=Path, default=None, help="folder for the checkpoints; default: a temporary one")
    parser.add_argument("--json", type=Path, default=None, help="figures go there; runs that it has are skipped")
    parser.add_argument("--work", nargs=2, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work is not None:
        print(json.dumps(work(given.work[0], json.loads(given.work[1]))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        lines = compare(runs(given.only), given.cache or Path(temporary), given.json)
    print(markdown(lines))


if __name__ == "__main__":
    main()
