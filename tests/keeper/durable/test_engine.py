"""Durable work as it is used: processes that die between steps, releases that change a workflow, queues, the keeper's end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from aigate.errors import GatewayError
from aigate.keeper.durable.engine import Engine, Limits
from aigate.keeper.durable.node import node_id
from tests.conftest import wait_until

KILLS = int(os.environ.get("AIGATE_KILLS", "2"))
SEED = int(os.environ.get("AIGATE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


def run(folder: Path, test: Callable[[Engine], Awaitable[None]], **workflows: Callable[..., object]) -> None:
    """One life of an engine. The workflows get it as their first argument."""

    async def serve() -> None:
        engine = Engine(folder, hurry=10)
        for name, workflow in workflows.items():
            engine.register(name, lambda *args, workflow=workflow: workflow(engine, *args))
        running = asyncio.create_task(engine.run())
        try:
            await test(engine)
        finally:
            await engine.drain(5)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(asyncio.wait_for(serve(), 30))


async def ended(engine: Engine, workflow_id: str) -> str:
    while (status := await engine.status(workflow_id)) in (None, "PENDING", "ENQUEUED"):
        await asyncio.sleep(0.01)
    return status


class Release:
    """A process that runs an engine with this code around it, until it is killed."""

    def __init__(self, folder: Path, body: str):
        head = """
            import asyncio, sys, time
            from pathlib import Path
            from aigate.keeper.durable.engine import Engine, Limits
            folder = Path(sys.argv[1])
            engine = Engine(folder, hurry=10)
            def note(line):
                with (folder / "notes").open("a") as file:
                    file.write(line + "\\n")
            async def anote(line):
                note(line)
        """
        code = textwrap.dedent(head) + textwrap.dedent(body)
        self.process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
        self._notes = folder / "notes"

    def notes(self) -> list[str]:
        return self._notes.read_text().split() if self._notes.exists() else []

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


OLD = """
    def greet(name):
        engine.step("first", note, f"first-{name}")
        engine.step("second", anote, f"second-{name}")
        while True:
            time.sleep(0.01)
    async def main():
        engine.register("greet", greet)
        asyncio.create_task(engine.run())
        for name in ("a", "b"):
            await engine.start_workflow("greet", f"wf-{name}", name)
        await asyncio.sleep(60)
    asyncio.run(main())
"""
NEW = """
    def greet(name):
        engine.step("first", note, f"first-{name}")
        engine.step("second", anote, f"second-{name}")
        engine.step("third", note, f"third-{name}")
    def greet_2(name):
        engine.step("only", note, f"only-{name}")
    async def main():
        engine.register("greet", greet)
        engine.register("greet.2", greet_2)
        asyncio.create_task(engine.run())
        await engine.start_workflow("greet.2", "wf-c", "c")
        await engine.start_workflow("greet", "wf-a", "a")
        await asyncio.sleep(60)
    asyncio.run(main())
"""


def test_work_that_an_earlier_release_began_ends_on_the_next_one_each_step_once(tmp_path: Path):
    old = Release(tmp_path, OLD)
    wait_until(lambda: {"second-a", "second-b"} <= set(old.notes()), 20)
    time.sleep(0.2)  # the note of a step is written a moment before its record is
    old.kill()
    new = Release(tmp_path, NEW)
    try:
        wait_until(lambda: {"third-a", "third-b", "only-c"} <= set(new.notes()), 20)
    finally:
        new.kill()
    assert sorted(new.notes()) == ["first-a", "first-b", "only-c", "second-a", "second-b", "third-a", "third-b"]


MANY = """
    def work(number):
        for step in "abc":
            engine.step(step, note, f"{number}{step}")
    async def main():
        engine.register("work", work)
        engine.add_queue("turns", Limits(at_once=20, per_tenant=10))
        asyncio.create_task(engine.run())
        for number in range(40):
            await engine.start_workflow("work", f"wf-{number}", number, queue="turns" if number % 2 else None, tenant=str(number % 3))
        for number in range(40):
            while await engine.status(f"wf-{number}") != "SUCCESS":
                await asyncio.sleep(0.05)
        note("all")
        await asyncio.sleep(60)
    asyncio.run(main())
