"""Pages of mapped weights: given back, read again with the same numbers, and never taken from what was changed."""

from __future__ import annotations

import copy
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from featherfit.errors import CheckpointError
from featherfit.models import tables
from featherfit.models.linear import cpu_reorders, freeze_linears, lower_precision
from featherfit.models.mapped import FileRows, release_pages
from featherfit.models.tables import KeptRows, MappedEmbedding

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are given back on Linux only")

plain_read = KeptRows._read
ROWS, WIDTH = 4096, 256  # 4 MB


def resident(tensor: torch.Tensor) -> int:
    """Bytes in memory of the mapping that holds the tensor's middle."""
    middle, inside = tensor.data_ptr() + tensor.nbytes // 2, False
    for line in Path("/proc/self/smaps").read_text(errors="surrogateescape").splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= middle < int(found[2], 16)
        elif inside and line.startswith("Rss:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("not mapped")


@pytest.fixture
def mapped(tmp_path: Path) -> torch.Tensor:
    torch.manual_seed(0)
    save_file({"table": torch.randn(ROWS, WIDTH), "bias": torch.zeros(7)}, tmp_path / "w.safetensors")
    return load_file(tmp_path / "w.safetensors")["table"]


def test_what_is_released_leaves_memory_and_is_read_again(mapped):
    before = mapped.clone()
    assert resident(mapped) >= mapped.nbytes - 8192
    assert release_pages([mapped]) >= mapped.nbytes - 8192
    assert resident(mapped) < mapped.nbytes / 8
    assert torch.equal(mapped, before)


def test_what_no_file_holds_is_left_alone():
    own = torch.randn(ROWS, WIDTH)
    before = own.clone()
    assert release_pages([own]) == 0 and torch.equal(own, before)


def test_what_was_changed_is_left_alone(mapped):
    mapped[5] += 1
    before = mapped.clone()
    assert release_pages([mapped]) == 0 and torch.equal(mapped, before)


def test_neighbours_in_the_file_keep_their_changes(tmp_path):
    state = {"a": torch.ones(3000), "b": torch.zeros(500), "c": torch.ones(3000)}
    save_file(state, tmp_path / "w.safetensors")
    found = load_file(tmp_path / "w.safetensors")
    found["b"] += 1  # shares its first and last page with the others
    release_pages([found["a"], found["c"]])
    assert (
        found["b"].tolist() == [1.0] * 500
        and torch.equal(found["a"], state["a"])
        and torch.equal(found["c"], state["c"])
    )


def frozen_table(weight: torch.Tensor) -> MappedEmbedding:
    return MappedEmbedding.of(nn.Embedding(ROWS, WIDTH, _weight=weight).requires_grad_(False), torch.bfloat16)


def test_a_table_lets_go_of_its_pages_and_keeps_what_it_read(mapped, monkeypatch):
    read: list[int] = []
    monkeypatch.setattr(KeptRows, "_read", lambda self, ids: read.extend(ids.tolist()) or plain_read(self, ids))
    expected = mapped.to(torch.bfloat16)
    release_pages([mapped])
    own, ids = frozen_table(mapped), torch.tensor([[7, 4000, 7, 9], [4000, 4000, 0, 7]])
    with torch.inference_mode():
        assert torch.equal(own(ids), expected[ids])
    assert torch.equal(own(ids), expected[ids]) and torch.equal(own(torch.tensor([9, 11])), expected[[9, 11]])
    assert read == [0, 7, 9, 4000, 11] and resident(mapped) < mapped.nbytes / 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_read_without_touching_a_page(tmp_path, dtype):
    table = torch.randn(ROWS, WIDTH).to(dtype)
    save_file({"a": torch.zeros(7), "table": table}, tmp_path / "w.safetensors")
    held = load_file(tmp_path / "w.safetensors")["table"]
    release_pages([held])
    before, numbers = resident(held), torch.tensor([0, ROWS - 1, 17, 17])
    assert torch.equal(FileRows(held)(numbers), table[numbers]) and resident(held) == before
    assert FileRows(held)(numbers[:0]).shape == (0, WIDTH)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_went_is_read_through_its_mapping(replaced, mapped, tmp_path):
    expected, file = mapped.to(torch.bfloat16), tmp_path / "w.safetensors"
    release_pages([mapped])
    file.rename(tmp_path / "old")
    if replaced:
        save_file({"table": torch.zeros(ROWS, WIDTH), "bias": torch.zeros(7)}, file)
    ids = torch.arange(0, ROWS, 3)
    assert torch.equal(frozen_table(mapped)(ids), expected[ids]) and resident(mapped) < mapped.nbytes / 8


def test_a_file_that_became_shorter_is_told(mapped, tmp_path):
    own = frozen_table(mapped)
    own(torch.tensor([1]))
    with (tmp_path / "w.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(CheckpointError, match="has changed since it was loaded"):
        own(torch.tensor([ROWS - 1]))


def test_rows_are_right_whatever_is_kept_and_forgotten(mapped, monkeypatch):
    monkeypatch.setattr(tables, "KEPT_BYTES", 100 * 2 * WIDTH)
    expected, own = mapped.to(torch.bfloat16), frozen_table(mapped)
    chance = torch.Generator().manual_seed(0)
    for number in range(50):
        ids = torch.randint(ROWS, (1 + 5 * number,), generator=chance)  # more than are kept, in the end
        assert torch.equal(own(ids), expected[ids])
    assert len(own._kept._rows) == 100


def test_what_is_kept_is_forgotten_when_the_table_changes(mapped):
    own, ids = frozen_table(mapped), torch.tensor([5, 6])
    assert torch.equal(own(ids), mapped[ids].to(torch.bfloat16))
    with torch.no_grad():
        own.weight.mul_(2)
    assert torch.equal(own(ids), mapped[ids].to(torch.bfloat16)) and own._kept is None


@pytest.mark.parametrize("wrong", [-1, ROWS])
def test_ids_that_the_table_lacks_are_refused(mapped, wrong):
    with pytest.raises(IndexError):
        frozen_table(mapped)(torch.tensor([0, wrong]))


def test_a_copy_of_a_module_keeps_rows_of_its_own(mapped):
    own, ids = frozen_table(mapped), torch.tensor([5, 6])
    expected = own(ids)
    other = copy.deepcopy(own)
    assert torch.equal(other(ids), expected) and torch.equal(own(ids), expected)


def test_threads_do_not_disturb_each_other(mapped, monkeypatch):
    monkeypatch.setattr(tables, "KEPT_BYTES", 300 * 2 * WIDTH)
    expected, own = mapped.to(torch.bfloat16), frozen_table(mapped)

    def right(seed: int) -> bool:
        chance = torch.Generator().manual_seed(seed)
        some = [torch.randint(ROWS, (200,), generator=chance) for _ in range(100)]
        return all(torch.equal(own(ids), expected[ids]) for ids in some)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(8)))


