"""Settings written as text go in; single `key=value` items, and values of the asked types, come out.

A value is read as the types of its setting, not guessed: `007` stays text where the setting is text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from featherfit.errors import ConfigError

_NULL = ("null", "none")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:e[0-9]+)?) ?(?:([kmgt])(i)?)?b?", re.IGNORECASE)


def read_bytes(amount: int | str) -> int:
    """Bytes of an amount of memory: `16GB` is 16 * 10**9, `16GiB` is 16 * 2**30, the B may be left out.

    Raises:
        ValueError: It is none.
    """
    if isinstance(amount, int):
        return amount
    found = _AMOUNT.fullmatch(amount.strip())
    if found is None:
        raise ValueError(amount)
    number, prefix, binary = found.groups()
    power = " kmgt".index((prefix or " ").lower())
    return int(float(number) * (1024 if binary else 1000) ** power)


def show_bytes(size: float) -> str:
    """Bytes in two or three digits, rounded up at the last: `812 MB`, `1.7 GB`."""
    if size < 10**6:
        return f"{math.ceil(size / 1000)} KB"
    if size < 10**9:
        return f"{math.ceil(size / 10**6)} MB"
    return f"{math.ceil(size / 10**7) / 100:g} GB" if size < 10**10 else f"{math.ceil(size / 10**8) / 10:g} GB"


def split_items(text: str) -> list[str]:
    """Splits `a=1 b=[x, y] c="d e"` at the white space outside quotes and brackets.

    Quotes and brackets count from the start of a value only, so `a=it's` is one item. There are no escapes inside
    quotes: a backslash is a backslash, as regular expressions want it.

    Raises:
        ConfigError: A quote or bracket is not closed.
    """
    items = []
    start = 0
    while start < len(text):
        if text[start].isspace():
            start += 1
            continue
        end = _item_end(text, start)
        items.append(text[start:end])
        start = end
    return items


def _item_end(text: str, start: int) -> int:
    quote, depth = "", 0
    for position in range(start, len(text)):
        char = text[position]
        opens = depth > 0 or (position > start and text[position - 1] == "=")
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and opens:
            quote = char
        elif char in "[{" and opens:
            depth += 1
        elif char in "]}" and depth:
            depth -= 1
        elif char.isspace() and not depth:
            return position
    if quote or depth:
        what = "quote" if quote else "bracket"
        raise ConfigError(f"{text[start:]!r}: a {what} is not closed.")
    return len(text)


def read_value(text: str, kinds: tuple[type, ...], *, free_text: bool) -> Any:
    """The value `text` stands for, as one of `kinds`.

    Of several kinds the narrowest wins: null, true or false, number, text. Where a number and text would both do, it is
    a number only if it is written back the same (`7`, not `007`). Quotes make it text. A list is `a,b`, `[a,b]` or JSON.

    Args:
        text: What was written.
        kinds: Classes the value may have.
        free_text: Whether any text is a value, so that quotes protect words like null.

    Raises:
        ValueError: It is none of these.
    """
    text = text.strip()
    bare = _unquoted(text)
    if list in kinds and bare.startswith("["):
        return _read_list(bare)
    if dict in kinds and bare.startswith("{"):
        return _read_mapping(bare)
    if free_text and bare != text:
        return bare
    word = bare.lower()
    if type(None) in kinds and word in _NULL:
        return None
    if bool in kinds and word in ("true", "false"):
        return word == "true"
    if bool in kinds and int not in kinds and word in ("1", "0"):
        return word == "1"
    number = _read_number(bare, kinds)
    if number is not None:
        return number
    if list in kinds and (str not in kinds or "," in bare):
        return _split_commas(bare, _unquoted)
    if str in kinds:
        return bare
    raise ValueError(text)


def _read_number(text: str, kinds: tuple[type, ...]) -> int | float | None:
    number: int | float
    if int in kinds and _WHOLE.fullmatch(text):
        number = int(text)
    elif int in kinds or float in kinds:
        try:
            number = float(text)
        except ValueError:
            return None
        if float not in kinds:
            if not number.is_integer():
                return None
            number = int(number)
    else:
        return None
    return None if str in kinds and str(number) != text else number


def _read_list(text: str) -> list[Any]:
    read = _read_json(text)
    if isinstance(read, list) and all(isinstance(item, str) for item in read):
        return read
    if not text.endswith("]"):
        raise ValueError(text)
    return _split_commas(text[1:-1], _unquoted)


def _read_mapping(text: str) -> dict[str, Any]:
    read = _read_json(text)
    if isinstance(read, dict):
        return read
    if not text.endswith("}"):
        raise ValueError(text)
    return dict(_split_commas(text[1:-1], _read_pair))


def _read_pair(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition(":")
    return _unquoted(name.strip()), float(number)


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def _split_commas(text: str, read: Callable[[str], Any]) -> list[Any]:
    """Reads the parts between commas; a comma inside quotes separates nothing."""
    parts = re.findall(r"""(?:"[^"]*"|'[^']*'|[^,])+""", text)
    return [read(part.strip()) for part in parts if part.strip()]


def _unquoted(text: str) -> str:
    closed = len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if closed and text[0] not in text[1:-1] else text
