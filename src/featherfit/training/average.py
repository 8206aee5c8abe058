"""Parameters under training go in; their running average can take their place and give it back."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class WeightAverage:
    """Running average of parameters, for training whose rate does not fall to zero.

    The decay at update t (from 1) is min(decay, (t - 1) / (t + 2)). Up to there that is polynomial-decay averaging with
    exponent 2 (Shamir and Zhang 2013, arXiv 1212.1824): the weights of the first steps, far from where training ends,
    fade out in a run of any length. With decay 0 the average is the parameters themselves and costs nothing.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float):
        self._parameters, self._decay, self._updates = parameters, decay, 0
        self._swapped = False
        self._average = [parameter.detach().clone() for parameter in parameters] if decay > 0 else []

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the parameters as they are now."""
        self._updates += 1
        decay = min(self._decay, (self._updates - 1) / (self._updates + 2))
        if self._average:
            torch._foreach_lerp_(self._average, list(self._parameters), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges average and parameters; twice is as before."""
        for average, parameter in zip(self._average, self._parameters, strict=bool(self._average)):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)
        self._swapped = not self._swapped

    def state(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What trains and its average (an empty list without one), whichever of them the parameters hold now."""
        trained = [parameter.detach() for parameter in self._parameters]
        return (self._average, trained) if self._swapped and self._average else (trained, self._average)

    @torch.no_grad()
    def restore(self, average: Sequence[torch.Tensor], updates: int) -> None:
        """Goes on from an average that had taken in the parameters `updates` times."""
        self._updates = updates
        for own, kept in zip(self._average, average, strict=True):
            own.copy_(kept)
