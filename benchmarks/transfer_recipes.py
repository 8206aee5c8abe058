"""The recipes `transfer.py` compares: what is trained, how, and from which start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A way to fit.

    Attributes:
        name: Its row in the table.
        overrides: Settings over `presets="multilingual"` and the tutorial's.
        contestant: `featherfit`; `automm`; or `target`, which learns from each language's own rows.
        tutorial: Whether the tutorial's settings are given (`contestants.TUTORIAL`), as a user of its notebook does.
        prefix: Put before every text.
        members: Fits with seeds of their own whose trained weights, from one head, are averaged.
    """

    name: str
    overrides: dict[str, Any] = field(default_factory=dict)
    contestant: str = "featherfit"
    tutorial: bool = True
    prefix: str = ""
    members: int = 1


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("automm", contestant="automm"),
        Recipe("tutorial", {"optim.peft": "ia3_bias"}),
        Recipe("preset", {"optim.max_epochs": 2}, tutorial=False),
        Recipe("all layers", {"optim.peft": "lora"}),
        Recipe(
            "lora all-linear",
            {"optim.peft": "lora", "optim.lora.filter": "all-linear", "optim.lr": 1e-3, "optim.end_lr": 1e-3},
        ),
        Recipe("full", {"optim.peft": None, "optim.lr": 1e-4, "optim.end_lr": 1e-4}),
        Recipe("target", {"optim.max_epochs": 2}, contestant="target", tutorial=False),
    )
}
