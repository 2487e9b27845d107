from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from aigate.core.account import Cap
from aigate.core.batch import CANCELLED, COMPLETED, EXPIRED, FINALIZING
from aigate.keeper.batches.run import BatchRun
from aigate.keeper.db.batches import cancel_batch
from aigate.keeper.db.engine import Database
from aigate.keeper.db.limits import set_limit
from aigate.keeper.db.native_parts import parts_of
from aigate.keeper.db.tables import attempts, windows
from aigate.keeper.ledger import verify
from tests.keeper.batches.batch_provider import BatchProvider
from tests.keeper.batches.test_run import SEED, until
from tests.keeper.batches.world import BatchWorld

COST_NANOUSD = (10 * 1000 + 20 * 2000) // 2  # a line's 10 tokens in and 20 out, at half the price

Test = Callable[[BatchWorld, BatchProvider], Awaitable[None]]


def play(database: Database, tmp_path: Path, test: Test, dialect: str = "openai-chat") -> None:
    async def main() -> None:
        world, provider = BatchWorld(database, tmp_path), BatchProvider()
        native = world.native(await provider.start(), dialect)
        world.means = replace(world.means, native=native)
        world.endpoint = "/v1/messages" if dialect == "anthropic-messages" else world.endpoint
        try:
            await test(world, provider)
        finally:
            provider.close()
            await native.client.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def ask(world: BatchWorld, name: str, **body: Any) -> bytes:
    said = {"model": "prov/m", "max_tokens": 50, "messages": [{"role": "user", "content": name}], "do": [200], "name": name, **body}
    return json.dumps({"custom_id": name, "method": "POST", "url": world.endpoint, "body": said}).encode()


def ledger(database: Database) -> list[Any]:
    return database.read_now(lambda connection: connection.execute(select(attempts)).all())


def is_sound(database: Database) -> bool:
    report = database.read_now(verify)
    return report.is_sound and not report.counts.get("unsettled")


@pytest.mark.parametrize("dialect", ["openai-chat", "anthropic-messages"])
def test_lines_go_to_the_providers_own_batch_and_the_others_the_usual_way(database: Database, tmp_path: Path, dialect: str) -> None:
    async def test(world: BatchWorld, provider: BatchProvider) -> None:
        lines = [ask(world, "one"), ask(world, "bad"), ask(world, "other", model="else/m"), b"no json", ask(world, "two")]
        batch_id = await world.batch(*lines)
        await (await world.run_of(batch_id)).run()
        output, errors = world.results(batch_id)
        said = {each["custom_id"]: each["response"]["body"] for each in output}
        assert said.keys() == {"one", "two", "other"} and "answer to one" in json.dumps(said["one"])
        assert said["one"]["model"] == "prov/m" and said["one"]["usage"]["cost"] == pytest.approx(COST_NANOUSD / 1e9)
        assert {each["custom_id"]: each["response"]["status_code"] if each["response"] else None for each in errors} == {None: None, "bad": 400}
        assert "bad prompt" in json.dumps(errors[0]["response"]["body"])
        assert len(world.plane.seen) == 1 and set(provider.does.values()) == {1} and len(provider.does) == 3
        assert {body["model"] for body in provider.bodies.values()} == {"m"}
        rows = ledger(database)
        assert sorted((row.end, row.cost_nanousd, row.reserved_nanousd) for row in rows) == [
            ("complete", COST_NANOUSD, 0), ("complete", COST_NANOUSD, 0), ("failed", 0, 0),
        ]  # fmt: skip
        assert is_sound(database)
        row = await world.row(batch_id)
        assert (row.status, row.ends_as, row.completed, row.failed) == (FINALIZING, COMPLETED, 3, 2)

    play(database, tmp_path, test, dialect)


def test_a_submission_whose_reply_was_lost_is_found_again(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld, provider: BatchProvider) -> None:
        provider.loses_reply = 1
        batch_id = await world.batch(*[ask(world, str(n)) for n in range(5)])
        await (await world.run_of(batch_id)).run()
        assert len(provider.batches) == 1 and set(provider.does.values()) == {1} and (await world.row(batch_id)).completed == 5
        assert is_sound(database)

    play(database, tmp_path, test)


def test_where_nothing_can_be_looked_up_the_lines_say_that_nobody_knows(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld, provider: BatchProvider) -> None:
        provider.loses_reply = 1
        batch_id = await world.batch(*[ask(world, str(n)) for n in range(3)])
        await (await world.run_of(batch_id)).run()
        _, errors = world.results(batch_id)
        assert [each["error"]["code"] for each in errors] == ["outcome_unknown"] * 3 and len(provider.batches) == 1
        assert all(row.end == "unsettled" and row.reserved_nanousd > 0 for row in ledger(database))
        assert database.read_now(verify).is_sound

    play(database, tmp_path, test, "anthropic-messages")


def test_a_provider_that_is_away_is_asked_again(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld, provider: BatchProvider) -> None:
        provider.refuses = [503, 429, 500, 401]
        batch_id = await world.batch(*[ask(world, str(n)) for n in range(3)])
        await (await world.run_of(batch_id)).run()
        assert (await world.row(batch_id)).completed == 3 and len(provider.batches) == 1 and is_sound(database)

    play(database, tmp_path, test)


