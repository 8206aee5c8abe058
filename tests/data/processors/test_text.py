import itertools
import types

import numpy as np
import pandas as pd
import pytest

from featherfit.config.schema import HfTextConfig
from featherfit.data.processors.cells import column_texts
from featherfit.data.processors.text import TextProcessor, trimmed_lengths
from featherfit.errors import CheckpointError, ConfigError, DataError

CLS, SEP = 101, 102


def word_tokenizer(*, bos=None, eos=None, sep=None, pad=None, limit=None):
    """A fast tokenizer of the words "a" to "z" (ids 10 to 35) with the special tokens asked for."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = {"bos_token": bos, "eos_token": eos, "sep_token": sep, "pad_token": pad}
    vocabulary = {letter: 10 + place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz")} | {"[UNK]": 0}
    vocabulary |= {name: place for place, name in enumerate([n for n in names.values() if n], 1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    given = {name: token for name, token in names.items() if token}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", model_max_length=limit, **given)


@pytest.fixture
def bert(bert_checkpoint):
    def build(*columns, **options):
        return TextProcessor.from_checkpoint(bert_checkpoint, columns, HfTextConfig(**options))

    return build


def test_one_column_is_what_the_tokenizer_makes(bert, bert_tokenizer):
    texts = ["We laughed a lot.", "", "壊れました", "good", "We laughed a lot."]
    rows = bert("text")(pd.DataFrame({"text": texts}))
    expected = bert_tokenizer(texts)["input_ids"]
    assert [ids.tolist() for ids in rows.ids] == expected
    assert rows.ids[0].dtype == np.int32
    assert rows.lengths.tolist() == [len(ids) for ids in expected]
    assert rows.truncated == 0
    assert all(not segments.any() for segments in rows.segments)


def test_a_released_tokenizer_is_built_again(bert, reviews):
    processor = bert("body")
    before, tokenizer = processor(reviews), processor.tokenizer
    processor.release_tokenizer()
    processor.release_tokenizer()  # the second time there is nothing to do
    assert tokenizer.backend_tokenizer is None
    after = processor(reviews)
    assert processor.tokenizer is tokenizer
    assert [ids.tolist() for ids in after.ids] == [ids.tolist() for ids in before.ids]


def test_one_long_column_is_cut_and_counted_by_rows(bert, bert_tokenizer):
    texts = ["good " * 9, "good", "good " * 9, "good " * 4]
    rows = bert("text", max_text_len=6)(pd.DataFrame({"text": texts}))
    assert [ids.tolist() for ids in rows.ids] == bert_tokenizer(texts, truncation=True, max_length=6)["input_ids"]
    assert rows.truncated == 2 and rows.lengths.tolist() == [6, 3, 6, 6]
    assert [len(segments) for segments in rows.segments] == [6, 3, 6, 6]


def test_multilingual_tokenizer(multilingual_checkpoint):
    from transformers import AutoTokenizer

    texts = ["とても良い商品でした", "质量很好，值得购买", "สินค้าดีมากครับ", "정말 좋아요", "منتج رائع جدا", ""]
    frame = pd.DataFrame({"a": texts, "b": texts[::-1]})
    tokenizer = AutoTokenizer.from_pretrained(multilingual_checkpoint.folder, local_files_only=True)
    rows = TextProcessor.from_checkpoint(multilingual_checkpoint, ["a"], HfTextConfig())(frame)
    assert [ids.tolist() for ids in rows.ids] == tokenizer(texts)["input_ids"]
    assert rows.segments is None
    rows = TextProcessor.from_checkpoint(multilingual_checkpoint, ["a", "b"], HfTextConfig())(frame)
    first, second = (tokenizer(column.tolist(), add_special_tokens=False)["input_ids"] for column in (frame.a, frame.b))
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    expected = [[start, *one, end, *two, end] for one, two in zip(first, second, strict=True)]
    assert [ids.tolist() for ids in rows.ids] == expected
    assert tokenizer.unk_token_id not in np.concatenate(rows.ids)


def test_two_columns_are_a_sentence_pair(bert, bert_tokenizer, reviews):
    before = reviews.copy(deep=True)
    rows = bert("body", "title")(reviews)
    pair = bert_tokenizer(reviews["body"].tolist(), reviews["title"].fillna("").tolist())
    assert [ids.tolist() for ids in rows.ids] == pair["input_ids"]
    assert [segments.tolist() for segments in rows.segments] == pair["token_type_ids"]
    pd.testing.assert_frame_equal(reviews, before)


def test_segments_alternate_over_columns(bert):
    rows = bert("a", "b", "c")(pd.DataFrame({"a": ["one"], "b": ["two"], "c": ["three"]}))
    assert rows.segments[0].tolist() == [0, 0, 0, 1, 1, 0, 0]
    assert rows.ids[0].tolist().count(SEP) == 3
    single = bert("a", "b", text_segment_num=1)(pd.DataFrame({"a": ["one"], "b": ["two"]}))
    assert single.segments is None
    with pytest.raises(ConfigError, match="text_segment_num is 3, but the checkpoint has 2 segments"):
        bert("a", text_segment_num=3)


def test_insert_sep_false_joins_without(bert, bert_tokenizer):
    frame = pd.DataFrame({"a": ["one"], "b": ["two"]})
    (ids,) = bert("a", "b", insert_sep=False)(frame).ids
    assert ids.tolist() == bert_tokenizer("one two")["input_ids"]


def test_longest_column_is_cut_first(bert, bert_tokenizer):
    frame = pd.DataFrame({"a": ["one"], "b": ["one two three four five six"]})
    processor = bert("a", "b", max_text_len=8)
    rows = processor(frame)
    (one, two, three, four) = bert_tokenizer("one two three four", add_special_tokens=False)["input_ids"]
    assert rows.ids[0].tolist() == [CLS, one, SEP, one, two, three, four, SEP]
    assert rows.truncated == 1
    assert processor(frame.assign(b="one")).truncated == 0


@pytest.mark.parametrize("budget", range(12))
def test_trimming_equals_taking_from_the_longest_one_by_one(budget):
    for lengths in itertools.product(range(5), repeat=3):
        expected = list(lengths)
        while sum(expected) > budget:
            longest = max(expected)
            expected[2 - expected[::-1].index(longest)] -= 1
        assert trimmed_lengths(lengths, budget) == expected


def test_rows_never_exceed_the_limit(bert):
    long = pd.DataFrame({"a": ["word " * 900], "b": ["other " * 700]})
    assert bert("a", "b").max_len == 512
    assert bert("a", "b", max_text_len=0).max_len == 512
    assert bert("a", "b")(long).lengths.tolist() == [512]
    assert bert("a", "b", max_text_len=64)(long).lengths.tolist() == [64]
    with pytest.warns(UserWarning, match="max_text_len is 600; the checkpoint's limit 512 holds"):
        assert bert("a", max_text_len=600).max_len == 512
    with pytest.raises(ConfigError, match="A row may have 3 tokens .* 3 of them are special"):
        bert("a", "b", max_text_len=3)


def test_roberta_positions_are_two_fewer(tmp_path):
    from transformers import RobertaConfig

    tokenizer = word_tokenizer(bos="<s>", eos="</s>", pad="<pad>")
    tokenizer.save_pretrained(tmp_path)
    RobertaConfig(max_position_embeddings=34).save_pretrained(tmp_path)
    source = types.SimpleNamespace(folder=tmp_path, model_type="roberta")
    processor = TextProcessor.from_checkpoint(source, ["text"], HfTextConfig())
    assert processor.max_len == 32
    assert processor(pd.DataFrame({"text": ["a " * 50]})).lengths.tolist() == [32]


def test_decoders_end_with_eos():
    tokenizer = word_tokenizer(bos="<s>", eos="</s>")
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    frame = pd.DataFrame({"x": ["a b", None], "y": ["c", "d"]})
    rows = TextProcessor(tokenizer, ["x", "y"], decoder=True)(frame)
    assert [ids.tolist() for ids in rows.ids] == [[start, 10, 11, end, 12, end], [start, end, 13, end]]
    rows = TextProcessor(tokenizer, ["x"], decoder=False)(frame)
    assert [ids.tolist() for ids in rows.ids] == [[start, 10, 11], [start]]
    processor = TextProcessor(tokenizer, ["x"], 3, decoder=True)
    assert processor.pad_id == end
    assert processor(frame).ids[0].tolist() == [start, 10, end]


def test_no_row_is_empty_and_no_limit_is_no_limit():
    tokenizer = word_tokenizer(eos="</s>")
    processor = TextProcessor(tokenizer, ["x"])
    assert processor.max_len is None
    rows = processor(pd.DataFrame({"x": ["", "a " * 3000]}))
    assert rows.ids[0].tolist() == [tokenizer.eos_token_id]
    assert rows.lengths.tolist() == [1, 3001]
    with pytest.raises(CheckpointError, match="no end-of-sequence token"):
        TextProcessor(word_tokenizer(pad="<pad>"), ["x"])


def test_separator_is_needed_for_several_columns_only():
    tokenizer = word_tokenizer(bos="<s>", pad="<pad>")
    TextProcessor(tokenizer, ["x"])
    TextProcessor(tokenizer, ["x", "y"], insert_sep=False)
    with pytest.raises(ConfigError, match="Set model.hf_text.insert_sep to false"):
        TextProcessor(tokenizer, ["x", "y"])


def test_row_order_column_order_and_other_columns_do_not_matter(bert, reviews):
    processor = bert("body", "title")
    rows = processor(reviews)
    shuffled = processor(reviews.iloc[::-1][["label", "title", "body"]])
    assert [ids.tolist() for ids in shuffled.ids] == [ids.tolist() for ids in rows.ids[::-1]]
    assert len(processor(reviews.iloc[:0])) == 0


def test_missing_columns_are_named(bert, reviews):
    with pytest.raises(DataError, match=r"lacks the text columns 'head'\. Needed: body, head\. Given: title, body"):
        bert("body", "head")(reviews)


def test_each_distinct_string_is_tokenized_once(monkeypatch):
    from featherfit.data.processors import tokens

    seen = []
    chunk = tokens._encode_chunk
    monkeypatch.setattr(tokens, "_encode_chunk", lambda tokenizer, texts: seen.extend(texts) or chunk(tokenizer, texts))
    monkeypatch.setattr(tokens, "CHUNK", 2)
    rows = TextProcessor(word_tokenizer(eos="</s>"), ["x"])(pd.DataFrame({"x": list("abacabz")}))
    assert seen == list("abcz")
    assert [ids[0] for ids in rows.ids] == [10, 11, 10, 12, 10, 11, 35]


def test_values_become_text():
    column = pd.Series(["a", 3, 3.0, 2.5, np.int64(7), True, None, float("nan"), pd.NA], dtype=object)
    assert column_texts(column) == ["a", "3", "3", "2.5", "7", "True", "", "", ""]
    assert column_texts(pd.Series([1, 2, None])) == ["1", "2", ""]
    assert column_texts(pd.Series(["x", "y"], dtype="category")) == ["x", "y"]
    with pytest.raises(DataError, match=r"Row 8, column 'tags': list is neither text nor a number"):
        column_texts(pd.Series(["a", ["b"]], index=[7, 8], name="tags"))


def test_half_a_surrogate_pair_names_its_row(bert):
    frame = pd.DataFrame({"t": pd.Series(["fine", "bad \ud800", "fine too"], dtype=object)}).set_axis([3, 4, 5])
    with pytest.raises(DataError, match=r"Row 4, column 't': the tokenizer refuses this text: 'bad "):
        bert("t")(frame)


def test_tokenizer_faults_that_no_row_explains_are_not_hidden(monkeypatch):
    from featherfit.data.processors import tokens

    processor = TextProcessor(word_tokenizer(eos="</s>"), ["x"])
    chunk = tokens._encode_chunk

    def fails_in_batches(tokenizer, texts):
        if len(texts) > 1:
            raise RuntimeError("out of memory")
        return chunk(tokenizer, texts)

    monkeypatch.setattr(tokens, "_encode_chunk", fails_in_batches)
    with pytest.raises(RuntimeError, match="out of memory"):
        processor(pd.DataFrame({"x": ["a", "b"]}))


def test_folder_without_tokenizer(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        TextProcessor.from_checkpoint(types.SimpleNamespace(folder=tmp_path, model_type="bert"), ["x"], HfTextConfig())
