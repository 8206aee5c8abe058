"""States of rows come back as they were given, from memory and from a file that is nowhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from featherfit.data import row_states
from featherfit.data.row_states import RowStates, keep_states
from featherfit.errors import StorageError

LENGTHS = np.array([3, 1, 5, 2], dtype=np.int64)
WIDTH = 6


def rows_of(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(int(length), WIDTH, generator=generator).to(dtype) for length in LENGTHS]


def kept(rows: list[torch.Tensor], in_memory: int, folder: Path) -> RowStates:
    """In an order that is not that of the rows."""
    parts = [(np.array([2, 1]), torch.cat([rows[2], rows[1]])), (np.array([3, 0]), torch.cat([rows[3], rows[0]]))]
    return keep_states(parts, LENGTHS, int(LENGTHS.sum()), in_memory=in_memory, folder=folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("in_memory", [0, 10_000])
def test_any_rows_in_any_order(dtype, in_memory, tmp_path):
    rows = rows_of(dtype)
    states = kept(rows, in_memory, tmp_path)
    assert (states.file is None) == bool(in_memory)
    assert states.told() == f"1 KB {'in memory' if in_memory else 'on disk'}"
    for order in ([0, 1, 2, 3], [3, 0], [2], [1, 1, 2]):
        found = states.take(np.array(order))
        assert found.dtype == dtype and torch.equal(found, torch.cat([rows[row] for row in order]))


def test_memory_up_to_the_limit(tmp_path):
    size = int(LENGTHS.sum()) * WIDTH * 4
    assert kept(rows_of(torch.float32), size, tmp_path).file is None
    assert kept(rows_of(torch.float32), size - 1, tmp_path).file is not None


@pytest.mark.skipif(os.name == "nt", reason="the file has a name there until it is closed")
def test_the_file_has_no_name(tmp_path):
    states = kept(rows_of(torch.float32), 0, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    assert len(states.take(np.arange(4))) == LENGTHS.sum()


def test_pages_that_were_given_back_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(row_states, "_GIVEN_BACK_AFTER", 1)
    rows = rows_of(torch.float32)
    states = kept(rows, 0, tmp_path)
    for _ in range(3):
        assert torch.equal(states.take(np.arange(4)), torch.cat(rows))


def test_rows_that_share_theirs(tmp_path):
    rows = rows_of(torch.float32)
    states = kept(rows, 10_000, tmp_path)
    same = RowStates(states.flat, None, states.starts[[0, 1, 2, 2]], LENGTHS[[0, 1, 2, 2]])
    assert torch.equal(same.take(np.array([3])), rows[2])


def test_a_disk_without_room(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    told = r"takes 1 KB, and .* has 1 KB left\. Make room, let FEATHERFIT_HOME .* or set optim.prefix_cache=off"
    with pytest.raises(StorageError, match=told):
        kept(rows_of(torch.float32), 0, tmp_path)


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written to .*file"):
        kept(rows_of(torch.float32), 0, tmp_path / "file")
