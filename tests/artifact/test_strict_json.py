"""What strict JSON refuses, each with its reason, and what it lets through."""

from __future__ import annotations

import pytest

from featherfit.artifact.strict_json import MOST_BYTES, MOST_DEPTH, MOST_VALUES, parse_json, parse_object
from featherfit.errors import ArtifactError


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 100_000, "nested more than 32 deep"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "nested more than 32 deep"),
        (b"[" + b"1," * MOST_VALUES + b"1]", "more than 200,000 values"),
        (b'"' + b"x" * MOST_BYTES + b'"', "at most 4,194,304 are read"),
        (b'{"a": 1, "b": 2, "a": 1}', "'a' is there twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"[1e999]", "1e999 is no number"),
        (b'["\\ud800"]', "surrogates not allowed"),
        (b'{"\\udc00": 1}', "surrogates not allowed"),
        (b"\xff", "can't decode byte"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b"[" + b"9" * 5000 + b"]", "limit"),
    ],
)
def test_refused(content, reason):
    with pytest.raises(ArtifactError, match=reason):
        parse_json(content, "it")


def test_marks_inside_of_text_do_not_count():
    text = '[{"' * MOST_DEPTH + '\\\\",,,' * 100
    import json

    assert parse_json(json.dumps({"a\\": [text]}).encode(), "it") == {"a\\": [text]}


def test_limits_are_reached():
    deep = b"[" * MOST_DEPTH + b"]" * MOST_DEPTH
    assert parse_json(deep, "it") and len(parse_json(b"[" + b"1," * (MOST_VALUES - 1) + b"1]", "it")) == MOST_VALUES
    assert parse_json(b'["\\ud83d\\ude00"]', "it") == ["\U0001f600"]


def test_an_object():
    assert parse_object(b'{"a": 1}', "it") == {"a": 1}
    with pytest.raises(ArtifactError, match="one JSON object, not a list"):
        parse_object(b"[]", "it")
