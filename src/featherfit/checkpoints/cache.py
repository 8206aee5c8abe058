"""Where featherfit keeps what it derives from checkpoints, and how files get there: whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from featherfit.storage import expanded


def cache_dir() -> Path:
    """`$FEATHERFIT_HOME`, or `featherfit` in the user's cache folder (`$XDG_CACHE_HOME`, by default `~/.cache`)."""
    home = os.environ.get("FEATHERFIT_HOME")
    if home:
        return expanded(home)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "featherfit"


def write_file(path: Path, text: str) -> None:
    """Writes `text` to `path` in one step: a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def build_folder(target: Path, build: Callable[[Path], None]) -> Path:
    """Fills `target` in one step, unless it is there already.

    `build` fills a temporary folder beside `target`, which is then renamed. Where two processes do this at once, both
    build and the first to finish wins; the other discards its own and uses the winner's.

    Args:
        target: The folder to end up with.
        build: Fills the empty folder it is given.

    Returns:
        `target`.
    """
    if target.is_dir():
        return target
    temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        build(temporary)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
