"""How rows are packed: every token once, groups at the least cost, masks against the definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from featherfit.models import packing
from featherfit.models.packing import Group, group_bounds, pack, pieces, round_up, tokens_of, widths_of


def mask_of(lengths: list[int], columns: int | None = None) -> torch.Tensor:
    """Attention mask (B, L), padded on the right."""
    columns = max(lengths) if columns is None else columns
    return (torch.arange(columns) < torch.tensor(lengths).unsqueeze(1)).long()


def random_lengths(seed: int, rows: int = 12, most: int = 90) -> list[int]:
    return np.random.default_rng(seed).integers(1, most, rows).tolist()


CASES = [[1], [7], [3, 1, 2], [16, 17, 48, 49, 64, 65], [5] * 11, *(random_lengths(seed) for seed in range(5))]


@pytest.mark.parametrize("lengths", CASES, ids=str)
class TestPack:
    def test_every_token_once_shortest_row_first(self, lengths):
        mask = mask_of(lengths, max(lengths) + 3)
        packed = pack(mask, 2)
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        assert packed.order.tolist() == order
        assert packed.lengths.tolist() == [lengths[row] for row in order]
        places = [(row, at) for row in order for at in range(lengths[row])]
        assert packed.real == len(places)
        assert packed.positions[: packed.real].tolist() == [at for _, at in places]
        assert packed.tokens[: packed.real].tolist() == [row * mask.shape[1] + at for row, at in places]

    def test_the_first_token_again_up_to_a_round_number(self, lengths):
        packed = pack(mask_of(lengths), 2)
        assert len(packed.tokens) == len(packed.positions) == len(packed.put) // 2
        assert len(packed.tokens) == tokens_of(sum(lengths))
        assert set(packed.tokens[packed.real :].tolist()) <= {packed.tokens[0].item()}
        assert set(packed.positions[packed.real :].tolist()) <= {0}
        assert 0 not in packed.padding.tolist()  # their outputs come from the first place
        assert set(packed.put[packed.real * 2 :].tolist()) <= {0}

    @pytest.mark.parametrize("heads", [1, 3])
    def test_groups_lay_out_head_states(self, lengths, heads):
        """A place (row, head, token) of a group takes the state of that head and token; padding takes a real one."""
        packed = pack(mask_of(lengths), heads)
        ordered = sorted(lengths)
        starts = np.cumsum(ordered) - ordered
        row, place, padding = 0, 0, []
        for group in packed.groups:
            real = group.real.tolist()
            count = sum(length > 0 for length in real)
            assert real == ordered[row : row + count] + [0] * (group.rows - count)
            assert group.start == place and group.rows == round_up(count)
            assert group.width == int(widths_of(np.array([max(real)]))[0]) >= max(real)
            taken = packed.take[place : place + group.rows * heads * group.width].view(group.rows, heads, group.width)
            for at, head, token in itertools.product(*map(range, taken.shape)):
                if token < real[at]:
                    assert taken[at, head, token] == (starts[row + at] + token) * heads + head
                else:
                    padding.append(place + int(np.ravel_multi_index((at, head, token), taken.shape)))
            row, place = row + count, place + taken.numel()
        assert row == len(lengths) and place == len(packed.take)
        assert packed.padding.tolist() == padding
        assert 0 <= packed.take.min() and packed.take.max() < sum(lengths) * heads

    def test_put_undoes_take(self, lengths):
        packed = pack(mask_of(lengths), 3)
        states = torch.arange(sum(lengths) * 3)
        assert torch.equal(states[packed.take][packed.put[: packed.real * 3]], states)


def test_widths():
    lengths = [1, 16, 17, 32, 33, 64, 65, 255, 256, 257, 384, 385, 512, 513, 769, 1025, 1537]
    expected = [16, 16, 32, 32, 64, 64, 96, 256, 256, 320, 384, 448, 512, 576, 832, 1536, 2048]
    assert widths_of(np.array(lengths)).tolist() == expected


def test_batches_are_filled_up_by_a_tenth_at_most():
    assert [tokens_of(tokens) for tokens in (1, 32, 33, 512, 513, 2048, 2049, 4090)] == [
        32,
        32,
        64,
        512,
        576,
        2048,
        2176,
        4096,
    ]
    assert all(tokens <= tokens_of(tokens) < 1.125 * tokens for tokens in range(300, 9000))
    assert len({tokens_of(tokens) for tokens in range(1, 4097)}) == 16 + 24 + 16  # few, since kernels are kept for each


def test_round_up_is_to_a_power_of_two_or_one_and_a_half_times_it():
    given = [round_up(rows) for rows in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 17, 25, 100, 129)]
    assert given == [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 16, 24, 32, 128, 192]
    assert all(
        rows <= round_up(rows) < 1.5 * rows and round_up(round_up(rows)) == round_up(rows) for rows in range(2, 2000)
    )


@pytest.mark.parametrize("most", [1, 5, 30, 10**9])
def test_pieces_hold_all_rows_and_few_empty_ones(most):
    for rows in range(0, 300):
        cut = pieces(rows, most)
        assert sum(cut) == rows and all(1 <= piece and round_up(piece) <= min(most, 1.2 * piece) for piece in cut)
        assert len(cut) <= rows / (most / 1.5) + 4  # as few as there can be, up to the rest


class TestMask:
    """Against the definition, for every query that is a token; what padding sees is of no interest."""

    @pytest.mark.parametrize("window", [None, 0, 2, 100])
    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("real", [[16, 16], [5, 16, 9], [3, 0], [1]])
    def test_definition(self, real, causal, window):
        width, heads = 16, 2
        group = Group(len(real), width, 0, torch.tensor(real))
        mask = group.mask(heads, torch.float32, causal=causal, window=window)
        given = torch.zeros(len(real) * heads, width, width) if mask is None else mask.expand(-1, width, width)
        given = given.expand(len(real) * heads, width, width).unflatten(0, (len(real), heads))
        for row, head in itertools.product(range(len(real)), range(heads)):
            for query, key in itertools.product(range(real[row]), range(width)):
                seen = key < real[row] and (not causal or key <= query)
                seen = seen and (window is None or abs(query - key) <= window)
                value = float(given[row, head, query, key])
                assert value == 0 if seen else value < -1e30

    def test_none_where_everything_is_seen(self):
        full = Group(2, 16, 0, torch.tensor([16, 16]))
        assert full.mask(2, torch.float32, causal=False, window=None) is None
        assert full.mask(2, torch.float32, causal=False, window=16) is None
        assert Group(2, 16, 0, torch.tensor([16, 15])).mask(2, torch.float32, causal=False, window=None) is not None

    def test_made_once_for_all_layers_and_in_the_scores_type(self):
        group = Group(2, 16, 0, torch.tensor([16, 3]))
        low = group.mask(2, torch.bfloat16, causal=True, window=None)
        assert low.dtype == torch.bfloat16 and torch.isfinite(low).all() and low.min() < -1e30
        assert group.mask(2, torch.bfloat16, causal=True, window=None) is low
        assert group.mask(2, torch.float32, causal=True, window=None).dtype == torch.float32
        assert not torch.equal(group.mask(2, torch.bfloat16, causal=True, window=1), low)

    def test_a_query_that_sees_no_key_stays_a_number(self):
        """Padding under a window: scores of any size plus the mask must not become nan in the softmax."""
        mask = Group(1, 16, 0, torch.tensor([2])).mask(1, torch.bfloat16, causal=False, window=1)
        assert torch.isfinite((mask - 1e4).float().softmax(-1)).all()


def price(lengths: list[int], bounds: list[tuple[int, int]], heads: int, each: int) -> int:
    """What groups cost: a constant each, and their scores."""
    widths = widths_of(np.array(lengths))
    return sum(each + heads * int(widths[last - 1]) ** 2 * (last - first) for first, last in bounds)


class TestGroupBounds:
    @pytest.mark.parametrize("each", [1, 5_000, 60_000, 10**9])
    def test_cheapest_of_all_cuts(self, each, monkeypatch):
        monkeypatch.setattr(packing, "_GROUP_PRICE", each)
        monkeypatch.setattr(packing, "_LARGEST_GROUP", 10**12)
        for seed in range(15):
            lengths = sorted(random_lengths(seed, rows=7, most=200))
            found = group_bounds(np.array(lengths), 4)
            places = range(1, len(lengths))
            cuts = itertools.chain(*(itertools.combinations(places, count) for count in range(len(lengths))))
            options = [list(itertools.pairwise([0, *cut, len(lengths)])) for cut in cuts]
            assert len(options) == 2 ** (len(lengths) - 1)
            assert price(lengths, found, 4, each) == min(price(lengths, option, 4, each) for option in options)

    def test_extremes(self, monkeypatch):
        lengths = np.array([3, 20, 20, 60, 200])
        monkeypatch.setattr(packing, "_GROUP_PRICE", 10**9)
        assert group_bounds(lengths, 2) == [(0, 5)]
        monkeypatch.setattr(packing, "_GROUP_PRICE", 1)
        assert group_bounds(lengths, 2) == [(0, 1), (1, 3), (3, 4), (4, 5)]

    def test_every_row_once_and_no_group_too_large(self):
        for seed in range(20):
            lengths = np.sort(np.random.default_rng(seed).integers(1, 513, 200))
            bounds = group_bounds(lengths, 12)
            assert bounds[0][0] == 0 and bounds[-1][1] == 200
            assert all(one[1] == other[0] for one, other in itertools.pairwise(bounds))
            for first, last in bounds:
                scores = 12 * int(widths_of(lengths[last - 1 : last])[0]) ** 2 * round_up(last - first)
                assert last - first == 1 or scores <= packing._LARGEST_GROUP
            assert any(last - first > 1 for first, last in bounds)
