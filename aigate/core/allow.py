"""Allow-lists of models: globs over slugs, () = all. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from aigate.core.call import Principal
from aigate.errors import ClientError

NONE = ("(none)",)  # no slug has a bracket


def check_allowed(principal: Principal, slug: str) -> None:
    """403 scope_exceeded for a model outside the key's allow-list."""
    allowed = principal.allowed_models
    if allowed and not any(fnmatchcase(slug, pattern) for pattern in allowed):
        raise ClientError(
            f"this key may not use {slug!r}; it may use: {', '.join(allowed)}",
            status=403,
            type="permission_error",
            code="scope_exceeded",
            param="model",
        )


def narrow(outer: Sequence[str], inner: Sequence[str]) -> tuple[str, ...]:
    """What both lists allow, as one list: a key's inside its sub-account's.

    Of two patterns that overlap without one holding the other (`openai/*` and `*/gpt-*`) nothing is allowed: a list may be narrower than
    meant, never wider."""
    if not outer or not inner:
        return tuple(outer or inner)
    both = [a for a in inner if any(_holds(b, a) for b in outer)] + [b for b in outer if any(_holds(a, b) for a in inner)]
    return tuple(dict.fromkeys(both)) or NONE


def _holds(wide: str, narrow: str) -> bool:
    """Every name that `narrow` matches is matched by `wide`. Of wildcards only `*` takes in other wildcards."""
    if wide == narrow:
        return True
    is_name = not set(narrow) & set("*?[")
    return (is_name or not set(wide) & set("?[")) and fnmatchcase(narrow, wide)
