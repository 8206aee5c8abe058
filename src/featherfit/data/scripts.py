"""Texts go in; which scripts they are written in comes out, as shares of their letters. No language is guessed at."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

SAMPLE = 1000
"""Texts looked at, evenly spaced."""

CHARACTERS = 300
"""Of each, from its beginning."""

_RANGES: tuple[tuple[int, int, str], ...] = (
    (0x0041, 0x02FF, "Latin"),
    (0x0370, 0x03FF, "Greek"),
    (0x0400, 0x052F, "Cyrillic"),
    (0x0531, 0x058F, "Armenian"),
    (0x0590, 0x05FF, "Hebrew"),
    (0x0600, 0x077F, "Arabic"),
    (0x0900, 0x097F, "Devanagari"),
    (0x0980, 0x09FF, "Bengali"),
    (0x0A00, 0x0A7F, "Gurmukhi"),
    (0x0A80, 0x0AFF, "Gujarati"),
    (0x0B80, 0x0BFF, "Tamil"),
    (0x0C00, 0x0C7F, "Telugu"),
    (0x0C80, 0x0CFF, "Kannada"),
    (0x0D00, 0x0D7F, "Malayalam"),
    (0x0D80, 0x0DFF, "Sinhala"),
    (0x0E00, 0x0E7F, "Thai"),
    (0x0E80, 0x0EFF, "Lao"),
    (0x0F00, 0x0FFF, "Tibetan"),
    (0x1000, 0x109F, "Myanmar"),
    (0x10A0, 0x10FF, "Georgian"),
    (0x1100, 0x11FF, "Hangul"),
    (0x1200, 0x139F, "Ethiopic"),
    (0x1780, 0x17FF, "Khmer"),
    (0x1E00, 0x1EFF, "Latin"),
    (0x1F00, 0x1FFF, "Greek"),
    (0x3041, 0x30FF, "Kana"),
    (0x3400, 0x9FFF, "Han"),
    (0xAC00, 0xD7AF, "Hangul"),
    (0xF900, 0xFAFF, "Han"),
    (0xFB1D, 0xFB4F, "Hebrew"),
    (0xFB50, 0xFEFC, "Arabic"),
    (0xFF21, 0xFF5A, "Latin"),
    (0xFF66, 0xFF9F, "Kana"),
    (0x20000, 0x3347F, "Han"),
)
_STARTS = [start for start, _, _ in _RANGES]


def script_of(character: str) -> str:
    """The script of a letter, by Unicode's blocks; `other` for those of scripts that are not listed."""
    code = ord(character)
    start, end, name = _RANGES[max(0, bisect_right(_STARTS, code) - 1)]
    return name if start <= code <= end else "other"


def script_shares(texts: Sequence[str]) -> dict[str, float]:
    """Share of each script in the letters of a sample, the largest first; empty where there are no letters.

    Args:
        texts: Any number of strings.
    """
    sample = texts[:: -(-len(texts) // SAMPLE) or 1]
    characters = Counter("".join(text[:CHARACTERS] for text in sample))
    scripts: Counter[str] = Counter()
    for character, times in characters.items():
        if character.isalpha():
            scripts[script_of(character)] += times
    total = scripts.total()
    return {name: times / total for name, times in scripts.most_common()}
