"""Bytes from a file that nobody vouches for go in; plain values come out, or an `ArtifactError`.

Stricter than `json`: bounded in size, depth and number of values before anything is built of them, no name twice in an object,
no number that is not finite, no half of a surrogate pair.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from featherfit.errors import ArtifactError

MOST_BYTES = 1 << 22
"""Of one document."""

MOST_VALUES = 200_000
"""In one document; a value takes up to some 300 bytes of memory, whatever it took in the file."""

MOST_DEPTH = 32
"""Lists and objects inside each other."""

_STRING = re.compile(rb'"[^"]*"?')
_NOT_NESTING = re.compile(rb"[^\[\]{},]+")


def parse_json(content: bytes, where: str) -> Any:
    """The value that a JSON document holds.

    Args:
        content: The document, at most `MOST_BYTES`.
        where: What messages call it.

    Raises:
        ArtifactError: It is too large, nested too deeply, or no strict JSON.
    """
    if len(content) > MOST_BYTES:
        raise ArtifactError(f"{where} has {len(content):,} bytes of JSON; at most {MOST_BYTES:,} are read.")
    _check_shape(content, where)
    try:
        text = content.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_once_each, parse_float=_finite, parse_constant=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # finds halves of surrogate pairs
        return value
    except (ValueError, RecursionError) as error:  # Unicode's errors are ValueErrors
        raise ArtifactError(f"{where} cannot be read: {error}.") from None


def parse_object(content: bytes, where: str) -> dict[str, Any]:
    """The same for a document that has to hold one object."""
    value = parse_json(content, where)
    if not isinstance(value, dict):
        raise ArtifactError(f"{where} has to hold one JSON object, not a {type(value).__name__}.")
    return value


def _check_shape(content: bytes, where: str) -> None:
    """Counts values and depth without building anything."""
    unescaped = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = _NOT_NESTING.sub(b"", _STRING.sub(b"", unescaped))
    opened = marks.count(b"[") + marks.count(b"{")
    if marks.count(b",") + opened > MOST_VALUES:
        raise ArtifactError(f"{where} holds more than {MOST_VALUES:,} values.")
    depth = deepest = 0
    for mark in marks:
        depth += 1 if mark in b"[{" else -1 if mark in b"]}" else 0
        deepest = max(deepest, depth)
    if deepest > MOST_DEPTH:
        raise ArtifactError(f"{where} is nested more than {MOST_DEPTH} deep.")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice[:80]!r} is there twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is no number that JSON has")
    return number
