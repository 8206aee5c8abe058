"""Text columns of a table go in; one sequence of token ids per row comes out. Needs a tokenizer, no model.

A row of columns f1, f2, ... becomes `[prefix] f1 SEP f2 ... [suffix]`, AutoMM's layout: prefix and suffix are what the
tokenizer itself puts around a text, and columns stand in the order given, which is by name.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from featherfit.checkpoints.families import family_of
from featherfit.config.schema import HfTextConfig
from featherfit.data.messages import lacking_columns, some
from featherfit.data.processors.cells import column_texts, written
from featherfit.data.processors.tokens import TokenLists, encode
from featherfit.data.row_states import RowStates
from featherfit.data.token_cache import encode_once
from featherfit.errors import CheckpointError, ConfigError, DataError
from featherfit.memory import release_freed_memory
from featherfit.startup import collection_paused

logger = logging.getLogger("featherfit")

NO_LIMIT = 1_000_000  # tokenizers that know no limit report a number above this

# Model types that number positions from pad_token_id + 1 = 2, so that two of max_position_embeddings hold no token.
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"})


class TokenizerSource(Protocol):
    """The two things needed of a resolved checkpoint."""

    @property
    def folder(self) -> Path: ...

    @property
    def model_type(self) -> str: ...


@dataclass(frozen=True, eq=False)
class TokenizedRows:
    """Token ids of a table's rows.

    Attributes:
        ids: One int32 array per row, (length,); never empty.
        segments: The segment of each token, likewise; None where the model has no segments.
        lengths: Tokens per row, (rows,) int64.
        truncated: Rows that were too long and lost tokens.
        lost: How many tokens they lost together.
        states: What the lowest layers of the text encoder make of the rows; None where that was not computed beforehand.
    """

    ids: Sequence[np.ndarray]
    segments: Sequence[np.ndarray] | None
    lengths: np.ndarray
    truncated: int
    lost: int = 0
    states: RowStates | None = None

    def __len__(self) -> int:
        return len(self.ids)


class TextProcessor:
    """Tokenizes the text columns of a table.

    Attributes:
        columns: The columns read, in the order they are joined.
        pad_id: Token to pad with; the end-of-sequence token where the tokenizer has no padding token (the attention mask
            hides it).
        max_len: Most tokens per row, special ones included; None where nothing limits it.
    """

    def __init__(
        self,
        tokenizer: Any,
        columns: Sequence[str],
        max_text_len: int = 0,
        insert_sep: bool = True,
        segment_num: int = 1,
        model_max_len: int | None = None,
        *,
        decoder: bool = False,
        templates: Mapping[str, str] | None = None,
    ):
        """Works out the row layout.

        Args:
            tokenizer: A fast Hugging Face tokenizer.
            columns: Text columns, at least one.
            max_text_len: Most tokens per row; 0 or less for the model's limit, which is never exceeded.
            insert_sep: Put a separator between columns.
            segment_num: Segment ids columns alternate between; 1 where the model has no segments.
            model_max_len: Most tokens the model has positions for; None for no limit.
            decoder: The model reads left to right, so that a row has to end with a token of its own.
            templates: Columns of categories or numbers among them, with how their values are written.

        Raises:
            ConfigError: No room for text in `max_text_len`, or no separator to insert.
            CheckpointError: The tokenizer's special tokens cannot be told from the text.
        """
        self._tokenizer = tokenizer
        self._vocabulary: str | None = None
        self.columns = list(columns)
        self._templates = dict(templates or {})
        self.segment_num = segment_num if "token_type_ids" in tokenizer.model_input_names else 1
        self.prefix, self.suffix = _special_tokens(tokenizer)
        end = tokenizer.eos_token_id
        if len(self.suffix) == 0 and (decoder or len(self.prefix) == 0):
            if end is None:
                raise CheckpointError("The tokenizer has no end-of-sequence token to close a row with.")
            self.suffix = np.array([end], dtype=np.int32)
        self.joiner = self._joiner(insert_sep)
        pad = tokenizer.pad_token_id
        if pad is None and end is None:
            raise CheckpointError("The tokenizer has neither a padding nor an end-of-sequence token.")
        self.pad_id: int = pad if pad is not None else end
        limits = [limit for limit in (tokenizer.model_max_length, model_max_len) if limit and limit < NO_LIMIT]
        if max_text_len > 0:
            limits.append(max_text_len)
        self.max_len: int | None = min(limits, default=None)
        self.budget = self._budget()

    @classmethod
    @collection_paused()
    def from_checkpoint(
        cls,
        checkpoint: TokenizerSource,
        columns: Sequence[str],
        config: HfTextConfig,
        templates: Mapping[str, str] | None = None,
    ) -> TextProcessor:
        """The processor for a checkpoint's own tokenizer and limits.

        Raises:
            CheckpointError: The folder holds no tokenizer that can be read.
            ConfigError: `config` asks for more segments than the model has, or leaves no room for text.
        """
        model_config, tokenizer = _read(checkpoint.folder, "AutoConfig"), _read(checkpoint.folder, "AutoTokenizer")
        positions = getattr(model_config, "max_position_embeddings", None)
        if positions is not None and checkpoint.model_type in OFFSET_POSITIONS:
            positions -= 2
        # Relative positions have no end, and configs say so with a number below 1.
        positions = positions if positions and positions > 0 else None
        family = family_of(checkpoint.model_type)
        processor = cls(
            tokenizer,
            columns,
            config.max_text_len,
            config.insert_sep,
            _segment_num(config.text_segment_num, getattr(model_config, "type_vocab_size", None) or 0),
            positions,
            decoder=family is not None and family.decoder,
            templates=templates,
        )
        if processor.max_len is not None and config.max_text_len > processor.max_len:
            limit = processor.max_len
            message = f"model.hf_text.max_text_len is {config.max_text_len}; the checkpoint's limit {limit} holds."
            logger.info(message)
            if config.max_text_len > HfTextConfig().max_text_len:
                warnings.warn(message, stacklevel=2)
        return processor

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer; built again if it was released."""
        if self._vocabulary is not None:
            from tokenizers import Tokenizer

            self._tokenizer._tokenizer, self._vocabulary = Tokenizer.from_str(self._vocabulary), None
            release_freed_memory()  # building takes a good deal more than what is built
        return self._tokenizer

    def release_tokenizer(self) -> None:
        """Gives the tokenizer's memory back until it is needed again.

        One of 250,000 words takes 0.3 GB, a third of what a small model trains in. As text it is 8 MB, from which it is
        built again in 0.5 s.
        """
        from transformers import PreTrainedTokenizerFast

        if self._vocabulary is None and isinstance(self._tokenizer, PreTrainedTokenizerFast):
            self._vocabulary, self._tokenizer._tokenizer = self._tokenizer.backend_tokenizer.to_str(), None
            release_freed_memory()

    def __call__(self, frame: pd.DataFrame, *, once: bool = False) -> TokenizedRows:
        """Tokenizes every row of `frame`; other columns and the order of columns do not matter.

        Args:
            frame: The table.
            once: These very texts will not be seen again, so that their tokens are not kept on disk.

        Raises:
            DataError: A column is missing, a value is neither text nor a number, or text the tokenizer refuses.
        """
        lacking = lacking_columns(self.columns, frame.columns, "text columns")
        if lacking is not None:
            raise DataError(lacking)
        fields = [self._tokenize(frame[column], once) for column in self.columns]
        return self._single(*fields[0]) if len(fields) == 1 else self._joined(fields)

    def _single(self, tokens: TokenLists, rows: np.ndarray) -> TokenizedRows:
        """Rows of one column: equal ones share their ids, so a row costs no more than its place and length."""
        ids = tokens.framed(self.prefix, self.suffix, self.budget).take(rows)
        # All of a single column is of segment 0.
        segments = TokenLists(np.zeros_like(ids.flat), ids.starts, ids.lengths) if self.segment_num > 1 else None
        over = np.zeros(1) if self.budget is None else np.maximum(tokens.lengths[rows] - self.budget, 0)
        return TokenizedRows(ids, segments, ids.lengths, int((over > 0).sum()), int(over.sum()))

    def _joined(self, fields: list[tuple[TokenLists, np.ndarray]]) -> TokenizedRows:
        """Rows of several columns."""
        ids, segments, truncated, lost = [], [], 0, 0
        for row in zip(*(tokens.take(rows) for tokens, rows in fields), strict=True):
            row_ids, row_segments, cut = self._join(row)
            ids.append(row_ids)
            segments.append(row_segments)
            if cut and self.budget is not None:
                truncated, lost = truncated + 1, lost + sum(map(len, row)) - self.budget
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        return TokenizedRows(ids, segments if self.segment_num > 1 else None, lengths, truncated, lost)

    def _joiner(self, insert_sep: bool) -> np.ndarray:
        if not insert_sep or len(self.columns) == 1:
            return np.array([], dtype=np.int32)
        separator = self.tokenizer.sep_token_id
        if separator is None:
            separator = self.tokenizer.eos_token_id
        if separator is None:
            raise ConfigError("The tokenizer has no separator token. Set model.hf_text.insert_sep to false.")
        return np.array([separator], dtype=np.int32)

    def _budget(self) -> int | None:
        """Most text tokens per row, all columns together."""
        if self.max_len is None:
            return None
        special = len(self.prefix) + len(self.suffix) + len(self.joiner) * (len(self.columns) - 1)
        if self.max_len <= special:
            raise ConfigError(
                f"A row may have {self.max_len} tokens (model.hf_text.max_text_len and the checkpoint's limit), "
                f"and {special} of them are special tokens, so none is left for text. Raise max_text_len."
            )
        return self.max_len - special

    def _tokenize(self, column: pd.Series, once: bool) -> tuple[TokenLists, np.ndarray]:
        """Token ids of a column's distinct strings, and which of them each row holds, (rows,)."""
        texts = written(column_texts(column), str(column.name), self._templates.get(str(column.name), "direct"))
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        try:
            tokens = (encode if once else encode_once)(self.tokenizer, list(places))
        except Exception as error:  # the Rust tokenizer raises plain Exception; anything unexplained goes on up
            self._refuse(list(places), texts, column, error)
            raise
        return tokens, np.fromiter(map(places.__getitem__, texts), dtype=np.int64, count=len(texts))

    def _refuse(self, distinct: list[str], texts: list[str], column: pd.Series, error: Exception) -> None:
        """Raises a DataError that names the row whose text the tokenizer refuses, if there is one."""
        text = _first_refused(self.tokenizer, distinct)
        if text is not None:
            raise DataError(
                f"Row {some([column.index[texts.index(text)]])}, column {column.name!r}: the tokenizer refuses this "
                f"text: {text[:60]!r}. It may hold half of a surrogate pair; correct it, for example with "
                "text.encode('utf-8', 'replace').decode('utf-8')."
            ) from error

    def _join(self, fields: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, bool]:
        """`(ids, segments, whether tokens were cut)` of one row."""
        cut = self.budget is not None and sum(map(len, fields)) > self.budget
        if cut:
            kept = trimmed_lengths([len(tokens) for tokens in fields], self.budget)  # type: ignore[arg-type]
            fields = [tokens[:length] for tokens, length in zip(fields, kept, strict=True)]
        parts, owners = [self.prefix], [0]
        for position, tokens in enumerate(fields):
            last = position == len(fields) - 1
            parts += [tokens, self.suffix if last else self.joiner]
            owners += [position % self.segment_num] * 2
        segments = np.repeat(np.array(owners, dtype=np.int32), [len(part) for part in parts])
        return np.concatenate(parts), segments, cut


