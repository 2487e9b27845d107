"""Proofs of reasoning (signatures, encrypted content) of one dialect carried through another one's own field. Pure.

Sealed, a proof names the dialect it belongs to, so that a conversation that changes its provider never sends it to a foreign one. The
result is plain base64, as the strictest reader wants it, and begins with MARK, so that the fast lane finds it without decoding.
"""

from __future__ import annotations

import base64
import binascii

MARK = "YWlnYXRl"  # base64 of "aigate": nothing a provider signs begins so

PLAIN_BASE64 = str.maketrans("-_", "+/")


def seal(origin: str, proof: str) -> str:
    """`proof` ("" where there is none: then the seal only says whose text it was) as a string any dialect can carry."""
    return base64.b64encode(f"aigate\0{origin}\0{proof}".encode()).decode()


def unseal(value: str) -> tuple[str, str] | None:
    """(origin, proof) of what `seal` made; None for anything else."""
    if not value.startswith(MARK):
        return None
    try:
        plain = value.translate(PLAIN_BASE64)  # some SDKs read base64 into bytes and write it in the other alphabet
        mark, origin, proof = base64.b64decode(plain, validate=True).decode().split("\0", 2)
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return (origin, proof) if mark == "aigate" else None
