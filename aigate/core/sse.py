"""Server-sent events: bytes in any slicing → whole events, and one event's lines → its payload. Pure; knows no dialect.

A *block* is one event as text: its lines and the blank line that ends it, line ends made LF. `BlockSplitter` hands on all whole blocks
of a read as one bytes object and keeps the rest, so that a reader may treat many events at once.
"""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class BlockSplitter:
    """LF, CRLF and CR line ends, cut anywhere. `is_between`: what is fed next begins a block, whatever it is."""

    __slots__ = ("is_between", "_rest", "_ends_in_cr")

    def __init__(self) -> None:
        self.is_between = True
        self._rest: bytes | bytearray = b""
        self._ends_in_cr = False

    def feed(self, data: bytes) -> bytes:
        """All blocks that are whole now, one after the other; b"" when none is."""
        if not self._rest and data.endswith(b"\n\n") and b"\r" not in data and not self._ends_in_cr:
            return data  # as most providers send: whole events, LF alone
        if self._ends_in_cr or b"\r" in data:
            data = self._to_lf(data)
        blocks = self._take(data)
        self.is_between = not self._rest and not self._ends_in_cr
        return blocks

    def _take(self, data: bytes) -> bytes:
        rest = self._rest
        if rest:
            if b"\n\n" not in rest[-1:] + data:  # one long event in many reads: each byte is looked at once and copied seldom
                if type(rest) is bytes:
                    self._rest = rest = bytearray(rest)
                rest += data
                return b""
            data = b"".join((rest, data))
        end = data.rfind(b"\n\n")
        if end < 0:
            self._rest = data
            return b""
        end += 2
        if end == len(data):
            self._rest = b""
            return data
        self._rest = data[end:]
        return data[:end]

    def close(self) -> bytes:
        """What the last blank line did not end; b"" when it is only line ends."""
        rest, self._rest = self._rest, b""
        return rest.strip(b"\n") and bytes(rest)

    @property
    def held_bytes(self) -> int:
        return len(self._rest)

    def _to_lf(self, data: bytes) -> bytes:
        if not data:
            return data
        if self._ends_in_cr and data[0] == 0x0A:  # the second half of a CRLF whose first half was taken as a line end
            data = data[1:]
        self._ends_in_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def read_block(block: bytes) -> bytes | None:
    """The block's data lines joined; None when it has none (comments, a lone event name)."""
    lines = block.removeprefix(_BOM).split(b"\n")
    data = [line[6:] if line[5:6] == b" " else line[5:] for line in lines if line[:5] == b"data:" or line == b"data"]
    if not data:
        return None
    return data[0] if len(data) == 1 else b"\n".join(data)
