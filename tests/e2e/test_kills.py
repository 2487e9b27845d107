"""SIGKILL and SIGTERM under load: every attempt the provider saw is in the ledger, what ended is settled, no bill is wrong.

The simulated provider is a process of its own, whose bill survives. AIGATE_KILLS sets how many kills (default 52), AIGATE_SEED the seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

from aigate.cli.verify import report_lines, verify_data_dir
from tests.conftest import Gateway, start_gateway, wait_until
from tests.e2e.wire import chat, connect, events_of, post, provider_config, read_bill, request_id, rows, run, running_sim, said_in
from tests.test_serve import children, is_gone

KILLS = int(os.environ.get("AIGATE_KILLS", "52"))
SEED = int(os.environ.get("AIGATE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
CLIENTS = 8
MODELS = (
    "echo", "cached", "slow-2ms+long-40", "slow-2ms+long-40+bills-all", "reasoning", "ttft-20ms+echo", "usage-every+long-9", "503-then-ok", "reset-3",
)  # fmt: skip
VICTIMS = ("worker", "worker", "worker", "keeper", "keeper", "worker", "all", "keeper", "worker", "worker", "keeper", "supervisor")
BROKEN = (ConnectionError, asyncio.IncompleteReadError)  # what a client sees when what it talks to is killed


class Load:
    """Clients that call without pause and note what became of each call."""

    def __init__(self, gateway: Gateway, key: str, seed: int):
        self.gateway = gateway
        self.key = key
        self.random = random.Random(seed)
        self.progress = asyncio.Condition()
        self.steps = 0
        self.whole: set[str] = set()  # call ids of replies that came to their end
        self.statuses: Counter[int] = Counter()
        self.broken = 0  # calls a kill (or their own client) ended
        self.is_over = False

    async def step(self) -> None:
        self.steps += 1
        async with self.progress:
            self.progress.notify_all()

    async def advance(self, steps: int) -> None:
        """Until so many more calls have ended or pieces have come."""
        goal = self.steps + steps
        async with self.progress:
            await self.progress.wait_for(lambda: self.steps >= goal)

    async def client(self, number: int) -> None:
        count = 0
        while not self.is_over:
            try:
                connection = await connect(self.gateway)
            except OSError:
                await asyncio.sleep(0.01)  # between the death of one server and the start of the next
                continue
            try:
                while not self.is_over and await self.call(connection, f"caller {number} call {count}"):
                    count += 1
            except BROKEN:
                self.broken += 1
            finally:
                connection.close()
                count += 1

    async def call(self, connection, prompt: str) -> bool:
        """One call; False when the connection is of no more use."""
        draw = self.random.random()
        body = chat("simx/" + self.random.choice(MODELS), prompt, stream=draw < 0.6)
        await connection.send(post(self.gateway, body, key=self.key))
        if draw < 0.05:
            self.broken += 1
            return False  # leaves before anything has come
        head = (await connection.head()).lower()
        status = int(head[9:12])
        if b"\r\ncontent-length: " in head:
            reply = await connection.reader.readexactly(int(head.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0]))
        else:
            pieces = []
            while piece := await connection.chunk():
                pieces.append(piece)
                await self.step()
                if draw < 0.1:
                    self.broken += 1
                    return False  # leaves in the middle
            reply = b"".join(pieces)
            assert reply.endswith(b"data: [DONE]\n\n")
        if status == 200 and body["model"] == "simx/echo":
            assert prompt in said_in(reply), reply
        self.statuses[status] += 1
        if b"key could not be checked" not in reply:  # refused before anybody knew whose call it is: it has no row
            self.whole.add(request_id(head))
        await self.step()
        return b"\r\nconnection: close" not in head


def victims_of(gateway: Gateway, kind: str) -> list[int]:
    tree = children(gateway)
    if kind == "supervisor":
        return [gateway.process.pid]
    if kind == "all":
        return [gateway.process.pid, *(pid for pids in tree.values() for pid in pids)]
    return tree.get(kind, [])


async def kill_again_and_again(load: Load, restart) -> Counter[str]:
    done: Counter[str] = Counter()
    while sum(done.values()) < KILLS:
        kind = VICTIMS[sum(done.values()) % len(VICTIMS)]
        await load.advance(load.random.randrange(1, 120))
        pids = victims_of(load.gateway, kind)
        while not pids:  # its last replacement is not there yet
            await load.advance(1)
            pids = victims_of(load.gateway, kind)
        if kind in ("worker", "keeper"):
            pids = [load.random.choice(pids)]
        everyone = victims_of(load.gateway, "all")
        for pid in pids:
            with suppress(ProcessLookupError):  # the supervisor's death has ended it already
                os.kill(pid, signal.SIGKILL)
        done[kind] += 1
        if load.gateway.process.pid in pids:
            load.gateway.process.wait(10)
            await asyncio.to_thread(wait_until, lambda everyone=everyone: all(is_gone(pid) for pid in everyone))
            load.gateway = await asyncio.to_thread(restart)
    return done


def check_ledger(data_dir: Path, bill: Path, load: Load) -> int:
    """Holds the ledger against the provider's bill and against what the clients saw; how many attempts are unsettled."""
    seen, billed = read_bill(bill)
    attempts = {row["attempt_id"]: row for row in rows(data_dir, "attempts")}
    assert len(seen) == len(set(seen)), "an attempt was sent twice under one id"
    assert set(seen) <= attempts.keys()
    unsettled = {name for name, row in attempts.items() if row["end"] == "unsettled"}
    assert {row["end"] for name, row in attempts.items() if name not in set(seen)} <= {"unsettled", "failed"}
    assert len(unsettled) <= load.broken
    assert not {attempts[name]["call_id"] for name in unsettled} & load.whole
    assert load.whole <= {row["call_id"] for row in rows(data_dir, "calls")}
    for name, row in attempts.items():
        if row["end"] == "complete":
            truth = billed[name]
            names = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
            for ours in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"):
                assert row[ours] == truth[names.get(ours, ours)], (row, truth)
        elif row["end"] == "unsettled":
            assert row["cost_nanousd"] == 0 and row["reserved_nanousd"] == row["hold_nanousd"] > 0
    report = verify_data_dir(str(data_dir))
    assert report.is_sound and not report.unshipped_bytes, report_lines(report)
    return len(unsettled)


