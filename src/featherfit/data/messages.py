"""Row labels, values and names in; the short lists that error messages show out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
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


def lacking_columns(needed: Sequence[str], given: Collection[Any], what: str, table: str = "The table") -> str | None:
    """What to say of a table without some of the columns that are needed; None where it has all of them.

    Args:
        needed: Their names.
        given: Names of the columns there are.
        what: What kind of columns they are, such as `text columns`.
        table: How the sentence begins.
    """
    missing = [column for column in needed if column not in given]
    if not missing:
        return None
    listed = ", ".join(map(str, given)) or "none"
    return f"{table} lacks the {what} {some(missing, 20)}. Needed: {', '.join(needed)}. Given: {listed}."


def raise_all(error: type[Exception], problems: list[str], title: str) -> None:
    """Raises `error` with all problems in one message; returns quietly where there are none."""
    if not problems:
        return
    if len(problems) == 1:
        raise error(problems[0])
    lines = "\n".join(f"  - {problem}" for problem in problems)
    raise error(f"{len(problems)} problems in {title}:\n{lines}")
