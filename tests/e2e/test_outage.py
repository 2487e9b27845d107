"""A database that cannot be written and a disk that is really full: what is served goes on being counted, the rest is told to come again.

AIGATE_OUTAGE_S sets how long the database is away (default 12, longer than a write waits for it). The full disk needs the right to
mount a small file system.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.conftest import Gateway, start_gateway, wait_until
from tests.e2e.test_budgets import billed, check_sound, gateway_beside_sim, new_customer
from tests.e2e.test_kills import BROKEN, victims_of
from tests.e2e.wire import chat, connect, error_of, post, read_bill, request_id, rows, run, running_sim

OUTAGE_S = float(os.environ.get("AIGATE_OUTAGE_S", "12"))
OK, LEDGER, NO_SPACE = "ok", "ledger_unavailable", 28


@contextmanager
def unwritable(gateway: Gateway) -> Iterator[None]:
    """Somebody else writes the database and does not come to an end."""
    with closing(sqlite3.connect(gateway.data_dir / "gate.sqlite", isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


class Callers:
    """They call until told to stop. `answers`: what each key got; `served`: the ids of calls that went well."""

    def __init__(self, gateway: Gateway):
        self.gateway = gateway
        self.answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.served: set[str] = set()
        self.is_over = False

    async def call(self, key: str, *, pause_s: float = 0.0, model: str = "sim/echo") -> None:
        answers = self.answers[key]
        body = post(self.gateway, chat(model, "spend", max_tokens=20), key=key)
        while not self.is_over:
            connection = await connect(self.gateway)
            try:
                while not self.is_over:
                    status, head, reply = await connection.ask(body)
                    answers[OK if status == 200 else error_of(reply)["code"]] += 1
                    if status == 200:
                        self.served.add(request_id(head.lower()))
                    await asyncio.sleep(pause_s if status == 200 else 0.02)
            except BROKEN:
                answers["broken"] += 1
            finally:
                connection.close()

    def counts(self) -> dict[str, Counter[str]]:
        return {key: answers.copy() for key, answers in self.answers.items()}

    def since(self, before: dict[str, Counter[str]], key: str) -> Counter[str]:
        return self.answers[key] - before.get(key, Counter())

    async def until(self, key: str, word: str, count: int) -> None:
        """So many more of these answers."""
        before = self.counts()
        while self.since(before, key)[word] < count:
            await asyncio.sleep(0.01)


def test_while_the_database_cannot_be_written_warm_budgets_go_on_and_cold_ones_are_told_to_wait(tmp_path):
    with gateway_beside_sim(tmp_path, workers=2) as (start, bill):
        gateway = start()
        warm, cold, free = new_customer(gateway, 1_000, name="warm"), new_customer(gateway, 1_000, name="cold"), gateway.key
        callers = Callers(gateway)

        async def scenario() -> float:
            loop = asyncio.get_running_loop()
            tasks = [asyncio.create_task(callers.call(free, pause_s=0.005)) for _ in range(4)]
            tasks.append(asyncio.create_task(callers.call(warm, pause_s=0.1)))
            await callers.until(warm, OK, int(4 * OUTAGE_S))
            before = callers.counts()
            with unwritable(gateway):
                tasks += [asyncio.create_task(callers.call(cold)) for _ in range(4)]
                making = asyncio.create_task(asyncio.to_thread(gateway.request, "POST", "/v1/keys", {"name": "now"}))
                assert (await asyncio.to_thread(gateway.request, "GET", "/v1/sub-accounts"))[0] == 200  # reading goes on
                await asyncio.sleep(OUTAGE_S)
                status, _, refusal = await making
                assert (status, refusal["error"]["code"]) == (503, LEDGER)
                assert callers.since(before, warm).keys() == {OK} and callers.since(before, free).keys() == {OK}
                assert callers.answers[cold].keys() == {LEDGER}  # never a 402
            released = loop.time()
            await callers.until(cold, OK, 1)
            callers.is_over = True
            await asyncio.gather(*tasks)
            while len(rows(gateway.data_dir, "calls", "status = 200")) < len(callers.served):
                await asyncio.sleep(0.05)
            return loop.time() - released

        caught_up_s = run(scenario, limit_s=OUTAGE_S + 60)
        print(f"{OUTAGE_S:.0f} s away, caught up after {caught_up_s:.1f} s; {callers.answers}")
        assert caught_up_s < 10
        assert gateway.stop() == 0
        assert sum(row["cost_nanousd"] for row in rows(gateway.data_dir, "attempts")) == billed(bill)
        check_sound(gateway.data_dir)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """To the last byte."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == NO_SPACE