def _read(folder: Path, auto_class: str) -> Any:
    """What that class of transformers makes of a checkpoint's files."""
    import transformers

    options = {"use_fast": True} if auto_class == "AutoTokenizer" else {}
    try:
        return getattr(transformers, auto_class).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, ImportError, json.JSONDecodeError) as error:
        raise CheckpointError(f"The tokenizer in {str(folder)!r} cannot be read: {error}") from error


def trimmed_lengths(lengths: Sequence[int], budget: int) -> list[int]:
    """Lengths that sum to at most `budget`, the longest cut first (AutoMM's `get_trimmed_lengths`).

    All columns grow together, one token each; one that is complete drops out, and the last few tokens go to the first.
    """
    kept = [0] * len(lengths)
    growing = [position for position, length in enumerate(lengths) if length]
    while growing and budget >= len(growing):
        step = min(budget // len(growing), *(lengths[position] - kept[position] for position in growing))
        for position in growing:
            kept[position] += step
        budget -= step * len(growing)
        growing = [position for position in growing if kept[position] < lengths[position]]
    for position in growing[:budget]:
        kept[position] += 1
    return kept


def _first_refused(tokenizer: Any, texts: list[str]) -> str | None:
    """The first string the tokenizer raises on, found by halves; None if it takes all of them."""
    try:
        encode(tokenizer, texts)
        return None
    except Exception:
        if len(texts) == 1:
            return texts[0]
    half = len(texts) // 2
    return _first_refused(tokenizer, texts[:half]) or _first_refused(tokenizer, texts[half:])


def _special_tokens(tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """The tokens the tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if bare and full[start : start + len(bare)] == bare:
            return np.array(full[:start], dtype=np.int32), np.array(full[start + len(bare) :], dtype=np.int32)
    raise CheckpointError(
        f"The tokenizer's special tokens cannot be told from the text: 'a' is {bare} alone and {full} with them."
    )


def _segment_num(wanted: int, available: int) -> int:
    """`wanted` where the model has segments, 1 where it has at most one."""
    if available <= 1:
        return 1
    if wanted > available:
        raise ConfigError(
            f"model.hf_text.text_segment_num is {wanted}, but the checkpoint has {available} segments. "
            f"Set it to {available} or less."
        )
    return wanted
