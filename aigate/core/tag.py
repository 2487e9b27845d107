"""The tag of a call: what its cost is counted under, besides its key and sub-account. Pure; shared by the worker and the keeper."""

from __future__ import annotations

import re

from aigate.errors import ClientError

TAG_LIMIT_CHARS = 64
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def read_tag(value: bytes) -> str | None:
    """The x-aig-tag header; None where it is empty."""
    try:
        tag = value.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ClientError("the x-aig-tag header is not UTF-8 text", param="x-aig-tag") from None
    if len(tag) > TAG_LIMIT_CHARS:
        raise ClientError(
            f"the x-aig-tag header has {len(tag)} characters; at most {TAG_LIMIT_CHARS} are allowed", param="x-aig-tag"
        )
    if _CONTROL.search(tag):
        raise ClientError("the x-aig-tag header has a control character, such as a tab", param="x-aig-tag")
    return tag or None
