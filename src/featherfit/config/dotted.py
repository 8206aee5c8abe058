"""Overrides in AutoMM's three forms go in; a flat dictionary of checked values, or a `Config`, comes out.

{"optim.lr": 1e-3, "optim": {"peft": "lora"}}       a mapping of dotted keys, nested as you like
["optim.lr=1e-3", "optim.peft=lora"]                a list of key=value
"optim.lr=1e-3 optim.lora.filter=[query, value]"    one string of them
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from featherfit.config.checks import checked, contradictions, plain, shown
from featherfit.config.compat import RESPELT, Refusal, current_name, refusal_of
from featherfit.config.keys import KeyInfo, key_sections, known_keys, nest, show, to_flat
from featherfit.config.schema import Config
from featherfit.config.text import read_value, split_items
from featherfit.errors import ConfigError, did_you_mean

__all__ = ["KeyInfo", "Overrides", "build_config", "known_keys", "parse_overrides", "read_overrides", "to_flat"]

Overrides: TypeAlias = "Mapping[str, Any] | Sequence[str] | str | None"


@dataclass(frozen=True)
class ReadOverrides:
    """The right overrides by dotted key, and one line for each mistake."""

    values: dict[str, Any]
    problems: list[str]


@dataclass(frozen=True)
class _Item:
    """One override as it was given; `written` if it was `key=value` text."""

    name: str
    value: Any
    written: bool

    def __str__(self) -> str:
        return f"{self.name}={shown(self.value)}"


def parse_overrides(overrides: Overrides) -> dict[str, Any]:
    """Checked values by dotted key.

    Text is read as the type of its setting (see `read_value`). Old names of AutoMM's are taken with a warning. Settings
    that are AutoMM's alone are taken, and left out, if they ask for what is done anyway.

    Raises:
        ConfigError: Any mistakes, all of them at once.
    """
    read = read_overrides(overrides)
    if read.problems:
        raise ConfigError(read.problems)
    return read.values


def build_config(flat: Mapping[str, Any]) -> Config:
    """A `Config` of dotted keys and values; what is missing has its default.

    Raises:
        ConfigError: Unknown keys, wrong values or contradictions, all of them at once.
    """
    read = read_overrides(flat)
    problems = read.problems + contradictions(read.values)
    if problems:
        raise ConfigError(problems)
    return nest(read.values)


def read_overrides(overrides: Overrides) -> ReadOverrides:
    """Like `parse_overrides`, with the mistakes returned instead of raised."""
    items, problems = _items(overrides)
    values: dict[str, Any] = {}
    sources: dict[str, _Item] = {}
    for item in items:
        key = current_name(item.name)
        try:
            if key not in known_keys():
                _refuse_unless_harmless(key, item)
                continue
            value = _value(key, item)
        except ConfigError as error:
            problems += error.problems
            continue
        if key in values and not _same(values[key], value):
            problems.append(f"{key} is given twice: {sources[key]} and {item}. Keep one.")
            continue
        values[key], sources[key] = value, item
    return ReadOverrides(values, problems)


def _items(overrides: Overrides) -> tuple[list[_Item], list[str]]:
    if overrides is None:
        return [], []
    if isinstance(overrides, Mapping):
        return _flatten(overrides)
    if isinstance(overrides, str):
        try:
            return _split(split_items(overrides))
        except ConfigError as error:
            return [], error.problems
    if isinstance(overrides, (list, tuple)):
        return _split(overrides)
    kind = type(overrides).__name__
    return [], [f"Settings are a mapping, a list of 'key=value', or one string of them; this is of type {kind}."]


def _flatten(overrides: Mapping[Any, Any]) -> tuple[list[_Item], list[str]]:
    items, problems = [], []
    for path, value in _leaves(overrides, ()):
        if all(isinstance(part, str) for part in path):
            items.append(_Item(".".join(path), value, written=False))
        else:
            problems.append(f"{'.'.join(map(str, path))}={shown(value)}: a key has to be text.")
    return items, problems


def _leaves(block: Mapping[Any, Any], path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for name, value in block.items():
        here = (*path, name)
        key = current_name(".".join(map(str, here)))
        if isinstance(value, Mapping) and key not in known_keys() and refusal_of(key) is None:
            yield from _leaves(value, here)
        else:
            yield here, value


def _split(texts: Sequence[Any]) -> tuple[list[_Item], list[str]]:
    items, problems = [], []
    for text in texts:
        name, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
        if equals and name.strip():
            items.append(_Item(name.strip(), value.strip(), written=True))
        else:
            problems.append(f"{text!r} is not of the form key=value. Put quotes around a value with spaces.")
    return items, problems


def _value(key: str, item: _Item) -> Any:
    """The checked value; warns about an old name or spelling."""
    info = known_keys()[key]
    value = _respelt(key, item)
    typed = checked(info, item.name, value, written=item.written)
    if item.name != key:
        warnings.warn(f"{item.name} is an old name; it is read as {key}.", stacklevel=2)
    if isinstance(value, str) and value != str(item.value):
        warnings.warn(f"{item} is read as {value!r}.", stacklevel=2)
    return typed


def _respelt(key: str, item: _Item) -> Any:
    given = _unguided(item)
    return next((ours for theirs, ours in RESPELT.get(key, {}).items() if _same(given, theirs)), item.value)


def _refuse_unless_harmless(key: str, item: _Item) -> None:
    refusal = refusal_of(key)
    if refusal is None:
        raise ConfigError(_unknown(key, item))
    given = _unguided(item)
    if not any(_same(given, harmless) for harmless in refusal.harmless):
        raise ConfigError(f"{item} is not in this version: {refusal.reason}.{_harmless_hint(refusal)}")


def _harmless_hint(refusal: Refusal) -> str:
    if not refusal.harmless:
        return " Leave it out."
    return f" Leave it out, or give {show(refusal.harmless[0])}, which is what happens anyway."


def _unknown(key: str, item: _Item) -> str:
    keys = known_keys()
    if key in key_sections():
        inside = next(name for name in keys if name.startswith(f"{key}."))
        return f"{item}: {key} is a block of settings; give them singly, such as {inside}."
    last = key.rpartition(".")[2].lower()
    ends_alike = [name for name in keys if name.rpartition(".")[2] == last]
    hint = f" Did you mean {ends_alike[0]!r}?" if len(ends_alike) == 1 else did_you_mean(key.lower(), keys)
    if hint:
        return f"Unknown setting {item}.{hint}"
    block = key.partition(".")[0]
    inside_block = [name for name in keys if name.startswith(f"{block}.")]
    return f"Unknown setting {item}. Allowed: {', '.join(inside_block or [f'{name}.*' for name in _BLOCKS])}."


_BLOCKS = ("model", "data", "optim", "env")


def _unguided(item: _Item) -> Any:
    """What was given, where there is no type of ours to read it by."""
    if not item.written:
        return plain(item.value)
    try:
        return read_value(item.value, (type(None), bool, int, float, list, str), free_text=True)
    except ValueError:
        return item.value


def _same(one: Any, other: Any) -> bool:
    """Equality of plain values; true and false are no numbers, and an array equals nothing."""
    comparable = one is None or isinstance(one, (bool, int, float, str, list, dict))
    return comparable and isinstance(one, bool) == isinstance(other, bool) and one == other


def merge_overrides(first: Overrides, second: Overrides) -> Overrides:
    """Two sets of overrides as one; the second wins."""
    if first is None or second is None:
        return second if first is None else first
    return {**parse_overrides(first), **parse_overrides(second)}
