"""The JSON of an artifact of an earlier format goes in; the same at the present format comes out.

| format | what it was |
|---|---|
| 1 | checksums stood in config.json under `files`, which covered neither config.json nor metrics.json; logits were read as they come |
| 2 | checksums stand in SHA256SUMS and cover all that predictions depend on; schema.json has `decision` and `constants` |
| 3 | several encoders: config.json has `further` checkpoints, schema.json has `processors`; both may be empty |
| 4 | schema.json has weights of rows, quantile levels, links, several labels and their thresholds |

To change the format: raise `FORMAT_VERSION`, and add to `UPGRADES` what brings the format before to it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from featherfit.artifact.format import CONFIG, FORMAT_VERSION, METRICS
from featherfit.errors import ArtifactError
from featherfit.evaluation.decision import UNCALIBRATED

State = dict[str, Any]
"""`config`, `schema_file`, `summary` and `checksums` as they were read, unchecked but for being objects, and `found`: the
checksums of what was read."""


def _from_1(state: State) -> State:
    config = dict(state["config"])
    recorded = config.pop("files", {})
    # Nothing vouches for these two files in format 1, so what is there is taken.
    unrecorded = {name: state["found"][name] for name in (CONFIG, METRICS) if name in state["found"]}
    checksums = {**recorded, **unrecorded} if isinstance(recorded, dict) else recorded
    schema_file = {"decision": UNCALIBRATED.to_json(), "constants": {}, **state["schema_file"]}
    config["format_version"] = 2
    return {**state, "config": config, "schema_file": schema_file, "checksums": checksums}


def _from_2(state: State) -> State:
    # There was text and nothing else, and settings of the encoders that came since have their defaults: of `model.names` those
    # are more than there were.
    settings = {"model.names": ["hf_text"], **_mapping(state["config"].get("settings"))}
    config = {"further": {}, **state["config"], "settings": settings, "format_version": 3}
    return {**state, "config": config, "schema_file": {"processors": {}, **state["schema_file"]}}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _from_3(state: State) -> State:
    schema_file = dict(state["schema_file"])
    for name, added in (
        ("schema", {"sample_weight": None, "weight_evaluation": False}),
        ("label", {"levels": [], "link": "identity"}),
    ):
        if isinstance(schema_file.get(name), dict):  # else it is damaged, and told so later
            schema_file[name] = {**added, **schema_file[name]}
    return {**state, "config": {**state["config"], "format_version": 4}, "schema_file": schema_file}


UPGRADES: dict[int, Callable[[State], State]] = {1: _from_1, 2: _from_2, 3: _from_3}
"""By the format they take; what they return is of the next."""


def upgraded(state: State, folder: Path) -> State:
    """The same at `FORMAT_VERSION`.

    Raises:
        ArtifactError: Not written by featherfit, or by a newer one.
    """
    version = state["config"].get("format_version")
    if type(version) is not int or version < 1:
        raise ArtifactError(f"{folder / CONFIG} has no format_version, so it was not written by featherfit.")
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"The artifact at {folder} has format {version}; this featherfit reads up to {FORMAT_VERSION}. Upgrade it: "
            "pip install -U featherfit."
        )
    for earlier in range(version, FORMAT_VERSION):
        state = UPGRADES[earlier](state)
    return state