def test_on_a_full_disk_nothing_is_served_without_a_row_and_with_room_all_goes_on(tmp_path):
    bill, disk = tmp_path / "bill.jsonl", tmp_path / "disk"
    settings = '[server]\nworkers = 2\n[ledger]\nsegment_bytes = 262144\n[providers.sim]\nbase_url = "{}"\n'
    with running_sim(bill) as base_url, small_disk(disk, "24m"):
        gateway = start_gateway(disk, settings.format(base_url))
        try:
            capped, free = new_customer(gateway, 100_000), gateway.key
            callers = Callers(gateway)

            async def scenario() -> None:
                models = ("sim/echo", "sim/slow-2ms+long-20")
                tasks = [asyncio.create_task(callers.call(key, model=model)) for key in (capped, free) for model in models for _ in range(4)]
                await callers.until(capped, OK, 50)
                fill(disk / "ballast")
                await asyncio.gather(callers.until(capped, LEDGER, 100), callers.until(free, LEDGER, 100))
                (disk / "ballast").unlink()
                await asyncio.gather(callers.until(capped, OK, 50), callers.until(free, OK, 50))
                callers.is_over = True
                await asyncio.gather(*tasks)

            run(scenario, limit_s=90)
            print(callers.answers)
            assert {word for answers in callers.answers.values() for word in answers} <= {OK, LEDGER}
            assert gateway.stop() == 0
            seen, bills = read_bill(bill)
            attempts = {row["attempt_id"]: row for row in rows(gateway.data_dir, "attempts")}
            assert set(seen) == {name for name, row in attempts.items() if row["end"] == "complete"}
            assert sum(row["cost_nanousd"] for row in attempts.values()) == billed(bill)
            assert callers.served <= {row["call_id"] for row in rows(gateway.data_dir, "calls")}
            check_sound(gateway.data_dir)
        finally:
            if gateway.process.poll() is None:
                gateway.kill()


def test_a_journal_that_takes_no_more_refuses_calls_before_they_are_sent(tmp_path):
    with gateway_beside_sim(tmp_path, workers=1) as (start, bill):
        gateway = start()
        capped, free = new_customer(gateway, 1_000), gateway.key
        callers = Callers(gateway)

        async def scenario() -> None:
            tasks = [asyncio.create_task(callers.call(key)) for key in (capped, free) for _ in range(12)]
            await callers.until(capped, OK, 30)
            (worker,) = victims_of(gateway, "worker")
            resource.prlimit(worker, resource.RLIMIT_FSIZE, (1, 1))  # every write fails, also those with many calls' records
            await asyncio.gather(callers.until(capped, LEDGER, 50), callers.until(free, LEDGER, 50))
            _, _, unready = await asyncio.to_thread(wait_until, lambda: (said := gateway.request("GET", "/readyz"))[0] == 503 and said)
            assert unready["checks"]["journals"] == "1 cannot be written"
            os.kill(worker, signal.SIGKILL)
            await asyncio.gather(callers.until(capped, OK, 30), callers.until(free, OK, 30))
            callers.is_over = True
            await asyncio.gather(*tasks)

        run(scenario)
        assert gateway.stop() == 0
        seen, _ = read_bill(bill)
        attempts = {row["attempt_id"]: row for row in rows(gateway.data_dir, "attempts")}
        assert set(seen) <= set(attempts)
        # What was running when the disk failed could not be settled any more: it is open, and what it may cost is kept.
        not_settled = [row for row in attempts.values() if row["end"] == "unsettled"]
        assert len(not_settled) <= 24 and all(row["reserved_nanousd"] for row in not_settled)
        spent = sum(row["cost_nanousd"] for row in attempts.values())
        assert spent <= billed(bill) <= spent + sum(row["reserved_nanousd"] for row in not_settled)
        assert len(attempts) == len(seen)  # nothing that was refused has a row, and nothing that was sent has none
        check_sound(gateway.data_dir)
