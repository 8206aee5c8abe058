"""`env` settings go in; the device, its arithmetic and its attention come out. The only module that knows accelerate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from featherfit.config.schema import EnvConfig
from featherfit.errors import ConfigError
from featherfit.memory import keep_few_kernels, keep_freed_memory

if TYPE_CHECKING:
    from accelerate import Accelerator

CPU_TOKENS = 1024
"""Tokens a forward on a CPU takes at most: more takes memory (1,024 to 4,096 are equally fast) and wins nothing."""

CPU_TRAINING_TOKENS = 1024
"""The same in training, where every token's states are kept for the backward pass (150 KB each in a small model)."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """Where and in what arithmetic a model runs.

    Attributes:
        place: The torch device.
        precision: `no` (float32), `bf16` or `fp16`: the type of matrix products under autocast. Losses and everything
            that trains stay float32.
        most_tokens: Most tokens of any forward, where a memory budget says so.
    """

    place: torch.device
    precision: str
    most_tokens: int | None = None

    @property
    def frozen_dtype(self) -> torch.dtype:
        """Type in which weights that do not train are kept."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def tokens_per_forward(self, rows: float, longest: int, *, training: bool) -> int:
        """Most tokens one forward takes.

        Args:
            rows: Rows of full length that fit, `Config.rows_per_forward`.
            longest: Tokens of a row of full length.
            training: Whether a backward pass follows.
        """
        tokens, most = max(1, round(rows * longest)), CPU_TRAINING_TOKENS if training else CPU_TOKENS
        tokens = min(tokens, most) if self.place.type == "cpu" else tokens
        return tokens if self.most_tokens is None else min(tokens, self.most_tokens)

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Context of a forward without gradients."""
        with torch.inference_mode(), self._autocast():
            yield

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "no":
            return contextlib.nullcontext()
        return torch.autocast(self.place.type, dtype=_DTYPES[self.precision])

    def accelerator(self) -> Accelerator:
        """An accelerator for training in this device's arithmetic."""
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        # The state is one per process and remembers the precision of an earlier fit, which may have been another.
        AcceleratorState._reset_state(reset_partial_state=True)
        return Accelerator(cpu=self.place.type == "cpu", mixed_precision=self.precision)

    @contextlib.contextmanager
    def training_attention(self, backbone: nn.Module) -> Iterator[None]:
        """Runs the backbone with the attention that is quickest to train with.

        On a CPU the fused kernel's bfloat16 backward takes about four times as long as explicit products (36.7 ms
        against 9.3 ms for 32 rows of 60 tokens), so training uses the explicit ones there. Same function, other
        rounding.
        """
        current = getattr(backbone.config, "_attn_implementation", None)
        if self.place.type != "cpu" or self.precision != "bf16" or current != "sdpa":
            yield
            return
        backbone.set_attn_implementation("eager")  # type: ignore[operator]
        try:
            yield
        finally:
            backbone.set_attn_implementation(current)  # type: ignore[operator]


def has_gpu() -> bool:
    """Whether there is a GPU that torch can use."""
    return torch.cuda.is_available()


def pick_device(env: EnvConfig) -> Device:
    """The device `env` asks for.

    Raises:
        ConfigError: A GPU is asked for and there is none, or float16 on a CPU.
    """
    gpu = has_gpu()
    if not gpu and (env.accelerator == "gpu" or env.num_gpus > 0):
        key = "env.accelerator='gpu'" if env.accelerator == "gpu" else f"env.num_gpus={env.num_gpus}"
        raise ConfigError(f"{key} needs a GPU, and there is none that torch can use. Leave it out to train on the CPU.")
    on_gpu = gpu and env.accelerator != "cpu" and env.num_gpus != 0
    place = torch.device("cuda" if on_gpu else "cpu")
    if not on_gpu:
        keep_freed_memory()
        keep_few_kernels()
    return Device(place, _precision(env.precision, on_gpu))


def _precision(wanted: str, on_gpu: bool) -> str:
    if wanted == "auto":
        native = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else cpu_has_bfloat16()
        return "bf16" if native else "no"
    if wanted in ("32", "32-true"):
        return "no"
    if wanted in ("bf16", "bf16-mixed"):
        return "bf16"
    if not on_gpu:
        raise ConfigError(
            f"env.precision={wanted!r} is not possible on a CPU, where float16 takes a scalar path about 100 times "
            "slower. Use 'auto', 'bf16' or '32'."
        )
    return "fp16"


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 natively (AVX512-BF16 or AMX, or the Arm equivalent)."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return False
    for line in cpuinfo.read_text(errors="replace").splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(values.split())
    return False
