"""What changes while a model trains goes in; a `LoopState` comes out, and back into a loop that goes on from it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from featherfit.errors import ArtifactError
from featherfit.models.build import MultiModalModel
from featherfit.training.average import WeightAverage
from featherfit.training.device import Device
from featherfit.training.oom import TokenLimit
from featherfit.types import LoopState

if TYPE_CHECKING:
    from accelerate import Accelerator


class Progress:
    """How far a loop is, and the parts of it that remember something.

    Attributes:
        step: Optimiser steps taken.
        rows: Rows trained on.
    """

    def __init__(
        self,
        model: MultiModalModel,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage,
        limit: TokenLimit,
        accelerator: Accelerator,
        device: Device,
    ):
        """At the beginning; all parts are the loop's own."""
        self.step = self.rows = 0
        self._started = time.monotonic()
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._optimizer, self._average, self._limit = optimizer, average, limit
        self._scaler, self._device = accelerator.scaler, device

    @property
    def seconds(self) -> float:
        """Seconds of training, those before an interruption included."""
        return time.monotonic() - self._started

    def state(self) -> LoopState:
        """Everything, on every rank; to be called by all of them, after the same step, and used before the next one.

        Tensors on the CPU are the loop's own: a copy of a whole encoder's weights and of what the optimiser keeps for them
        would be the most memory that a fit takes.
        """
        trained, averaged = self._average.state()
        tensors = {f"weights/{name}": t for name, t in zip(self._named, trained, strict=True)}
        if averaged:
            tensors |= {f"average/{name}": t for name, t in zip(self._named, averaged, strict=True)}
        for name, kept in self._of_optimizer().items():
            tensors |= {f"optimizer/{name}/{key}": value for key, value in kept.items() if value is not None}
        limits = []
        for rank, (tokens, *random) in enumerate(self._device.ranks.gathered(self._of_rank())):
            limits.append(tokens)
            tensors |= {f"random/{rank}/{place}": t for place, t in zip(("cpu", "gpu"), random, strict=False)}
        facts: dict[str, Any] = {"step": self.step, "rows": self.rows, "seconds": self.seconds, "tokens": limits}
        if self._scaler is not None:
            facts["scaler"] = self._scaler.state_dict()
        return LoopState(facts, {name: t.detach().cpu() for name, t in tensors.items()})

    def restore(self, state: LoopState) -> None:
        """Goes on from there.

        Raises:
            ArtifactError: It is of another model, or of another number of ranks.
        """
        weights = state.under("weights/")
        ranks = self._device.ranks
        if weights.keys() != self._named.keys() or len(state.facts["tokens"]) != ranks.world:
            raise ArtifactError("The state is of a fit that trained something else.")
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(weights[name])
        self.step, self.rows = state.facts["step"], state.facts["rows"]
        self._started = time.monotonic() - state.facts["seconds"]
        average = state.under("average/")
        self._average.restore([average[name] for name in self._named if average], self.step)
        self._restore_optimizer(state.under("optimizer/"))
        self._limit.tokens, self._limit.of_epoch = state.facts["tokens"][ranks.rank]
        if self._scaler is not None:
            self._scaler.load_state_dict(state.facts["scaler"])
        random = state.under(f"random/{ranks.rank}/")
        torch.set_rng_state(random["cpu"])
        if "gpu" in random and self._device.place.type == "cuda":
            torch.cuda.set_rng_state(random["gpu"], self._device.place)

    def _of_rank(self) -> list[Any]:
        own: list[Any] = [[self._limit.tokens, self._limit.of_epoch], torch.get_rng_state()]
        place = self._device.place
        return [*own, torch.cuda.get_rng_state(place)] if place.type == "cuda" else own

    def _order(self) -> list[str]:
        """Names of the parameters in the optimiser's own order."""
        names = {id(parameter): name for name, parameter in self._named.items()}
        return [names[id(parameter)] for group in self._optimizer.param_groups for parameter in group["params"]]

    def _of_optimizer(self) -> dict[str, dict[str, Any]]:
        kept = self._optimizer.state_dict()["state"]
        return {name: kept[place] for place, name in enumerate(self._order()) if place in kept}

    def _restore_optimizer(self, tensors: dict[str, torch.Tensor]) -> None:
        places = {name: place for place, name in enumerate(self._order())}
        kept: dict[int, dict[str, torch.Tensor]] = {}
        for path, tensor in tensors.items():
            name, _, key = path.rpartition("/")
            kept.setdefault(places[name], {})[key] = tensor
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": kept})