"""


def test_workflows_end_however_often_their_process_is_killed(tmp_path: Path):
    """A step runs again only where a kill came between its end and its record."""
    print(f"AIGATE_SEED={SEED} AIGATE_KILLS={KILLS}")
    chance = random.Random(SEED)
    for _ in range(KILLS):
        life = Release(tmp_path, MANY)
        seen = len(life.notes())
        wait_until(lambda life=life, seen=seen: len(life.notes()) > seen + chance.randrange(30), 20)
        life.kill()
    last = Release(tmp_path, MANY)
    wait_until(lambda: "all" in last.notes(), 30)
    last.kill()
    counts = Counter(last.notes())
    assert counts.pop("all") >= 1
    assert set(counts) == {f"{number}{step}" for number in range(40) for step in "abc"}
    assert sum(counts.values()) - len(counts) <= KILLS * 40  # one of each workflow that ran at once


def test_an_id_starts_one_workflow_however_often_it_is_started(tmp_path: Path):
    seen = []

    def greet(engine: Engine, name: str) -> None:
        engine.step("note", seen.append, name)

    async def test(engine: Engine) -> None:
        for _ in range(3):
            await engine.start_workflow("greet", "wf-1", "a")
        assert await ended(engine, "wf-1") == "SUCCESS"
        await engine.start_workflow("greet", "wf-1", "a")
        assert seen == ["a"]

    run(tmp_path, test, greet=greet)


def test_steps_run_on_the_keepers_loop_or_in_the_workflows_thread_and_give_json(tmp_path: Path):
    results = []

    async def double(number: int) -> dict[str, int]:
        await asyncio.sleep(0)
        return {"number": number * 2}

    def work(engine: Engine, number: int) -> None:
        doubled = engine.step("double", double, number)
        results.append((doubled, engine.step("add", lambda: doubled["number"] + 1)))

    async def test(engine: Engine) -> None:
        await engine.start_workflow("work", "wf-1", 4)
        assert await ended(engine, "wf-1") == "SUCCESS"
        assert results == [({"number": 8}, 9)]

    run(tmp_path, test, work=work)


def test_a_step_waits_for_a_database_that_is_away_and_any_other_error_ends_the_workflow(tmp_path: Path):
    tries = []

    def away() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OperationalError("select", {}, Exception("gone"))
        return "back"

    def patient(engine: Engine) -> str:
        return engine.step("away", away)

    def broken(engine: Engine) -> None:
        engine.step("raise", int, "no number")

    async def test(engine: Engine) -> None:
        await engine.start_workflow("patient", "wf-1")
        await engine.start_workflow("broken", "wf-2")
        assert await ended(engine, "wf-1") == "SUCCESS"
        assert await ended(engine, "wf-2") == "ERROR"
        assert len(tries) == 3

    run(tmp_path, test, patient=patient, broken=broken)


def test_a_queue_bounds_what_runs_at_once_in_all_and_for_each_tenant(tmp_path: Path):
    running: list[str] = []
    most = {"all": 0, "a": 0, "b": 0}

    async def hold(tenant: str) -> None:
        running.append(tenant)
        most["all"] = max(most["all"], len(running))
        most[tenant] = max(most[tenant], running.count(tenant))
        await asyncio.sleep(0.3)
        running.remove(tenant)

    def work(engine: Engine, tenant: str) -> None:
        engine.step("hold", hold, tenant)

    async def test(engine: Engine) -> None:
        engine.add_queue("scarce", Limits(at_once=3, per_tenant=2))
        places = [("a", n) for n in range(4)] + [("b", n) for n in range(2)]
        for tenant, n in places:
            await engine.start_workflow("work", f"wf-{tenant}{n}", tenant, queue="scarce", tenant=tenant)
        for tenant, n in places:
            assert await ended(engine, f"wf-{tenant}{n}") == "SUCCESS"
        assert most["all"] <= 3 and most["a"] == 2 and most["b"] >= 1

    run(tmp_path, test, work=work)


def test_the_keepers_end_lets_a_step_finish_and_the_next_life_goes_on_behind_it(tmp_path: Path):
    notes = []

    async def slow() -> None:
        notes.append("slow begun")
        await asyncio.sleep(0.2)
        notes.append("slow ended")

    def work(engine: Engine) -> None:
        engine.step("slow", slow)
        engine.step("after", notes.append, "after")

    async def begin(engine: Engine) -> None:
        await engine.start_workflow("work", "wf-1")
        while not notes:
            await asyncio.sleep(0.01)

    async def go_on(engine: Engine) -> None:
        assert await ended(engine, "wf-1") == "SUCCESS"

    run(tmp_path, begin, work=work)
    assert notes == ["slow begun", "slow ended"]
    run(tmp_path, go_on, work=work)
    assert notes == ["slow begun", "slow ended", "after"]


def test_a_step_that_outlasts_the_drain_is_left_to_the_next_life(tmp_path: Path):
    begun = []

    async def endless() -> None:
        begun.append(1)
        await asyncio.sleep(3600 if len(begun) == 1 else 0)

    def work(engine: Engine) -> None:
        engine.step("endless", endless)

    async def begin(engine: Engine) -> None:
        await engine.start_workflow("work", "wf-1")
        while not begun:
            await asyncio.sleep(0.01)
        await engine.drain(0.05)
        with pytest.raises(GatewayError, match="cannot be taken now"):
            await engine.start_workflow("work", "wf-2")

    async def go_on(engine: Engine) -> None:
        assert await ended(engine, "wf-1") == "SUCCESS"
        assert await engine.status("wf-2") is None

    run(tmp_path, begin, work=work)
    run(tmp_path, go_on, work=work)
    assert len(begun) == 2


def test_ended_workflows_are_removed_and_unfinished_ones_stay(tmp_path: Path):
    def work(engine: Engine, tries: int) -> None:
        engine.step("nothing", int)
        if tries:
            engine.on_loop(asyncio.sleep, 3600)

    async def test(engine: Engine) -> None:
        await engine.start_workflow("work", "wf-1", 0)
        await engine.start_workflow("work", "wf-2", 1)
        assert await ended(engine, "wf-1") == "SUCCESS"
        removed = await engine._in_thread(engine.remove_ended, timedelta(seconds=-1))
        assert removed == 1
        assert (await engine.status("wf-1"), await engine.status("wf-2")) == (None, "PENDING")
        await engine.drain(0)

    run(tmp_path, test, work=work)
    with sqlite3.connect(tmp_path / "work.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT serialization FROM workflow_status").fetchall() == [("portable_json",)]


def test_nothing_is_loaded_before_there_is_work(tmp_path: Path):
    code = "import sys, aigate.keeper.app, aigate.keeper.durable.engine; sys.exit('dbos' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

    async def test(engine: Engine) -> None:
        await asyncio.sleep(0.05)
        assert not engine.is_launched
        assert not (tmp_path / "work.sqlite").exists()

    run(tmp_path, test)


def test_a_file_that_cannot_be_used_is_a_503_that_names_it(tmp_path: Path):
    (tmp_path / "work.sqlite").write_bytes(b"no database at all" * 100)

    async def test(engine: Engine) -> None:
        with pytest.raises(GatewayError, match="work.sqlite cannot be used") as refusal:
            await engine.start_workflow("work", "wf-1")
        assert refusal.value.status == 503

    run(tmp_path, test, work=lambda engine: None)


def test_a_node_keeps_its_name(tmp_path: Path):
    name = node_id(tmp_path)
    assert name == node_id(tmp_path) and name.startswith("node_")
    assert os.listdir(tmp_path) == ["node.id"]
