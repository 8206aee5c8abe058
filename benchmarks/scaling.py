"""How long `predict_file` takes and how much memory it needs, against the number of rows and against their length.

    python benchmarks/scaling.py [FOLDER] [--rows 1000 10000 ...] [--tokens 8 64 ...] [--columns] [--fit-steps N]
        [--json] [--plot FILE]

FOLDER is a fitted predictor whose text column is called `text`; without one, one is fitted here. Texts are put together
from the demo's own sentences. Every measurement runs in a process of its own, after a warm-up, so that its peak memory
is its own: peak is the highest resident set (VmHWM) from start to end, growth is what prediction added to the
resident set of the loaded and warmed predictor.

With `--columns` every row has a category, a number, a truth value and a date besides its text, and a label. The process then
also reads the whole table and splits it into training and validation rows, as a fit does, before it predicts; its peak
is that of all three. With `--fit-steps N`, a further process fits a predictor to each file for N steps, whole tables being read,
looked through, split and tokenized for that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory_use import peak_mb

FIT_ROWS = 300
WARM_ROWS = 256
PIECE = 50_000
"""Rows of a synthetic file that are made at a time."""
MORE = {
    "read_seconds": "read and split, s", "read_peak_mb": "peak by then, MB", "fit_seconds": "fit, s", "fit_peak_mb": "peak of the fit, MB"
}  # fmt: skip
"""Further columns of the tables, of what was measured."""
SHORT_WORDS = 5
"""Words of a short text, which make about 8 tokens with the two special ones."""


def fit(folder: Path, *, columns: bool) -> Path:
    """A predictor over multilingual-e5-small, trained for one epoch: how well it predicts is of no interest here."""
    import pandas as pd

    from featherfit import MultiModalPredictor
    from featherfit.demo import demo_table

    train = demo_table("en", "train")[["text", "label"]].head(FIT_ROWS)
    if columns:
        train = train[["text"]].assign(**pd.DataFrame(columns_of(len(train), seed=0), index=train.index))
    predictor = MultiModalPredictor(label="label", path=folder, verbosity=1)
    predictor.fit(train, presets="multilingual_e5_small", hyperparameters="optim.max_epochs=1")
    return folder


def sentences() -> list[list[str]]:
    """The words of the demo's English sentences."""
    from featherfit.demo import demo_table

    texts = [text for part in ("train", "test") for text in demo_table("en", part)["text"]]
    cut = (text.replace("! ", ". ").replace("? ", ". ").split(". ") for text in texts)
    return [sentence.split() for sentence in itertools.chain(*cut) if sentence.strip()]


def short_texts(rows: int, seed: int) -> Iterator[str]:
    """Mostly distinct texts: the beginning of one sentence and the end of another."""
    draw, pool = random.Random(seed), sentences()
    for _ in range(rows):
        head = draw.randint(2, SHORT_WORDS - 2)
        yield " ".join([*draw.choice(pool)[:head], *draw.choice(pool)[head - SHORT_WORDS :]])


def long_texts(rows: int, tokens: int, tokens_per_word: float, seed: int) -> Iterator[str]:
    """Texts of about `tokens` tokens, special ones included: sentences in any order, the last one cut."""
    draw, pool = random.Random(seed), sentences()
    words = max(1, round((tokens - 2) / tokens_per_word))
    for _ in range(rows):
        text: list[str] = []
        while len(text) < words:
            text += draw.choice(pool)
        yield " ".join(text[:words])


def columns_of(rows: int, seed: int) -> dict[str, Any]:
    """A category, a number, a truth value and a date for each row, missing now and then, and a label."""
    import numpy as np
    import pandas as pd

    draw = np.random.default_rng(seed)
    gaps = draw.random((3, rows)) < 0.05
    colour = draw.choice([f"shade {place}" for place in range(30)], rows).astype(object)
    colour[gaps[0]] = None
    when = pd.Timestamp("2020-01-01") + pd.to_timedelta(draw.integers(0, 10**8, rows), unit="s")
    price = np.exp(draw.normal(size=rows))
    return {
        "colour": colour.astype(object),
        "price": np.where(gaps[1], np.nan, price),
        "member": draw.random(rows) < 0.5,
        "when": when.where(~gaps[2]),
        "label": np.where(np.log(price) + draw.normal(size=rows) > 0, "dear", "cheap").astype(object),
    }


