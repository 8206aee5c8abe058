"""The charsmap, read back by a decoder of our own and by `tokenizers`."""

from __future__ import annotations

import random
import struct
import unicodedata

import pytest
from tokenizers.normalizers import Precompiled

from featherfit.checkpoints.wheels.charsmap import add_decomposed, compile_charsmap


def lookup(charsmap: bytes, text: str) -> str | None:
    """What the whole of `text` is replaced by, walking the double array by the book of darts-clone."""
    (size,) = struct.unpack_from("<I", charsmap)
    slots = struct.unpack_from(f"<{size // 4}I", charsmap, 4)
    position = slots[0] >> 10
    for at, byte in enumerate(text.encode()):
        slot = slots[position ^ byte]
        if slot & 0x800000FF != byte:
            return None
        position ^= byte ^ (slot >> 10)
        ends = bool(slot >> 8 & 1)
        if at == len(text.encode()) - 1 and ends:
            start = 4 + size + (slots[position] & 0x7FFFFFFF)
            return charsmap[start : charsmap.index(b"\0", start)].decode()
    return None


def test_every_key_is_found_and_nothing_else() -> None:
    draw = random.Random(0)
    letters = "abcdeéßж漢字\U0001f600\uff76"
    keys = {"".join(draw.choices(letters, k=draw.randint(1, 4))) for _ in range(3000)}
    table = {key: draw.choice(["", "x", "yz", "é", key[::-1]]) for key in keys}
    charsmap = compile_charsmap(table)
    assert {key: lookup(charsmap, key) for key in table} == table
    others = {"".join(draw.choices(letters, k=draw.randint(1, 5))) for _ in range(3000)} - keys
    assert [other for other in others if lookup(charsmap, other) is not None] == []


def test_tokenizers_reads_it() -> None:
    normaliser = Precompiled(compile_charsmap({"Ａ": "A", "①": "1", "\u3000": " ", "ﬁ": "fi", "a\u0301": "á"}))
    assert normaliser.normalize_str("Ａ\u3000①x ﬁn a\u0301") == "A 1x fin á"


def test_no_rules_replace_nothing() -> None:
    assert Precompiled(compile_charsmap({})).normalize_str("ab é") == "ab é"


@pytest.mark.parametrize("key", ["", "a\0b"])
def test_keys_the_format_cannot_hold_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="cannot replace"):
        compile_charsmap({key: "x"})


def test_every_spelling_of_a_character_becomes_what_the_character_becomes() -> None:
    table = add_decomposed({"é": "E", "x": "y"})
    assert (table["e\u0301"], table["é"], table["x"]) == ("E", "E", "y")
    # LATIN SMALL LETTER E WITH CIRCUMFLEX AND ACUTE: composed of ê and a mark, or of e and two.
    assert table["ê\u0301"] == table["e\u0302\u0301"] == "\u1ebf"
    assert "\u1ebf" not in table  # what has no replacement of its own stays


def test_added_spellings_compose_as_unicode_does() -> None:
    added = add_decomposed({})
    assert len(added) > 900
    assert all(unicodedata.normalize("NFC", spelling) == character for spelling, character in added.items())
    composed = [chr(code) for code in range(0xC0, 0xAC00) if unicodedata.normalize("NFD", chr(code)) in added]
    assert {"é", "が", "ё", "й", "ệ"} <= set(composed)
