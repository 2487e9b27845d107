"""Deliveries on real databases to a real receiver: signed, in order, tried again, bounded by host, at least once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aigateway import verify_webhook
from sqlalchemy import select, update

from aigate.core.account import Whose
from aigate.core.webhook import Delivery, Try
from aigate.keeper.db.deliveries import hand_over_events, list_deliveries, record_try, remove_old_deliveries
from aigate.keeper.db.engine import Database
from aigate.keeper.db.outbox import Event, add_events
from aigate.keeper.db.tables import outbox
from aigate.keeper.db.webhook_tables import webhook_deliveries
from aigate.keeper.guarded import GuardedClient
from aigate.keeper.vault import Vault
from aigate.keeper.webhooks.deliver import Policy
from aigate.keeper.webhooks.service import Webhooks

ACCOUNT = Whose("acc_default")
FAST = Policy(delays_s=(0.05,) * 7, timeout_s=1.0, per_host=4, retention_days=0)


class Receiver:
    """A web server on loopback. `answer`: from what came to a status; None = none ever comes."""

    def __init__(self, answer: Callable[[dict[str, Any]], int | None] = lambda got: 200):
        self.answer = answer
        self.got: list[dict[str, Any]] = []
        self.open = self.most_open = 0

    async def __aenter__(self) -> Receiver:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:]) if name}
            body = await reader.readexactly(int(headers["content-length"]))
            self.got.append({"headers": headers, "raw": body, "body": json.loads(body), "id": headers["aig-delivery-id"]})
            status = self.answer(self.got[-1])
            await asyncio.sleep(0.01)
            if status is not None:
                writer.write(f"HTTP/1.1 {status} Said\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
            await reader.read()
        except (OSError, EOFError):
            pass  # the sender gave up
        finally:
            self.open -= 1
            writer.close()


class World:
    def __init__(self, database: Database, folder: Path, policy: Policy):
        self.database = database
        vault = Vault(folder / "provider.key")
        self.webhooks = Webhooks(database, vault, GuardedClient(allow_loopback=True), policy)
        self.store = self.webhooks.store

    async def happen(self, *events: Event) -> None:
        await self.database.write(add_events, events, int(time.time() * 1000))

    async def deliveries(self, **filters: str) -> list[Delivery]:
        """Oldest first."""
        return (await self.database.read(list_deliveries, ACCOUNT, filters, 1000))[::-1]

    async def settled(self, count: int) -> list[Delivery]:
        """All have ended."""
        while True:
            found = await self.deliveries()
            if len(found) == count and all(delivery.ended_ms is not None for delivery in found):
                return found
            await asyncio.sleep(0.02)


def run(database: Database, folder: Path, test: Callable[[World], Awaitable[None]], policy: Policy = FAST) -> None:
    async def serve() -> None:
        world = World(database, folder, policy)
        running = asyncio.create_task(world.webhooks.run())
        try:
            await test(world)
        finally:
            await world.webhooks.drain(1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(asyncio.wait_for(serve(), 30))


def job_event(n: int, subject: str | None = None, **fields: Any) -> Event:
    job = f"job_{n}" if subject is None else subject
    return Event("job.completed", "acc_default", f"done {n}", {"id": job, "n": n}, key_id="key_1", subject=job, **fields)


def test_a_request_url_gets_the_record_and_an_endpoint_the_envelope_each_signed_with_its_own_secret(database, tmp_path):
    async def test(world: World) -> None:
        async with Receiver() as receiver:
            _, secret = await world.store.add_endpoint(ACCOUNT, {"url": receiver.url + "/all"})
            await asyncio.sleep(0.002)  # an endpoint hears of nothing that was before it
            await world.happen(job_event(1, url=receiver.url))
            to_url, to_endpoint = await world.settled(2)
            key_secret = (await world.store._secrets.valid("key_1", "acc_default"))[0]
            got = {each["id"]: each for each in receiver.got}
            assert got[to_url.id]["body"] == {"id": "job_1", "n": 1}
            envelope = got[to_endpoint.id]["body"]
            assert (envelope["type"], envelope["data"], envelope["id"]) == ("job.completed", {"id": "job_1", "n": 1}, to_endpoint.event_id)
            for delivery, own in ((to_url, key_secret), (to_endpoint, secret)):
                headers, raw = got[delivery.id]["headers"], got[delivery.id]["raw"]
                assert verify_webhook(own, raw, headers["x-gateway-signature"])
                assert headers["x-gateway-signature"] == f"t={headers['aig-timestamp']},v1={headers['aig-signature']}"
                assert (headers["aig-attempt"], headers["aig-event"], headers["content-type"]) == ("1", "job.completed", "application/json")

    run(database, tmp_path, test)


def test_what_fails_is_tried_eight_times_with_one_id_and_then_given_up(database, tmp_path):
    async def test(world: World) -> None:
        async with Receiver(lambda got: 503) as broken, Receiver(lambda got: 302) as moved:
            await world.happen(job_event(1, url=broken.url), job_event(2, url=moved.url))
            first, second = await world.settled(2)
            assert [int(got["headers"]["aig-attempt"]) for got in broken.got] == list(range(1, 9))
            assert {got["id"] for got in broken.got} == {first.id}
            assert (first.status, first.attempts, {each.status for each in first.tries}) == ("failed", 8, {503})
            assert (second.status, {each.error for each in second.tries}) == ("failed", {"redirects are not followed"})
            again = await world.store.send_again(ACCOUNT, first.id)
            assert again is not None and again.status == "pending"
            broken.answer = lambda got: 204
            assert {each.status for each in await world.settled(2)} == {"delivered", "failed"}
            assert broken.got[-1]["headers"]["aig-attempt"] == "9" and broken.got[-1]["id"] == first.id

    run(database, tmp_path, test)


def test_events_of_one_subject_go_out_in_their_order_even_where_one_fails_at_first(database, tmp_path):
    async def test(world: World) -> None:
        failures = {"left": 3}

        def answer(got: dict[str, Any]) -> int:
            if got["body"]["n"] == 1 and failures["left"]:
                failures["left"] -= 1
                return 500
            return 200

        async with Receiver(answer) as receiver:
            await world.happen(*(job_event(n, subject="job_a", url=receiver.url) for n in range(5)))
            await world.happen(job_event(9, url=receiver.url))
            await world.settled(6)
            order = [got["body"]["n"] for got in receiver.got]
            assert [n for n in order if n != 9] == [0, 1, 1, 1, 1, 2, 3, 4]
            assert order.index(9) < order.index(4)  # another subject waits for nobody

    run(database, tmp_path, test)


def test_a_dead_receiver_holds_up_no_other_and_gets_few_at_once(database, tmp_path):
    async def test(world: World) -> None:
        async with Receiver(lambda got: None) as dead, Receiver() as living:
            await world.happen(*(job_event(n, url=dead.url) for n in range(100)))
            await asyncio.sleep(0.7)
            started = time.monotonic()
            await world.happen(*(job_event(n, url=living.url) for n in range(100, 120)))
            while len(living.got) < 20:
                await asyncio.sleep(0.01)
            assert time.monotonic() - started < 5
            assert dead.most_open <= FAST.per_host and living.most_open <= FAST.per_host

    run(database, tmp_path, test)


def test_a_url_that_leads_inside_is_never_connected_to_and_the_log_says_why(database, tmp_path):
    async def test(world: World) -> None:
        await world.happen(*(job_event(n, url=url) for n, url in enumerate(["https://10.0.0.1/", "https://[::ffff:169.254.169.254]/", "http://0x7f.1/", "nothing"])))
        found = await world.settled(4)
        assert {each.status for each in found} == {"failed"}
        words = [each.tries[-1].error for each in found]
        assert words[:2] == ["10.0.0.1 is not a host on the public internet", "::ffff:a9fe:a9fe is not a host on the public internet"]
        assert all("the URL" in each for each in words[2:])

    run(database, tmp_path, test, FAST._replace(delays_s=(0.01,)))


def test_an_endpoint_gets_what_it_asked_for_of_what_is_its_owners_and_nothing_older(database, tmp_path):
    async def test(world: World) -> None:
        async with Receiver() as receiver:
            await world.happen(Event("job.failed", "acc_default", "old", {"n": 0}))
            await asyncio.sleep(0.002)
            for owner, events in ((ACCOUNT, ("job.*",)), (Whose("acc_default", sub_account_id="sa_1"), ()), (Whose("acc_other"), ())):
                await world.store.add_endpoint(owner, {"url": f"{receiver.url}", "events": events})
            await asyncio.sleep(0.002)
            await world.happen(
                Event("job.failed", "acc_default", "1", {"n": 1}),
                Event("balance.low", "acc_default", "2", {"n": 2}),
                Event("usage.threshold", "acc_default", "3", {"n": 3}, sub_account_id="sa_1"),
                Event("job.failed", "acc_default", "4", {"n": 4}, sub_account_id="sa_1"),
            )
            await world.settled(4)
            assert sorted(got["body"]["data"]["n"] for got in receiver.got) == [1, 3, 4, 4]
            waiting = await world.database.read(lambda connection: connection.execute(select(outbox).where(outbox.c.delivered_ms.is_(None))).all())
            assert waiting == []

    run(database, tmp_path, test)


def test_a_changed_url_is_used_for_what_is_on_its_way_and_a_removed_endpoint_gets_nothing_more(database, tmp_path):
    async def test(world: World) -> None:
        async with Receiver(lambda got: 500) as old, Receiver() as new:
            made, _ = await world.store.add_endpoint(ACCOUNT, {"url": old.url})
            other, _ = await world.store.add_endpoint(ACCOUNT, {"url": old.url + "/other"})
            await asyncio.sleep(0.002)
            await world.happen(job_event(1))
            while len(old.got) < 3:
                await asyncio.sleep(0.01)
            await world.store.change_endpoint(ACCOUNT, made.id, {"url": new.url})
            assert await world.store.remove_endpoint(ACCOUNT, other.id)
            found = {each.endpoint_id: each.status for each in await world.settled(2)}
            assert found == {made.id: "delivered", other.id: "failed"} and len(new.got) == 1

    run(database, tmp_path, test, FAST._replace(delays_s=(0.1,) * 50))


def test_a_second_keeper_goes_on_where_the_first_ended_without_sending_what_was_delivered(database, tmp_path):
    ids: list[str] = []

    async def begin(world: World) -> None:
        async with Receiver(lambda got: 200 if got["body"]["n"] % 2 else 500) as receiver:
            await world.happen(*(job_event(n, url=receiver.url) for n in range(10)))
            while len({got["id"] for got in receiver.got}) < 10:
                await asyncio.sleep(0.01)
            ids.extend(each.id for each in await world.deliveries())

    async def go_on(world: World) -> None:
        async with Receiver() as receiver:
            await world.database.write(lambda connection: connection.execute(update_urls(receiver.url)))
            found = await world.settled(10)
            assert [each.id for each in found] == ids and {each.status for each in found} == {"delivered"}
            assert {got["body"]["n"] for got in receiver.got} == {0, 2, 4, 6, 8}

    run(database, tmp_path, begin, FAST._replace(delays_s=(0.3,) * 20))
    run(database, tmp_path, go_on)


def update_urls(url: str) -> Any:
    return update(webhook_deliveries).where(webhook_deliveries.c.status == "pending").values(url=url, host=url, due_ms=0)


def test_old_deliveries_and_events_are_removed_and_what_is_on_its_way_stays(database, tmp_path):
    def make(connection: Any) -> None:
        add_events(connection, [job_event(n, url="https://8.8.8.8/") for n in range(4)], 1000)
        hand_over_events(connection, 1000)
        found = list_deliveries(connection, ACCOUNT, {}, 10)
        for delivery in found[:3]:
            record_try(connection, delivery.id, Try(1000, 1, 200), None)
        add_events(connection, [job_event(9)], 1000)

    database.write_now(make)
    assert not database.write_now(remove_old_deliveries, 1000, 1000)
    assert len(database.read_now(list_deliveries, ACCOUNT, {}, 10)) == 4
    database.write_now(remove_old_deliveries, 1001, 1001)
    [left] = database.read_now(list_deliveries, ACCOUNT, {}, 10)
    assert left.status == "pending"
    assert [row.cause for row in database.read_now(lambda connection: connection.execute(select(outbox)).all())] == ["done 9"]
