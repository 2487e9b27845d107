"""How lines that a provider's own batch had end: settled at the provider's batch price, written as if they had been sent one by one.

First the ledger, then the line: both may be done twice, and a line that is written needs neither again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from sqlalchemy import Connection, select

from aigate.batchdialects.dialect import Outcome
from aigate.core.batch import Batch, LineError, line_of_call, native_call_id
from aigate.core.batch_lines import error_line, reply_line
from aigate.core.price import price_usage
from aigate.core.target import Target
from aigate.core.usage import NONE, NOTHING, Usage
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import OpenedReply, Settlement
from aigate.dialects.openai_errors import redact
from aigate.errors import ProviderError
from aigate.journal.records import CallEnd, Settled
from aigate.keeper.batches.native_plan import price_of, surface_of
from aigate.keeper.batches.spool import ERRORS, OUTPUT
from aigate.keeper.db.engine import Database
from aigate.keeper.db.holds import settle_reserved
from aigate.keeper.db.tables import attempts
from aigate.keeper.outage import patiently

AT_ONCE = 100  # lines a transaction

Names = Mapping[int, tuple[str, str]]  # number → (custom_id, model as it was asked for)


class Writer(Protocol):
    async def write(self, kind: str, number: int, line: bytes) -> None: ...
    def is_done(self, number: int) -> bool: ...


class _End:
    """What becomes of one line: in the ledger, and in the files (`line` empty: nothing)."""

    __slots__ = ("called", "status", "usage", "source", "cost_nanousd", "price_id", "raw_usage", "error_code", "served_by", "asked", "kind", "line")

    def __init__(self, called: str, asked: str = ""):
        self.called = called
        self.asked = asked
        self.status = 0
        self.usage: Usage | None = NOTHING  # None: it is not settled, since nobody knows what it used
        self.source, self.cost_nanousd, self.price_id, self.raw_usage = NONE, 0, "", b""
        self.error_code = self.served_by = ""
        self.kind, self.line = ERRORS, b""


class NativeEnds:
    def __init__(self, batch: Batch, database: Database, host: Writer):
        self._batch = batch
        self._database = database
        self._host = host
        found = surface_of(batch.endpoint)
        self._surface, self._endpoint = found or (DIALECTS["openai-chat"], "chat")

    async def settle(self, outcomes: Sequence[Outcome], target: Target, known: Names) -> None:
        """Those that are not ours, or have ended before, are left out."""
        ends = []
        for outcome in outcomes:
            number = _number_of(outcome.call_id, self._batch.id)
            if number in known and not self._host.is_done(number):
                ends.append(self._end(outcome, number, target, *known[number]))
        await self._write(ends)

    async def close(self, left: set[int], known: Names, problem: str, *, is_stopped: bool) -> None:
        """Lines of which the provider told nothing: it did none of them. Of a batch that was stopped they have no result."""
        ends = []
        for number in sorted(left):
            end = _End(native_call_id(self._batch.id, number), known[number][1] if number in known else "")
            end.status, end.error_code = 502, "not_processed"
            if not is_stopped:
                words = f"Line {number} was not done by the provider: {problem or 'its results do not name it'}."
                end.line = error_line(self._batch.id, number, known[number][0] if number in known else None, LineError("not_processed", words, number))
            ends.append(end)
        await self._write(ends)

    async def free(self, numbers: set[int]) -> None:
        """Holds of lines that were never sent."""
        ends = []
        for number in sorted(numbers):
            end = _End(native_call_id(self._batch.id, number))
            end.status, end.error_code = 499, "cancelled"
            ends.append(end)
        await self._write(ends)

    async def refuse(self, target: Target, status: int, body: bytes, known: Names) -> None:
        """One answer for all lines of a part."""
        error = self._error(target, status, body)
        words = f"The provider refused the batch: {error.message}"
        ends = []
        for number, (custom_id, asked) in known.items():
            end = _End(native_call_id(self._batch.id, number), asked)
            end.status, end.error_code = error.status, error.code
            end.line = error_line(self._batch.id, number, custom_id, LineError(error.code, words, number))
            ends.append(end)
        await self._write(ends)

    # --- one line ---

    def _end(self, outcome: Outcome, number: int, target: Target, custom_id: str, asked: str) -> _End:
        end = _End(outcome.call_id, asked)
        if not outcome.body:
            code = {"expired": "batch_expired", "cancelled": "cancelled"}.get(outcome.problem, "provider_error")
            end.status, end.error_code = 502, code
            if code != "cancelled":
                words = "This request could not be made before the completion window ended." if code == "batch_expired" else "The provider could not do this request."
                end.line = error_line(self._batch.id, number, custom_id, LineError(code, words, number))
            return end
        try:
            if outcome.status != 200:
                raise self._error(target, outcome.status, outcome.body)
            answer = self._answer(end, outcome.body, target)
        except ProviderError as error:
            end.status, end.error_code = error.status, error.code
            answer = self._surface.write_error(error, end.called)
        else:
            end.status, end.kind = 200, OUTPUT
        end.line = reply_line(self._batch.id, number, custom_id, end.status, end.called, answer)
        return end

    def _answer(self, end: _End, body: bytes, target: Target) -> bytes:
        """The reply as its caller gets it, and what it cost."""
        opened: OpenedReply = DIALECTS[target.dialect].open_reply(body, target)
        end.usage, end.raw_usage, end.served_by = opened.usage, opened.raw_usage, target.slug
        settlement = Settlement(NOTHING, 0)
        if opened.usage is not None:
            price = price_of(target)
            end.source, end.price_id = opened.usage_source, "" if price is None else price.id
            end.cost_nanousd = price_usage(price, opened.usage)
            settlement = Settlement(opened.usage, end.cost_nanousd, opened.raw_usage, opened.usage_source, opened.is_usage_whole)
        spliced = self._surface.splice_reply(opened, target, end.asked, settlement)
        if spliced is not None:
            return spliced
        return self._surface.write_reply(DIALECTS[target.dialect].read_reply(opened.body, target), end.asked, settlement)

    def _error(self, target: Target, status: int, body: bytes) -> ProviderError:
        error = DIALECTS[target.dialect].read_error(status, {}, body)
        error.message = redact(error.message, (target.provider.credential,) if len(target.provider.credential) >= 8 else ())
        error.extra.setdefault("provider", target.provider.name)
        return error

    # --- ledger, then files ---

    async def _write(self, ends: Sequence[_End]) -> None:
        for start in range(0, len(ends), AT_ONCE):
            chunk = ends[start : start + AT_ONCE]
            await patiently(self._database.write, self._settle_all, chunk, int(time.time() * 1000))
            for end in chunk:
                if end.line:
                    await self._host.write(end.kind, line_of_call(end.called), end.line)

    def _settle_all(self, connection: Connection, ends: Sequence[_End], now_ms: int) -> None:
        ids = [end.called for end in ends if end.usage is not None]
        rows = {row.call_id: row for row in connection.execute(select(attempts).where(attempts.c.call_id.in_(ids)))}
        for end in ends:
            row = rows.get(end.called)
            if row is None:
                continue
            call = CallEnd(
                end.called, self._surface.name, self._endpoint, end.asked or row.model, end.served_by, end.status, row.sent_ms, now_ms - row.sent_ms, -1,
                False, 1, end.cost_nanousd, row.account_id, row.key_id, row.sub_account_id, row.tag, None, end.error_code,
            )  # fmt: skip
            usage = end.usage or NOTHING
            settled = Settled(
                row.attempt_id, "complete" if end.status == 200 else "failed", end.source, usage.input_tokens, usage.output_tokens, usage.cached_tokens,
                usage.cache_write_tokens, usage.reasoning_tokens, usage.audio_input_tokens, usage.audio_output_tokens, end.cost_nanousd,
                end.price_id or row.hold_price_id, 200 if end.status == 200 else 0, end.error_code, now_ms - row.sent_ms, -1, end.raw_usage, call,
            )  # fmt: skip
            settle_reserved(connection, settled, now_ms)


def _number_of(called: str, batch_id: str) -> int | None:
    """None: it is not of this batch."""
    try:
        number = line_of_call(called)
    except ValueError:
        return None
    return number if called == native_call_id(batch_id, number) else None
