"""A tokenizer and the distinct strings of a large column go in; their token ids come out, from disk the second time.

`$FEATHERFIT_TOKEN_CACHE=0` turns it off. Columns of at least `SMALLEST` distinct strings are kept in `cache_dir()/tokens`,
`LARGEST_TOTAL` bytes of them in all: what was not used for longest goes. The files hold ids, which whoever has the
tokenizer can turn into the text again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featherfit.checkpoints.cache import cache_dir
from featherfit.data.processors.tokens import TokenLists, encode, rust_tokenizer

logger = logging.getLogger("featherfit")

SMALLEST = 20_000
"""Distinct strings; fewer are tokenized in a second or two."""
LARGEST_TOTAL = 1 << 30
"""Bytes of all files together."""


def encode_once(tokenizer: Any, texts: Sequence[str]) -> TokenLists:
    """As `encode`; a large column that was encoded before by the same tokenizer is read from disk.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        texts: Distinct strings; their order counts.
    """
    if len(texts) < SMALLEST or os.environ.get("FEATHERFIT_TOKEN_CACHE") == "0":
        return encode(tokenizer, texts)
    backend = rust_tokenizer(tokenizer)
    if backend is None:  # what the class adds is not in the key
        return encode(tokenizer, texts)
    file = cache_dir() / "tokens" / f"{_key(backend, texts)}.safetensors"
    found = _read(file, len(texts))
    if found is None:
        found = encode(tokenizer, texts)
        _write(file, found)
    return found


def _key(backend: Any, texts: Sequence[str]) -> str:
    """Hex digest over everything the ids depend on."""
    import tokenizers

    digest = hashlib.sha256(repr((tokenizers.__version__, backend.encode_special_tokens)).encode())
    digest.update(backend.to_str().encode())
    for start in range(0, len(texts), 4096):
        chunk = [text.encode("utf-8", "surrogatepass") for text in texts[start : start + 4096]]
        digest.update(repr([len(text) for text in chunk]).encode())
        digest.update(b"".join(chunk))
    return digest.hexdigest()


def _read(file: Path, count: int) -> TokenLists | None:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="np") as stored:
            flat, lengths = stored.get_tensor("ids"), stored.get_tensor("lengths")
            told = (stored.metadata() or {}).get("crc32")
        if told != _checksum(flat, lengths) or len(lengths) != count or lengths.sum() != len(flat):
            raise ValueError("its content is not what was written")
        os.utime(file)
    except (SafetensorError, OSError, ValueError) as error:
        logger.info("The stored tokens in %s are not used: %s", file, error)
        return None
    return TokenLists.of(flat, lengths)


def _write(file: Path, tokens: TokenLists) -> None:
    from safetensors.numpy import save

    state = {"ids": tokens.flat, "lengths": tokens.lengths}
    size = sum(array.nbytes for array in state.values())
    if size > LARGEST_TOTAL:
        return
    content = save(state, metadata={"crc32": _checksum(tokens.flat, tokens.lengths)})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _make_room(file.parent, len(content))
        handle, name = tempfile.mkstemp(prefix=".", dir=file.parent)
        try:
            with open(handle, "wb") as part:
                part.write(content)
            os.replace(name, file)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        logger.info("The tokens are not stored in %s: %s", file, error)


def _make_room(folder: Path, size: int) -> None:
    """Removes the files that were not used for longest until `size` bytes fit."""
    stats = sorted(((other.stat(), other) for other in folder.iterdir()), key=lambda pair: pair[0].st_mtime_ns)
    total = size + sum(stat.st_size for stat, _ in stats)
    for stat, other in stats:
        if total <= LARGEST_TOTAL:
            break
        other.unlink(missing_ok=True)
        total -= stat.st_size


def _checksum(*arrays: np.ndarray) -> str:
    value = 0
    for array in arrays:
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return f"{value:08x}"
