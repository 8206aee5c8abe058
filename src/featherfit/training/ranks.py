"""What a launcher told this process goes in; its rank, and sums and words shared with the other ranks, come out.

`torchrun` and `accelerate launch` start one process, a rank, for every device and say so in environment variables. All
ranks run the same `fit`: each works on its share of every step and of every validation, the trained weights and decisions
are the same everywhere, and rank 0 alone writes and speaks. Without a launcher there is one rank, and nothing here imports
torch or takes time.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from featherfit.errors import ConfigError, DataError, TrainingError
from featherfit.training.launch import Launch, met

if TYPE_CHECKING:
    import numpy as np
    import torch

    from featherfit.config.schema import Config
    from featherfit.data.dataset import Dataset
    from featherfit.types import Batch

T = TypeVar("T")

START_SEVERAL = "torchrun --nproc_per_node 2 -m featherfit fit ..."
"""A command that starts two ranks, for messages."""

_FSDP = "ACCELERATE_USE_FSDP"
"""What `accelerate launch --use_fsdp` sets."""

_BUCKET = 1 << 24
"""Gradients that are summed over ranks at a time; those of adapters are fewer."""


@dataclass(frozen=True)
class Ranks:
    """The ranks of a fit, seen from one of them; the methods do nothing where there is one.

    Attributes:
        rank: This one, from 0.
        world: How many there are.
        sharded: Whether each keeps a part of the frozen weights, so that all have to compute equally often.
    """

    rank: int = 0
    world: int = 1
    sharded: bool = False

    @property
    def told(self) -> str:
        """How many ranks there are and how they share the work, to go on with after a comma."""
        return "" if self.world == 1 else f", {self.world} processes ({'fsdp' if self.sharded else 'ddp'})"

    @property
    def first(self) -> bool:
        """Whether this rank writes and speaks."""
        return self.rank == 0

    def share(self, parts: Sequence[T]) -> list[T]:
        """This rank's share of a list whose order is the same on all ranks: every `world`-th.

        Where ranks have to compute equally often, some get parts from the beginning again.
        """
        end = -(-len(parts) // self.world) * self.world if self.sharded else len(parts)
        return [parts[place % len(parts)] for place in range(self.rank, end, self.world)]

    def most_tokens(self, limit: int, total: int) -> int:
        """A limit of tokens per forward under which there is work for every rank."""
        return limit if self.world == 1 else min(limit, max(1, -(-total // self.world)))

    def refuse_to_repeat(self) -> None:
        """To be called before a forward is done again because memory did not suffice.

        Raises:
            TrainingError: The other ranks would wait for one that has gone back.
        """
        if self.sharded:
            raise TrainingError(
                f"Rank {self.rank}: memory did not suffice for a forward, and under env.strategy=fsdp none can be done again "
                "by one process alone. Set a smaller env.per_gpu_batch_size, or "
                "model.hf_text.gradient_checkpointing=True."
            )

    def agreed(self, value: T) -> T:
        """What rank 0 has for `value`; others wait for it."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: T) -> list[T]:
        """What every rank has for `value`, in their order."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[T] = [value] * self.world
        dist.all_gather_object(values, value)
        return values

    def any_of(self, flags: Sequence[bool], place: torch.device) -> list[bool]:
        """For each of these flags whether it is set on some rank."""
        if self.world == 1:
            return list(flags)
        import torch
        import torch.distributed as dist

        told = torch.tensor([float(flag) for flag in flags], device=place)
        dist.all_reduce(told)
        return [number > 0 for number in told.tolist()]

    def begin(self, parameters: Sequence[torch.nn.Parameter], dataset: Dataset) -> None:
        """Gives every rank the trained parameters of rank 0, after a look at whether all have the same rows.

        Raises:
            DataError: They have not: the table differs from machine to machine.
        """
        if self.world == 1:
            return
        import torch
        import torch.distributed as dist

        own, found = dataset.fingerprint(), [""] * self.world
        dist.all_gather_object(found, own)
        others = [str(rank) for rank, digest in enumerate(found) if digest != found[0]]
        if others:
            raise DataError(
                f"The training rows of rank {', '.join(others)} are not those of rank 0. Give all processes the same table."
            )
        self.same_weights(parameters)
        if not self.first:
            torch.manual_seed(torch.initial_seed() + self.rank)  # dropout of its own for every rank's rows

    def same_weights(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Gives every rank these parameters as rank 0 has them."""
        if self.world == 1:
            return
        import torch
        import torch.distributed as dist

        with torch.no_grad():
            for part in _buckets(parameters):
                flat = torch.cat([parameter.detach().flatten() for parameter in part])
                dist.broadcast(flat, src=0)
                for parameter, values in zip(part, flat.split([p.numel() for p in part]), strict=True):
                    parameter.copy_(values.view_as(parameter))

    def sum_step(
        self, parameters: Sequence[torch.nn.Parameter], loss: float, batches: Sequence[Batch]
    ) -> tuple[float, int]:
        """Makes the gradients of this rank's share of a step those of the whole step, on every rank.

        The gradient of a weighted mean over all rows is the mean of the ranks' gradients, each with the weight of its
        rows, so the result is that of one process up to rounding. Nothing that is frozen is sent.

        Args:
            parameters: All that train, in the same order everywhere; a rank without rows has no gradients.
            loss: Weighted mean loss of this rank's rows.
            batches: This rank's rows; those of weight 0 are not of the step.

        Returns:
            The whole step's loss and number of rows.
        """
        rows = sum(len(batch) if batch.weights is None else int(batch.weights.count_nonzero()) for batch in batches)
        if self.world == 1:
            return loss, rows
        import torch
        import torch.distributed as dist

        weight = sum(batch.weight for batch in batches)
        used = [float(parameter.grad is not None) for parameter in parameters]
        place = parameters[0].device
        told = torch.tensor([loss * weight, weight, float(rows), *used], dtype=torch.float64).to(place)
        dist.all_reduce(told)
        total_loss, total_weight, total_rows, *used_by = told.tolist()
        wanted = [parameter for parameter, ranks in zip(parameters, used_by, strict=True) if ranks > 0]
        for part in _buckets(wanted):
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in part])
            flat *= weight / (total_weight or 1.0)
            dist.all_reduce(flat)
            for parameter, values in zip(part, flat.split([p.numel() for p in part]), strict=True):
                parameter.grad = values.view_as(parameter)
        return total_loss / (total_weight or 1.0), round(total_rows)

    def joined(self, result: np.ndarray, parts: Sequence[np.ndarray], place: torch.device) -> np.ndarray:
        """The rows that all ranks have computed.

        Args:
            result: (rows, ...), in which this rank's `share` of the parts is filled.
            parts: Positions of rows, no row in two of them.
            place: This rank's device.
        """
        if self.world == 1:
            return result
        import numpy as np
        import torch
        import torch.distributed as dist

        filled = np.zeros_like(result)
        for part in parts[self.rank :: self.world]:
            filled[part] = result[part]
        own = torch.from_numpy(filled).to(place)
        dist.all_reduce(own)
        return own.cpu().numpy()


