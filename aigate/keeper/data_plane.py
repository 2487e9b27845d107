"""The node's own data plane, for the keeper's calls: each is a normal metered call of some principal, made through one of our workers.

A call is sent at most once for its id. The id is the caller's to store before it calls. It always goes to the same place in the tree, which
one process holds at a time; that process refuses an id that it has seen, and what an earlier keeper sent it and it has not begun
(worker/inner.py). So when `fate` has asked the process that lives there, and the journals of those that died are read to their ends,
"never sent" is true and stays true: only then may the id be sent again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec
from msgspec.structs import replace

from aigate.core.call import Principal
from aigate.errors import GatewayError
from aigate.inner import (
    ALREADY_SENT,
    COST_HEADER,
    HEADER,
    NOT_BEGUN,
    SECRET_HEADER,
    STATE_PATH,
    InnerCall,
    InnerState,
    encode_call,
    slot_of_call,
    slot_of_worker,
    socket_path,
)
from aigate.keeper.db.engine import Database
from aigate.keeper.db.fates import ENDED, NEVER_SENT, RUNNING, Fate, read_fate
from aigate.keeper.shipper import Shipper

RUNNING_AT_ONCE = 256
CONNECT_WAIT_S = 20.0  # for a worker that is being restarted
CONNECT_PAUSE_S = 0.1
STATE_S = 10.0  # a worker's word on one call
IDLE_S = 30.0  # less than workers keep an idle connection
CALL_S = 3600.0  # a worker ends its calls itself, long before
FATE_PAUSE_S = 0.1


class InnerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a call is made. `headers`: further ones that steer a call, as its client would send them."""

    tag: str | None = None  # None: the principal's own
    ignores_rate_limits: bool = False
    must_archive: bool = False  # its bodies are kept whatever the settings say
    price_variant: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class InnerReply(msgspec.Struct, frozen=True, kw_only=True):
    """`cost_nanousd` None: it is not known (a stream, or no call of the ledger). Error replies are replies."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    cost_nanousd: int | None
    latency_ms: int


class NotSent(GatewayError):
    """No worker could take the call: nothing was sent, and the same id may be called again."""

    status = 503
    code = "capacity_exceeded"
    retryable = True


class OutcomeUnknown(GatewayError):
    """The call was sent, perhaps by an earlier keeper, and no reply can come here any more: `fate` tells what became of it."""

    status = 503
    code = "outcome_unknown"


class DataPlane:
    """`slots`: places for workers in the tree. `journals`: those of connected workers, journal id → worker."""

    def __init__(
        self,
        run_dir: str,
        secret: str,
        slots: int,
        *,
        database: Database,
        shipper: Shipper,
        journals: Callable[[], Mapping[str, str]],
    ):
        self._run_dir = run_dir
        self._secret = secret.encode()
        self._slots = slots
        self._database = database
        self._shipper = shipper
        self._journals = journals
        self._epoch = time.monotonic_ns()
        self._turn = asyncio.Semaphore(RUNNING_AT_ONCE)
        self._idle: dict[int, list[_Wire]] = {slot: [] for slot in range(1, slots + 1)}

    async def call(
        self, principal: Principal, path: str, body: bytes, *, call_id: str, options: InnerOptions = InnerOptions(), timeout_s: float = CALL_S
    ) -> InnerReply:
        """The reply, whatever its status. Raises NotSent or OutcomeUnknown. A caller that is cancelled leaves the call running."""
        if options.ignores_rate_limits:
            principal = replace(principal, rates=())
        head = self._head("POST", path, self._call_fields(principal, call_id, options), len(body))
        async with self._turn:
            slot = slot_of_call(call_id, self._slots)
            wire = self._take_idle(slot) or await self._connect(slot)
            began = time.monotonic()
            try:
                async with asyncio.timeout(timeout_s):
                    status, headers, reply = await wire.ask(head + body)
            except (OSError, EOFError, ValueError, TimeoutError):
                wire.close()
                raise OutcomeUnknown(f"The worker's reply to {call_id} did not come.") from None
            except BaseException:
                wire.close()
                raise
            self._put_back(slot, wire, headers)
        latency_ms = int((time.monotonic() - began) * 1000)
        code = _own_code(status, headers, reply)
        if code == NOT_BEGUN:
            raise NotSent("The workers are ending.")
        if code == ALREADY_SENT:
            raise OutcomeUnknown(f"The call {call_id} was sent before.")
        cost = headers.get(COST_HEADER.decode())
        return InnerReply(status=status, headers=headers, body=reply, cost_nanousd=None if cost is None else int(cost), latency_ms=latency_ms)

    async def fate(self, call_id: str) -> Fate:
        """What became of a call. RUNNING also where nobody can say yet; every other answer is final, but for one: a call that was never
        sent may be sent."""
        slot = slot_of_call(call_id, self._slots)
        state = await self._ask_state(slot, call_id)
        if state is not None and state.is_running:
            return Fate(state=RUNNING)
        await self._shipper.catch_up(looks_around=True)
        found = await self._database.read(read_fate, call_id)
        if found is not None and found.state == ENDED:
            return found
        # Whatever else the ledger says counts once nobody can add to it.
        said = {journal for journal, worker in self._journals().items() if slot_of_worker(worker) != slot}
        if state is not None:
            said.add(state.journal_id)
        if self._shipper.not_read_out() - said:
            return Fate(state=RUNNING)
        return found or Fate(state=NEVER_SENT)

    async def final_fate(self, call_id: str) -> Fate:
        """Waits until it is not running."""
        while (fate := await self.fate(call_id)).state == RUNNING:
            await asyncio.sleep(FATE_PAUSE_S)
        return fate

    def close(self) -> None:
        for wires in self._idle.values():
            while wires:
                wires.pop().close()

    # --- the words ---

    def _head(self, method: str, path: str, fields: list[tuple[bytes, bytes]], length: int = 0) -> bytes:
        lines = [b"%b %b HTTP/1.1" % (method.encode(), path.encode("ascii")), b"host: inner", b"content-length: %d" % length]
        lines += [b"%b: %b" % field for field in fields]
        if any(b"\r" in line or b"\n" in line for line in lines):
            raise ValueError("a header of an inner call has a line break")
        return b"\r\n".join([*lines, b"", b""])

    def _call_fields(self, principal: Principal, call_id: str, options: InnerOptions) -> list[tuple[bytes, bytes]]:
        call = InnerCall(call_id, self._epoch, principal, options.price_variant, options.must_archive)
        fields = [(SECRET_HEADER, self._secret), (HEADER, encode_call(call)), (b"content-type", b"application/json")]
        if options.tag is not None:
            fields.append((b"x-aig-tag", options.tag.encode()))
        return fields + [(name.encode(), value.encode()) for name, value in options.headers]

    async def _ask_state(self, slot: int, call_id: str) -> InnerState | None:
        """None: no process holds that place now."""
        try:
            wire = await _open(socket_path(self._run_dir, slot))
        except OSError:
            return None
        fields = [(SECRET_HEADER, self._secret), (HEADER, b"%d" % self._epoch)]
        try:
            async with asyncio.timeout(STATE_S):
                status, _, body = await wire.ask(self._head("GET", STATE_PATH + call_id, fields))
        except (OSError, EOFError, ValueError, TimeoutError):
            return None
        finally:
            wire.close()
        return msgspec.json.decode(body, type=InnerState) if status == 200 else None

    # --- connections ---

    def _take_idle(self, slot: int) -> _Wire | None:
        wires = self._idle[slot]
        while wires:
            wire = wires.pop()
            if wire.is_usable(time.monotonic() - IDLE_S):
                return wire
            wire.close()
        return None

    async def _connect(self, slot: int) -> _Wire:
        deadline = time.monotonic() + CONNECT_WAIT_S
        while True:
            try:
                return await _open(socket_path(self._run_dir, slot))
            except OSError as error:
                if time.monotonic() > deadline:
                    raise NotSent(f"The worker in place {slot} cannot be reached: {error.strerror or error}.") from None
            await asyncio.sleep(CONNECT_PAUSE_S)

    def _put_back(self, slot: int, wire: _Wire, headers: Mapping[str, str]) -> None:
        if headers.get("connection") == "close":
            wire.close()
        else:
            wire.idle_since = time.monotonic()
            self._idle[slot].append(wire)


class _Wire:
    """One connection to a worker, for one request at a time."""

    __slots__ = ("_reader", "_writer", "idle_since")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader = reader
        self._writer = writer
        self.idle_since = 0.0

    def is_usable(self, oldest: float) -> bool:
        return self.idle_since > oldest and not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        self._writer.close()

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body). EOFError where the reply breaks off."""
        reader = self._reader
        self._writer.write(request)
        await self._writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        if headers.get("transfer-encoding") != "chunked":
            return int(head[0][9:12]), headers, await reader.readexactly(int(headers.get("content-length", "0")))
        pieces = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            pieces.append((await reader.readexactly(size + 2))[:-2])
        await reader.readexactly(2)
        return int(head[0][9:12]), headers, b"".join(pieces)


async def _open(path: str) -> _Wire:
    return _Wire(*await asyncio.open_unix_connection(path))


def _own_code(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """The code of a refusal that a worker makes before there is a call; "" of every other reply."""
    if status not in (409, 503) or "x-aig-attempts" in headers or COST_HEADER.decode() in headers:
        return ""
    for code in (NOT_BEGUN, ALREADY_SENT):
        if b'"%b"' % code.encode() in body:
            return code
    return ""
