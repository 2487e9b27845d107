"""The inner lane on a running gateway: whom its calls are for, and that none is sent twice, whoever is killed.

The provider is a process of its own that notes every attempt it saw. The lane's other end is here, in the place of a keeper, so that it
can "die" at any point: what it leaves behind is a later one's to find out. AIGATE_KILLS sets how many kills (default 4), AIGATE_SEED the seed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from aigate.cli.verify import report_lines, verify_data_dir
from aigate.core.call import Principal
from aigate.core.rate import REQUESTS, Rate
from aigate.inner import HEADER, SECRET_HEADER, InnerCall, encode_call, inner_secret
from aigate.keeper.data_plane import DataPlane, InnerOptions, NotSent, OutcomeUnknown
from aigate.keeper.db.engine import database_url, open_database
from aigate.keeper.db.fates import ENDED, NEVER_SENT, RUNNING, UNSETTLED
from aigate.keeper.shipper import Shipper
from tests.conftest import Gateway, start_gateway, wait_until
from tests.e2e.wire import chat, connect, post, provider_config, read_bill, request_id, rows, run, running_sim, shipped
from tests.test_serve import children

KILLS = int(os.environ.get("AIGATE_KILLS", "4"))
SEED = int(os.environ.get("AIGATE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
ANNA = Principal(key_id="key_anna", account_id="acc_default")
MODELS = ("echo", "ttft-500ms+echo", "ttft-50ms+echo", "503-then-ok")
PATH = "/v1/chat/completions"


class World:
    def __init__(self, gateway: Gateway, bill: Path, slots: int):
        self.gateway, self.bill, self.slots = gateway, bill, slots
        self.database = open_database(database_url(gateway.data_dir))
        self.shipper = Shipper(self.database, gateway.data_dir / "journals")

    @property
    def secret(self) -> str:
        return inner_secret((self.gateway.data_dir / "secret.key").read_bytes())

    def plane(self) -> DataPlane:
        """As each new keeper has one."""
        run_dir = str(self.gateway.data_dir / "run")
        return DataPlane(run_dir, self.secret, self.slots, database=self.database, shipper=self.shipper, journals=dict)

    def seen(self, call_id: str) -> list[str]:
        return [attempt for attempt in read_bill(self.bill)[0] if attempt.startswith(f"att_{call_id[4:]}_")]


@contextmanager
def world(folder: Path, *settings: str):
    bill = folder / "bill.jsonl"
    with running_sim(bill) as url:
        gateway = start_gateway(folder, "\n".join(settings) + "\n" + provider_config("simx", url, MODELS))
        it = World(gateway, bill, 1)
        try:
            yield it
        finally:
            it.database.close()
            gateway.kill()


def new_id() -> str:
    return "req_" + secrets.token_hex(12)


def body(model: str = "echo", prompt: str = "Hello") -> bytes:
    return json.dumps(chat(f"simx/{model}", prompt)).encode()


def test_an_inner_call_is_a_normal_metered_call_of_its_principal_under_the_id_that_was_chosen(tmp_path):
    with world(tmp_path, "[batches]", "price_factor = 0.5") as it:

        async def test():
            plane, call_id = it.plane(), new_id()
            whole = await plane.call(ANNA, PATH, body(), call_id=call_id, options=InnerOptions(tag="evening"))
            assert (whole.status, whole.headers["x-request-id"]) == (200, call_id)
            call, attempts = await asyncio.to_thread(shipped, it.gateway, call_id)
            assert (call["key_id"], call["tag"], call["status"], call["cost_nanousd"]) == ("key_anna", "evening", 200, whole.cost_nanousd)
            assert (await plane.fate(call_id)).cost_nanousd == whole.cost_nanousd > 0

            half = await plane.call(ANNA, PATH, body(), call_id=new_id(), options=InnerOptions(price_variant="batch"))
            assert 0 < half.cost_nanousd <= whole.cost_nanousd // 2 + 2

            limited = Principal(key_id="key_bob", rates=(Rate(REQUESTS, "key_bob", 1),))
            statuses = [
                (await plane.call(limited, PATH, body(), call_id=new_id(), options=InnerOptions(ignores_rate_limits=is_free))).status
                for is_free in (False, False, True)
            ]
            assert statuses == [200, 429, 200]
            refused = await plane.call(ANNA, PATH, b"{", call_id=new_id())
            assert refused.status == 400 and refused.cost_nanousd == 0

        run(test)
        it.gateway.stop()
        assert report_lines(verify_data_dir(it.gateway.data_dir))[-1] == "the ledger is sound"


def test_the_headers_of_the_inner_lane_mean_nothing_on_the_public_port_and_it_takes_nobody_without_its_secret(tmp_path):
    with world(tmp_path) as it:

        async def test():
            call = InnerCall(new_id(), 1, ANNA, "batch")
            fields = [f"{SECRET_HEADER.decode()}: {it.secret}", f"{HEADER.decode()}: {encode_call(call).decode()}"]
            client = await connect(it.gateway)
            status, head, _ = await client.ask(post(it.gateway, chat("simx/echo"), *fields))
            assert status == 200 and request_id(head) != call.call_id
            served, _ = await asyncio.to_thread(shipped, it.gateway, request_id(head))
            assert served["key_id"] == "key_root"
            status, *_ = await client.ask(post(it.gateway, chat("simx/echo"), *fields, key="sk-aig-" + "x" * 43))
            assert status == 401

            for secret in ("", "0" * 64):
                stranger = it.plane()
                stranger._secret = secret.encode()
                assert (await stranger.call(ANNA, PATH, body(), call_id=new_id())).status == 401
            assert (await it.plane().call(ANNA, "/v1/keys", b"{}", call_id=new_id())).status == 404
            assert (it.gateway.data_dir / "run").stat().st_mode & 0o077 == 0

        run(test)


def test_a_call_id_runs_once(tmp_path):
    with world(tmp_path) as it:

        async def test():
            plane, call_id = it.plane(), new_id()
            first = asyncio.create_task(plane.call(ANNA, PATH, body("ttft-500ms+echo"), call_id=call_id))
            await asyncio.to_thread(wait_until, lambda: it.seen(call_id))
            with pytest.raises(OutcomeUnknown):
                await plane.call(ANNA, PATH, body(), call_id=call_id)
            assert (await plane.fate(call_id)).state == RUNNING
            assert (await first).status == 200
            with pytest.raises(OutcomeUnknown):
                await plane.call(ANNA, PATH, body(), call_id=call_id)
            assert (await plane.fate(call_id)).state == ENDED
            assert (await plane.fate(new_id())).state == NEVER_SENT
            assert len(it.seen(call_id)) == 1

            later = it.plane()
            await later.fate(new_id())
            with pytest.raises(OutcomeUnknown):  # what an earlier keeper sent does not begin any more
                await plane.call(ANNA, PATH, body(), call_id=new_id())

        run(test)


def test_a_call_whose_keeper_dies_goes_on_and_one_whose_worker_dies_is_unsettled(tmp_path):
    with world(tmp_path) as it:

        async def test():
            call_id = new_id()
            sent = asyncio.create_task(it.plane().call(ANNA, PATH, body("ttft-500ms+echo"), call_id=call_id))
            await asyncio.to_thread(wait_until, lambda: it.seen(call_id))
            sent.cancel()
            os.kill(children(it.gateway)["keeper"][0], signal.SIGKILL)
            fate = await it.plane().final_fate(call_id)
            assert (fate.state, fate.status) == (ENDED, 200) and fate.cost_nanousd > 0

            lost = new_id()
            sent = asyncio.create_task(it.plane().call(ANNA, PATH, body("ttft-500ms+echo"), call_id=lost))
            await asyncio.to_thread(wait_until, lambda: it.seen(lost))
            os.kill(children(it.gateway)["worker"][0], signal.SIGKILL)
            with pytest.raises(OutcomeUnknown):
                await sent
            assert (await it.plane().final_fate(lost)).state == UNSETTLED
            assert len(it.seen(lost)) == len(it.seen(call_id)) == 1
            assert (await it.plane().call(ANNA, PATH, body(), call_id=new_id())).status == 200  # waits for the next worker

        run(test)


class Caller:
    """Makes calls as durable work does: the id is noted first; after a crash `fate` decides, and only what was never sent is sent again."""

    def __init__(self, it: World, chance: random.Random):
        self.it, self.chance = it, chance
        self.plane = it.plane()
        self.running: set[asyncio.Task] = set()
        self.ended: dict[str, str] = {}
        self.crashes = 0

    async def call(self, call_id: str, model: str) -> None:
        while call_id not in self.ended:
            plane = self.plane
            task = asyncio.create_task(self.once(plane, call_id, model))
            self.running.add(task)
            try:
                await task
            except asyncio.CancelledError:
                await self.decide(call_id)
            finally:
                self.running.discard(task)

    async def once(self, plane: DataPlane, call_id: str, model: str) -> None:
        try:
            reply = await plane.call(ANNA, PATH, body(model, call_id), call_id=call_id)
            self.ended[call_id] = str(reply.status)
        except OutcomeUnknown:
            await self.decide(call_id)
        except NotSent:
            return

    async def decide(self, call_id: str) -> None:
        fate = await self.plane.final_fate(call_id)
        if fate.state != NEVER_SENT:
            self.ended[call_id] = fate.state

    def crash(self) -> None:
        """The keeper dies: what it waited for is lost, and another comes."""
        self.crashes += 1
        old, self.plane = self.plane, self.it.plane()
        for task in self.running:
            task.cancel()
        old.close()


def test_no_call_is_sent_twice_whoever_is_killed(tmp_path):
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    with world(tmp_path) as it:

        async def test():
            caller = Caller(it, chance)
            ids = [new_id() for _ in range(40 * KILLS)]
            lanes = asyncio.Semaphore(16)

            async def one(call_id: str) -> None:
                async with lanes:
                    await caller.call(call_id, chance.choice(("echo", "ttft-50ms+echo", "ttft-500ms+echo")))

            calls = [asyncio.create_task(one(call_id)) for call_id in ids]
            for number in range(KILLS):
                done = len(caller.ended)
                await asyncio.to_thread(wait_until, lambda done=done: len(caller.ended) >= min(done + chance.randrange(1, 30), len(ids)), 30)
                if number % 2:
                    caller.crash()
                elif workers := children(it.gateway).get("worker"):
                    os.kill(workers[0], signal.SIGKILL)
            await asyncio.gather(*calls)
            return ids, caller.ended

        ids, ended = run(test, 60 + 5 * KILLS)
        assert ended.keys() == set(ids)
        seen, billed = read_bill(it.bill)
        assert len(seen) == len(set(seen))
        by_call = {call_id: [attempt for attempt in seen if attempt.startswith(f"att_{call_id[4:]}_")] for call_id in ids}
        assert all(len(attempts) <= 1 for attempts in by_call.values())
        assert all(len(by_call[call_id]) == 1 for call_id, how in ended.items() if how == "200")
        it.gateway.stop()
        attempts = {row["attempt_id"]: row for row in rows(it.gateway.data_dir, "attempts")}
        assert set(seen) <= attempts.keys()
        assert all(attempts[f"att_{call_id[4:]}_1"]["end"] == "unsettled" for call_id, how in ended.items() if how == UNSETTLED)
