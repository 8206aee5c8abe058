"""Flat token lists against plain Python lists, and the direct way to the Rust tokenizer against the usual one."""

from __future__ import annotations

import numpy as np
import pytest

from featherfit.data.processors import tokens
from featherfit.data.processors.tokens import TokenLists, encode

TEXTS = ["We laughed a lot.", "", "壊れました", "[SEP] in the text, [CLS]", "good " * 700]
LISTS = [[5, 6, 7], [], [8], [1, 2, 3, 4]]


def flat(lists: list[list[int]]) -> TokenLists:
    ids = np.array([token for row in lists for token in row], dtype=np.int32)
    return TokenLists.of(ids, np.array([len(row) for row in lists], dtype=np.int64))


def plain(lists: TokenLists) -> list[list[int]]:
    return [row.tolist() for row in lists]


class TestTokenLists:
    def test_it_is_a_sequence_of_arrays(self):
        lists = flat(LISTS)
        assert plain(lists) == [lists[place].tolist() for place in range(4)] == LISTS and len(lists) == 4
        assert lists[-1].tolist() == LISTS[-1] and plain(lists[1:3]) == LISTS[1:3] and lists[0].dtype == np.int32

    def test_taking_copies_no_ids(self):
        taken = flat(LISTS).take(np.array([3, 0, 3]))
        assert plain(taken) == [LISTS[3], LISTS[0], LISTS[3]] and np.shares_memory(taken[0], taken[2])

    @pytest.mark.parametrize("most", [None, 0, 1, 2, 3, 9])
    @pytest.mark.parametrize("prefix", [[], [90], [90, 91]])
    @pytest.mark.parametrize("suffix", [[], [95], [95, 96]])
    def test_framed_is_prefix_cut_ids_suffix(self, most, prefix, suffix):
        framed = flat(LISTS).framed(np.array(prefix), np.array(suffix), most)
        assert plain(framed) == [prefix + row[:most] + suffix for row in LISTS] and framed.flat.dtype == np.int32

    def test_nothing_framed_is_nothing(self):
        assert plain(flat([]).framed(np.array([90]), np.array([95]), 3)) == []


class TestEncode:
    def expected(self, tokenizer) -> list[list[int]]:
        return tokenizer(TEXTS, add_special_tokens=False, verbose=False)["input_ids"]

    @pytest.mark.parametrize("chunk", [2, 4096])
    def test_ids_are_those_of_the_usual_call(self, bert_tokenizer, chunk, monkeypatch):
        monkeypatch.setattr(tokens, "CHUNK", chunk)
        assert plain(encode(bert_tokenizer, TEXTS)) == self.expected(bert_tokenizer)
        assert plain(encode(bert_tokenizer, [])) == []

    def test_settings_of_an_earlier_call_do_not_last(self, bert_tokenizer):
        expected = self.expected(bert_tokenizer)
        bert_tokenizer(TEXTS, truncation=True, padding="max_length", max_length=4)
        assert bert_tokenizer.backend_tokenizer.truncation and bert_tokenizer.backend_tokenizer.padding
        assert plain(encode(bert_tokenizer, TEXTS)) == expected

    def test_the_direct_way_is_taken(self, bert_tokenizer):
        assert tokens.rust_tokenizer(bert_tokenizer) is not None

    def test_a_class_with_a_way_of_its_own_keeps_it(self, bert_tokenizer):
        class Upper(type(bert_tokenizer)):
            def __call__(self, texts, **options):
                return super().__call__(["good"] * len(texts), **options)

        own = Upper.from_pretrained(bert_tokenizer.name_or_path, local_files_only=True)
        good = bert_tokenizer("good", add_special_tokens=False)["input_ids"]
        assert plain(encode(own, ["a", "b"])) == [good, good] and tokens.rust_tokenizer(own) is None
