"""The text a stream has generated, kept as far as counting an unreported usage may need it. Pure."""

from __future__ import annotations

import msgspec

KEPT_BYTES = 65_536


class KeptText:
    """Pieces are decoded strings, or insides of JSON strings joined by LF."""

    __slots__ = ("_pieces", "_kept_bytes", "more_bytes")

    def __init__(self) -> None:
        self._pieces: list[bytes | str] = []
        self._kept_bytes = 0
        self.more_bytes = 0  # beyond what is kept

    def add(self, piece: bytes | str, size: int) -> None:
        if self._kept_bytes < KEPT_BYTES:
            self._pieces.append(piece)
            self._kept_bytes += size
        else:
            self.more_bytes += size

    @property
    def is_empty(self) -> bool:
        return not self._kept_bytes

    def text(self) -> str:
        return "".join(map(_decoded, self._pieces))


def _decoded(piece: bytes | str) -> str:
    if isinstance(piece, str):
        return piece
    try:
        return msgspec.json.decode(b'"' + piece.replace(b"\n", b"") + b'"', type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return piece.decode("utf-8", "replace")
