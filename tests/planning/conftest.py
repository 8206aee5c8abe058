"""A tiny checkpoint, and a working folder of its own for every test here."""

from tiny_fixtures import checkpoint, own_folder

__all__ = ["checkpoint", "own_folder"]
