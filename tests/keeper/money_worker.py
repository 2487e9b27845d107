"""A worker as the keeper's desk for leases sees one: the real wallet, the real journal, a real socket, and no calls but the test's."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from sqlalchemy import Connection

from aigate.core.budget import Owner
from aigate.core.wallet import Ask, Hold, Shortage, Wallet
from aigate.journal.records import ADOPTED, RESTATED, RETURNED, CallEnd, Intent, Settled, encode_record
from aigate.journal.writer import JournalWriter
from aigate.keeper.db.engine import Database
from aigate.keeper.leases import LeaseDesk
from aigate.keeper.push import MessageServer
from aigate.keeper.shipper import Shipper
from aigate.messages import Ack, Grant, Granted, Hello, Limits, Message, Push, Recall, Refused, Welcome, decode_frames, encode_frame

ACCOUNT: Owner = ("account", "acc_1", "acc_1")
SENT_MS = 1_700_000_000_000  # 2023-11


class Desk:
    """A keeper without its control plane. `month` is the database's clock; the desk's own look at it waits for `may_look`."""

    def __init__(self, database: Database, folder: Path, socket: Path):
        self.month = "2023-11"
        self.may_look = threading.Event()
        self.may_look.set()
        self.rounds = 0
        self.database = database
        self.shipper = Shipper(database, folder)
        self.leases = LeaseDesk(database, self.shipper, find_month=self._find_month, look_s=0.05)
        self._server = MessageServer(_nobody, expected_workers=0, leases=self.leases)
        self._socket = socket

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Desk]:
        self._socket.unlink(missing_ok=True)
        listener = await asyncio.get_running_loop().create_unix_server(self._server.protocol, str(self._socket))
        tasks = [asyncio.create_task(self.shipper.run()), asyncio.create_task(self.leases.run())]
        try:
            yield self
        finally:
            listener.close()
            self._server.close()
            self.leases.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def look_and_ship(self) -> None:
        self.shipper._next_look = 0.0  # do not wait a second for the next look at the folder
        await self.shipper.catch_up()

    def _find_month(self, connection: Connection) -> str:
        if not connection.get_execution_options().get("is_write"):
            self.may_look.wait(10)
        self.rounds += 1
        return self.month


async def _nobody(digests: Sequence[bytes]) -> dict:
    return {}


class MoneyWorker:
    def __init__(self, folder: Path, journal_id: str):
        self.journal = JournalWriter(folder, journal_id, segment_bytes=1 << 20)
        self.wallet = Wallet()
        self.is_mute = False  # answers nothing that it is told
        self.heard: list[Message] = []
        self.welcome = asyncio.Event()
        self._answers: dict[int, asyncio.Future[Hold | Shortage | Refused | None]] = {}
        self._sent = 0
        self._attempt_ids: dict[Hold, str] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    # --- its connection ---------------------------------------------------------------------------------------------------------

    async def connect(self, socket: Path, *, is_welcome: bool = True) -> MoneyWorker:
        reader, self._writer = await asyncio.open_unix_connection(socket)
        self.welcome.clear()
        self._hello()
        self._reading = asyncio.create_task(self._read(reader))
        if is_welcome:
            await asyncio.wait_for(self.welcome.wait(), 10)
        return self

    def send(self, message: Message) -> None:
        assert self._writer is not None
        self._writer.write(encode_frame(message))

    async def disconnect(self) -> None:
        if self._reading is not None and self._writer is not None:
            self._reading.cancel()
            self._writer.close()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def die(self) -> None:
        """As by SIGKILL: what is not in the journal is gone."""
        await self.disconnect()
        self.journal.close()

    def _hello(self) -> None:
        journal_id = self.journal.journal_id
        self.send(Hello("w", 1, journal_id, grant_seq=self.wallet.seq, limits_version=self.wallet.limits_version))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        buffer = bytearray()
        while data := await reader.read(65536):
            buffer += data
            for message in decode_frames(buffer):
                self.heard.append(message)
                if not self.is_mute:
                    self._take(message)

    def _take(self, message: Message) -> None:
        wallet, journal = self.wallet, self.journal
        if isinstance(message, Push):
            self.send(Ack(message.number))
        elif isinstance(message, Recall):
            journal.move_leases(RETURNED, wallet.retire(message.budget_ids) + wallet.retire_before(message.before))
            self.send(Ack(message.number))
        elif isinstance(message, Limits):
            journal.move_leases(ADOPTED, wallet.to_adopt(message.changes))
            journal.move_leases(RETURNED, wallet.change_limits(message.version, message.changes, message.is_reset))
            self.send(Ack(message.number))
        elif isinstance(message, Welcome) and message.is_restored:
            journal.move_leases(RESTATED, wallet.to_restate())
            wallet.restate()
            for answer in self._answers.values():
                answer.set_result(None)
            self._answers.clear()
            self._hello()
        elif isinstance(message, Welcome):
            self.welcome.set()
            for ask in wallet.unanswered():
                self._send_ask(ask)
        elif isinstance(message, Granted):
            hold, returned = wallet.granted(message.number, message.seq, message.leases, message.tight)
            journal.move_leases(RETURNED, returned)
            if message.number in self._answers:
                self._answers.pop(message.number).set_result(hold)
        elif isinstance(message, Refused):
            wallet.refused(message.number)
            if message.number in self._answers:
                self._answers.pop(message.number).set_result(message)

    def _send_ask(self, ask: Ask) -> None:
        self.send(Grant(ask.number, ask.wants, self.wallet.seq, self.wallet.answered))

    # --- calls ------------------------------------------------------------------------------------------------------------------

    async def hold(self, budget_ids: Sequence[int], amount: int, owners: Sequence[Owner] = (ACCOUNT,)) -> Hold | Refused:
        """Its intent is in the journal."""
        held: Hold | Shortage | Refused | None = self.wallet.hold(owners, budget_ids, amount)
        while not isinstance(held, Hold | Refused):
            shortage = held if held is not None else Shortage(owners, budget_ids, amount, budget_ids)
            ask = self.wallet.ask(shortage, 0)
            self._answers[ask.number] = asyncio.get_running_loop().create_future()
            answer = self._answers[ask.number]
            self._send_ask(ask)
            held = await asyncio.wait_for(answer, 10)
        return self._begin(held) if isinstance(held, Hold) else held

    def start(self, amount: int, owners: Sequence[Owner] = (ACCOUNT,)) -> Hold:
        """On no budget."""
        held = self.wallet.hold(owners, (), amount)
        assert isinstance(held, Hold)
        return self._begin(held)

    def _begin(self, hold: Hold) -> Hold:
        self._sent += 1
        self._attempt_ids[hold] = f"{self.journal.journal_id}_{self._sent}"
        hold.enter("2023-11")
        self.journal.intent(encode_record(self._intent(hold)))
        return hold

    def settle(self, hold: Hold, cost: int) -> None:
        charges = self.wallet.settle(hold, cost)
        intent = self._intent(hold)
        owner = (intent.account_id, intent.key_id, intent.sub_account_id, intent.tag)
        call = CallEnd(intent.call_id, "s", "chat", "m", "m/m", 200, SENT_MS, 1, 1, False, 1, cost, *owner, None, "")
        settled = Settled(
            intent.attempt_id, "complete", "reported", 1, 1, 0, 0, 0, 0, 0, cost, "", 200, "", 1, 1, b"", call, charges
        )  # fmt: skip
        self.journal.settled(encode_record(settled))

    def _intent(self, hold: Hold) -> Intent:
        named = {scope: owner_id for scope, _, owner_id in hold.owners}
        attempt_id = self._attempt_ids[hold]
        owner = ("acc_1", named.get("key", "key_1"), named.get("sub_account"), named.get("tag"))
        return Intent(attempt_id, "req_" + attempt_id, 1, SENT_MS, "m", "m/m", hold.amount, "", *owner, hold.window, hold.leases)
