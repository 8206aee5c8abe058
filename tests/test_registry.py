"""The registry: names in, things out."""

import pytest

from featherfit.errors import ConfigError
from featherfit.registry import Registry


@pytest.fixture
def shapes():
    registry = Registry("shape")
    registry.register("square")("a square")
    registry.register("circle")("a circle")
    return registry


def test_a_name_finds_what_was_filed_under_it(shapes):
    assert shapes["square"] == "a square"
    assert ("circle" in shapes, "oval" in shapes, 3 in shapes) == (True, False, False)
    assert len(shapes) == 2


def test_names_are_listed_in_order(shapes):
    assert list(shapes) == ["circle", "square"]


def test_the_decorator_hands_back_what_it_files(shapes):
    @shapes.register("line")
    def line():
        return 1

    assert shapes["line"] is line
    assert line() == 1


def test_a_taken_name_is_refused_and_stays(shapes):
    with pytest.raises(RuntimeError, match="^shape 'square' is registered twice$"):
        shapes.register("square")
    assert shapes["square"] == "a square"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sqare", "Unknown shape 'sqare'. Did you mean 'square'? Allowed: circle, square."),
        ("zzz", "Unknown shape 'zzz'. Allowed: circle, square."),
    ],
)
def test_an_unknown_name_lists_the_known_ones(shapes, name, message):
    with pytest.raises(ConfigError) as caught:
        shapes[name]
    assert str(caught.value) == message
