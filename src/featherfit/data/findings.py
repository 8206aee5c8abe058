"""Training and validation rows go in; what their owner may want to know before training comes out, as a `DataReport`.

Nothing here changes a row or stops a fit. All checks are linear in the number of rows and look at no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from featherfit.data.languages import UNDETERMINED, detect_languages
from featherfit.data.messages import count, some
from featherfit.data.processors.cells import column_texts
from featherfit.data.processors.several import SeveralLabels, read_lists
from featherfit.data.schema import Schema
from featherfit.data.scripts import script_shares
from featherfit.errors import MissingDependencyError

Severity = Literal["warning", "note"]

TELLS = 0.99
"""Share of the rows whose label a column tells, from which on it is called leakage."""

NAMED = 0.9
"""Share of the texts that name their own class and no other, from which on that is called leakage."""

FEW_ROWS = 10
"""Rows below which a class is tiny."""

LOPSIDED = 0.95
"""Share of the largest class above which metrics such as accuracy say little."""

LANGUAGE_SAMPLE, LANGUAGE_CHARACTERS = 200, 300
"""Texts whose language is looked for, evenly spaced, and how much of each."""

LEAST_LANGUAGE = 0.02
"""Share from which on a language is named; one found in fewer of two hundred texts is as likely a mistake."""

FEW_TEXTS = 100
"""Texts below which no languages are named: a hundredth of them, the least share that counts, is no text at all."""

NEW_SCRIPT = 0.05
"""Share of the validation letters that a script absent from training has to have to be told of."""


_CONFLICTING = {"regression": "numbers", "quantile": "numbers"}
"""What rows of the same text may give differently, where it is not called labels."""


@dataclass(frozen=True)
class Finding:
    """One thing about the data.

    Attributes:
        kind: A word for programs: `leakage`, `conflicts`, `overlap`, `duplicates`, `tiny_classes`, `lopsided`,
            `not_validated`, `empty`, `constant`, `too_long`, `scripts`, `languages` or `new_script`.
        severity: `warning` for what is likely a mistake, `note` for what is worth knowing.
        message: One sentence or two.
        count: How many rows, classes or columns it is about.
    """

    kind: str
    severity: Severity
    message: str
    count: int


@dataclass(frozen=True)
class DataReport:
    """What was found; warnings first.

    Attributes:
        findings: One record each.
    """

    findings: tuple[Finding, ...] = ()

    def __iter__(self) -> Iterator[Finding]:
        return iter(sorted(self.findings, key=lambda finding: finding.severity != "warning"))

    def __str__(self) -> str:
        return "\n".join(f"{finding.severity}: {finding.message}" for finding in self) or "Nothing odd was found."

    def to_json(self) -> list[dict[str, Any]]:
        """The findings as JSON values."""
        return [asdict(finding) for finding in self]

    def to_frame(self) -> pd.DataFrame:
        """The findings as a table."""
        return pd.DataFrame(self.to_json(), columns=["kind", "severity", "message", "count"])

    def with_lengths(self, rows: int, truncated: int, lost: int, limit: int | None) -> DataReport:
        """The same, and what was cut off the training texts.

        Args:
            rows: Training rows.
            truncated: Rows that are longer than `limit` tokens.
            lost: Tokens cut off them together.
            limit: Most tokens of a row.
        """
        if not truncated:
            return self
        message = (
            f"{truncated} of {rows} training rows are longer than {limit} tokens and lose {lost} tokens together. "
            "model.hf_text.max_text_len sets the limit, up to the checkpoint's own."
        )
        severity: Severity = "warning" if truncated > rows / 10 else "note"
        return replace(self, findings=(*self.findings, Finding("too_long", severity, message, truncated)))


def check_data(
    train: pd.DataFrame, tuning: pd.DataFrame | None, schema: Schema, read: Collection[str] | None = None
) -> DataReport:
    """Looks for what commonly goes wrong with data.

    Args:
        train: Rows to train on.
        tuning: Rows to validate on; None if there are none yet.
        schema: Names text columns and label.
        read: Columns that are used; None for all but constants and identifiers.

    Raises:
        DataError: Cells that are neither text nor numbers.
    """
    read = [name for name in schema.columns if name not in schema.dropped] if read is None else read
    texts = _texts(train, schema.text_columns)
    others = [name for name in schema.columns if name in read and name not in schema.text_columns]
    what = "values" if others else "text"
    held = [] if tuning is None else _texts(tuning, schema.text_columns)
    all_codes = _codes_of_rows(texts + held, [train] if tuning is None else [train, tuning], others)
    codes, codes_held = np.split(all_codes, [len(train)])
    distinct = int(codes.max(initial=-1)) + 1
    empty = sum(not text.strip("\x1f \t\n") for text in texts)
    found = [
        *_texts_found(texts, empty),
        *_duplicates(codes, distinct, what, 0 if others else empty),
        *_constant(schema),
    ]
    if schema.problem_type == "multilabel":
        found += _labels_found(train, tuning, schema)
    classes = schema.problem_type in ("binary", "multiclass")
    for column in schema.label_columns:
        labels, names = _factorized(train[column])
        found += _conflicts(codes, labels, what, _CONFLICTING.get(str(schema.problem_type), "labels"))
        if classes:
            found += [*_classes_found(labels, names), *_named(texts, labels, names)]
        found += _leaks(train, schema, labels, read, "the label" if isinstance(schema.label, str) else repr(column))
        if classes and tuning is not None and column in tuning.columns:
            found += _not_validated(names, tuning[column])
    if tuning is not None:
        found += _overlap(codes_held, distinct, what)
        found += _new_scripts(texts, held)
    return DataReport(tuple(found))


def _factorized(column: pd.Series) -> tuple[np.ndarray, Any]:
    """A number for each distinct label, lists of labels by what is in them, and these labels."""
    if any(isinstance(value, list | set | frozenset | np.ndarray) for value in column.tolist()):
        column = pd.Series([tuple(sorted(map(str, value))) for value in column.tolist()], dtype=object)
    return pd.factorize(column)


def _labels_found(train: pd.DataFrame, tuning: pd.DataFrame | None, schema: Schema) -> Iterator[Finding]:
    """Labels of several that are rare, or absent from the rows to validate on."""
    known = SeveralLabels.fit(train[schema.label], "multilabel")
    sizes = known.encode(train[schema.label]).sum(axis=0)
    rare = [name for name, size in zip(known.names, sizes, strict=True) if size < FEW_ROWS]
    if rare:
        message = f"{count(len(rare), 'label')} {_has(len(rare))} fewer than {FEW_ROWS} training rows: {some(rare, 8)}."
        yield Finding("tiny_classes", "warning", message, len(rare))
    if tuning is not None and all(name in tuning.columns for name in schema.label_columns):
        present = _labels_there(tuning[schema.label])
        missing = [name for name in known.names if name not in present]
        if missing:
            message = f"{count(len(missing), 'label')} {_has(len(missing))} no validation row: {some(missing, 8)}."
            yield Finding("not_validated", "note", message, len(missing))


def _labels_there(labels: pd.DataFrame | pd.Series) -> set[Any]:
    """Those of several labels that some row has."""
    if isinstance(labels, pd.Series):
        return {label for row in read_lists(labels) for label in row}
    return {name for name in labels.columns if labels[name].any()}


def _texts(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Each row's texts as one string that no other row's texts make."""
    fields = [column_texts(frame[column]) for column in columns]
    return fields[0] if len(fields) == 1 else ["\x1f".join(row) for row in zip(*fields, strict=True)]


