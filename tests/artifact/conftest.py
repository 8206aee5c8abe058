"""A tiny checkpoint, one fitted predictor to look at, and a working folder of its own for every test here."""

from tiny_fixtures import checkpoint, fitted, own_folder

__all__ = ["checkpoint", "fitted", "own_folder"]
