"""Request headers that are one of two words. Pure; shared by the worker and the keeper."""

from __future__ import annotations

from aigate.errors import ClientError


def read_switch(name: str, value: str, on: str, off: str) -> bool:
    """Whether it is `on`. Another word is refused: to take it for either would do in silence what its sender did not mean."""
    word = value.strip().lower()
    if word not in (on, off, ""):
        raise ClientError(f"the {name} header is {on} or {off}, not {value[:40]!r}", param=name)
    return word == on