def test_no_kill_loses_an_attempt_or_changes_a_bill(tmp_path):
    print(f"seed {SEED}, {KILLS} kills")
    bill = tmp_path / "bill.jsonl"
    with running_sim(bill) as base_url:
        settings = "[server]\nworkers = 2\n" + provider_config("simx", base_url, MODELS, 'on_cancel = "stops"')

        def restart() -> Gateway:
            return start_gateway(tmp_path, settings)

        gateway = restart()
        load = Load(gateway, gateway.request("POST", "/v1/keys", {"name": "load"})[2]["key"], SEED)

        async def under_load() -> Counter[str]:
            clients = [asyncio.create_task(load.client(number)) for number in range(CLIENTS)]
            try:
                done = await kill_again_and_again(load, restart)
                load.is_over = True
                await asyncio.gather(*clients)
                return done
            finally:
                for task in clients:
                    task.cancel()

        try:
            done = run(under_load, limit_s=60 + 5 * KILLS)
            assert load.gateway.stop() == 0
        finally:
            load.gateway.kill()
        unsettled = check_ledger(load.gateway.data_dir, bill, load)
        print(f"killed {dict(done)}; {len(load.whole)} calls whole, by status {dict(load.statuses)}; {load.broken} broken, {unsettled} unsettled")
    assert load.whole and load.broken
    assert load.statuses.keys() <= {200, 502, 503}, load.statuses


def test_a_drain_ships_what_a_killed_keeper_left(start):
    gateway = start()
    (keeper,) = children(gateway)["keeper"]
    os.kill(keeper, signal.SIGSTOP)
    for _ in range(5):
        assert gateway.request("POST", "/v1/chat/completions", chat("sim/echo"))[0] == 200
    os.kill(keeper, signal.SIGKILL)
    assert gateway.stop() == 0
    report = verify_data_dir(str(gateway.data_dir))
    assert report.calls == 5 and report.is_sound and not report.counts, report_lines(report)


def test_a_drain_ends_every_stream_and_leaves_nothing_open(tmp_path):
    bill = tmp_path / "bill.jsonl"
    streams = 12
    with running_sim(bill) as base_url:
        gateway = start_gateway(tmp_path, "[server]\nworkers = 2\n" + provider_config("simx", base_url, ("slow-20ms+long-60",)))

        async def stream(number: int, begun: asyncio.Semaphore) -> None:
            client = await connect(gateway)
            await client.send(post(gateway, chat("simx/slow-20ms+long-60", f"stream {number}", stream=True)))
            await client.head()
            pieces = [await client.chunk()]
            begun.release()
            while pieces[-1]:
                pieces.append(await client.chunk())
            *chunks, done = events_of(b"".join(pieces))
            assert done == "[DONE]" and chunks[-1]["usage"]["completion_tokens"] == 60
            assert await client.rest() == b""

        async def drain() -> int:
            begun = asyncio.Semaphore(0)
            running = [asyncio.create_task(stream(number, begun)) for number in range(streams)]
            for _ in running:
                await begun.acquire()
            stopping = asyncio.create_task(asyncio.to_thread(gateway.stop))
            await asyncio.gather(*running)
            return await stopping

        try:
            assert run(drain) == 0
        finally:
            gateway.kill()
    attempts = rows(gateway.data_dir, "attempts")
    assert [(row["end"], row["output_tokens"]) for row in attempts] == [("complete", 60)] * streams
    assert sorted(read_bill(bill)[0]) == sorted(row["attempt_id"] for row in attempts)
    report = verify_data_dir(str(gateway.data_dir))
    assert report.is_sound and not report.counts, report_lines(report)
