"""Row labels, values and names in; the short lists that error messages show out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def some(items: Iterable[Any], limit: int = 5) -> str:
    """`"3, 17, 20 and 5 more"`: the first `limit` items as Python writes them, and how many are left."""
    shown = [repr(item.item() if hasattr(item, "item") else item) for item in items]
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {rest} more" if rest > 0 else "")


def count(number: int, noun: str) -> str:
    """`"1 row"`, `"3 rows"`, `"2 classes"`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def raise_all(error: type[Exception], problems: list[str], title: str) -> None:
    """Raises `error` with all problems in one message; returns quietly where there are none."""
    if not problems:
        return
    if len(problems) == 1:
        raise error(problems[0])
    lines = "\n".join(f"  - {problem}" for problem in problems)
    raise error(f"{len(problems)} problems in {title}:\n{lines}")
