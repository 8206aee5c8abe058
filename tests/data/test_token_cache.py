"""The second reading of a large column comes from disk, unless anything it depends on has changed."""

from __future__ import annotations

import logging
import os

import pytest

from featherfit.checkpoints.cache import cache_dir
from featherfit.data import token_cache
from featherfit.data.token_cache import encode_once

TEXTS = ["we laughed a lot", "", "never again", "壊れました", "half \ud7ff"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERFIT_HOME", str(tmp_path))
    monkeypatch.delenv("FEATHERFIT_TOKEN_CACHE", raising=False)
    monkeypatch.setattr(token_cache, "SMALLEST", 2)


@pytest.fixture
def encoded(monkeypatch):
    """The lists that were really tokenized."""
    calls = []
    original = token_cache.encode
    monkeypatch.setattr(token_cache, "encode", lambda tok, texts: calls.append(list(texts)) or original(tok, texts))
    return calls


def ids(lists) -> list[list[int]]:
    return [row.tolist() for row in lists]


def files() -> list:
    folder = cache_dir() / "tokens"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_the_second_time_comes_from_disk(bert_tokenizer, encoded):
    bert_tokenizer(TEXTS, truncation=True, padding="max_length", max_length=4)  # leaves its settings behind
    first = encode_once(bert_tokenizer, TEXTS)
    again = encode_once(bert_tokenizer, TEXTS)
    assert ids(again) == ids(first) == bert_tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    assert again.flat.dtype == first.flat.dtype and again.lengths.dtype == first.lengths.dtype
    assert encoded == [TEXTS] and [file.suffix for file in files()] == [".safetensors"]


@pytest.mark.parametrize(
    "other", [TEXTS[::-1], TEXTS[:-1], [*TEXTS, "more"], [TEXTS[0] + TEXTS[2], *TEXTS[1:2], "", *TEXTS[3:]]]
)
def test_other_texts_are_other_tokens(bert_tokenizer, encoded, other):
    encode_once(bert_tokenizer, TEXTS)
    assert ids(encode_once(bert_tokenizer, other)) == bert_tokenizer(other, add_special_tokens=False)["input_ids"]
    assert len(encoded) == 2


def test_where_a_text_ends_counts(bert_tokenizer, encoded):
    encode_once(bert_tokenizer, ["ab", "c"])
    encode_once(bert_tokenizer, ["a", "bc"])
    assert len(encoded) == 2


def test_another_tokenizer_does_not_get_them(bert_checkpoint, encoded):
    from transformers import AutoTokenizer

    one, other = (AutoTokenizer.from_pretrained(bert_checkpoint.folder, local_files_only=True) for _ in range(2))
    other.add_tokens(["laughed a"])
    assert ids(encode_once(one, TEXTS)) != ids(encode_once(other, TEXTS))
    assert len(encoded) == 2


def test_another_version_of_the_library_does_not_get_them(bert_tokenizer, encoded, monkeypatch):
    encode_once(bert_tokenizer, TEXTS)
    monkeypatch.setattr("tokenizers.__version__", "0")
    encode_once(bert_tokenizer, TEXTS)
    assert len(encoded) == 2


def test_small_columns_leave_nothing(bert_tokenizer, encoded, monkeypatch):
    monkeypatch.setattr(token_cache, "SMALLEST", len(TEXTS) + 1)
    encode_once(bert_tokenizer, TEXTS)
    assert files() == [] and len(encoded) == 1


def test_it_can_be_turned_off(bert_tokenizer, encoded, monkeypatch):
    encode_once(bert_tokenizer, TEXTS)
    monkeypatch.setenv("FEATHERFIT_TOKEN_CACHE", "0")
    encode_once(bert_tokenizer, TEXTS)
    encode_once(bert_tokenizer, TEXTS[1:])
    assert len(encoded) == 3 and len(files()) == 1


@pytest.mark.parametrize("spoil", ["cut", "flip", "empty"])
def test_a_damaged_file_is_ignored_with_a_line_in_the_log(bert_tokenizer, encoded, spoil, caplog):
    first = encode_once(bert_tokenizer, TEXTS)
    (file,) = files()
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes({"cut": raw[:-4], "flip": raw, "empty": b""}[spoil])
    with caplog.at_level(logging.INFO, logger="featherfit"):
        assert ids(encode_once(bert_tokenizer, TEXTS)) == ids(first)
    assert len(encoded) == 2 and "are not used" in caplog.text
    encode_once(bert_tokenizer, TEXTS)
    assert len(encoded) == 2  # it was written anew


def test_what_was_not_used_for_longest_goes(bert_tokenizer, monkeypatch):
    columns = [TEXTS, TEXTS[1:], TEXTS[::-1]]
    for age, texts in enumerate(columns[:2]):
        before = set(files())
        encode_once(bert_tokenizer, texts)
        (new,) = set(files()) - before
        os.utime(new, (1000 + age, 1000 + age))
    old, newer = sorted(files(), key=lambda file: file.stat().st_mtime)
    encode_once(bert_tokenizer, columns[0])  # and is the newest now
    monkeypatch.setattr(token_cache, "LARGEST_TOTAL", sum(file.stat().st_size for file in files()) + 50)
    encode_once(bert_tokenizer, columns[2])
    assert old in files() and newer not in files() and len(files()) == 2


def test_what_is_larger_than_the_room_is_not_kept(bert_tokenizer, monkeypatch):
    encode_once(bert_tokenizer, TEXTS)
    kept = files()
    monkeypatch.setattr(token_cache, "LARGEST_TOTAL", 10)
    encode_once(bert_tokenizer, TEXTS[1:])
    assert files() == kept


def test_a_folder_that_cannot_be_written_changes_nothing(bert_tokenizer, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEATHERFIT_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.INFO, logger="featherfit"):
        lists = encode_once(bert_tokenizer, TEXTS)
    assert ids(lists) == bert_tokenizer(TEXTS, add_special_tokens=False)["input_ids"] and "not stored" in caplog.text