def write_texts(path: Path, texts: Iterator[str], *, columns: bool) -> None:
    """A Parquet file with the column `text`, and others if asked for, written piece by piece."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for seed in itertools.count():
        piece = list(itertools.islice(texts, PIECE))
        if not piece:
            break
        table = pa.Table.from_pandas(pd.DataFrame({"text": piece, **(columns_of(len(piece), seed) if columns else {})}))
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def read_and_split(source: str) -> tuple[int, int]:
    """Reads a whole Parquet file as a fit would and splits it; the numbers of training and validation rows."""
    from featherfit.data.load import load_table
    from featherfit.data.schema import infer_schema
    from featherfit.data.split import split_holdout

    frame = load_table(source)
    schema = infer_schema(frame, "label")
    train, held = split_holdout(frame, schema, None, seed=0)
    return len(train), len(held)


def measure_here(folder: str, source: str, target: str, chunk_rows: int) -> dict[str, float]:
    """Predicts one file and says what it took. In a process of its own, since a peak never goes down."""
    import pandas as pd
    import pyarrow.parquet as pq

    from featherfit import MultiModalPredictor

    predictor = MultiModalPredictor.load(folder, verbosity=0)
    head: pd.DataFrame = next(pq.ParquetFile(source).iter_batches(WARM_ROWS)).to_pandas()
    tokens = predictor._require().text(head).lengths.mean()
    predictor.predict(head)
    loaded = peak_mb()
    found: dict[str, float] = {}
    if "label" in head.columns:
        started = time.perf_counter()
        found["train_rows"], found["validation_rows"] = read_and_split(source)
        found["read_seconds"], found["read_peak_mb"] = time.perf_counter() - started, peak_mb()
    started = time.perf_counter()
    written = predictor.predict_file(source, target, proba=True, chunk_rows=chunk_rows)
    seconds = time.perf_counter() - started
    peak = peak_mb()
    return {
        "rows": written.rows,
        "distinct": written.computed / written.rows,
        "tokens": float(tokens),
        "seconds": seconds,
        "rows_per_second": written.rows / seconds,
        "peak_mb": peak,
        "growth_mb": peak - loaded,
        **found,
    }


def fit_here(source: str, steps: int) -> dict[str, float]:
    """Fits a predictor to one file for so many steps, with AutoMM's holdout, and says what that took. In its own process."""
    from featherfit import MultiModalPredictor

    settings = {"optim.max_steps": steps, "optim.top_k": 1}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        predictor = MultiModalPredictor(label="label", path=Path(place) / "model", verbosity=0)
        predictor.fit(source, hyperparameters=settings)
        summary = predictor.fit_summary()
    return {"fit_seconds": time.perf_counter() - started, "fit_peak_mb": peak_mb(), "fit_steps": summary["steps"]}


def measure(folder: Path, texts: Iterator[str], options: argparse.Namespace) -> dict[str, float]:
    """`measure_here`, and `fit_here` where that is asked for, each in a new process, on a file of these texts."""
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "source.parquet"
        write_texts(source, texts, columns=options.columns)
        target = str(Path(place) / "target.parquet")
        found = child("--child", str(folder), str(source), target, str(options.chunk_rows))
        if options.fit_steps:
            found |= child("--fit-child", str(source), str(options.fit_steps))
    return found


def child(*words: str) -> dict[str, float]:
    """What this script prints in a process of its own."""
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        sys.exit(f"The measurement failed:\n{done.stderr}")
    return json.loads(done.stdout)


def exponent(sizes: list[float], seconds: list[float]) -> float | None:
    """The b of seconds = a * size ** b, by least squares of the logarithms; None of fewer than two sizes."""
    if len(set(sizes)) < 2:
        return None
    xs, ys = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return covariance / sum((x - mean_x) ** 2 for x in xs)


