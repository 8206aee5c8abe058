"""Small copies and the model without numbers, beside the model a fit builds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_checkpoints import write_checkpoint
from tiny_models import TINY, tiny_batch
from tiny_runs import architecture_of, architecture_without_files

from featherfit.artifact.fitted import new_model
from featherfit.models.build import model_size
from featherfit.planning import copies
from featherfit.planning.copies import cut_config, depth_of, small_copy, whole_model
from featherfit.planning.weights import weights_of


@pytest.mark.parametrize("model_type", sorted(TINY))
def test_every_family_can_be_cut_and_run(model_type, tmp_path):
    small = architecture_without_files(model_type)
    for layers in (1, 2):
        model = small_copy(small, layers, reorders=False)
        assert depth_of(model) == layers
        assert model(tiny_batch()).isfinite().all()
        assert all(parameter.device.type == "cpu" for parameter in model.parameters())


@pytest.mark.parametrize("peft", ["ia3", "lora", None])
@pytest.mark.parametrize("model_type", ["bert", "t5", "llama"])
def test_counts_are_those_of_the_model_a_fit_builds(model_type, peft, tmp_path):
    architecture = architecture_of(write_checkpoint(tmp_path / "c", model_type), optim__peft=peft)
    without, built = (
        whole_model(architecture),
        new_model(architecture.config, architecture.checkpoint, {}, {}, 2, 0, architecture.device),
    )
    assert all(parameter.device.type == "meta" for parameter in without.encoder.parameters())
    assert model_size(without) == model_size(built)
    weights = weights_of(without, architecture)
    unique = {id(p): p for p in built.parameters()}.values()
    assert weights.trained == sum(p.nbytes for p in unique if p.requires_grad)
    assert sum(weights.frozen.values()) == sum(p.nbytes for p in unique if not p.requires_grad)


def test_words_and_layers_are_cut():
    config = {
        **TINY["qwen2"], "vocab_size": 150_000, "num_hidden_layers": 28, "pad_token_id": 140_000, "eos_token_id": 3,
        "layer_types": ["full_attention"] * 28,
    }  # fmt: skip
    cut = cut_config(config, 2)
    assert (cut["vocab_size"], cut["num_hidden_layers"], len(cut["layer_types"])) == (copies.VOCABULARY, 2, 2)
    assert (cut["pad_token_id"], cut["eos_token_id"]) == (copies.VOCABULARY - 1, 3)
    assert config["num_hidden_layers"] == 28
    assert cut_config(TINY["distilbert"], 1)["n_layers"] == 1
    assert cut_config(TINY["t5"], 1)["num_layers"] == 1


def test_large_matrices_share_their_memory(monkeypatch):
    monkeypatch.setattr(copies, "LARGE", 1)
    model = small_copy(architecture_without_files("bert"), 2, reorders=False)
    matrices = [p for p in model.encoder.parameters() if p.dim() > 1]
    assert len({p.untyped_storage().data_ptr() for p in matrices}) == 1
    assert model(tiny_batch()).isfinite().all()


def test_nothing_random_is_drawn_from_the_callers_numbers():
    before = torch.get_rng_state()
    small_copy(architecture_without_files("bert"), 1, reorders=False)
    assert torch.equal(before, torch.get_rng_state())


def test_expressions_for_single_layers_are_left_out(tmp_path):
    folder = write_checkpoint(tmp_path / "c")
    architecture = architecture_of(
        folder, optim__peft="lora", optim__top_layers=2, optim__extra_trainable_params=[".*layer.1.*LayerNorm.*"]
    )
    assert small_copy(replace(architecture, outputs=3), 1, reorders=False) is not None