def test_a_table_that_trains_keeps_them(mapped, monkeypatch):
    monkeypatch.setattr(tables, "RELEASED_AFTER", 0)
    own = MappedEmbedding.of(nn.Embedding(ROWS, WIDTH, _weight=mapped), torch.float32)
    own(torch.arange(ROWS))
    assert resident(mapped) >= mapped.nbytes - 8192


@pytest.mark.skipif(not cpu_reorders(), reason="this machine keeps no reordered weights")
def test_a_frozen_matrix_stays_in_its_file_and_out_of_memory(mapped):
    """The same products and gradients as of a matrix that was converted."""
    layers = []
    for weight in (mapped, mapped.clone()):
        model = nn.Sequential(nn.Linear(WIDTH, ROWS))
        model[0].weight = nn.Parameter(weight, requires_grad=False)
        model[0].bias = nn.Parameter(torch.linspace(-1, 1, ROWS))
        freeze_linears(model)
        lower_precision(model, torch.bfloat16)
        layers.append(model[0])
    in_file, converted = layers
    assert (in_file.weight.dtype, converted.weight.dtype) == (torch.float32, torch.bfloat16)
    assert in_file.dtype == converted.dtype == torch.bfloat16
    x = torch.randn(3, WIDTH)
    gradients = []
    for layer in layers:
        own = x.clone().requires_grad_()
        layer(own).float().square().sum().backward()
        gradients.append((own.grad, layer.bias.grad))
    assert torch.equal(in_file(x), converted(x)) and in_file(x).dtype == torch.bfloat16
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert resident(mapped) < mapped.nbytes / 8


@pytest.mark.skipif(not cpu_reorders(), reason="this machine keeps no reordered weights")
def test_a_matrix_that_was_changed_afterwards_is_not_read_from_its_file(mapped):
    model = nn.Sequential(nn.Linear(WIDTH, ROWS, bias=False))
    model[0].weight = nn.Parameter(mapped, requires_grad=False)
    freeze_linears(model)
    lower_precision(model, torch.bfloat16)
    with torch.no_grad():
        model[0].weight.zero_()
    assert not model(torch.ones(2, WIDTH)).any() and not model[0].weight.any()
