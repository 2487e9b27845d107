from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from aigate.core.batch import CANCELLED, COMPLETED, EXPIRED, FAILED, FINALIZING
from aigate.keeper.batches.run import BatchRun
from aigate.keeper.batches.spool import ERRORS, OUTPUT, Spool
from aigate.keeper.db.batches import cancel_batch
from aigate.keeper.db.engine import Database
from tests.keeper.batches.world import CHAT, BatchWorld, line

ROUNDS = int(os.environ.get("AIGATE_KILLS", "6"))
SEED = int(os.environ.get("AIGATE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


def play(database: Database, tmp_path: Path, test: Callable[[BatchWorld], Awaitable[None]], **options: int) -> None:
    async def main() -> None:
        await test(BatchWorld(database, tmp_path, **options))

    asyncio.run(asyncio.wait_for(main(), 60))


async def until(claim: Callable[[], object]) -> None:
    while not claim():
        await asyncio.sleep(0.001)


def test_good_lines_are_output_and_the_others_errors(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        batch_id = await world.batch(
            line("a", name="a"), b"no json", line("b", do=[400], reply={"error": {"message": "no"}}), b"", b'{"custom_id": "c", "url": "/v1/x", "body": {}}',
            line("d", do=[503, 429, 200], name="d"), line("e", do=[500]), line("f", do=[0]), line("g", name="g"),
        )  # fmt: skip
        await (await world.run_of(batch_id)).run()
        output, errors = world.results(batch_id)
        assert [(each["custom_id"], each["response"]["body"]["said"]) for each in output] == [("a", "a"), ("d", "d"), ("g", "g")]
        assert output[0]["response"]["status_code"] == 200 and output[0]["response"]["request_id"] in world.plane.seen
        said = [(each["custom_id"], each["response"]["status_code"] if each["response"] else each["error"]["code"]) for each in errors]
        assert said == [(None, "invalid_json_line"), ("b", 400), ("c", "invalid_request"), ("e", 500), ("f", "outcome_unknown")]
        assert errors[1]["response"]["body"] == {"error": {"message": "no"}} and errors[2]["error"]["param"] == "url"
        row = await world.row(batch_id)
        assert (row.status, row.ends_as, row.completed, row.failed) == (FINALIZING, COMPLETED, 3, 5)
        assert row.output_file_id and row.error_file_id and row.in_progress_ms and row.finalizing_ms
        assert Counter(world.plane.seen.values()) == {1: len(world.plane.seen)} and world.plane.by_name["d"] == 3
        assert sum(1 for each in world.plane.seen if each[-8:-2] == "000007") == 8  # a line that always fails is tried so often

    play(database, tmp_path, test)


def test_no_more_lines_run_at_once_than_may(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        world.plane.gate.clear()
        running = asyncio.create_task((await world.run_of(await world.batch(*[line(str(n)) for n in range(50)]))).run())
        await until(lambda: len(world.plane.running) == 4)
        await asyncio.sleep(0.02)
        assert len(world.plane.running) == 4
        world.plane.gate.set()
        await running
        assert world.plane.most <= 4

    play(database, tmp_path, test)


def test_a_line_that_met_a_limit_is_an_error_with_its_refusal(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        spent, held = {"error": {"code": "budget_exceeded", "held_cents": 0}}, {"error": {"code": "budget_exceeded", "held_cents": 0.5}}
        batch_id = await world.batch(line("spent", do=[402], reply=spent), line("held", do=[402, 200], reply=held), line("stays", do=[402], reply=held))
        await (await world.run_of(batch_id)).run()
        output, errors = world.results(batch_id)
        assert [each["custom_id"] for each in output] == ["held"]
        assert [(each["custom_id"], each["response"]["status_code"]) for each in errors] == [("spent", 402), ("stays", 402)]
        assert errors[0]["response"]["body"] == spent and len(world.plane.seen) == 1 + 2 + 4

    play(database, tmp_path, test)


def test_a_cancelled_batch_keeps_what_is_done_and_what_runs(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        batch_id = await world.batch(*[line(str(n)) for n in range(3000)])
        run = await world.run_of(batch_id)
        running = asyncio.create_task(run.run())
        await until(lambda: len(world.plane.ended) > 20)
        world.plane.gate.clear()
        await until(lambda: len(world.plane.running) == 4)
        await world.database.write(cancel_batch, batch_id, 1)
        run.stop(CANCELLED)
        world.plane.gate.set()
        await running
        output, errors = world.results(batch_id)
        row = await world.row(batch_id)
        assert errors == [] and 20 < len(output) == len(world.plane.seen) == row.completed < 3000
        assert (row.ends_as, row.error_file_id) == (CANCELLED, None)

    play(database, tmp_path, test)


def test_lines_that_a_dead_keeper_had_sent_are_kept_though_the_batch_was_cancelled(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        batch_id = await world.batch(*[line(str(n), do=[503, 200]) for n in range(300)])
        world.plane.gate.clear()
        running = asyncio.create_task((await world.run_of(batch_id)).run())
        await until(lambda: len(world.plane.running) == 4)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        world.plane.gate.set()
        await until(lambda: not world.plane.running)
        for n in range(2):  # two of them had their second try, too
            await world.plane.call(world.key, CHAT, line(str(n), do=[503, 200])[line("").index(b'{"do"') + 1 : -1], **_inner(batch_id, n + 1, 1))
        await world.database.write(cancel_batch, batch_id, 1)
        await (await world.run_of(batch_id)).run()
        output, errors = world.results(batch_id)
        assert [each["custom_id"] for each in output] == ["0", "1"] and errors == []
        assert len(world.plane.seen) == 6 and (await world.row(batch_id)).ends_as == CANCELLED

    play(database, tmp_path, test)


def _inner(batch_id: str, number: int, tries: int) -> dict:
    from aigate.core.batch import call_id
    from aigate.keeper.data_plane import InnerOptions

    return {"call_id": call_id(batch_id, number, tries), "options": InnerOptions(ignores_rate_limits=True, must_archive=True, price_variant="batch")}


def test_lines_whose_window_has_ended_say_so(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        world.plane.gate.clear()
        batch_id = await world.batch(*[line(str(n)) for n in range(9)], b"no json", life_ms=1000)
        running = asyncio.create_task((await world.run_of(batch_id)).run())
        await until(lambda: len(world.plane.seen) == 4)
        await asyncio.sleep((await world.row(batch_id)).expires_ms / 1000 - time.time() + 0.05)
        world.plane.gate.set()
        await running
        output, errors = world.results(batch_id)
        assert len(output) == 4 and [each["error"]["code"] for each in errors] == ["batch_expired"] * 5 + ["invalid_json_line"]
        row = await world.row(batch_id)
        assert (row.ends_as, row.completed, row.failed) == (EXPIRED, 4, 6)

    play(database, tmp_path, test)


def test_a_revoked_key_fails_the_batch(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        world.key = None
        batch_id = await world.batch(*[line(str(n)) for n in range(9)])
        await (await world.run_of(batch_id)).run()
        row = await world.row(batch_id)
        assert row.ends_as == FAILED and row.errors[0].code == "key_revoked" and not world.plane.seen

    play(database, tmp_path, test)


def test_an_input_that_is_gone_fails_the_batch(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        batch_id = await world.batch(line("a"))
        for path in (tmp_path / "files").rglob("file-*"):
            path.unlink()
        await (await world.run_of(batch_id)).run()
        assert [error.code for error in (await world.row(batch_id)).errors] == ["input_file_gone"]

    play(database, tmp_path, test)


class FullAtFirst(Spool):
    refusals = 2

    def add(self, kind: str, line: bytes) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError(28, "No space left on device")
        super().add(kind, line)


def test_a_full_disk_is_waited_out(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        batch_id = await world.batch(*[line(str(n), name=str(n)) for n in range(9)])
        await BatchRun(await world.row(batch_id), world.means, FullAtFirst(tmp_path / "spool", batch_id)).run()
        assert len(world.results(batch_id)[0]) == 9 and len(world.plane.seen) == 9

    play(database, tmp_path, test)


@pytest.mark.parametrize("loses_power", [False, True], ids=["killed", "power-cut"])
def test_whatever_dies_when_no_line_is_lost_or_sent_twice(database: Database, tmp_path: Path, loses_power: bool) -> None:
    print(f"seed {SEED}, {ROUNDS} rounds")
    source = random.Random(SEED)

    async def test(world: BatchWorld) -> None:
        world.plane.trouble = 0.1
        kinds = ([200], [503, 200], [500, 429, 200], [400], [0], [503, 0])
        asked = {str(n): source.choice(kinds) for n in range(900)}
        batch_id = await world.batch(*[line(name, name=name, do=do) for name, do in asked.items()])
        for _ in range(ROUNDS):
            running = asyncio.create_task((await world.run_of(batch_id)).run())
            goal = len(world.plane.ended) + source.randrange(1, 2400 // ROUNDS)
            await until(lambda goal=goal, running=running: len(world.plane.ended) >= goal or running.done())
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            if loses_power and (await world.row(batch_id)).status != FINALIZING:
                for kind in (OUTPUT, ERRORS):
                    path = world.spool(batch_id).path(kind)
                    os.truncate(path, source.randrange(path.stat().st_size + 1))
        world.plane.trouble = 0.0
        if (await world.row(batch_id)).status != FINALIZING:
            await (await world.run_of(batch_id)).run()
        output, errors = world.results(batch_id)
        assert set(world.plane.seen.values()) == {1}, "a call was sent twice"
        names = Counter(each["custom_id"] for each in output + errors)
        assert names == Counter(asked.keys()), "a line was lost or doubled"
        for each in output:
            assert each["response"]["body"]["said"] == each["custom_id"] and 200 in asked[each["custom_id"]]
        for each in errors:
            status = each["response"]["status_code"] if each["response"] else each["error"]["code"]
            assert (status, asked[each["custom_id"]][-1]) in ((400, 400), ("outcome_unknown", 0)), each
        row = await world.row(batch_id)
        assert (row.completed, row.failed, row.ends_as) == (len(output), len(errors), COMPLETED)

    play(database, tmp_path, test, seed=SEED)
