"""Hub names go in; folders in Hugging Face's cache come out, found there or downloaded to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featherfit.checkpoints.layout import CONFIG, WEIGHTS, files_to_download
from featherfit.errors import CheckpointError
from featherfit.storage import expanded

# Whether the hub answers at all is known after this long.
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Snapshot:
    """One revision of a repository in the hub cache.

    Attributes:
        folder: Where its files are.
        note: Which revision it is, if it is not the main one.
    """

    folder: Path
    note: str | None = None


def hub_cache_dir() -> Path:
    """Hugging Face's cache folder by its environment variables, as they are now."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return expanded(os.environ[variable])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return expanded(os.environ.get("HF_HOME") or cache / "huggingface") / "hub"


def is_offline() -> bool:
    """True where the environment forbids asking the hub (`HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`)."""
    from huggingface_hub import constants

    variables = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return constants.HF_HUB_OFFLINE or any(value.upper() in ("1", "ON", "YES", "TRUE") for value in variables)


def is_hub_name(name: str) -> bool:
    """True if a repository on the hub could have this name."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def cached_snapshots(name: str) -> Iterator[Snapshot]:
    """Revisions of `name` in the hub cache, the main one first and then the newest first. Never asks the network."""
    from huggingface_hub import try_to_load_from_cache

    main = try_to_load_from_cache(name, CONFIG, cache_dir=hub_cache_dir())
    if isinstance(main, str):
        yield Snapshot(Path(main).parent)
    snapshots = hub_cache_dir() / f"models--{name.replace('/', '--')}" / "snapshots"
    if not snapshots.is_dir():
        return
    for folder in sorted(snapshots.iterdir(), key=lambda folder: folder.stat().st_mtime_ns, reverse=True):
        if (folder / CONFIG).is_file() and not (isinstance(main, str) and folder.samefile(Path(main).parent)):
            yield Snapshot(folder, f"revision {folder.name[:10]} of the hub cache, which is not its main one")


def cached_names() -> list[str]:
    """Names of all model repositories in the hub cache, sorted."""
    cache = hub_cache_dir()
    if not cache.is_dir():
        return []
    prefix = "models--"
    return sorted(
        folder.name[len(prefix) :].replace("--", "/", 1) for folder in cache.iterdir() if folder.name.startswith(prefix)
    )


def download(name: str) -> Path:
    """Downloads what a text checkpoint consists of to the hub cache.

    Args:
        name: Name of a repository.

    Returns:
        Its folder in the cache.

    Raises:
        CheckpointError: The hub does not answer within `ANSWER_SECONDS`, has no such repository or no weights in it,
            or the transfer broke off. The message is one line.
    """
    from huggingface_hub import HfApi, snapshot_download

    failures = _failures()
    try:
        listing = HfApi().model_info(name, timeout=ANSWER_SECONDS)
    except failures as error:
        raise CheckpointError(_one_line(error)) from None
    files = files_to_download(entry.rfilename for entry in listing.siblings or ())
    if not any(file in WEIGHTS for file in files):
        raise CheckpointError(f"the repository has no {WEIGHTS[0]} and no {WEIGHTS[2]}")
    try:
        return Path(snapshot_download(name, allow_patterns=files, cache_dir=hub_cache_dir()))
    except failures as error:
        raise CheckpointError(f"the download broke off ({_one_line(error)})") from None


def _failures() -> tuple[type[BaseException], ...]:
    """What a failed request or transfer raises, proxies and transfer libraries included.

    The transport library changes with the major version of `huggingface_hub`; its base error is a base of theirs.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, ValueError, RuntimeError, ImportError, *HfHubHTTPError.__bases__)


def _one_line(error: BaseException) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0].strip()}" if first else type(error).__name__
