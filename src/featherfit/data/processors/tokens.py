"""Strings and a tokenizer go in; their token ids come out, one flat array for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

CHUNK = 1024  # strings per call of the tokenizer


@dataclass(frozen=True, eq=False)
class TokenLists(Sequence[np.ndarray]):
    """Sequences of ids as pieces of one array; several may be the same piece.

    Attributes:
        flat: All ids, int32.
        starts: Where each sequence begins in `flat`, (sequences,) int64.
        lengths: Ids of each, (sequences,) int64.
    """

    flat: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, flat: np.ndarray, lengths: np.ndarray) -> TokenLists:
        """Sequences that follow each other in `flat`."""
        return cls(flat, np.cumsum(lengths) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return self.take(np.arange(len(self))[position])
        start = self.starts[position]
        return self.flat[start : start + self.lengths[position]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (
            self.flat[start : start + n] for start, n in zip(self.starts.tolist(), self.lengths.tolist(), strict=True)
        )

    def take(self, positions: np.ndarray) -> TokenLists:
        """The sequences at `positions`, in that order and as often; no ids are copied."""
        return TokenLists(self.flat, self.starts[positions], self.lengths[positions])

    def framed(self, prefix: np.ndarray, suffix: np.ndarray, most: int | None) -> TokenLists:
        """At most the first `most` ids of each sequence, between `prefix` and `suffix`; all have to follow each other."""
        kept = self.lengths if most is None else np.minimum(self.lengths, most)
        lengths = kept + len(prefix) + len(suffix)
        starts = np.cumsum(lengths) - lengths
        flat = np.empty(int(lengths.sum()), dtype=np.int32)
        for offset, token in enumerate(prefix):
            flat[starts + offset] = token
        for offset, token in enumerate(suffix):
            flat[starts + len(prefix) + kept + offset] = token
        inside = np.ones(len(flat), dtype=bool)
        for offset in range(len(prefix)):
            inside[starts + offset] = False
        for offset in range(len(suffix)):
            inside[starts + len(prefix) + kept + offset] = False
        flat[inside] = self.flat if most is None or not len(kept) else self.flat[_first(self.lengths, kept)]
        return TokenLists(flat, starts, lengths)


def _first(lengths: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Mask over sequences of `lengths` that follow each other: the first `kept` of each."""
    pieces = np.stack([kept, lengths - kept], axis=1).reshape(-1)
    return np.repeat(np.tile([True, False], len(kept)), pieces)


def encode(tokenizer: Any, texts: Sequence[str]) -> TokenLists:
    """Token ids of strings, without special tokens and whole.

    Goes straight to the Rust tokenizer, which works on all cores, where the class does nothing of its own before that.
    """
    pieces, lengths = [], []
    for start in range(0, len(texts), CHUNK):
        lists = _encode_chunk(tokenizer, list(texts[start : start + CHUNK]))
        lengths.append(np.fromiter(map(len, lists), dtype=np.int64, count=len(lists)))
        pieces.append(np.fromiter(chain.from_iterable(lists), dtype=np.int32, count=int(lengths[-1].sum())))
    if not pieces:
        return TokenLists.of(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64))
    return TokenLists.of(np.concatenate(pieces), np.concatenate(lengths))


def rust_tokenizer(tokenizer: Any) -> Any | None:
    """The Rust tokenizer behind a Hugging Face one, cutting and padding nothing; None if the class adds its own to it."""
    from transformers import PreTrainedTokenizerFast

    kind = type(tokenizer)
    own = any(
        getattr(kind, name, None) is not getattr(PreTrainedTokenizerFast, name, None)
        for name in ("__call__", "_encode_plus")
    )
    if own or not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend


def _encode_chunk(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    backend = rust_tokenizer(tokenizer)
    if backend is not None:
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    return tokenizer(
        texts,
        add_special_tokens=False,
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
