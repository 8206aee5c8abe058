"""Pages of mapped weights: given back, read again with the same numbers, and never taken from what was changed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from featherfit.models import tables
from featherfit.models.linear import cpu_reorders, freeze_linears, lower_precision
from featherfit.models.mapped import release_pages
from featherfit.models.tables import MappedEmbedding

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are given back on Linux only")

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


def test_a_table_lets_go_of_its_pages_now_and_then(mapped, monkeypatch):
    monkeypatch.setattr(tables, "RELEASED_AFTER", 1000)
    plain = nn.Embedding.from_pretrained(mapped.clone())
    own = MappedEmbedding.of(nn.Embedding(ROWS, WIDTH, _weight=mapped).requires_grad_(False), torch.float32)
    ids = torch.arange(ROWS).view(4, -1)
    for part in ids:
        assert torch.equal(own(part), plain(part))
    assert resident(mapped) < mapped.nbytes / 8
    assert torch.equal(own(ids[0, :900]), plain(ids[0, :900])) and resident(mapped) > mapped.nbytes / 8


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
