"""What trains, in which type, from which seed; and what is refused or warned of."""

from __future__ import annotations

import warnings

import pytest
import torch
from tiny_models import TINY, tiny_backbone, tiny_batch, tiny_model
from torch import nn

from featherfit.adapters.apply import apply_adapters, merge_adapters, no_decay
from featherfit.adapters.base import Adapter
from featherfit.adapters.lora import LoRA
from featherfit.adapters.state import trainable_state
from featherfit.config.schema import LoraConfig, OptimConfig
from featherfit.errors import TargetError
from featherfit.models.build import MultiModalModel, model_size
from featherfit.models.heads import Head
from featherfit.models.text import TextEncoder

BATCH = tiny_batch()
HEAD = {"head.linear.weight", "head.linear.bias"}


def apply(model: MultiModalModel, peft: str | None, *, seed: int = 0, extra: tuple[str, ...] = (), **lora):
    optim = OptimConfig(peft=peft, lora=LoraConfig(**lora), extra_trainable_params=list(extra))
    return apply_adapters(model, optim, seed=seed)


def trains(model: MultiModalModel) -> set[str]:
    return set(trainable_state(model))


def test_without_peft_everything_trains():
    model = tiny_model("bert")
    model.encoder.requires_grad_(False)
    report = apply(model, None)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert (report.adapters, report.targets, report.notes) == (0, [], [])
    assert report.trainable == model_size(model).total


def test_exactly_what_trains_in_bert():
    layers = [f"encoder.backbone.encoder.layer.{index}." for index in (0, 1)]
    vectors = {f"{layer}attention.self.{name}.vector" for layer in layers for name in ("query", "value")}
    ends = ("self.query.base", "self.key", "self.value.base", "output.dense", "output.LayerNorm")
    modules = [f"attention.{end}" for end in ends] + ["intermediate.dense", "output.dense", "output.LayerNorm"]
    embeddings = "encoder.backbone.embeddings.LayerNorm"
    biases = {f"{layer}{module}.bias" for layer in layers for module in modules} | {f"{embeddings}.bias"}
    norms = {name.replace(".bias", ".weight") for name in biases if ".LayerNorm." in name}
    plain = {name.replace(".base.", ".") for name in biases}
    for peft, expected in {
        "ia3": vectors,
        "ia3_bias": vectors | biases,
        "ia3_norm": vectors | biases | norms,
        "bit_fit": plain,
        "norm_fit": plain | norms,
    }.items():
        model = tiny_model("bert")
        apply(model, peft)
        assert trains(model) == expected | HEAD, peft


def test_final_norm_and_bias_tables_in_t5():
    final = {"encoder.backbone.encoder.final_layer_norm.weight"}
    table = {"encoder.backbone.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"}
    model = tiny_model("t5")
    apply(model, "bit_fit")
    assert trains(model) == HEAD | final | table
    model = tiny_model("t5")
    apply(model, "lora", r=2)
    assert final < trains(model) and not table & trains(model)
    model = tiny_model("mpnet")
    apply(model, "lora_bias", r=2)
    assert "encoder.backbone.encoder.relative_attention_bias.weight" in trains(model)


def test_the_learning_rates_have_no_say():
    """In AutoMM they do: two_stages trains everything, single_stage freezes the head."""
    for choice in ("layerwise_decay", "two_stages", "single_stage", ""):
        model = tiny_model("bert")
        apply_adapters(model, OptimConfig(peft="ia3", lr_choice=choice), seed=0)
        assert len(trains(model)) == 4 + 2 and HEAD < trains(model)


def test_extra_trainable_params_by_the_names_hugging_face_gives():
    model = tiny_model("bert")
    apply(model, "ia3", extra=(r"encoder\.layer\.1\.attention\.self\.query\.weight", ".*position_embeddings.*"))
    extra = {name for name in trains(model) - HEAD if not name.endswith(".vector")}
    assert extra == {
        "encoder.backbone.encoder.layer.1.attention.self.query.base.weight",
        "encoder.backbone.embeddings.position_embeddings.weight",
    }
    for peft in ("ia3", None):
        with pytest.raises(TargetError, match="optim.extra_trainable_params: 'position' matches no parameter"):
            apply(tiny_model("bert"), peft, extra=("position",))