def _codes_of_rows(texts: list[str], frames: list[pd.DataFrame], others: Sequence[str]) -> np.ndarray:
    """A number for each row of all frames, the same for rows whose texts and other values are, rising where they are new.

    Column by column, so that a large table takes the memory of one column.
    """
    codes = pd.factorize(np.array(texts, dtype=object))[0]
    for name in others:
        columns = [frame[name] for frame in frames]
        if len({column.dtype for column in columns}) > 1 or columns[0].dtype == object:
            # Cells of any type: where 1, 1.0 and True would be one value, and lists none.
            cells = [cell for column in columns for cell in column.tolist()]
            column = pd.Series([cell if type(cell) is bytes else repr(cell) for cell in cells], dtype=object)
        else:
            column = pd.concat(columns, ignore_index=True)
        own = pd.factorize(column, use_na_sentinel=False)[0].astype(np.int64)
        codes = own if not len(codes) else pd.factorize(codes * (own.max(initial=0) + 1) + own)[0]
    return pd.factorize(codes)[0]


def _texts_found(texts: list[str], empty: int) -> Iterator[Finding]:
    if empty:
        severity: Severity = "warning" if empty > len(texts) / 10 else "note"
        yield Finding(
            "empty", severity, f"{count(empty, 'training row')} of {len(texts)} {_has(empty)} no text.", empty
        )
    shares = {name: share for name, share in script_shares(texts).items() if share >= 0.001}
    if shares:
        listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        yield Finding("scripts", "note", f"Scripts of the training texts: {listed}.", len(shares))
        if len(texts) >= FEW_TEXTS:
            yield from _languages(texts)


