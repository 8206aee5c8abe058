"""The schema goes in; a flat table of dotted keys comes out, and a `Config` to and from flat values.

No checks here: `checks.py` has them.
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

from featherfit.config.schema import Config

NoneType = type(None)


@dataclass(frozen=True)
class KeyInfo:
    """One setting.

    Attributes:
        key: Dotted key, such as `optim.lora.r`.
        type: The type as the schema writes it, such as `list[str] | None`.
        kinds: The classes a value may have, such as `(list, NoneType)`.
        default: The default.
        meaning: One sentence with the unit.
        choices: The allowed values, if they are few.
        low: Smallest allowed number, included.
        high: Largest allowed number, included.
        above: Bound every number has to exceed.
        wording: What is allowed, in words, where the rest does not say it.
        items: The class of a list's items.
    """

    key: str
    type: str
    kinds: tuple[Any, ...]
    default: Any
    meaning: str
    choices: tuple[Any, ...] | None
    low: float | None
    high: float | None
    above: float | None
    wording: str | None
    items: Any = str

    @property
    def free_text(self) -> bool:
        """Whether any text is a value."""
        return str in self.kinds and self.choices is None

    def allowed(self) -> str:
        """What may be given, in words that follow "give"."""
        if self.wording is not None:
            return self.wording
        if self.choices is not None:
            words = [show(choice) for choice in self.choices]
            return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
        return ", or ".join(self._kind_words())

    def _kind_words(self) -> list[str]:
        names = {bool: "true or false", str: "text", list: "a list of text", dict: "a mapping", NoneType: "null"}
        words = [names[kind] for kind in self.kinds if kind in names]
        if float in self.kinds:
            words.insert(0, f"a number{self._range()}")
        elif int in self.kinds:
            words.insert(0, f"a whole number{self._range()}")
        return words

    def _range(self) -> str:
        if self.low is not None and self.high is not None:
            return f" from {self.low:g} to {self.high:g}"
        if self.low is not None:
            return f" of at least {self.low:g}"
        upper = "" if self.high is None else f" and at most {self.high:g}"
        return upper if self.above is None else f" above {self.above:g}{upper}"


def known_keys() -> dict[str, KeyInfo]:
    """Every setting by its dotted key, in the order of the schema."""
    return dict(_key_table())


def key_sections() -> tuple[str, ...]:
    """Dotted names of the blocks of settings: `model`, `model.hf_text`, ..."""
    parents = (key.rpartition(".")[0] for key in _key_table())
    return tuple(dict.fromkeys(block for parent in parents for block in (parent.partition(".")[0], parent)))


def to_flat(config: Config) -> dict[str, Any]:
    """The settings as dotted keys with plain JSON values; `build_config` of it equals `config`."""
    flat = {}
    for key in _key_table():
        value = functools.reduce(getattr, key.split("."), config)
        flat[key] = copy.deepcopy(value)
    return flat


def nest(flat: Mapping[str, Any]) -> Config:
    """A `Config` of checked flat values; what is missing has its default."""
    config: Config = _nest(Config, "", flat)
    return config


def show(value: Any) -> str:
    """A setting's value as messages write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) or "''"


def _nest(cls: Any, prefix: str, flat: Mapping[str, Any]) -> Any:
    hints = get_type_hints(cls)
    values = {}
    for field in fields(cls):
        key = f"{prefix}{field.name}"
        if _is_section(field):
            values[field.name] = _nest(hints[field.name], f"{key}.", flat)
        elif key in flat:
            values[field.name] = flat[key]
    return cls(**values)


@functools.cache
def _key_table() -> dict[str, KeyInfo]:
    return {info.key: info for info in _walk(Config, "")}


def _walk(cls: Any, prefix: str) -> Iterator[KeyInfo]:
    hints = get_type_hints(cls)
    for field in fields(cls):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if _is_section(field):
            yield from _walk(hint, f"{key}.")
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        options = {name: field.metadata[name] for name in ("meaning", "choices", "low", "high", "above")}
        wording = field.metadata["allowed"]
        yield KeyInfo(key, str(field.type), _kinds(hint), default, wording=wording, items=_items(hint), **options)


def _is_section(field: Field[Any]) -> bool:
    return bool(field.metadata.get("section"))


def _items(hint: Any) -> type:
    """Class of the items where a setting may be a list; text where it may not."""
    union = get_origin(hint) in (Union, types.UnionType)
    lists = [part for part in (get_args(hint) if union else (hint,)) if get_origin(part) is list]
    return get_args(lists[0])[0] if lists else str


def _kinds(hint: Any) -> tuple[type, ...]:
    union = get_origin(hint) in (Union, types.UnionType)
    return tuple(get_origin(part) or part for part in (get_args(hint) if union else (hint,)))
