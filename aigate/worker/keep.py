"""keep: bodies of ended calls, into the worker's spool. Decides whose are kept and for how long; the last thing done of a call.

Off by the operator, the tenant (Principal.archive_days) or the caller (x-aig-archive: off). Work of the gateway's own keeps its bodies
whatever they say, for a day, and nobody else sees those.
"""

from __future__ import annotations

from aigate.archive.records import ArchivedCall
from aigate.archive.spool import Spool
from aigate.core.switch import read_switch
from aigate.worker.run import Run
from aigate.worker.tape import Shelf

OWN_DAYS = 1


class Keeping:
    """`days`: how long bodies are kept of whom nothing else is said; 0 = not at all."""

    def __init__(self, spool: Spool, shelf: Shelf, *, days: int):
        self.spool = spool
        self.shelf = shelf
        self._days = days

    def begin(self, run: Run) -> None:
        """Once it is known who calls. Raises ClientError for a header that does not say whether the caller wants it."""
        exchange = run.exchange
        days = run.principal.archive_days
        if days is None:
            days = self._days
        asked = exchange.headers.get(b"x-aig-archive")
        if asked is not None and not read_switch("x-aig-archive", asked.decode("latin-1") or "on", "on", "off"):
            days = 0
        if days or (exchange.inner is not None and exchange.inner.must_archive):
            exchange.shelf = self.shelf
            run.archive_days = days

    def end(self, run: Run, unix_offset_s: float) -> None:
        """Once the reply was sent, of a call that `begin` found is to be kept."""
        exchange, principal, target, call = run.exchange, run.principal, run.target, run.call
        exchange.shelf = None
        request, reply, tape, days = exchange.body, exchange.whole, exchange.tape, run.archive_days
        if tape is not None:
            reply, exchange.tape = tape.take(), None
            if tape.is_lost:
                return
        most = self.shelf.max_body_bytes
        is_cut = reply is None or len(reply) > most or len(request) > most
        if is_cut:
            request = reply = b""
        is_inner = exchange.inner is not None
        self.spool.keep(
            ArchivedCall(
                exchange.request_id,
                int((exchange.started_at + unix_offset_s) * 1000),
                principal.account_id,
                principal.sub_account_id,
                principal.key_id,
                run.tag,
                run.surface.name,
                run.endpoint,
                exchange.path,
                run.asked,
                "" if target is None else target.slug,
                exchange.status,
                call is not None and call.is_stream,
                request,
                reply,
                is_cut,
                is_inner,
                not days,
            ),
            days or OWN_DAYS,
            is_inner,  # at once: the keeper waits for it
        )
