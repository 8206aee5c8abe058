"""Presets: which settings each name stands for."""

import pytest

from featherfit.config.dotted import build_config
from featherfit.config.presets import PRESETS, QUALITIES, SAME_AS, preset_overrides
from featherfit.errors import ConfigError

NAMES = "medium_quality, high_quality, best_quality, multilingual, multilingual_e5_small, multilingual_mdeberta"
E5 = {
    "model.hf_text.checkpoint_name": "intfloat/multilingual-e5-small",
    "optim.top_k": 1,
    "optim.few_shot": "auto",
    "optim.ema_decay": 0.99,
}
E5_METHOD = {
    "optim.peft": "lora",
    "optim.lr": 3e-3,
    "optim.end_lr": 3e-3,
    "optim.warmup_steps": 0,
    "env.batch_size": 32,
    "optim.top_layers": 0.5,
}
MDEBERTA = {
    "model.hf_text.checkpoint_name": "microsoft/mdeberta-v3-base",
    "optim.top_k": 1,
    "optim.few_shot": "auto",
    "env.precision": "32",
    "env.per_gpu_batch_size": 4,
}


def test_no_preset_means_the_defaults():
    assert preset_overrides(None, has_gpu=True) == ({}, [])


@pytest.mark.parametrize(
    ("name", "checkpoint", "rate", "rows"),
    [
        ("medium_quality", "google/electra-small-discriminator", 4e-4, 8),
        ("high_quality", "google/electra-base-discriminator", 1e-4, 8),
        ("default", "google/electra-base-discriminator", 1e-4, 8),
        ("BEST_quality", "microsoft/deberta-v3-base", 1e-4, 1),
    ],
)
@pytest.mark.parametrize("has_gpu", [False, True])
def test_the_qualities_are_automms(name, checkpoint, rate, rows, has_gpu):
    overrides, notes = preset_overrides(name, has_gpu=has_gpu)
    config = build_config(overrides)
    assert (config.model.hf_text.checkpoint_name, config.optim.peft) == (checkpoint, None)
    assert (config.learning_rate(), config.env.per_gpu_batch_size) == (rate, rows)
    assert notes == []


def test_multilingual_follows_the_hardware_and_says_so():
    on_cpu, (cpu_note,) = preset_overrides("multilingual", has_gpu=False)
    on_gpu, (gpu_note,) = preset_overrides("multilingual", has_gpu=True)
    assert (on_cpu, on_gpu) == (E5 | E5_METHOD, MDEBERTA)
    assert cpu_note == (
        "presets='multilingual' means 'multilingual_e5_small' (intfloat/multilingual-e5-small) here, because no GPU is "
        "used; otherwise it means 'multilingual_mdeberta' (microsoft/mdeberta-v3-base). Give one of these two names to "
        "pin it."
    )
    assert gpu_note.startswith(
        "presets='multilingual' means 'multilingual_mdeberta' (microsoft/mdeberta-v3-base) here, because a GPU is used; "
    )


@pytest.mark.parametrize("has_gpu", [False, True])
def test_pinned_presets_are_the_same_everywhere(has_gpu):
    assert preset_overrides("multilingual_e5_small", has_gpu=has_gpu) == (E5 | E5_METHOD, [])
    assert preset_overrides("multilingual_mdeberta", has_gpu=has_gpu) == (MDEBERTA, [])


def test_the_table_is_not_handed_out():
    preset_overrides("high_quality", has_gpu=False)[0].clear()
    preset_overrides("multilingual", has_gpu=False)[0].clear()
    assert preset_overrides("high_quality", has_gpu=False)[0]
    assert preset_overrides("multilingual_e5_small", has_gpu=False)[0] == E5 | E5_METHOD


def test_what_was_chosen_for_a_method_goes_with_it():
    assert preset_overrides("multilingual_e5_small", has_gpu=False, own_method=True) == (E5, [])
    assert preset_overrides("multilingual", has_gpu=False, own_method=True)[0] == E5
    assert preset_overrides("best_quality", has_gpu=False, own_method=True)[0]["optim.peft"] is None


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_multilingual_preset_goes_with_a_quality(quality):
    joined, (note,) = preset_overrides(f"Multilingual + {quality}", has_gpu=False)
    assert (joined, []) == preset_overrides(f"{quality}+multilingual_e5_small", has_gpu=False)
    assert f"means 'multilingual_e5_small+{quality}'" in note
    assert joined["model.hf_text.checkpoint_name"] == E5["model.hf_text.checkpoint_name"]
    build_config(joined)
    build_config(preset_overrides(f"multilingual+{quality}", has_gpu=True)[0])
    assert preset_overrides(f"multilingual+{quality}", has_gpu=False, own_method=True)[0] == E5


def test_what_the_qualities_change():
    medium, high, best = (preset_overrides(f"multilingual_e5_small+{one}", has_gpu=False)[0] for one in QUALITIES)
    assert high == preset_overrides("multilingual_e5_small", has_gpu=False)[0]
    assert [one["optim.top_layers"] for one in (medium, high, best)] == [0.25, 0.5, None]
    assert medium.keys() == high.keys()
    assert best["optim.lora.filter"] == "all-linear"


@pytest.mark.parametrize(
    "name",
    ["multilingual+multilingual", "medium_quality+best_quality", "multilingual+best_quality+high_quality"],
)
def test_others_do_not_go_together(name):
    with pytest.raises(ConfigError, match="a multilingual preset goes with one quality"):
        preset_overrides(name, has_gpu=False)


def test_every_preset_is_documented():
    assert ", ".join(PRESETS) == NAMES
    assert set(SAME_AS.values()) <= set(PRESETS)
    for preset in PRESETS.values():
        assert preset.meaning.endswith(".")
        assert bool(preset.overrides) != bool(preset.by_hardware)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("medum_quality", f"Unknown presets='medum_quality'. Did you mean 'medium_quality'? Allowed: {NAMES}."),
        ("zzz", f"Unknown presets='zzz'. Allowed: {NAMES}."),
        (3, f"presets=3: give a name, one of {NAMES}."),
        *[
            (
                name,
                (
                    f"presets={name!r} is not in this version: hyperparameter search is not offered. "
                    f"presets={single!r} trains once, with fixed settings."
                ),
            )
            for name, single in [
                ("hpo", "high_quality"),
                ("default_hpo", "high_quality"),
                ("medium_quality_hpo", "medium_quality"),
            ]
        ],
        ("zzz_hpo", "presets='zzz_hpo' is not in this version: hyperparameter search is not offered."),
    ],
)
def test_other_names_are_refused(name, problem):
    with pytest.raises(ConfigError) as caught:
        preset_overrides(name, has_gpu=False)
    assert str(caught.value) == problem
