"""`env` settings go in; the device, its arithmetic, its attention and the ranks beside it come out.

Only this module and `ranks` know accelerate.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from featherfit.config.schema import Config, EnvConfig
from featherfit.errors import ConfigError
from featherfit.memory import keep_few_kernels, keep_freed_memory
from featherfit.models.quantized import FLOATS, BaseForm
from featherfit.training.ranks import ALONE, Ranks, join

if TYPE_CHECKING:
    from accelerate import Accelerator

    from featherfit.models.build import MultiModalModel

CPU_TOKENS = 2048
"""Tokens a forward on a CPU takes at most: more takes memory and wins little (a twentieth at 4,096)."""

CPU_TRAINING_TOKENS = 1280
"""The same in training, where every token's states are kept for the backward pass (150 KB each in a small model)."""

CPU_ROW_TOKENS = 160
"""What a row adds to that where more of them are asked for than the default 8: steps of 128 reviews gain a twentieth in speed."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """Where and in what arithmetic a model runs.

    Attributes:
        place: The torch device.
        precision: `no` (float32), `bf16` or `fp16`: the type of matrix products under autocast. Losses and everything
            that trains stay float32.
        base_precision: How frozen matrices are kept, `model.hf_text.base_precision`.
        most_tokens: Tokens of a forward without gradients on a CPU, at most.
        budget_tokens: Tokens of any forward, at most, where memory is planned; None where it is not.
        ranks: The processes that share the work.
    """

    place: torch.device
    precision: str
    base_precision: str = "auto"
    most_tokens: int = CPU_TOKENS
    budget_tokens: int | None = None
    ranks: Ranks = ALONE

    @property
    def frozen_dtype(self) -> torch.dtype:
        """Type in which weights that do not train are kept."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def base_form(self) -> BaseForm | None:
        """How frozen matrices are kept and multiplied, where it is not simply in `frozen_dtype`."""
        products = _DTYPES.get(self.precision, torch.float32)
        if self.base_precision == "auto" or FLOATS.get(self.base_precision) == self.frozen_dtype == products:
            return None
        return BaseForm(self.base_precision, products)

    def tokens_per_forward(self, config: Config, longest: int, *, training: bool) -> int:
        """Most tokens one forward takes.

        Args:
            config: The run's settings; `Config.rows_per_forward` rows of full length fit.
            longest: Tokens of a row of full length.
            training: Whether a backward pass follows.
        """
        tokens = max(1, round(min(config.rows_per_forward(training=training) * longest, 1 << 62)))
        if self.place.type == "cpu":
            asked = config.env.per_gpu_batch_size
            own = CPU_ROW_TOKENS * asked if isinstance(asked, int) else 0
            tokens = min(tokens, max(CPU_TRAINING_TOKENS, own) if training else self.most_tokens)
        return tokens if self.budget_tokens is None else min(tokens, self.budget_tokens)

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Context of a forward without gradients."""
        # Weights that come from other ranks are put into the same tensors in training, which may not be inference's.
        with torch.no_grad() if self.ranks.sharded else torch.inference_mode(), self._autocast():
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
    def training_attention(self, model: MultiModalModel) -> Iterator[None]:
        """Runs the pretrained encoders with the attention that is quickest to train with.

        On a CPU the fused kernel's bfloat16 backward takes about four times as long as explicit products (36.7 ms
        against 9.3 ms for 32 rows of 60 tokens), so training uses the explicit ones there. Same function, other
        rounding.
        """
        backbones = [encoder.backbone for encoder in model.pretrained().values()]
        slow = [one for one in backbones if getattr(one.config, "_attn_implementation", None) == "sdpa"]
        if self.place.type != "cpu" or self.precision != "bf16":
            slow = []
        for backbone in slow:
            backbone.set_attn_implementation("eager")
        try:
            yield
        finally:
            for backbone in slow:
                backbone.set_attn_implementation("sdpa")


def has_gpu() -> bool:
    """Whether there is a GPU that torch can use."""
    return torch.cuda.is_available()


def pick_device(env: EnvConfig, base_precision: str = "auto") -> Device:
    """The device `env` asks for.

    Args:
        env: The machine's settings.
        base_precision: `model.hf_text.base_precision`.

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
        _refuse_float16(env.precision, base_precision)
        keep_freed_memory()
        keep_few_kernels()
    return Device(place, _precision(env.precision, on_gpu), base_precision)


def device_of_fit(config: Config) -> Device:
    """The device to train on, together with the other ranks if a launcher started several processes.

    Raises:
        ConfigError: As `pick_device`, or settings that do not go with what was launched.
    """
    device = pick_device(config.env, config.model.hf_text.base_precision)
    ranks = join(config, on_gpu=device.place.type == "cuda")
    if ranks.world > 1 and device.place.type == "cuda":
        device = replace(device, place=torch.device("cuda", torch.cuda.current_device()))
    return replace(device, ranks=ranks)


def _precision(wanted: str, on_gpu: bool) -> str:
    if wanted == "auto":
        native = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else cpu_has_bfloat16()
        return "bf16" if native else "no"
    if wanted in ("32", "32-true"):
        return "no"
    if wanted in ("bf16", "bf16-mixed"):
        return "bf16"
    return "fp16"


def _refuse_float16(precision: str, base_precision: str) -> None:
    given = {
        f"env.precision={precision!r}": (precision in ("16", "16-mixed"), "'auto', 'bf16' or '32'"),
        f"model.hf_text.base_precision={base_precision!r}": (
            base_precision == "float16",
            "'auto', 'bfloat16', 'int8' or 'int4'",
        ),
    }
    problems = [
        f"{setting} is not possible on a CPU, where float16 takes a scalar path about 100 times slower. Use {others}."
        for setting, (is_float16, others) in given.items()
        if is_float16
    ]
    if problems:
        raise ConfigError(problems)


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
