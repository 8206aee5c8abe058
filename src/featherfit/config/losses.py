"""Settings of what training makes small; `config/schema.py` puts them in their place under `optim`."""

from __future__ import annotations

from dataclasses import dataclass

from featherfit.config.options import option

LOSS_FUNCTIONS = ("auto", "cross_entropy", "focal_loss", "bcewithlogitsloss", "mse", "mae", "huber", "pinball")


@dataclass(frozen=True, kw_only=True)
class FocalLossConfig:
    """`optim.focal_loss`: with optim.loss_func=focal_loss."""

    alpha: list[float] | None = option(
        None,
        "Weight of each class, in the order of the classes; of several labels from 0 to 1, for rows that have the label.",
        above=0,
        allowed="a list of numbers above 0, one for each class, or null",
    )
    gamma: float = option(2.0, "How much less rows count that are right already; 0 is cross entropy.", low=0, high=100)
    reduction: str = option("mean", "A step's loss is the weighted mean of its rows. Always.", choices=("mean",))


@dataclass(frozen=True, kw_only=True)
class HuberConfig:
    """`optim.huber`: with optim.loss_func=huber."""

    delta: float = option(
        1.0, "Error from which on the loss is linear, in units of the scaled target (standard deviations).", above=0
    )
