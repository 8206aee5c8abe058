"""Names of pretrained checkpoints go in; local folders with weights, config and tokenizer come out."""

from featherfit.checkpoints.cache import cache_dir
from featherfit.checkpoints.fingerprints import fingerprint
from featherfit.checkpoints.listing import AvailableCheckpoint, available_checkpoints
from featherfit.checkpoints.resolve import Checkpoint, read_checkpoint, resolve_checkpoint

__all__ = [
    "AvailableCheckpoint",
    "Checkpoint",
    "available_checkpoints",
    "cache_dir",
    "fingerprint",
    "read_checkpoint",
    "resolve_checkpoint",
]
