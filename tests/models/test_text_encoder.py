"""The encoder: depth numbers, segments, padding, checkpointing, and loading from disk."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import TINY, Saved, save, tiny_backbone, tiny_batch, tiny_model

from featherfit.checkpoints.families import FAMILIES
from featherfit.errors import CheckpointError, ConfigError
from featherfit.models.backbone import build_backbone, build_backbone_from_config
from featherfit.models.pooling import POOLINGS
from featherfit.models.text import TextEncoder

BATCH = tiny_batch()
ENCODER_DECODERS = ("t5", "mt5", "umt5")


def states_of(backbone: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return backbone(input_ids=BATCH.input_ids, attention_mask=BATCH.attention_mask).last_hidden_state


@pytest.mark.parametrize("model_type", TINY)
def test_family_facts(model_type):
    """Every path a family names is there, and nothing is built that no output depends on."""
    encoder = tiny_model(model_type).encoder
    family, depth = encoder.family, len(encoder.layers())
    assert model_type in family.model_types
    assert depth == (1 if model_type == "albert" else 2)
    for layer in encoder.layers().values():
        for name in (family.query, family.key, family.value, family.out, family.down):
            assert isinstance(layer.get_submodule(name), torch.nn.Linear)
        assert any(name in dict(layer.named_modules()) for name in family.up)
    if family.final_norm:
        encoder.backbone.get_submodule(family.final_norm)
    encoder(BATCH).sum().backward()
    unused = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert unused == []


@pytest.mark.parametrize("model_type", TINY)
@pytest.mark.parametrize("pooling", [None, *POOLINGS])
def test_output_is_the_pooled_last_state(model_type, pooling):
    encoder = tiny_model(model_type, pooling=pooling).encoder
    mode = pooling or encoder.family.pooling
    passed = dataclasses.replace(BATCH, token_type_ids=None)
    with torch.no_grad():
        out = encoder(passed)
    assert out.shape == (3, 32) == (3, encoder.out_dim)
    states = states_of(tiny_backbone(model_type))[BATCH.attention_mask.bool()]
    torch.testing.assert_close(out, POOLINGS[mode](states, BATCH.attention_mask.sum(1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", TINY)
def test_padding_changes_nothing(model_type):
    encoder = tiny_model(model_type).encoder
    alone = dataclasses.replace(
        BATCH,
        input_ids=BATCH.input_ids[1:2, :4],
        attention_mask=BATCH.attention_mask[1:2, :4],
        token_type_ids=BATCH.token_type_ids[1:2, :4],
    )
    with torch.no_grad():
        torch.testing.assert_close(encoder(alone)[0], encoder(BATCH)[1], rtol=1e-4, atol=1e-5)


def test_segments_go_where_there_are_several_and_nowhere_else():
    flat = dataclasses.replace(BATCH, token_type_ids=torch.zeros_like(BATCH.token_type_ids))
    for model_type in TINY:
        encoder = tiny_model(model_type).encoder
        with torch.no_grad():
            differs = not torch.equal(encoder(flat), encoder(BATCH))
        assert differs == (getattr(encoder.backbone.config, "type_vocab_size", 0) == 2), model_type
    roberta = TextEncoder(build_backbone_from_config({**TINY["roberta"], "type_vocab_size": 1}))
    assert torch.isfinite(roberta(BATCH)).all()


def test_unknown_pooling():
    with pytest.raises(ConfigError, match="pooling_mode is 'max'. Allowed: cls, mean, last"):
        TextEncoder(tiny_backbone("bert"), pooling="max")


DEPTHS = {
    "bert": {"embeddings.word_embeddings.weight": 3, "embeddings.LayerNorm.bias": 3}
    | {"encoder.layer.0.output.dense.weight": 2, "encoder.layer.1.attention.self.query.bias": 1},
    "electra": {"embeddings_project.weight": 3, "encoder.layer.1.output.dense.bias": 1},
    "deberta-v2": {
        "encoder.rel_embeddings.weight": 3,
        "encoder.LayerNorm.weight": 3,
        "encoder.layer.0.output.dense.bias": 2,
    },
    "mpnet": {"encoder.relative_attention_bias.weight": 3, "encoder.layer.1.attention.attn.q.weight": 1},
    "albert": {"embeddings.word_embeddings.weight": 2, "encoder.embedding_hidden_mapping_in.weight": 2}
    | {"encoder.albert_layer_groups.0.albert_layers.0.ffn.weight": 1},
    "t5": {"shared.weight": 3, "encoder.final_layer_norm.weight": 0}
    | {
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": 2,
        "encoder.block.1.layer.1.layer_norm.weight": 1,
    },
    "modernbert": {"embeddings.norm.weight": 3, "layers.0.attn.Wqkv.weight": 2, "final_norm.weight": 0},
    "llama": {"embed_tokens.weight": 3, "layers.1.mlp.up_proj.weight": 1, "norm.weight": 0},
}


@pytest.mark.parametrize("model_type", DEPTHS)
def test_layer_ids(model_type):
    encoder = tiny_model(model_type).encoder
    ids = encoder.layer_ids()
    assert list(ids) == [name for name, _ in encoder.named_parameters()]
    for name, depth in DEPTHS[model_type].items():
        assert ids[f"backbone.{name}"] == depth, name
    assert set(ids.values()) == set(DEPTHS[model_type].values()) | ({1, 2} if model_type != "albert" else {1})


def test_layer_ids_with_ten_layers_and_more():
    """Layer 1 is not a prefix of layer 10."""
    config = {**TINY["bert"], "num_hidden_layers": 12}
    ids = TextEncoder(build_backbone_from_config(config, device="meta")).layer_ids()
    assert [ids[f"backbone.encoder.layer.{i}.output.dense.bias"] for i in range(12)] == list(range(12, 0, -1))


@pytest.mark.parametrize("model_type", TINY)
def test_gradient_checkpointing_recomputes_and_changes_no_gradient(model_type):
    """With frozen embeddings, dropout on, and only inner projections training, as adapters do."""

    def gradients(enable: bool) -> tuple[dict[str, torch.Tensor], int]:
        encoder = tiny_model(model_type).encoder.requires_grad_(False)
        inner = [layer.get_submodule(encoder.family.down) for layer in encoder.layers().values()]
        for linear in inner:
            linear.weight.requires_grad_(True)
        calls = []
        first = next(iter(encoder.layers().values())).get_submodule(encoder.family.query)
        first.register_forward_pre_hook(lambda *_: calls.append(1))
        if enable:
            encoder.enable_gradient_checkpointing()
        torch.manual_seed(0)
        training = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
        loss = encoder.train()(BATCH).square().sum()
        found = torch.autograd.grad(loss, list(training.values()))  # which reentrant checkpointing cannot do
        return dict(zip(training, found, strict=True)), len(calls)

    plain, once = gradients(False)
    checkpointed, twice = gradients(True)
    assert twice == 2 * once > 0  # DeBERTa projects its positions with the same layer
    assert len(plain) == len(checkpointed) == (1 if model_type == "albert" else 2)
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-5, atol=1e-6)


def test_checkpointed_model_still_predicts():
    encoder = tiny_model("t5").encoder
    expected = encoder(BATCH)
    encoder.enable_gradient_checkpointing()
    with torch.inference_mode():
        torch.testing.assert_close(encoder(BATCH), expected)


@pytest.mark.parametrize("model_type", TINY)
def test_saved_and_loaded_is_the_same(model_type, tmp_path):
    model = tiny_backbone(model_type)
    loaded = build_backbone(save(model, tmp_path))
    assert not loaded.training
    assert torch.equal(states_of(loaded), states_of(model))


def test_the_config_is_left_alone():
    config = json.loads(json.dumps(TINY["t5"]))
    build_backbone_from_config(config, device="meta")
    assert config == TINY["t5"]


@pytest.mark.parametrize("model_type", ["llama", "eurobert", "gemma3_text"])
def test_nothing_is_cached_for_generation(model_type):
    out = tiny_backbone(model_type)(input_ids=BATCH.input_ids, attention_mask=BATCH.attention_mask)
    assert getattr(out, "past_key_values", None) is None


def test_dtype_and_meta():
    low = build_backbone_from_config(TINY["bert"], dtype=torch.bfloat16)
    assert {p.dtype for p in low.parameters()} == {torch.bfloat16}
    empty = build_backbone_from_config(TINY["bert"], device="meta")
    assert {p.device.type for p in empty.parameters()} == {"meta"}


def test_attention_implementation():
    assert build_backbone_from_config(TINY["bert"], attn="eager").config._attn_implementation == "eager"


@pytest.mark.parametrize("model_type", ENCODER_DECODERS)
def test_of_an_encoder_decoder_only_the_encoder_is_built_and_read(model_type, tmp_path, monkeypatch):
    import transformers
    from transformers import modeling_utils

    whole = {
        "t5": transformers.T5ForConditionalGeneration,
        "mt5": transformers.MT5ForConditionalGeneration,
        "umt5": transformers.UMT5ForConditionalGeneration,
    }[model_type]
    torch.manual_seed(0)
    full = whole(transformers.AutoConfig.for_model(**TINY[model_type])).eval()
    checkpoint = save(full, tmp_path)
    assert checkpoint.config["is_encoder_decoder"]

    read: list[str] = []
    original = modeling_utils.safe_open

    class Watched:
        def __init__(self, *args, **kwargs):
            self.file = original(*args, **kwargs)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *args):
            return self.file.__exit__(*args)

        def get_tensor(self, name):
            read.append(name)
            return self.file.get_tensor(name)

        def get_slice(self, name):
            return WatchedSlice(name, self.file.get_slice(name))

    class WatchedSlice:
        def __init__(self, name, tensor):
            self.name, self.tensor = name, tensor

        def __getattr__(self, name):
            return getattr(self.tensor, name)

        def __getitem__(self, key):
            read.append(self.name)
            return self.tensor[key]

    monkeypatch.setattr(modeling_utils, "safe_open", Watched)
    backbone = build_backbone(checkpoint)
    assert {"shared.weight", "encoder.final_layer_norm.weight"} <= set(read)
    assert not [name for name in read if not name.startswith(("shared.", "encoder."))]
    assert not [name for name, _ in backbone.named_modules() if "decoder" in name.split(".")]
    with torch.no_grad():
        expected = full.get_encoder()(BATCH.input_ids, attention_mask=BATCH.attention_mask).last_hidden_state
    assert torch.equal(states_of(backbone), expected)


@pytest.fixture
def transformers_bars():
    """Turns the progress bars of transformers on for one test, whatever others have done to them."""
    from transformers.utils import logging as transformers_logging

    were_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.enable_progress_bar()
    yield
    if not were_on:
        transformers_logging.disable_progress_bar()


def test_heads_and_poolers_of_the_checkpoint_are_left_out_quietly(tmp_path, capfd, transformers_bars):
    import transformers
    from transformers.utils import logging as transformers_logging

    torch.manual_seed(0)
    full = transformers.BertForMaskedLM(transformers.AutoConfig.for_model(**TINY["bert"])).eval()
    checkpoint = save(full, tmp_path)
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    transformers_logging.set_verbosity_warning()
    transformers_logging.add_handler(handler)
    capfd.readouterr()
    try:
        backbone = build_backbone(checkpoint)
    finally:
        transformers_logging.remove_handler(handler)
    assert records == [] and capfd.readouterr() == ("", "")
    assert transformers_logging.get_verbosity() == logging.WARNING
    assert transformers_logging.is_progress_bar_enabled()
    assert torch.equal(states_of(backbone), states_of(full.bert))


def drop(checkpoint: Saved, *names: str) -> None:
    file = checkpoint.folder / "model.safetensors"
    tensors = load_file(file)
    for name in names:
        del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})


def test_missing_weights_are_an_error_that_lists_them(tmp_path):
    checkpoint = save(tiny_backbone("bert"), tmp_path)
    gone = ["encoder.layer.0.output.dense.weight", "encoder.layer.1.attention.self.key.bias"]
    drop(checkpoint, *gone)
    with pytest.raises(CheckpointError) as caught:
        build_backbone(checkpoint)
    assert f"lack 2 tensors that BertModel needs: {', '.join(gone)}." in str(caught.value)


def test_a_missing_pooler_is_not_missed(tmp_path):
    import transformers

    whole = transformers.BertModel(transformers.AutoConfig.for_model(**TINY["bert"]))
    checkpoint = save(whole, tmp_path)
    drop(checkpoint, "pooler.dense.weight", "pooler.dense.bias")
    backbone = build_backbone(checkpoint)
    assert not [name for name, _ in backbone.named_parameters() if name.startswith("pooler")]


def test_a_config_that_does_not_fit_the_weights(tmp_path):
    checkpoint = save(tiny_backbone("bert"), tmp_path)
    checkpoint.config["intermediate_size"] = 40
    with pytest.raises(CheckpointError, match="Cannot load the text model in"):
        build_backbone(checkpoint)
    checkpoint.config.update(intermediate_size=48, num_hidden_layers=3)
    with pytest.raises(CheckpointError, match="lack 16 tensors that BertModel needs: .* and 8 more"):
        build_backbone(checkpoint)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match="Cannot load the text model in"):
        build_backbone(Saved(tmp_path, TINY["bert"]))


def test_known_families_are_all_tested():
    assert set(TINY) == {model_type for family in FAMILIES for model_type in family.model_types}
