"""Two-layer checkpoints with a real WordPiece tokenizer, tables for them, and settings under which a fit takes a blink."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from tiny_models import TINY
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from featherfit import MultiModalPredictor
from featherfit.models.backbone import build_backbone_from_config

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
GOOD, BAD, PLAIN = ("good", "lovely", "works"), ("bad", "broken", "never"), ("the", "a", "kettle", "box", "it", "was")
WORDS = (*SPECIAL, *GOOD, *BAD, *PLAIN, "##s", "##ly", ".", "and", "in")


def write_checkpoint(folder: Path, model_type: str = "bert", seed: int = 0) -> Path:
    """A random model of this type with its tokenizer, as a user would have it on disk."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build_backbone_from_config(TINY[model_type]).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def reviews(rows: int = 40, seed: int = 0, labels: tuple[Any, ...] = (0, 1), index_from: int = 100) -> pd.DataFrame:
    """Texts of 3 to 8 words, the last of which says the label: `GOOD` for the last one, `BAD` for the first."""
    draw = random.Random(seed)
    texts, column = [], []
    for row in range(rows):
        position = row % len(labels)
        told = BAD if position == 0 else GOOD if position == len(labels) - 1 else PLAIN
        texts.append(" ".join([*draw.choices(PLAIN, k=draw.randint(2, 7)), draw.choice(told)]))
        column.append(labels[position])
    return pd.DataFrame({"text": texts, "label": column}, index=range(index_from, index_from + rows))


def settings(checkpoint: Path, **more: Any) -> dict[str, Any]:
    """Overrides for a quick float32 fit; names in `more` have `__` for the dot."""
    return {
        "model.hf_text.checkpoint_name": str(checkpoint),
        "optim.max_epochs": 2,
        "optim.lr": 0.03,
        "env.batch_size": 8,
        "env.precision": "32",
        **{name.replace("__", "."): value for name, value in more.items()},
    }


def quick_fit(
    checkpoint: Path, path: Path, frame: pd.DataFrame | None = None, *, label: str = "label", **arguments: Any
) -> MultiModalPredictor:
    """A fitted predictor; `hyperparameters` come on top of `settings`, other arguments go to `fit`."""
    more = arguments.pop("hyperparameters", {})
    problem_type = arguments.pop("problem_type", None)
    predictor = MultiModalPredictor(label=label, problem_type=problem_type, path=path, verbosity=0)
    train = reviews() if frame is None else frame
    return predictor.fit(train, hyperparameters={**settings(checkpoint), **more}, **arguments)


def weights(predictor: MultiModalPredictor) -> dict[str, torch.Tensor]:
    """A copy of all parameters."""
    assert predictor._fitted is not None
    return {name: p.detach().clone() for name, p in predictor._fitted.model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