def tokens_per_word(folder: Path) -> float:
    """Mean over the demo's sentences, for the predictor's own tokenizer."""
    import pandas as pd

    from featherfit import MultiModalPredictor

    pool = sentences()
    frame = pd.DataFrame({"text": [" ".join(words) for words in pool]})
    lengths = MultiModalPredictor.load(folder, verbosity=0)._require().text(frame).lengths
    return float((lengths.sum() - 2 * len(pool)) / sum(map(len, pool)))


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All measurements."""
    by_rows, by_tokens = [], []
    for rows in options.rows:
        by_rows.append(measure(folder, short_texts(rows, seed=rows), options))
        show(by_rows[-1:], f"{rows} rows")
    ratio = tokens_per_word(folder) if options.tokens else 0.0
    for tokens in options.tokens:
        texts = long_texts(options.token_rows, tokens, ratio, seed=tokens)
        by_tokens.append({**measure(folder, texts, options), "wanted_tokens": tokens})
        show(by_tokens[-1:], f"{tokens} tokens")
    return {
        "by_rows": by_rows,
        "by_tokens": by_tokens,
        "exponent_of_rows": exponent([r["rows"] for r in by_rows], [r["seconds"] for r in by_rows]),
        "exponent_of_tokens": exponent([r["tokens"] for r in by_tokens], [r["seconds"] for r in by_tokens]),
        "chunk_rows": options.chunk_rows,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


def show(results: list[dict[str, float]], title: str = "") -> None:
    """A line for each measurement, on stderr while they come, so that stdout stays clean."""
    for result in results:
        line = (
            f"{title:>14} | {result['rows']:>9,} rows | {result['distinct']:6.1%} computed | {result['tokens']:6.1f} tokens"
            f" | {result['seconds']:9.2f} s | {result['rows_per_second']:9.1f} rows/s | peak {result['peak_mb']:7.0f} MB"
            f" | growth {result['growth_mb']:6.0f} MB"
        )
        if "read_seconds" in result:
            line += f" | read and split {result['read_seconds']:.1f} s, peak {result['read_peak_mb']:.0f} MB"
        if "fit_seconds" in result:
            line += f" | fit {result['fit_seconds']:.0f} s, peak {result['fit_peak_mb']:.0f} MB"
        print(line, file=sys.stderr, flush=True)


def table(result: dict[str, Any]) -> str:
    """Both series as Markdown tables, and the exponents."""
    lines = []
    for name, first in (("by_rows", "rows"), ("by_tokens", "tokens")):
        if result[name]:
            more = {key: title for key, title in MORE.items() if key in result[name][0]}
            lines += [
                f"| {' | '.join((first, 'seconds', 'rows/s', 'peak MB', 'growth MB', 'computed', *more.values()))} |",
                f"|{'---:|' * (6 + len(more))}",
                *(
                    f"| {r[first]:,.0f} | {r['seconds']:.2f} | {r['rows_per_second']:.1f} | {r['peak_mb']:.0f} "
                    f"| {r['growth_mb']:.0f} | {r['distinct']:.1%} |{''.join(f' {r[key]:.0f} |' for key in more)}"
                    for r in result[name]
                ),
                "",
            ]
    for name in ("exponent_of_rows", "exponent_of_tokens"):
        if result[name] is not None:
            lines.append(f"seconds grow with {name.split('_')[-1]} ** {result[name]:.3f}")
    return "\n".join(lines)


def plot(result: dict[str, Any], target: Path) -> None:
    """Seconds and peak memory against rows and against tokens, in two panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = [(name, x) for name, x in (("by_rows", "rows"), ("by_tokens", "tokens")) if result[name]]
    for place, (name, x) in enumerate(panels, 1):
        series = result[name]
        axes = figure.add_subplot(1, len(panels), place)
        memory = axes.twinx()
        sizes = [r[x] for r in series]
        axes.loglog(sizes, [r["seconds"] for r in series], "o-", color="tab:blue", label="seconds")
        memory.semilogx(sizes, [r["peak_mb"] for r in series], "s--", color="tab:red", label="peak memory")
        memory.set_ylim(0, 1.5 * max(r["peak_mb"] for r in series))
        slope = result[f"exponent_of_{x}"]
        axes.set_title(f"against {x}" + ("" if slope is None else f": time grows with {x}^{slope:.2f}"))
        axes.set_xlabel({"rows": "rows in the file", "tokens": f"tokens per row ({series[0]['rows']:,} rows)"}[x])
        axes.set_ylabel("seconds", color="tab:blue")
        memory.set_ylabel("peak MB", color="tab:red")
        axes.grid(True, which="major", alpha=0.3)
    figure.savefig(target, dpi=150)


def main() -> None:
    """Measures, and prints or draws the result."""
    if sys.argv[1:2] == ["--child"]:
        folder, source, target, chunk_rows = sys.argv[2:]
        print(json.dumps(measure_here(folder, source, target, int(chunk_rows))))
        return
    if sys.argv[1:2] == ["--fit-child"]:
        print(json.dumps(fit_here(sys.argv[2], int(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="fitted predictor; without it one is fitted")
    parser.add_argument("--rows", type=int, nargs="*", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--tokens", type=int, nargs="*", default=[8, 16, 32, 64, 128, 256, 512])
    parser.add_argument("--token-rows", type=int, default=256, help="rows of each file of --tokens")
    parser.add_argument("--columns", action="store_true", help="rows have four columns besides their text")
    parser.add_argument(
        "--fit-steps", type=int, default=0, help="fit to each file for so many steps too; needs --columns"
    )
    parser.add_argument("--chunk-rows", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--plot", type=Path, help="draw into this file (.png, .svg, .pdf)")
    options = parser.parse_args()
    if options.fit_steps and not options.columns:
        parser.error("--fit-steps needs the label that --columns brings")
    with tempfile.TemporaryDirectory() as place:
        result = run(options, options.folder or fit(Path(place) / "predictor", columns=options.columns))
    print(json.dumps(result, indent=2) if options.json else table(result))
    if options.plot:
        plot(result, options.plot)


if __name__ == "__main__":
    main()
