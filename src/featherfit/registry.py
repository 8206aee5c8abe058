"""Names in, things out: a dictionary that refuses duplicates and suggests the nearest name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from featherfit.errors import ConfigError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps a name to an implementation.

    Example:
        >>> shapes = Registry[type]("shape")
        >>> @shapes.register("square")
        ... class Square: ...
        >>> shapes["square"] is Square
        True
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files its argument under `name`; a taken name is a bug of ours."""
        if name in self._entries:
            raise RuntimeError(f"{self.kind} {name!r} is registered twice")

        def file(entry: T) -> T:
            self._entries[name] = entry
            return entry

        return file

    def __getitem__(self, name: str) -> T:
        """The entry called `name`.

        Raises:
            ConfigError: No such entry; the message lists all and suggests the nearest.
        """
        if name not in self._entries:
            raise ConfigError(
                f"Unknown {self.kind} {name!r}.{did_you_mean(name, self._entries)} Allowed: {', '.join(self)}."
            )
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
