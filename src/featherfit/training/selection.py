"""Validation scores and trained weights go in; the k best states are kept on disk and become the final weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from featherfit.storage import storing, write_tensors_whole
from featherfit.training.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Kept:
    """One state on disk."""

    score: float
    step: int
    file: Path


class BestStates:
    """The k best states so far, and how long ago the best one was.

    Attributes:
        kept: Best first; of equal scores the earlier stands first.
        checks_since_best: Validations since the best score.
        spared: Files that stay though their state is not among the best any more.
    """

    def __init__(self, folder: Path, k: int, greater_is_better: bool, ranks: Ranks = ALONE):
        """Rank 0 alone keeps files in `folder`; the others get its weights."""
        self.folder, self.k, self._ranks = folder, k, ranks
        self.greater_is_better = greater_is_better
        self.kept: list[Kept] = []
        self.checks_since_best = 0
        self.spared: frozenset[Path] = frozenset()
        if ranks.first:
            with storing("The best weights so far", folder):
                folder.mkdir(parents=True, exist_ok=True)

    def _key(self, state: Kept) -> tuple[float, int]:
        # NaN is no score at all: worse than any number, whichever way is better.
        if math.isnan(state.score):
            return (math.inf, state.step)
        return (-state.score if self.greater_is_better else state.score, state.step)

    def add(self, score: float, step: int, model: nn.Module) -> None:
        """Keeps the model's trained weights if they are among the k best.

        Raises:
            StorageError: They cannot be written.
        """
        state = Kept(score, step, self.folder / f"step-{step:06d}.safetensors")
        ranked = sorted([*self.kept, state], key=self._key)
        self.checks_since_best = 0 if ranked[0] is state else self.checks_since_best + 1
        self.kept = ranked[: self.k]
        if not self._ranks.first:
            return
        with storing("The best weights so far", state.file):
            if state in self.kept:
                write_tensors_whole(state.file, {n: p for n, p in model.named_parameters() if p.requires_grad})
            for dropped in ranked[self.k :]:
                if dropped is not state and dropped.file not in self.spared:
                    dropped.file.unlink()

    def restore(self, model: nn.Module, method: str, evaluate: Callable[[], float]) -> list[int]:
        """Gives the model its final weights.

        Args:
            model: The model that was trained.
            method: `best`; `uniform_soup`, the mean of all kept; or `greedy_soup`, which starts from the best and takes
                in each next state if the mean scores at least as well (arXiv 2203.05482, recipe 1).
            evaluate: Scores the model as it is.

        Returns:
            The steps whose weights went in, best first.
        """
        chosen = [self.kept[0]]
        if method == "uniform_soup":
            chosen = list(self.kept)
        elif method == "greedy_soup":
            best = self.kept[0].score
            for candidate in self.kept[1:]:
                self._load(model, [*chosen, candidate])
                score = evaluate()
                if score >= best if self.greater_is_better else score <= best:
                    chosen, best = [*chosen, candidate], score
        self._load(model, chosen)
        return [state.step for state in chosen]

    def _load(self, model: nn.Module, states: list[Kept]) -> None:
        """Gives the model the mean of these states, on every rank."""
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if self._ranks.first:
            with torch.no_grad():
                for name, mean in means([state.file for state in states]):
                    parameters[name].copy_(mean)
        self._ranks.same_weights(list(parameters.values()))


def means(files: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor's mean over saved states, summed in float64: one at a time, since a whole encoder may have trained."""
    from safetensors import safe_open

    with contextlib.ExitStack() as opened:
        states = [opened.enter_context(safe_open(file, framework="pt")) for file in files]
        for name in states[0].keys():
            total = states[0].get_tensor(name)
            if len(states) > 1:
                total = total.double()
                for state in states[1:]:
                    total += state.get_tensor(name)
                total /= len(states)
            yield name, total