ALONE = Ranks()


def join(config: Config, *, on_gpu: bool) -> Ranks:
    """Meets the other ranks of this fit, if a launcher started more than one.

    Args:
        config: `env` is read.
        on_gpu: Whether ranks run on GPUs, one each, or on CPUs.

    Raises:
        ConfigError: Settings that do not go with what was launched.
    """
    launch, strategy = Launch.of_this_process(), _strategy(config)
    _check(config, strategy, launch, on_gpu)
    os.environ.pop(_FSDP, None)  # or accelerate would take the model apart itself
    if launch is None:
        return ALONE
    import datetime

    import torch.distributed as dist
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=not on_gpu, timeout=datetime.timedelta(seconds=config.env.rank_timeout))
    found: list[Any] = [None] * launch.world
    dist.all_gather_object(found, (socket.gethostname(), os.getpid()))
    met(found)
    return Ranks(launch.rank, launch.world, sharded=strategy == "fsdp")


def _strategy(config: Config) -> str:
    if config.env.strategy != "auto":
        return config.env.strategy
    return "fsdp" if os.environ.get(_FSDP, "false").lower() == "true" else "ddp"


def _check(config: Config, strategy: str, launch: Launch | None, on_gpu: bool) -> None:
    env = config.env
    if launch is None:
        if env.num_gpus > 1:
            raise ConfigError(
                f"env.num_gpus={env.num_gpus} needs as many processes, and this is a single one. Start them with: "
                f"{START_SEVERAL.replace('2', str(env.num_gpus))}"
            )
        if env.strategy != "auto":
            warnings.warn(
                f"env.strategy={env.strategy!r} has no effect in a single process. Several are started with: "
                f"{START_SEVERAL}",
                stacklevel=2,
            )
        return
    problems = []
    if env.num_gpus > 0 and env.num_gpus != launch.local_world:
        problems.append(
            f"env.num_gpus={env.num_gpus}, and the launcher started {launch.local_world} processes on this machine, one for "
            "each GPU. Leave env.num_gpus out, or start as many."
        )
    if on_gpu:
        import torch

        if launch.local_world > torch.cuda.device_count():
            problems.append(
                f"The launcher started {launch.local_world} processes on this machine, which has "
                f"{torch.cuda.device_count()} GPUs. Start one for each, or set env.accelerator=cpu."
            )
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        problems.append("accelerate launch --use_deepspeed: DeepSpeed is not in this version. Launch without it.")
    if strategy == "fsdp" and config.optim.peft is None:
        problems.append(
            "env.strategy='fsdp' spreads frozen weights over the processes, and with optim.peft=null none are frozen. Give "
            "optim.peft a parameter-efficient method, or set env.strategy=ddp."
        )
    if strategy == "fsdp" and not _can_leave_parameters_out():
        import torch

        problems.append(
            f"env.strategy='fsdp' needs a torch whose fully_shard takes ignored_params, and this is {torch.__version__}. "
            "Install a newer one: pip install -U torch."
        )
    if problems:
        raise ConfigError(problems)


def _can_leave_parameters_out() -> bool:
    import inspect

    from torch.distributed import fsdp

    return hasattr(fsdp, "fully_shard") and "ignored_params" in inspect.signature(fsdp.fully_shard).parameters


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """The parameters in their order, in lists of one type and of about `_BUCKET` numbers."""
    part: list[torch.nn.Parameter] = []
    for parameter in parameters:
        if part and (parameter.dtype != part[0].dtype or sum(p.numel() for p in part) >= _BUCKET):
            yield part
            part = []
        part.append(parameter)
    if part:
        yield part
