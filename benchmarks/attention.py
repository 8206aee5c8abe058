"""Which kernel attends quickest over packed rows: explicit products, or PyTorch's fused attention (SDPA).

    python benchmarks/attention.py [--widths 16 32 64 128 256 512] [--tokens 2048] [--heads 12] [--size 32] [--json FILE]

The choice in `featherfit/models/attention.py` rests on this. Rows of one width each, as many as make up the tokens; the
time includes bringing the head states into their places and back. `padded` is SDPA on tensors that are padded already,
which is what a padded forward would pay. Milliseconds, medians.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import seconds_of
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from featherfit.models import attention
from featherfit.models.packing import pack

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
KERNELS = ("products", "sdpa", "padded")


def packed(kernel: str, width: int, rows: int, heads: int, size: int) -> Callable[..., torch.Tensor]:
    """A function of query, key and value (1, H, T, d) that attends with the kernel of that name."""
    packing = pack(torch.ones(rows, width, dtype=torch.int64), heads)
    settings = attention._Settings(packing, size**-0.5, 0.0, False, None)
    attend = {"products": attention._by_products, "sdpa": attention._by_sdpa}[kernel]

    def call(*states: torch.Tensor) -> torch.Tensor:
        q, k, v = (attention._head_states(x) for x in states)
        return attend(q, k, v, settings)

    return call


def padded(rows: int) -> Callable[..., torch.Tensor]:
    """SDPA of states (1, H, n * L, d) as (n, H, L, d), which needs no copy."""

    def call(*states: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.squeeze(0).unflatten(1, (rows, -1)).transpose(0, 1) for x in states)
        return F.scaled_dot_product_attention(q, k, v)

    return call


def with_backward(call: Callable[..., torch.Tensor], states: list[torch.Tensor]) -> Callable[[], None]:
    """The call and its gradients."""
    above = torch.randn_like(call(*states))

    def run() -> None:
        own = [x.detach().requires_grad_() for x in states]
        call(*own).backward(above)

    return run


def measure(width: int, dtype: torch.dtype, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Milliseconds, forward and with backward, by kernel."""
    rows = max(1, options.tokens // width)
    tokens = len(pack(torch.ones(rows, width, dtype=torch.int64), 1).tokens)
    # The heads of a token lie side by side, as a projection leaves them.
    states = [torch.randn(1, tokens, options.heads, options.size).to(dtype).transpose(1, 2) for _ in range(3)]
    found = {}
    for kernel in KERNELS:
        own = [x[:, :, : rows * width] for x in states] if kernel == "padded" else states
        call = padded(rows) if kernel == "padded" else packed(kernel, width, rows, options.heads, options.size)
        with torch.inference_mode():
            forward = seconds_of(partial(call, *own), options.repeats)
        both = seconds_of(with_backward(call, own), options.repeats)
        found[kernel] = {"forward": 1e3 * forward, "with backward": 1e3 * both}
    return found


def show(result: list[dict[str, Any]], console: Console) -> None:
    """A table per type."""
    for dtype in DTYPES:
        table = Table(title=f"{dtype}: milliseconds forward, and forward with backward")
        table.add_column("width", justify="right")
        for kernel in KERNELS:
            table.add_column(kernel, justify="right")
        for each in result:
            if each["dtype"] == dtype:
                cells = [f"{each[kernel]['forward']:.1f}, {each[kernel]['with backward']:.1f}" for kernel in KERNELS]
                table.add_row(str(each["width"]), *cells)
        console.print(table)


def main() -> None:
    """Measures, and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--widths", nargs="+", type=int, default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of all rows together")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--size", type=int, default=32, help="numbers per head")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    result = [
        {"width": width, "dtype": name, **measure(width, dtype, options)}
        for name, dtype in DTYPES.items()
        for width in options.widths
    ]
    show(result, Console(width=100))
    if options.json:
        about = {"cpus": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        settings = {"tokens": options.tokens, "heads": options.heads, "size": options.size}
        options.json.write_text(json.dumps({**about, **settings, "measured": result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
