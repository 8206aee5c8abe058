"""A table of text replacements goes in; SentencePiece's `precompiled_charsmap` comes out.

The charsmap is what the `Precompiled` normaliser of `tokenizers` reads: a double-array trie (J. Aoe, 1989, in the
layout of darts-clone) over the UTF-8 bytes of what is replaced, and a pool of the replacements:

    u32 size of the trie in bytes | trie, one u32 a slot | replacements in UTF-8, each closed by a zero byte

A slot holds, from the lowest bit: the byte that leads to it (8 bits), whether a key ends there (1 bit), a bit for large
offsets (unused here), and the distance by exclusive or to the base of its children (22 bits). The child for byte `c` is
at `base ^ c`. The child for byte 0 is the value of a key that ends here: bit 31 and a position in the pool.
"""

from __future__ import annotations

import functools
import struct
import unicodedata
from collections.abc import Iterable, Mapping

_BLOCK = 256
_MOST_SLOTS = 1 << 21
_ENDS_HERE = 1 << 8
_IS_VALUE = 1 << 31


def compile_charsmap(replacements: Mapping[str, str]) -> bytes:
    """Compiles replacements, of which the longest match wins, to a `precompiled_charsmap`.

    Args:
        replacements: What is replaced and by what. No key is empty or holds a NUL.

    Returns:
        The bytes that stand (in base64) in a `tokenizer.json`.

    Raises:
        ValueError: A key is empty or holds a NUL, or the trie would exceed 2**21 slots.
    """
    pool = bytearray()
    positions: dict[str, int] = {}
    values: dict[bytes, int] = {}
    for key, replacement in replacements.items():
        if not key or "\0" in key:
            raise ValueError(f"A charsmap cannot replace {key!r}.")
        if replacement not in positions:
            positions[replacement] = len(pool)
            pool += replacement.encode() + b"\0"
        values[key.encode()] = positions[replacement]
    slots = _double_array(values)
    return struct.pack(f"<I{len(slots)}I", 4 * len(slots), *slots) + bytes(pool)


def add_decomposed(table: Mapping[str, str]) -> dict[str, str]:
    """Extends replacements of single characters to the other spellings of those characters.

    Normalisation form C composes a letter and its marks before a table of characters could see them: `e` and a
    combining acute accent have to become what `é` becomes. Every spelling of every composed character is added, with
    the character's own replacement or, lacking one, the character. The Unicode versions of Python 3.10 to 3.13 know the
    same composed characters, so the result is the same there.

    Args:
        table: Replacement of each single character.

    Returns:
        `table` and the added spellings.
    """
    spelled = {
        spelling: table.get(character, character)
        for character in _composed_characters()
        for spelling in _spellings(character)
        if spelling != character
    }
    return {**spelled, **table}


def _composed_characters() -> Iterable[str]:
    for code in (*range(0xC0, 0xD800), *range(0xE000, 0x30000)):
        character = chr(code)
        if _pair(character) and unicodedata.normalize("NFC", character) == character:
            yield character


def _pair(character: str) -> tuple[str, str] | None:
    """The base and the mark a character is canonically composed of, or None."""
    parts = unicodedata.decomposition(character).split()
    if len(parts) != 2 or parts[0].startswith("<"):
        return None
    return chr(int(parts[0], 16)), chr(int(parts[1], 16))


@functools.cache
def _spellings(character: str) -> frozenset[str]:
    """The character itself, and every spelling of its base followed by its mark."""
    pair = _pair(character)
    if pair is None:
        return frozenset((character,))
    base, mark = pair
    return frozenset((character, *(spelling + mark for spelling in _spellings(base))))


def _double_array(values: Mapping[bytes, int]) -> list[int]:
    """The slots of a trie that maps each key to its value (31 bits)."""
    keys = sorted(values)
    slots = _Slots()
    # A branch is a run of keys that agree in their first `depth` bytes, and the slot those bytes lead to.
    branches = [(0, 0, range(len(keys)))] if keys else []
    while branches:
        slot, depth, run = branches.pop()
        children = _children(keys, run, depth)
        base = slots.place(list(children))
        slots.words[slot] |= (slot ^ base) << 10
        for byte, child_run in children.items():
            child = base ^ byte
            if byte == 0:
                slots.words[slot] |= _ENDS_HERE
                slots.words[child] = _IS_VALUE | values[keys[child_run.start]]
            else:
                slots.words[child] = byte
                branches.append((child, depth + 1, child_run))
    return slots.words


def _children(keys: list[bytes], run: range, depth: int) -> dict[int, range]:
    """Splits a run by the byte after the first `depth`; 0 stands for the end of a key, which comes first."""
    children: dict[int, range] = {}
    for index in run:
        byte = keys[index][depth] if depth < len(keys[index]) else 0
        first = children[byte].start if byte in children else index
        children[byte] = range(first, index + 1)
    return children


class _Slots:
    """The array under construction, in whole blocks, so that no byte leads out of it."""

    def __init__(self) -> None:
        self.words = [0] * _BLOCK
        self._taken = bytearray(_BLOCK)
        self._taken[0] = 1  # the root
        self._bases = {0}

    def place(self, labels: list[int]) -> int:
        """Reserves a slot for each label and returns their base, which no other branch shares."""
        first_label, *others = labels
        slot = -1
        while True:
            slot = self._taken.find(0, slot + 1)
            if slot < 0:
                slot = len(self.words) - 1
                self._grow()
                continue
            base = slot ^ first_label
            if base not in self._bases and not any(self._taken[base ^ label] for label in others):
                break
        self._bases.add(base)
        for label in labels:
            self._taken[base ^ label] = 1
        return base

    def _grow(self) -> None:
        if len(self.words) + _BLOCK > _MOST_SLOTS:
            raise ValueError(f"The charsmap would need more than {_MOST_SLOTS} slots.")
        self.words += [0] * _BLOCK
        self._taken += bytes(_BLOCK)