def test_training_most_of_the_encoder_is_refused():
    with pytest.raises(TargetError) as caught:
        apply(tiny_model("bert"), "ia3", extra=("encoder.*",))
    message = str(caught.value)
    model = tiny_model("bert")
    share = sum(p.numel() for n, p in model.encoder.backbone.named_parameters() if n.startswith("encoder.")) + 4 * 32
    total = sum(p.numel() for p in model.encoder.parameters()) + 4 * 32
    assert share > total / 2
    assert f"{share:,} of the encoder's {total:,} parameters" in message
    assert "encoder.layer.0.intermediate.dense.weight (1,536)" in message


def test_notes_are_warned_of_and_reported():
    with pytest.warns(UserWarning) as caught:
        report = apply(tiny_model("llama"), "ia3_bias", r=2, dropout=0.1)
    assert [str(warning.message) for warning in caught] == report.notes
    assert report.notes == [
        "optim.lora.r has no effect with optim.peft='ia3_bias'.",
        "optim.lora.dropout has no effect with optim.peft='ia3_bias'.",
        "optim.peft='ia3_bias' asks for biases, but this model has none; it trains as 'ia3'.",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert apply(tiny_model("bert"), "lora_bias", r=2, dropout=0.1).notes == []
        assert apply(tiny_model("llama"), "lora_norm", r=2).notes == []


def test_report():
    model = tiny_model("bert")
    report = apply(model, "lora", r=2)
    assert report.adapters == len(report.targets) == model_size(model).adapters == 4
    assert report.targets[0] == "encoder.layer.0.attention.self.query"
    assert report.trainable == 4 * 2 * (32 + 32) + 3 * 32 + 3 == model_size(model).trainable


def test_an_adapter_freezes_what_it_wraps_and_keeps_the_number_type():
    base = nn.Linear(4, 4).bfloat16()
    adapter = LoRA(base, rank=2, scale=1.0, dropout=0.0, generator=torch.Generator())
    assert not any(parameter.requires_grad for parameter in base.parameters())
    assert adapter.weight is base.weight and adapter.bias is base.bias
    assert {name for name, p in adapter.named_parameters() if p.requires_grad} == {"lora_a", "lora_b"}
    assert {p.dtype for p in adapter.parameters(recurse=False)} == {torch.float32}


def test_adapters_depend_on_the_seed_alone():
    def start(seed: int, disturbance: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(disturbance)
        model = tiny_model("bert")
        apply(model, "lora", seed=seed, r=2)
        return trainable_state(model)

    first, again, other = start(0, 1), start(0, 2), start(1, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if name.endswith("lora_a")]
    assert len(drawn) == 4 and not any(torch.equal(first[name], other[name]) for name in drawn)
    assert not torch.equal(first[drawn[0]], first[drawn[1]])
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    apply(tiny_model("bert"), "lora", r=2)
    assert torch.equal(torch.rand(1), expected)


def test_lora_starts_kaiming_uniform_and_scales_by_alpha_over_r():
    model = tiny_model("bert")
    apply(model, "lora", r=4, alpha=6, filter=["dense"])
    adapter = model.encoder.backbone.encoder.layer[0].intermediate.dense
    bound = 1 / 32**0.5  # sqrt(6 / ((1 + 5) * fan_in))
    assert 0.9 * bound < adapter.lora_a.abs().max() <= bound
    assert adapter.lora_b.abs().max() == 0 and adapter.scale == 1.5
    model = tiny_model("bert")
    apply(model, "rslora", r=4, alpha=6)
    assert model.encoder.backbone.encoder.layer[0].attention.self.query.scale == 3.0


@pytest.mark.parametrize("peft", ["lora", "rslora", "dora", "ia3_lora"])
def test_dropout_acts_in_training_only(peft):
    model = tiny_model("bert")
    apply(model, peft, r=2, dropout=0.5)
    adapter = model.encoder.backbone.encoder.layer[0].attention.self.query
    assert not adapter.training and adapter.dropout.p == 0.5
    torch.nn.init.ones_(adapter.lora_b)
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(adapter(x), adapter(x))
    assert not torch.equal(adapter.train()(x), adapter(x))


@pytest.mark.parametrize("model_type", ["bert", "t5", "llama"])
@pytest.mark.parametrize("peft", ["lora", "dora", "ia3", "ia3_lora"])
def test_low_precision_encoder(model_type, peft):
    """A bfloat16 encoder runs, learns and merges without autocast; all that trains is float32."""
    model = MultiModalModel(TextEncoder(tiny_backbone(model_type).bfloat16()), Head(32, 3, seed=0))
    kwargs = {"filter": "all-linear"} if peft == "ia3" else {"filter": "all-linear", "r": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = apply(model, peft, **kwargs)
    asks_for_autocast = any("autocast" in note for note in report.notes)
    assert asks_for_autocast == (model_type != "bert")  # those train their final norm
    assert all(p.dtype == (torch.float32 if p.requires_grad else torch.bfloat16) for p in model.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=asks_for_autocast):
        logits = model(BATCH)
        logits.square().sum().backward()
    assert logits.dtype == torch.float32 and torch.isfinite(logits).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_a_shared_layer_is_wrapped_everywhere_and_merged_everywhere():
    model = tiny_model("bert")
    layers = model.encoder.backbone.encoder.layer
    layers[1].attention.self.query = layers[0].attention.self.query
    report = apply(model, "lora", r=2, filter=["query"])
    assert report.adapters == 1
    assert isinstance(layers[0].attention.self.query, LoRA)
    assert layers[1].attention.self.query is layers[0].attention.self.query
    merge_adapters(model)
    assert type(layers[0].attention.self.query) is nn.Linear
    assert layers[1].attention.self.query is layers[0].attention.self.query


@pytest.mark.parametrize("model_type", TINY)
@pytest.mark.parametrize("peft", ["ia3_lora_norm", "ia3_norm"])
def test_weight_decay_exemptions(model_type, peft):
    model = tiny_model(model_type)
    apply(model, peft)
    exempt = no_decay(model)
    named = dict(model.named_parameters())
    assert exempt <= set(named)
    # In these models the matrices outside of embeddings and projections are low-rank ones and position tables.
    for name, parameter in named.items():
        is_table = name.endswith("relative_attention_bias.weight")
        assert (name in exempt) == (parameter.dim() == 1 or is_table), name


def test_dora_magnitudes_are_not_decayed():
    model = tiny_model("bert")
    apply(model, "dora", r=2)
    adapters = [name for name, module in model.named_modules() if isinstance(module, Adapter)]
    assert len(adapters) == 4 and {f"{name}.magnitude" for name in adapters} < no_decay(model)


@pytest.mark.parametrize("model_type", ["bert", "t5", "llama", "modernbert"])
@pytest.mark.parametrize("peft", ["ia3", "lora_norm", "dora"])
def test_gradient_checkpointing_leaves_gradients_as_they_are(model_type, peft):
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model = tiny_model(model_type)
        apply(model, peft)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("lora_b"):
                    parameter.fill_(0.01)
        if checkpointing:
            model.encoder.enable_gradient_checkpointing()
        torch.manual_seed(0)
        model.train()(BATCH).square().sum().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-5, atol=1e-6)
        assert name.endswith("bias") or gradient.abs().max() > 0, name  # that of a key bias is zero in theory


def test_adapters_learn():
    """A few steps bring the loss down, which no sign or wiring mistake would."""
    model = tiny_model("bert")
    apply(model, "ia3_lora_bias", r=2)
    labels = torch.tensor([0, 1, 2])
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(model(BATCH), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
