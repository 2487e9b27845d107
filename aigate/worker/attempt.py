"""One attempt: edits, hold, connection, intent, the request out, the answer in, settled. Steps 5 to 11 for one target.

`send` answers the client itself when the attempt succeeds. When it fails it returns a Failure, unsettled, so that the spine can
settle it together with what follows. Between an intent and its settled record nothing here lets an exception by unsettled, except
a cancellation (the process is ending) while the whole answer is outstanding: then the open intent says so in the ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from email.utils import formatdate

import msgspec

from aigate.core.bounds import hold_nanousd, input_bound, output_bound
from aigate.core.call import Attempt, Call, Outcome
from aigate.core.edits import Edit, EditPlanner, apply_to_request, plan_edits, plan_request
from aigate.core.neutral import Reply, Request, leave_home
from aigate.core.target import GOOGLE_TOKEN, Target
from aigate.core.usage import REPORTED
from aigate.core.warnings import warning_header
from aigate.dialects import COUNTERS, DIALECTS
from aigate.dialects.dialect import Dialect, OpenedReply, Settlement
from aigate.dialects.fetchable import may_name_urls, media_to_fetch
from aigate.dialects.lost import lost_fields
from aigate.errors import ClientError, GateError, ProviderError
from aigate.journal.records import encode_record
from aigate.journal.writer import JournalWriter
from aigate.worker.admit import Admission
from aigate.worker.answer import reply_fields, stream_fields
from aigate.worker.client import Connection, Pool, decode_body
from aigate.worker.count import believed_usage, reply_text
from aigate.worker.count_call import count_prompt_aside
from aigate.worker.fetch import Fetcher
from aigate.worker.origins import Origins
from aigate.worker.relay import Relay
from aigate.worker.run import CLIENT_CLOSED, Part, Run
from aigate.worker.settle import hold_price, set_price, write_intent, write_settled
from aigate.worker.tokens import Tokens
from aigate.worker.upstream_connection import Head

MAX_ERROR_BYTES = 1 << 20  # of a provider's error body that we read
_EVENT_STARTS = (b"data:", b"event:", b":")
ERROR_BODY_S = 10.0  # silence in it that we bear


class Failure(msgspec.Struct):
    """An attempt that did not answer. Not settled yet, unless the client was told in-band already (`is_answered`)."""

    error: ProviderError
    attempt: Attempt
    outcome: Outcome
    is_answered: bool = False

    @property
    def kind(self) -> str:
        return self.error.kind

    @property
    def is_stale(self) -> bool:
        return self.error.is_stale


class Limits(msgspec.Struct, frozen=True):
    max_reply_bytes: int = 64 << 20
    default_max_output_tokens: int = 32_768
    force_neutral: bool = False


class Attempts:
    """What attempts share: the pool, the journal, the money. `unix_offset_s` turns the loop's clock into wall time."""

    def __init__(
        self,
        *,
        pool: Pool,
        journal: JournalWriter,
        origins: Origins,
        limits: Limits,
        admission: Admission,
        fetcher: Fetcher,
        tokens: Tokens,
    ):
        self._pool = pool
        self._admission = admission
        self._fetcher = fetcher
        self._tokens = tokens
        self._journal = journal
        self._dialects: Mapping[str, Dialect] = DIALECTS
        self._origins = origins
        self._limits = limits
        self._loop = loop = pool.loop
        self._now = loop.time
        self._plan_edits = EditPlanner().plan
        self._relays: set[Relay] = set()
        self.unix_offset_s = time.time() - loop.time()

    async def send(self, run: Run, target: Target) -> Failure | None:
        """One dispatch. None: the client has its answer. Raises GateError where nothing was sent and no other target would help."""
        call, exchange = run.call, run.exchange
        run.target = target
        edits, neutral = self._plan_pairs(run, target) or await self._plan(run, target)
        if run.warnings and run.is_strict:
            raise _strict_refusal(run)
        attempt = self._begin(run, target, call)
        connection: Connection | None = None
        try:
            if attempt.hold_nanousd and (run.principal.budgets or self._admission.limits):
                admitted = await self._admission.admit(run, attempt, target, edits)
                if neutral is not None:
                    apply_to_request(neutral, admitted[len(edits) :])
                edits = admitted
            else:
                self._admission.unlimited[attempt.id] = run, attempt
            request = self._write(run, target, edits, neutral)
            connection = self._idle(target) or await self._connect(target)
            if exchange.is_gone:
                raise ClientError("the client closed the connection", status=CLIENT_CLOSED, code="client_closed")
            self._intend(run, attempt, connection)
        except ProviderError as error:
            return self._unreached(run, attempt, error)
        except BaseException:  # whatever it is: nothing was sent
            self._withdraw(run, attempt, connection)
            raise
        failure: Failure | None = None
        is_over = False
        try:
            forwarded = call.forward_headers if target.dialect == call.surface else ()
            connection.send(self._origins.head(target, attempt.id, len(request), forwarded, is_stream=call.is_stream) + request)
            head = await connection.head(target.provider.timeout_s)
            if head.status != 200:
                raise await self._refusal(connection, head, target)
            if call.is_stream:
                failure = await self._stream(run, attempt, connection, head)
            else:
                max_bytes = self._limits.max_reply_bytes
                body = connection.whole_body(max_bytes) or await connection.body(max_bytes, target.provider.timeout_s)
                if head.may_have(b"content-encoding"):
                    body = decode_body(body, head.headers.get(b"content-encoding", b""), max_bytes)
                opened = self._dialects[target.dialect].open_reply(body, target)  # raises bad_reply: what is no reply is not metered
                if opened.usage is None or (not opened.usage.output_tokens and call.endpoint != "embeddings"):
                    await self._count(run, opened)
                failure = self._answer(run, attempt, opened)
            is_over = failure is None
        except ProviderError as error:
            failure = self._failed(run, attempt, error)
        except Exception:
            self._end_unforeseen(run, attempt, connection)
            raise
        finally:
            if is_over or connection.is_complete:
                connection.release()
            else:
                connection.abort()
        return failure

    async def has_newer_token(self, failure: Failure, target: Target) -> bool:
        """Whether the provider refused our access token, and there is a newer one now."""
        return failure.error.provider_status == 401 and await self._tokens.renewed(target.provider, failure.attempt.started_at)

    def _idle(self, target: Target) -> Connection | None:
        """A connection that is there, where nothing else has to be waited for."""
        provider = target.provider
        return None if provider.auth == GOOGLE_TOKEN else self._pool.take(self._origins.origin(provider))

    async def _connect(self, target: Target) -> Connection:
        if target.provider.auth == GOOGLE_TOKEN:
            await self._tokens.ready(target.provider)
        origin = self._origins.origin(target.provider)
        return self._pool.take(origin) or await self._pool.connect(origin)

    async def count_tokens(self, run: Run, target: Target) -> tuple[int, str]:
        """(tokens of the call's prompt, how they were obtained): nothing is generated, bought or written down."""
        call = run.call
        run.target = target
        endpoint = COUNTERS.get(target.dialect)
        if endpoint is None:
            return await count_prompt_aside(run.surface.read_request(call), target)
        request = endpoint.write(self._write(run, target, *(self._plan_pairs(run, target) or await self._plan(run, target))), target)
        counting = msgspec.structs.replace(target, endpoint="count_tokens", url_path=target.count_url_path or endpoint.path(target.url_path))
        forwarded = call.forward_headers if target.dialect == call.surface else ()
        connection = self._idle(target) or await self._connect(target)
        try:
            connection.send(self._origins.head(counting, "att_none", len(request), forwarded) + request)
            head = await connection.head(target.provider.timeout_s)
            if head.status != 200:
                raise await self._refusal(connection, head, target)
            body = await connection.body(MAX_ERROR_BYTES, target.provider.timeout_s)
        except ProviderError as error:
            self._origins.clean(error, target.provider)
            raise
        finally:
            if connection.is_complete:
                connection.release()
            else:
                connection.abort()
        return endpoint.read(decode_body(body, head.headers.get(b"content-encoding", b""), MAX_ERROR_BYTES)), REPORTED

    def _plan_pairs(self, run: Run, target: Target) -> tuple[tuple[Edit, ...], None] | None:
        """The edits of the caller's own pairs, where these can go to the target. `run` is told what they change. None: `_plan` knows."""
        call, surface = run.call, run.surface
        if target.dialect != surface.name or call.holds_proofs or self._limits.force_neutral:
            return None
        if target.quirks.needs_data and may_name_urls(call):
            return None
        plan = self._plan_edits(call, target, surface.params)
        run.warnings = plan.warnings
        return plan.edits, None

    async def _plan(self, run: Run, target: Target) -> tuple[tuple[Edit, ...], Request]:
        """The edits, and the neutral form with them applied. Waits only for media that have to be fetched."""
        call, surface = run.call, run.surface
        is_same = target.dialect == surface.name
        request = surface.read_request(call)
        if run.parent is not None:
            request.params.pop("n", None)
        if wanted := media_to_fetch(request, target):
            run.fetched = run.fetched or {}
            await self._fetcher.fill(wanted, run.fetched)
        plan = plan_edits(call, target, surface.params) if is_same else plan_request(call, request, target, surface.params)
        apply_to_request(request, plan.edits)
        run.warnings = plan.warnings
        if not is_same or call.holds_proofs:
            lost = (*lost_fields(request, target.dialect), *self._dialects[target.dialect].lost(request, target))
            run.warnings = tuple(dict.fromkeys(run.warnings + lost))  # one field of the caller's may stand for several
            leave_home(request, target.dialect)
        return plan.edits, request

    def _write(self, run: Run, target: Target, edits: tuple[Edit, ...], neutral: Request | None) -> bytes:
        """The body for this target: the caller's pairs edited, or the neutral form written in the target's dialect."""
        if neutral is None:
            return run.surface.edit_pairs(run.call, edits, target)
        return self._dialects[target.dialect].write_request(neutral, target)

    def _begin(self, run: Run, target: Target, call: Call) -> Attempt:
        number = run.next_attempt()
        price = target.model.price
        hold, price_id = 0, ""
        if price is not None:
            if price.services or price.variants:
                price = hold_price(call, price)
            tokens_out = output_bound(call, target, self._limits.default_max_output_tokens)
            hold, price_id = hold_nanousd(price, input_bound(call, target), tokens_out), price.id
            if self._admission.raised:
                hold = self._admission.raise_bound(target, hold)
        request_id = run.exchange.request_id
        return Attempt(f"att_{request_id[4:]}_{number}", request_id, number, hold, price_id, self._now())

    def _intend(self, run: Run, attempt: Attempt, connection: Connection | None) -> None:
        """`connection`: what it is going to be sent on, if it is."""
        self._admission.enter(attempt)
        write_intent(self._journal, run, attempt, self.unix_offset_s, None if connection is None else connection.refuse)
        if run.on_sent is not None and connection is not None:
            run.on_sent()

    def _unreached(self, run: Run, attempt: Attempt, error: ProviderError) -> Failure:
        """An attempt at no connection is one all the same: it has its row."""
        try:
            self._intend(run, attempt, None)
        except GateError:
            self._withdraw(run, attempt, None)
            raise
        return self._failed(run, attempt, error)

    def _withdraw(self, run: Run, attempt: Attempt, connection: Connection | None) -> None:
        """Nothing was sent and nothing written: as if the attempt had never been."""
        run.attempts -= 1
        self._admission.withdraw(attempt)
        if connection is not None:
            connection.release()

    def _end_unforeseen(self, run: Run, attempt: Attempt, connection: Connection) -> None:
        """The journal took the intent back, or a bug of ours: the listener answers that, and the attempt must not stay open."""
        if connection.is_refused:
            self._withdraw(run, attempt, None)
        elif not run.has_ended:
            self.settle(run, attempt, Outcome(end="failed", error_kind="internal"), status=500, error_code="internal_error")

    def _failed(self, run: Run, attempt: Attempt, error: ProviderError) -> Failure:
        target = run.target
        self._origins.clean(error, target.provider)
        error.extra.setdefault("provider", target.provider.name)
        outcome = Outcome(end="failed", status=error.provider_status, error_kind=error.kind)
        return Failure(error, attempt, outcome)

    async def _refusal(self, connection: Connection, head: Head, target: Target) -> ProviderError:
        """The provider's own error, read as far as it can be."""
        if 200 <= head.status < 300:
            return ProviderError(f"the provider answered {head.status} where 200 was due", kind="bad_reply", provider_status=head.status)
        try:
            body = await connection.body(MAX_ERROR_BYTES, min(ERROR_BODY_S, target.provider.timeout_s))
            body = decode_body(body, head.headers.get(b"content-encoding", b""), MAX_ERROR_BYTES)
        except ProviderError:
            body = b""  # the status alone says enough
        dated = {b"date": formatdate(self._now() + self.unix_offset_s, usegmt=True).encode(), **head.headers}  # Retry-After may be a date
        return self._dialects[target.dialect].read_error(head.status, dated, body)

    # --- plain replies ------------------------------------------------------------------------------------------------------

    async def _count(self, run: Run, opened: OpenedReply) -> None:
        """The usage that the provider did not report, from the text of its reply."""
        target, body = run.target, opened.body
        text = body.decode(errors="replace") if opened.pairs is None else reply_text(self._dialects[target.dialect].read_reply(body, target))
        opened.usage, opened.usage_source = await believed_usage(run.call, target, opened.usage, text, 0)
        if opened.usage_source != REPORTED:
            opened.raw_usage, opened.is_usage_whole = b"", False

    def _answer(self, run: Run, attempt: Attempt, opened: OpenedReply) -> Failure | None:
        """Price, settled record, then the client's reply. Without `await`: nothing comes in between."""
        exchange, usage = run.exchange, opened.usage
        assert usage is not None
        cost_nanousd = set_price(run, attempt, opened.service_tier, usage)
        outcome = Outcome(
            end="aborted" if exchange.is_gone else "complete",
            status=200,
            usage=usage,
            usage_source=opened.usage_source,
            raw_usage=opened.raw_usage,
            cost_nanousd=cost_nanousd,
        )
        try:
            if run.parent is not None:
                run.part = Part(self._neutral(run, opened), usage, opened.usage_source, cost_nanousd)
                self.settle(run, attempt, outcome)
                return None
            answer = self._written(run, opened, Settlement(usage, cost_nanousd, opened.raw_usage, opened.usage_source, opened.is_usage_whole))
        except ProviderError as error:
            failure = self._failed(run, attempt, error)
            failure.outcome = msgspec.structs.replace(outcome, end="failed", error_kind=error.kind)
            return failure
        status = CLIENT_CLOSED if exchange.is_gone else 200
        self.settle(run, attempt, outcome, status=status)
        if not exchange.is_gone:
            if run.keep is not None:
                run.keep(answer)  # first: the client may go on from it at once
            exchange.reply(200, reply_fields(run, usage), answer)
        return None

    def _written(self, run: Run, opened: OpenedReply, settlement: Settlement) -> bytes:
        target, surface = run.target, run.surface
        if target.dialect == surface.name and (opened.pairs is None or not self._limits.force_neutral):
            opened.echo = run.call.pairs
            spliced = surface.splice_reply(opened, target, run.asked, settlement)
            if spliced is not None:
                return spliced
        return surface.write_reply(self._neutral(run, opened), run.asked, settlement)

    def _neutral(self, run: Run, opened: OpenedReply) -> Reply:
        """A reply as the surface can write it."""
        target, surface = run.target, run.surface
        reply = self._dialects[target.dialect].read_reply(opened.body, target)
        reply.echo = run.call.pairs
        if target.dialect != surface.name:
            leave_home(reply, surface.name)
            reply.created = reply.created or run.call.received_at
        return reply

    # --- streams ------------------------------------------------------------------------------------------------------------

    async def _stream(self, run: Run, attempt: Attempt, connection: Connection, head: Head) -> Failure | None:
        target, call, exchange = run.target, run.call, run.exchange
        whole = await self._whole_in_place(connection, head, target)
        reader = self._dialects[target.dialect].stream_reader(target, is_spliced=not self._limits.force_neutral)
        writer = run.writer or run.surface.stream_writer(call, run.asked, exchange.request_id)
        relay = Relay(exchange, connection, reader, writer, self._loop)
        relay.stops_on_cancel = target.quirks.on_cancel == "stops"
        exchange.on_gone, exchange.on_drain = relay.on_gone, relay.on_drain
        self._relays.add(relay)
        try:
            if whole:
                relay.on_whole(whole)
            else:
                connection.stream(relay.on_data, relay.on_end, target.provider.timeout_s)
            if exchange.is_gone:
                relay.on_gone()
            has_begun = await relay.opened
            if not has_begun and not relay.is_aborted:
                assert relay.error is not None
                return self._failed(run, attempt, relay.error)
            if not relay.is_aborted and not relay.ended.done():
                self._open(run, relay)
            await relay.ended
        except asyncio.CancelledError:  # the drain is over: what came so far is what is settled
            relay.stop()
            exchange.abort()
        finally:
            self._relays.discard(relay)
            exchange.on_gone = exchange.on_drain = None
        return await self._end_stream(run, attempt, relay)

    async def _whole_in_place(self, connection: Connection, head: Head, target: Target) -> bytes:
        """The body of a 200 that does not call itself a stream, unless it says an error: then that is raised. b"" for a stream."""
        kind = head.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        encoding = head.headers.get(b"content-encoding", b"identity")
        if kind in (b"application/json", b"text/html"):
            max_bytes = self._limits.max_reply_bytes
            body = decode_body(await connection.body(max_bytes, target.provider.timeout_s), encoding, max_bytes)
            if body.lstrip().startswith(_EVENT_STARTS):  # a stream by another name
                return body
            return self._dialects[target.dialect].open_reply(body, target).body  # raises what an error in it says, as in a plain call
        if encoding not in (b"identity", b""):
            raise ProviderError("the provider compressed a stream unasked", kind="bad_reply", provider_status=200)
        return b""

    def _open(self, run: Run, relay: Relay) -> None:
        exchange = run.exchange
        if not exchange.is_started:
            exchange.start(200, stream_fields(run))
        exchange.send(relay.forward())

    async def _end_stream(self, run: Run, attempt: Attempt, relay: Relay) -> Failure | None:
        """Usage, price, settled record, then the client's last bytes."""
        target, call, exchange = run.target, run.call, run.exchange
        if relay.first_byte_at >= 0:
            run.first_byte_ms = attempt.first_byte_ms = int((relay.first_byte_at - exchange.started_at) * 1000)
        usage, source, raw_usage = relay.usage, REPORTED, relay.raw_usage
        if usage is None or not usage.output_tokens:
            usage, source = await believed_usage(call, target, usage, *relay.reader.text_so_far())
            raw_usage = raw_usage if source == REPORTED else b""
        error = relay.error
        cost_nanousd = set_price(run, attempt, relay.service_tier, usage)
        outcome = Outcome(
            end="aborted" if relay.is_aborted or exchange.is_gone else "failed" if error else "complete",
            status=200,
            error_kind=error.kind if error else "",
            usage=usage,
            usage_source=source,
            raw_usage=raw_usage,
            cost_nanousd=cost_nanousd,
        )
        failure = self._failed(run, attempt, error) if error else None
        status = CLIENT_CLOSED if outcome.end == "aborted" else 200
        if run.parent is not None:  # the call goes on, and what ends here is a branch
            status, run.part = 0, Part(None, usage, source, cost_nanousd)
        self.settle(run, attempt, outcome, status=status, error_code=error.code if error else "")
        if outcome.end != "aborted":
            if error:
                last = relay.writer.fail(error, exchange.request_id)
            else:
                last = relay.writer.finish(Settlement(usage, cost_nanousd, raw_usage, source))
                if run.keep is not None:
                    run.keep(last)
            if not exchange.is_started:
                exchange.start(200, stream_fields(run))
            exchange.end_with(relay.forward() + last)
        if failure is not None:
            failure.is_answered = True
            failure.outcome = outcome
        return failure

    # --- settle -------------------------------------------------------------------------------------------------------------

    def settle(self, run: Run, attempt: Attempt, outcome: Outcome, *, status: int = 0, error_code: str = "") -> None:
        """The one place where attempts end. A `status` says the call ends with it."""
        cost, held = outcome.cost_nanousd, attempt.hold_nanousd
        run.cost_nanousd += cost
        if cost > held > 0:
            self._admission.note_overrun(run.target, held, cost)
        if run.permits:
            run.tokens += outcome.usage.input_tokens + outcome.usage.output_tokens
        now = self._now()
        end = None
        if status:
            run.has_ended = True
            end = run.end_record(now, self.unix_offset_s, status, error_code)
        charges = self._admission.settle(attempt, cost)
        write_settled(self._journal, attempt, outcome, int((now - attempt.started_at) * 1000), end, charges)

    def end_call(self, run: Run, status: int, error_code: str) -> None:
        """The end of a call that has none yet from its last attempt."""
        run.has_ended = True
        self._journal.call_end(encode_record(run.end_record(self._now(), self.unix_offset_s, status, error_code)))

    def tick(self, now: float, after_s: float) -> None:
        """Each second: keep silent streams open, and follow the wall clock."""
        self.unix_offset_s = time.time() - now
        self._admission.tick(now, self.unix_offset_s)
        for relay in self._relays:
            relay.keep_alive(now, after_s)


def _strict_refusal(run: Run) -> ClientError:
    names = ", ".join(warning.param for warning in run.warnings)
    target = run.target
    return ClientError(
        f"{target.slug} cannot do as asked with: {names} ({warning_header(run.warnings)}); "
        "change these or leave out x-aig-strict",
        param=run.warnings[0].param,
        code="unsupported_parameter",
    )
