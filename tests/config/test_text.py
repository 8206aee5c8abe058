"""Items and values written as text."""

import pytest

from featherfit.config.text import read_bytes, read_value, show_bytes, split_items
from featherfit.errors import ConfigError

NONE = type(None)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", []),
        ("  a=1   b=2 ", ["a=1", "b=2"]),
        ("a=[x, y] b=2", ["a=[x, y]", "b=2"]),
        ("a={p: 1, q: [2, 3]} b=2", ["a={p: 1, q: [2, 3]}", "b=2"]),
        ("a='x y' b=\"it's\"", ["a='x y'", 'b="it\'s"']),
        ("a=['x] y', z] b=2", ["a=['x] y', z]", "b=2"]),
        ("a=it's b=x]y", ["a=it's", "b=x]y"]),
        ("a=1 lone", ["a=1", "lone"]),
    ],
)
def test_items_are_split_outside_quotes_and_brackets(text, items):
    assert split_items(text) == items


@pytest.mark.parametrize(("text", "what"), [("a=1 b=[x y", "bracket"), ("b='x y", "quote")])
def test_an_open_quote_or_bracket_is_named(text, what):
    with pytest.raises(ConfigError, match=rf"b=.x y.*: a {what} is not closed\."):
        split_items(text)


@pytest.mark.parametrize(
    ("text", "kinds", "value"),
    [
        ("007", (str,), "007"),
        ("null", (str,), "null"),
        ("'quoted'", (str,), "quoted"),
        ("None", (str, NONE), None),
        ("'null'", (str, NONE), "null"),
        ("3e-3", (float,), 0.003),
        ("5", (float,), 5.0),
        ("5.0", (int,), 5),
        ("1e2", (int,), 100),
        ("5", (int, float), 5),
        ("5.0", (int, float), 5.0),
        ("True", (bool,), True),
        ("0", (bool,), False),
        ("1", (bool, int), 1),
        ("7", (int, float, str, bool, NONE), 7),
        ("007", (int, float, str, bool, NONE), "007"),
        ("0.5", (int, float, str, bool, NONE), 0.5),
        ("'7'", (int, float, str, bool, NONE), "7"),
        ("true", (int, float, str, bool, NONE), True),
        ("nan", (int, str), "nan"),
        ("a", (list,), ["a"]),
        ("a, b", (list,), ["a", "b"]),
        ("[a,b]", (list, NONE), ["a", "b"]),
        ('["a", "b,c"]', (list,), ["a", "b,c"]),
        (r"['\d{1,2}', b]", (list,), [r"\d{1,2}", "b"]),
        ("[1, 2]", (list,), ["1", "2"]),
        ("[]", (list,), []),
        ("automm", (str, list), "automm"),
        ("query,value", (str, list), ["query", "value"]),
        ("'[query]'", (str, list), ["query"]),
        ('{"a": 2, "b": 0.5}', (str, dict, NONE), {"a": 2, "b": 0.5}),
        ("{a: 2, 'b,c': 0.5, d:e: 1}", (dict,), {"a": 2.0, "b,c": 0.5, "d:e": 1.0}),
    ],
)
def test_a_value_is_read_as_its_types_want_it(text, kinds, value):
    read = read_value(text, kinds, free_text=str in kinds)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("x", (int,)),
        ("1.5", (int,)),
        ("", (float,)),
        ("2", (bool,)),
        ("[a", (list,)),
        ("{a: b}", (dict,)),
        ("x", (dict,)),
    ],
)
def test_what_is_none_of_the_types_is_refused(text, kinds):
    with pytest.raises(ValueError):
        read_value(text, kinds, free_text=False)


def test_quotes_protect_nothing_where_only_some_words_are_allowed():
    assert read_value("'null'", (str, NONE), free_text=False) is None


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("16GB", 16 * 10**9), ("16 gb", 16 * 10**9), ("16G", 16 * 10**9), ("16GiB", 16 * 2**30), ("800MB", 8 * 10**8),
        ("1.5GB", 15 * 10**8), ("2e9", 2 * 10**9), ("800000000", 8 * 10**8), (5, 5), ("1TB", 10**12), ("3kB", 3000),
    ],
)  # fmt: skip
def test_amounts_of_memory(amount, expected):
    assert read_bytes(amount) == expected


@pytest.mark.parametrize("amount", ["", "GB", "16XB", "-1GB", "16 G B", "1,5GB", "lots"])
def test_what_is_no_amount(amount):
    with pytest.raises(ValueError):
        read_bytes(amount)


@pytest.mark.parametrize(
    ("size", "expected"), [(999, "1 KB"), (811_500_000, "812 MB"), (1_690_000_000, "1.69 GB"), (16 * 10**9, "16 GB")]
)
def test_bytes_are_shown(size, expected):
    assert show_bytes(size) == expected
