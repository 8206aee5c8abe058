"""Embedding tables that stay in their file: the same numbers as converting them, and next to no memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import TINY
from torch import nn

from featherfit.checkpoints.resolve import Checkpoint
from featherfit.errors import CheckpointError
from featherfit.models import tables
from featherfit.models.backbone import build_backbone, build_backbone_from_config, stored_dtype
from featherfit.models.linear import cpu_reorders
from featherfit.models.tables import MappedEmbedding, give_rows_in

IDS = torch.tensor([[3, 1, 4], [1, 5, 3]])


def on_disk(folder: Path, kind: str, dtype: torch.dtype = torch.float32, safe: bool = True) -> Checkpoint:
    """A random tiny checkpoint whose tensors are of `dtype` in the file."""
    torch.manual_seed(0)
    model = build_backbone_from_config(TINY[kind])
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    model.to(dtype).save_pretrained(folder)
    if not safe:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return Checkpoint(kind, folder, "folder", "sha256:0", json.loads((folder / "config.json").read_text()))


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGE_TABLE", 200)


class TestMappedEmbedding:
    def test_rows_are_those_of_the_converted_table(self):
        table = nn.Embedding(7, 5, padding_idx=1)
        own = MappedEmbedding.of(table, torch.bfloat16)
        assert torch.equal(own(IDS), table.to(torch.bfloat16)(IDS)) and own(IDS).dtype == torch.bfloat16

    def test_it_is_a_drop_in(self):
        table = nn.Embedding(7, 5, padding_idx=1)
        own = MappedEmbedding.of(table, torch.bfloat16)
        assert isinstance(own, nn.Embedding) and own.weight is table.weight and own.padding_idx == 1
        assert own.state_dict().keys() == table.state_dict().keys() and "bfloat16" in repr(own)

    def test_gradients_reach_a_table_that_trains(self):
        own = MappedEmbedding.of(nn.Embedding(7, 5), torch.bfloat16)
        own(IDS).sum().backward()
        assert own.weight.grad.dtype == torch.float32 and own.weight.grad.sum(1).tolist() == [0, 10, 0, 10, 5, 5, 0]


class TestGiveRowsIn:
    def model(self) -> nn.Module:
        large, small = nn.Embedding(50, 5), nn.Embedding(4, 5)
        return nn.ModuleDict({"large": large, "again": large, "inner": nn.ModuleDict({"small": small})})

    def test_shared_tables_stay_shared_and_large_ones_freeze(self):
        model = self.model()
        names = list(model.state_dict())
        pointer = model["large"].weight.data_ptr()
        give_rows_in(model, torch.bfloat16, mapped=True)
        assert model["large"] is model["again"] and model["large"].weight.data_ptr() == pointer
        assert list(model.state_dict()) == names
        assert not model["large"].weight.requires_grad and model["inner"]["small"].weight.requires_grad
        assert model["inner"]["small"](torch.tensor([1])).dtype == torch.bfloat16

    def test_without_mapping_large_tables_are_converted(self):
        model = self.model()
        give_rows_in(model, torch.bfloat16, mapped=False)
        assert model["large"].weight.dtype == torch.bfloat16 and model["inner"]["small"].weight.dtype == torch.float32

    def test_a_subclass_keeps_its_own_way(self):
        class Doubled(nn.Embedding):
            def forward(self, input: torch.Tensor) -> torch.Tensor:
                return 2 * super().forward(input)

        model = nn.ModuleDict({"table": Doubled(50, 5)})
        expected = 2 * model["table"].weight.detach().to(torch.bfloat16)[IDS]
        give_rows_in(model, torch.bfloat16, mapped=True)
        assert type(model["table"]) is Doubled and torch.equal(model["table"](IDS), expected)


@pytest.mark.parametrize("kind", sorted(TINY))
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mapped", [True, False])
def test_a_backbone_in_bfloat16_holds_the_files_numbers(kind, stored, mapped, tmp_path):
    checkpoint = on_disk(tmp_path, kind, stored)
    plain = build_backbone(checkpoint)
    model = build_backbone(checkpoint, dtype=torch.bfloat16, mapped=mapped)
    own, expected = model.state_dict(), plain.state_dict()
    assert own.keys() == expected.keys()
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    for name, parameter in model.named_parameters():
        low = id(parameter) in matrices and parameter.dtype == torch.bfloat16
        told = expected[name].to(torch.bfloat16).float() if low else expected[name]
        if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Embedding) and parameter.dtype != torch.float32:
            told = expected[name].to(torch.bfloat16).float()
        assert torch.equal(parameter.float(), told), name
        in_file = mapped and stored == torch.float32 and cpu_reorders()
        assert (parameter.dtype == torch.bfloat16) == (
            id(parameter) in matrices and not in_file
        ) or parameter.dim() == 2
    for one, other in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other) and one.dtype == other.dtype
    for one, other in zip(embeddings(model), embeddings(plain), strict=True):
        ids = torch.arange(min(3, one.num_embeddings))
        assert torch.equal(one(ids), other(ids).to(torch.bfloat16)) or type(one) is not MappedEmbedding


def embeddings(model: nn.Module) -> list[nn.Embedding]:
    return [module for module in model.modules() if isinstance(module, nn.Embedding)]


def test_float32_is_what_it_was(tmp_path):
    checkpoint = on_disk(tmp_path, "bert")
    plain = build_backbone(checkpoint)
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    assert all(type(table) is nn.Embedding and table.weight.requires_grad for table in embeddings(plain))
    mapped = build_backbone(checkpoint, mapped=True)
    with torch.no_grad():
        one, other = (model(input_ids=IDS).last_hidden_state for model in (plain, mapped))
    assert torch.equal(one, other)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_files_that_are_not_safetensors_are_read(stored, tmp_path):
    checkpoint = on_disk(tmp_path, "bert", stored, safe=False)
    model = build_backbone(checkpoint, dtype=torch.bfloat16, mapped=True)
    other = build_backbone(checkpoint)
    assert torch.equal(embeddings(model)[0](IDS), embeddings(other)[0](IDS).to(torch.bfloat16))


def test_files_of_several_types_are_read_as_float32(tmp_path):
    checkpoint = on_disk(tmp_path, "bert")
    state = load_file(tmp_path / "model.safetensors")
    name = next(name for name in state if name.endswith("query.weight"))
    save_file({**state, name: state[name].half()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert stored_dtype(tmp_path) is None
    own = build_backbone(checkpoint, dtype=torch.bfloat16, mapped=True).state_dict()
    assert torch.equal(own[name].to(torch.bfloat16), state[name].half().to(torch.bfloat16))
    norm = next(name for name in state if name.endswith("LayerNorm.weight"))
    assert torch.equal(own[norm], state[norm])


def test_a_damaged_file_is_told(tmp_path):
    checkpoint = on_disk(tmp_path, "bert")
    (tmp_path / "model.safetensors").write_bytes(b"no such format")
    with pytest.raises(CheckpointError, match="Cannot load the text model"):
        build_backbone(checkpoint, dtype=torch.bfloat16, mapped=True)


MEMORY = """
import re, sys, torch
from pathlib import Path
from featherfit.checkpoints.resolve import Checkpoint
from featherfit.models.backbone import build_backbone
import transformers.models.bert.modeling_bert
import json
def private():
    return int(re.search(r"Anonymous:\\s+(\\d+)", Path("/proc/self/smaps_rollup").read_text())[1]) / 1024
folder = Path({folder!r})
checkpoint = Checkpoint("a", folder, "folder", "sha256:0", json.loads((folder / "config.json").read_text()))
build_backbone(checkpoint, dtype=torch.bfloat16, mapped=True)
before = private()
model = build_backbone(checkpoint, dtype=torch.bfloat16, mapped=True)
model.get_input_embeddings()(torch.arange(100))
print(private() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="Linux tells what memory is private")
def test_a_mapped_table_takes_no_memory(tmp_path):
    """51 MB of float32 in the file."""
    config = {**TINY["bert"], "vocab_size": 200_000, "hidden_size": 64}
    build_backbone_from_config(config).save_pretrained(tmp_path)
    code = MEMORY.format(folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 10