def _duplicates(codes: np.ndarray, distinct: int, what: str, empty: int) -> Iterator[Finding]:
    again = len(codes) - distinct - max(0, empty - 1)
    if again > 0:
        yield Finding(
            "duplicates",
            "note",
            f"{count(again, 'training row')} of {len(codes)} {_has(again)} the {what} of an earlier one.",
            again,
        )


def _languages(texts: list[str]) -> Iterator[Finding]:
    """The languages of a sample, or what would name them."""
    sample = [text[:LANGUAGE_CHARACTERS] for text in texts[:: -(-len(texts) // LANGUAGE_SAMPLE)]]
    try:
        found = Counter(detect_languages(sample))
    except MissingDependencyError:
        message = 'Their languages are named where py3langid is: pip install "featherfit[languages]".'
        yield Finding("languages", "note", message, 0)
        return
    found.pop(UNDETERMINED, None)
    if found:
        shares = {name: times / found.total() for name, times in found.most_common()}
        listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share >= LEAST_LANGUAGE)
        rest = sum(share for share in shares.values() if share < LEAST_LANGUAGE)
        listed += f", others {rest:.1%}" if rest else ""
        message = f"Languages, by {count(found.total(), 'text')} of them: {listed}."
        yield Finding("languages", "note", message, len(found))


def _constant(schema: Schema) -> Iterator[Finding]:
    names = [name for name, kind in schema.columns.items() if kind == "null"]
    if names:
        message = f"{count(len(names), 'column')} tell nothing: {' '.join(schema.reasons[name] for name in names[:5])}"
        yield Finding("constant", "note", message.replace("1 column tell ", "1 column tells "), len(names))


def _classes_found(labels: np.ndarray, names: Any) -> Iterator[Finding]:
    sizes = np.bincount(labels[labels >= 0], minlength=len(names))
    tiny = np.flatnonzero(sizes < FEW_ROWS)
    if len(tiny):
        listed = some((names[place] for place in tiny), 8)
        message = f"{count(len(tiny), 'class')} {_has(len(tiny))} fewer than {FEW_ROWS} training rows: {listed}."
        yield Finding("tiny_classes", "warning", message, len(tiny))
    share = sizes.max(initial=0) / max(1, sizes.sum())
    if share > LOPSIDED:
        message = (
            f"{share:.1%} of the training rows are of one class ({some([names[int(sizes.argmax())]])}). Score by roc_auc or f1 "
            "rather than accuracy; optim.class_weights=balanced weighs the others up."
        )
        yield Finding("lopsided", "warning", message, int(sizes.max()))


def _conflicts(codes: np.ndarray, labels: np.ndarray, what: str, differ: str) -> Iterator[Finding]:
    """Rows whose text, or values, have another label elsewhere."""
    if not len(codes):
        return
    width = int(labels.max()) + 2
    pairs = np.unique(codes.astype(np.int64) * width + labels + 1)
    rows = int((np.bincount(pairs // width)[codes] > 1).sum())
    if rows:
        given = "a text" if what == "text" else "values"
        message = f"{rows} training rows have {given} that other rows give other {differ}."
        yield Finding("conflicts", "warning", message, rows)


def _named(texts: list[str], labels: np.ndarray, names: Any) -> Iterator[Finding]:
    """Texts that name their class."""
    words = [str(name).casefold() for name in names]
    if len(words) > 20 or not texts or any(len(word) < 3 or not any(map(str.isalpha, word)) for word in words):
        return
    telling = 0
    for text, label in zip(texts, labels.tolist(), strict=True):
        lower = text.casefold()
        telling += [place for place, word in enumerate(words) if word in lower] == [label]
    if telling >= NAMED * len(texts):
        message = f"{telling} of {len(texts)} training texts name their own class and no other. Is the label part of the text?"
        yield Finding("leakage", "warning", message, telling)


def _leaks(
    train: pd.DataFrame, schema: Schema, labels: np.ndarray, read: Collection[str], label: str
) -> Iterator[Finding]:
    """Columns, or first and last words of them, that decide the label."""
    for name, kind in schema.columns.items():
        codes = _codes(train[name])
        if codes is not None and _tells(codes, labels):
            used = "Is it known when predicting?" if name in read else "It is not used."
            severity: Severity = "warning" if name in read else "note"
            yield Finding("leakage", severity, f"Column {name!r} decides {label}. {used}", len(labels))
        elif kind == "text":
            yield from _telling_words(name, column_texts(train[name]), labels, label)


def _telling_words(name: str, texts: list[str], labels: np.ndarray, label: str) -> Iterator[Finding]:
    if not all(text.strip() for text in texts):
        return
    ends: dict[str, Callable[[str], str]] = {
        "first": lambda text: text.split(None, 1)[0],
        "last": lambda text: text.rsplit(None, 1)[-1],
    }
    for which, end in ends.items():  # one after the other: the words of a large table take as much as its texts
        words = np.fromiter(map(end, texts), dtype=object, count=len(texts))
        if _tells(pd.factorize(words)[0], labels, share=0.05):
            message = f"The {which} word of column {name!r} decides {label}. Is that meant?"
            yield Finding("leakage", "warning", message, len(labels))


def _codes(column: pd.Series) -> np.ndarray | None:
    """A number for each distinct value; None for values that cannot be compared."""
    try:
        return pd.factorize(column, use_na_sentinel=False)[0]
    except (TypeError, ValueError):
        return None


def _tells(codes: np.ndarray, labels: np.ndarray, share: float = 0.1) -> bool:
    """Whether the label follows from a column of few values: one for every `1 / share` rows at most."""
    rows, values = len(codes), int(codes.max(initial=-1)) + 1
    if not 2 <= values <= share * rows:
        return False
    width = int(labels.max()) + 2
    pairs, sizes = np.unique(codes.astype(np.int64) * width + labels + 1, return_counts=True)
    largest = np.zeros(values, dtype=np.int64)
    np.maximum.at(largest, pairs // width, sizes)
    commonest = np.bincount(labels + 1).max()
    return bool(largest.sum() >= TELLS * rows and commonest < (2 * TELLS - 1) * rows)


def _overlap(codes: np.ndarray, distinct: int, what: str) -> Iterator[Finding]:
    """Validation rows whose number is one of the training rows'."""
    rows = int((codes < distinct).sum())
    if rows:
        message = f"{count(rows, 'validation row')} of {len(codes)} {_has(rows)} the {what} of a training row, so scores are too good."
        yield Finding("overlap", "warning", message, rows)


def _new_scripts(texts: list[str], held: list[str]) -> Iterator[Finding]:
    known = script_shares(texts)
    new = [name for name, share in script_shares(held).items() if share >= NEW_SCRIPT and known.get(name, 0.0) < 0.001]
    if new:
        yield Finding(
            "new_script", "note", f"Validation has texts in a script that training lacks: {', '.join(new)}.", len(new)
        )


def _not_validated(names: Any, held: pd.Series) -> Iterator[Finding]:
    present = set(held.dropna().tolist())
    missing = [name for name in names if name not in present]
    if missing:
        message = f"{count(len(missing), 'class')} {_has(len(missing))} no validation row: {some(missing, 8)}."
        yield Finding("not_validated", "note", message, len(missing))


def _has(number: int) -> str:
    return "has" if number == 1 else "have"