def test_a_batch_that_the_provider_refuses_is_every_lines_error(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld, provider: BatchProvider) -> None:
        provider.refuses = [400]
        batch_id = await world.batch(*[ask(world, str(n)) for n in range(3)])
        await (await world.run_of(batch_id)).run()
        _, errors = world.results(batch_id)
        assert {each["custom_id"] for each in errors} == {"0", "1", "2"} and all("refused the batch" in each["error"]["message"] for each in errors)
        assert {row.end for row in ledger(database)} == {"failed"} and is_sound(database)

    play(database, tmp_path, test)


def test_what_the_budget_does_not_hold_goes_the_usual_way(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld, provider: BatchProvider) -> None:
        await database.write(set_limit, ("key", "acc_default", "key_1"), Cap(1_000), 1)
        batch_id = await world.batch(*[ask(world, str(n)) for n in range(3)])
        await (await world.run_of(batch_id)).run()
        assert not provider.batches and len(world.plane.seen) == 3 and ledger(database) == []

    play(database, tmp_path, test)


@pytest.mark.parametrize("dialect", ["openai-chat", "anthropic-messages"])
def test_a_cancelled_batch_is_cancelled_there_and_keeps_what_is_done(database: Database, tmp_path: Path, dialect: str) -> None:
    async def test(world: BatchWorld, provider: BatchProvider) -> None:
        provider.is_over = False
        batch_id = await world.batch(*[ask(world, str(n)) for n in range(6)])
        run = await world.run_of(batch_id)
        running = asyncio.create_task(run.run())
        await until(lambda: provider.batches)
        await world.database.write(cancel_batch, batch_id, 1)
        run.stop(CANCELLED)
        await running
        output, errors = world.results(batch_id)
        assert len(output) == 2 and errors == []
        assert (await world.row(batch_id)).ends_as == CANCELLED and is_sound(database)
        left = database.read_now(lambda connection: connection.execute(select(windows.c.reserved_nanousd)).scalars().all())
        assert set(left) == {0}

    play(database, tmp_path, test, dialect)


def test_lines_that_are_not_done_there_in_time_have_expired(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld, provider: BatchProvider) -> None:
        provider.is_over = False
        batch_id = await world.batch(*[ask(world, str(n)) for n in range(5)], life_ms=300)
        await (await world.run_of(batch_id)).run()
        output, errors = world.results(batch_id)
        assert len(output) == 2 and [each["error"]["code"] for each in errors] == ["batch_expired"] * 3
        assert (await world.row(batch_id)).ends_as == EXPIRED and is_sound(database)

    play(database, tmp_path, test)


def test_a_part_that_vanished_leaves_nobody_knowing(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld, provider: BatchProvider) -> None:
        provider.is_over = False
        running = asyncio.create_task((await world.run_of(await world.batch(ask(world, "a")))).run())
        await until(lambda: provider.batches)
        provider.batches.clear()
        await running
        _, errors = world.results("batch_0193a1b2c3daabbccddeeff")
        assert [each["error"]["code"] for each in errors] == ["outcome_unknown"]

    play(database, tmp_path, test)


def test_whatever_dies_when_a_part_is_submitted_once_and_every_line_settled_once(database: Database, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    source = random.Random(SEED)

    async def test(world: BatchWorld, provider: BatchProvider) -> None:
        asked = {str(n): source.choice(("prov/m", "prov/m", "prov/n", "else/x")) for n in range(300)}
        batch_id = await world.batch(*[ask(world, name, model=model) for name, model in asked.items()])
        provider.is_over = False
        for number in range(14):
            run: BatchRun = await world.run_of(batch_id)
            running = asyncio.create_task(run.run())
            await asyncio.sleep(source.random() * 0.06)
            if source.random() < 0.3:
                provider.loses_reply = 1
            if number == 9:
                provider.is_over = True
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            if (await world.row(batch_id)).status == FINALIZING:
                break
        provider.loses_reply = 0
        provider.is_over = True
        if (await world.row(batch_id)).status != FINALIZING:
            await (await world.run_of(batch_id)).run()
        output, errors = world.results(batch_id)
        assert Counter(each["custom_id"] for each in output + errors) == Counter(asked.keys()), "a line was lost or doubled"
        assert set(provider.does.values()) == {1}, "a line was done twice there"
        native = sum(1 for model in asked.values() if model != "else/x")
        assert len(provider.batches) == len(await database.read(parts_of, batch_id))
        rows = ledger(database)
        assert len(rows) == native and sum(row.cost_nanousd for row in rows) == native * COST_NANOUSD
        assert is_sound(database)

    play(database, tmp_path, test)


def test_holds_of_lines_that_go_another_way_after_a_crash_are_given_back(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld, provider: BatchProvider) -> None:
        batch_id = await world.batch(*[ask(world, str(n)) for n in range(1000)])
        running = asyncio.create_task((await world.run_of(batch_id)).run())
        await until(lambda: len(ledger(database)) > 100)  # held, and not all divided
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert not provider.batches
        world.means = replace(world.means, native=world.native(""))  # the operator wants it no more
        await (await world.run_of(batch_id)).run()
        assert (await world.row(batch_id)).completed == 1000 and len(world.plane.seen) == 1000
        assert {row.reserved_nanousd for row in ledger(database)} == {0} and is_sound(database)

    play(database, tmp_path, test)
