"""The provider's own bill: which attempts arrived, and what each would be charged.

Kept in memory (sums of all, rows of the last ones) and, where a file is given, appended to it line by line with one `write` each,
so that it tells the truth after any process was killed. Decides nothing about tokens: it is told.
"""

from __future__ import annotations

import os
from collections import deque

import msgspec

from aigate.sim.rates import bill_nanousd

ROWS_KEPT = 10_000  # of memory; the sums and the file know all


class Row(msgspec.Struct):
    """One attempt. `end` is open while it runs, then complete | cancelled | cut | failed; tokens are what is charged."""

    attempt: str
    model: str = ""
    is_stream: bool = False
    end: str = "open"
    status: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanousd: int = 0


class Totals(msgspec.Struct):
    seen: int = 0
    billed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanousd: int = 0


_encode = msgspec.json.Encoder().encode


class Bill:
    def __init__(self, path: str | None = None) -> None:
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.reset()

    def reset(self) -> None:
        """Forgets what memory holds; the file stays."""
        self.rows: deque[Row] = deque(maxlen=ROWS_KEPT)
        self.totals = Totals()

    def see(self, attempt: str) -> Row:
        """A request arrived whole. The same attempt may arrive twice: each arrival is a row."""
        row = Row(attempt)
        self.rows.append(row)
        self.totals.seen += 1
        if self._file is not None:
            self._append({"event": "seen", "attempt": attempt})
        return row

    def charge(self, row: Row, end: str) -> None:
        """The attempt ended: its row is final. Call it once, before the caller can have read the last byte."""
        row.end = end
        row.cost_nanousd = bill_nanousd(row.prompt_tokens, row.cached_tokens, row.completion_tokens)
        totals = self.totals
        totals.billed += 1
        totals.prompt_tokens += row.prompt_tokens
        totals.completion_tokens += row.completion_tokens
        totals.cached_tokens += row.cached_tokens
        totals.reasoning_tokens += row.reasoning_tokens
        totals.cost_nanousd += row.cost_nanousd
        if self._file is not None:
            self._append({"event": "billed", **msgspec.structs.asdict(row)})

    def _append(self, line: dict) -> None:
        data = _encode(line) + b"\n"
        if os.write(self._file, data) != len(data):
            raise OSError("the bill file took only part of a line: is its disk full?")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
