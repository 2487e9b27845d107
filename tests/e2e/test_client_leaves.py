"""Clients that leave at every point of a call: each attempt is settled with what the provider bills, and nobody else notices."""

from __future__ import annotations

import asyncio
import random

import pytest

from aigate.cli.verify import report_lines, verify_data_dir
from tests.conftest import start_gateway, wait_until
from tests.e2e.wire import answered, chat, connect, is_usable, post, provider_config, read_bill, rows, run, running_sim, shipped

MODELS = ("echo", "ttft-20ms+echo", "slow-2ms+long-30", "slow-2ms+long-30+bills-all", "503-then-ok+retry-after-0", "one-byte+echo", "reset-3")


def leave_after(gateway, data: bytes, *, pieces: int = -1) -> None:
    """Sends, takes so many pieces of the reply (-1: not even its head), and goes."""

    async def exchange():
        client = await connect(gateway)
        await client.send(data)
        if pieces >= 0:
            await client.head()
            for _ in range(pieces):
                await client.chunk()
        client.writer.transport.abort()

    run(exchange)


def row_of(gateway, prompt_tag: str):
    return wait_until(lambda: rows(gateway.data_dir, "calls", "tag = ?", prompt_tag))[0]


@pytest.mark.parametrize("cut", [1, 20, 60, 200, -1])
def test_a_client_that_leaves_before_its_request_is_whole_leaves_no_row(gateway, cut):
    data = post(gateway, chat("sim/echo"), f"x-aig-tag: partial{cut}")
    leave_after(gateway, data[:cut])
    shipped(gateway, run(lambda: answered(gateway)))
    assert not rows(gateway.data_dir, "calls", "tag = ?", f"partial{cut}")


@pytest.mark.parametrize(
    "model, is_stream, pieces, end",
    [
        ("sim/ttft-200ms+echo", False, -1, "aborted"),
        ("sim/ttft-200ms+echo", True, -1, "aborted"),
        ("sim/slow-20ms+long-100", True, 0, "aborted"),
        ("sim/slow-20ms+long-100", True, 2, "aborted"),
        ("sim/slow-2ms+long-50+bills-all", True, 2, "aborted"),
    ],
)
def test_a_client_that_leaves_is_settled_with_what_the_provider_bills(gateway, model, is_stream, pieces, end):
    tag = f"left-{model[4:]}-{is_stream}-{pieces}"[:64]
    leave_after(gateway, post(gateway, chat(model, stream=is_stream), f"x-aig-tag: {tag}"), pieces=pieces)
    call, (attempt,) = shipped(gateway, row_of(gateway, tag)["call_id"])
    assert (call["status"], attempt["end"]) == (499, end)
    if "bills-all" in model:
        assert attempt["output_tokens"] == 50 and attempt["usage_source"] == "reported"
    elif is_stream:
        assert attempt["output_tokens"] < 50
    else:
        assert attempt["usage_source"] == "reported" and attempt["cost_nanousd"] == call["cost_nanousd"]
    assert run(lambda: answered(gateway))


def test_a_client_that_leaves_between_attempts_ends_the_call(gateway):
    tag = "left-between"
    leave_after(gateway, post(gateway, chat("sim/503+retry-after-1"), f"x-aig-tag: {tag}"))
    call, attempts = shipped(gateway, row_of(gateway, tag)["call_id"])
    assert call["status"] == 499 and len(attempts) < 3


def test_a_client_that_half_closes_after_its_request_counts_as_gone(gateway):
    async def exchange():
        client = await connect(gateway)
        await client.send(post(gateway, chat("sim/ttft-200ms+echo"), "x-aig-tag: half-closed"))
        client.writer.write_eof()
        return await client.rest()

    run(exchange)
    assert row_of(gateway, "half-closed")["status"] in (200, 499)


def test_a_client_that_reads_nothing_does_not_hold_up_others(gateway):
    async def exchange():
        lazy = await connect(gateway)
        await lazy.send(post(gateway, chat("sim/big-8MB", stream=True), "x-aig-tag: lazy"))
        for _ in range(5):
            assert await is_usable(gateway, await connect(gateway))
        lazy.writer.transport.abort()

    run(exchange)
    call, (attempt,) = shipped(gateway, row_of(gateway, "lazy")["call_id"])
    assert (call["status"], attempt["end"]) == (499, "aborted")


def test_streams_cut_by_the_end_of_a_drain_are_settled_with_what_came_and_plain_calls_are_left_open(start):
    gateway = start("[server]\ndrain_s = 0.2")

    async def begin_and_stop() -> int:
        stream, plain = await connect(gateway), await connect(gateway)
        await stream.send(post(gateway, chat("sim/slow-10ms+long-2000+bills-all", stream=True), "x-aig-tag: stream"))
        await plain.send(post(gateway, chat("sim/ttft-30s+echo"), "x-aig-tag: plain"))
        await stream.head()
        for _ in range(5):
            await stream.chunk()
        status = await asyncio.get_running_loop().run_in_executor(None, gateway.stop)
        assert b"[DONE]" not in await stream.rest()
        return status

    assert run(begin_and_stop) == 0
    (stream,) = rows(gateway.data_dir, "attempts", "tag = 'stream'")
    assert (stream["end"], stream["usage_source"]) == ("aborted", "counted") and 0 < stream["output_tokens"] < 2000
    assert stream["cost_nanousd"] <= stream["hold_nanousd"]
    (call,) = rows(gateway.data_dir, "calls", "tag = 'stream'")
    assert (call["status"], call["cost_nanousd"]) == (499, stream["cost_nanousd"])
    (plain,) = rows(gateway.data_dir, "attempts", "tag = 'plain'")
    assert plain["end"] == "unsettled" and plain["reserved_nanousd"] == plain["hold_nanousd"]


def test_clients_that_leave_at_any_point_leave_no_attempt_open(tmp_path):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    bill = tmp_path / "bill.jsonl"

    async def caller() -> None:
        for _ in range(12):
            client = await connect(gateway)
            request = post(gateway, chat("simx/" + draw.choice(MODELS), stream=draw.random() < 0.7))
            leaves_early = draw.random() < 0.2
            await client.send(request[: draw.randrange(len(request))] if leaves_early else request)
            if not leaves_early:
                await client.reader.read(draw.choice((0, 1, 300, 1000, 3000)))
            client.writer.transport.abort()

    async def everyone() -> None:
        await asyncio.gather(*[caller() for _ in range(16)])

    with running_sim(bill) as base_url:
        gateway = start_gateway(tmp_path, provider_config("simx", base_url, MODELS))
        try:
            run(everyone)
            assert gateway.stop() == 0
        finally:
            gateway.kill()
    seen, billed = read_bill(bill)
    attempts = {row["attempt_id"]: row for row in rows(gateway.data_dir, "attempts")}
    assert set(seen) <= attempts.keys()
    assert {row["end"] for row in attempts.values()} == {"complete", "aborted", "failed"}
    for name, row in attempts.items():
        if row["end"] == "complete":
            assert row["output_tokens"] == billed[name]["completion_tokens"]
    report = verify_data_dir(str(gateway.data_dir))
    assert report.is_sound and not report.counts, report_lines(report)
