"""Allow-lists of models, as they come from a caller: names we can call, or patterns over names."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from aigate.errors import ClientError

_WILD = frozenset("*?[")


def read_allow_list(patterns: Sequence[str], catalog: Any, *, field: str = "allowed_models") -> tuple[str, ...]:
    """The list to be kept: a name without wildcards must be callable and is kept as its slug, as calls are matched by slugs."""
    kept = []
    for place, pattern in enumerate(patterns):
        if not _WILD.intersection(pattern):
            try:
                pattern = catalog.model(pattern).slug
            except ClientError as error:
                raise ClientError(f"{field}[{place}]: {error.message}", param=f"{field}[{place}]") from error
        kept.append(pattern)
    return tuple(dict.fromkeys(kept))


def unmatched(patterns: Sequence[str], catalog: Any) -> list[str]:
    """What to tell of patterns that match no model known today. They are allowed: providers bring new models, and some take any name."""
    wild = [pattern for pattern in patterns if _WILD.intersection(pattern)]
    if not wild:
        return []
    slugs = [model.slug for model in catalog.models()]
    return [
        f"allowed_models: {pattern!r} matches no model that is known here"
        for pattern in wild
        if not any(fnmatchcase(slug, pattern) for slug in slugs)
    ]
