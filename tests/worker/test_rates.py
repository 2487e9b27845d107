"""Rate limits of several workers around one real keeper desk: never above, 429 with seconds, permits that come back."""

import asyncio
import contextlib

import msgspec
import pytest

from aigate.core.call import Principal
from aigate.core.rate import REQUESTS, STREAMS, TOKENS, Rate
from aigate.dialects import DIALECTS
from aigate.errors import ClientError, GateError
from aigate.keeper.push import MessageServer
from aigate.messages import Health, Hello
from aigate.worker.link import KeeperLink
from aigate.worker.rates import RateGate
from aigate.worker.run import Run


def principal(*rates):
    return Principal(key_id="key_a", rates=rates)


def new_run(**fields):
    run = Run(None, DIALECTS["openai-chat"], "chat")
    body = {"model": "sim/m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    run.call = run.surface.read_call(msgspec.json.encode(body), "chat", None)
    return run


async def nobody(digests):
    return {}


class Node:
    """A keeper's message server and workers' gates; both ends may come and go."""

    def __init__(self, folder):
        self.path = str(folder / "k")
        self.gates, self.links, self.tasks = [], [], []

    async def start_keeper(self, workers):
        self.server = MessageServer(nobody, expected_workers=workers)
        self.listener = await asyncio.get_running_loop().create_unix_server(self.server.protocol, self.path)

    async def stop_keeper(self):
        self.listener.close()
        self.server.close()
        await until(lambda: not any(link.is_connected for link in self.links))

    async def start_worker(self):
        name = f"worker-{len(self.links)}"
        link = KeeperLink(self.path, Hello(name, 1, name), health=lambda: Health(name, {}, {}))
        self.links.append(link)
        self.gates.append(RateGate(link, asyncio.get_running_loop()))
        self.tasks.append(asyncio.create_task(link.run()))
        await until(lambda: link.is_connected)

    async def stop_worker(self, number):
        self.tasks[number].cancel()
        await asyncio.gather(self.tasks[number], return_exceptions=True)


async def until(claim):
    while not claim():
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def node(folder, workers=1):
    it = Node(folder)
    await it.start_keeper(workers)
    for _ in range(workers):
        await it.start_worker()
    try:
        yield it
    finally:
        for number in range(len(it.tasks)):
            await it.stop_worker(number)
        it.listener.close()
        it.server.close()


def scenario(test):
    def run(tmp_path):
        asyncio.run(asyncio.wait_for(test(tmp_path), 10))

    run.__name__ = test.__name__
    return run


async def passes(gate, who, **fields):
    """The run of a call that was let through, or the seconds its refusal names."""
    run = new_run(**fields)
    try:
        await gate.enter(run, who)
    except ClientError as error:
        assert (error.status, error.code, error.type, error.origin) == (429, "rate_limited", "rate_limit_error", "rate_limit")
        assert error.retryable and error.retry_after_s >= 1
        assert b"x-ratelimit-remaining-requests: 0" in run.rate_fields or not run.rate_fields
        return error.retry_after_s
    return run


@scenario
async def test_a_burst_over_all_workers_is_the_limit_s_and_no_more(folder):
    async with node(folder, 4) as it:
        who = principal(Rate(REQUESTS, "key_a", 60))
        started = asyncio.get_running_loop().time()
        results = await asyncio.gather(*(passes(it.gates[n % 4], who) for n in range(60)))
        lasted = asyncio.get_running_loop().time() - started
        assert 9 <= sum(isinstance(result, Run) for result in results) <= 10 + lasted


@scenario
async def test_a_limited_call_tells_what_is_left(folder):
    async with node(folder) as it:
        run = await passes(it.gates[0], principal(Rate(REQUESTS, "key_a", 6_000), Rate(REQUESTS, "acc_default", 60)))
        assert run.rate_fields == (
            b"\r\nx-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 8\r\nx-ratelimit-reset-requests: 2"
        )


@scenario
async def test_a_call_takes_permits_under_all_its_limits_or_none(folder):
    async with node(folder) as it:
        (gate,) = it.gates
        both = principal(Rate(REQUESTS, "key_a", 6), Rate(REQUESTS, "acc_default", 600))
        assert isinstance(await passes(gate, both), Run)
        for _ in range(50):
            assert await passes(gate, both) in (9, 10)
        gate.tick(asyncio.get_running_loop().time() + 2)  # what the account's bucket gave for refused calls goes back
        other = principal(Rate(REQUESTS, "key_b", 6_000), Rate(REQUESTS, "acc_default", 600))
        results = [await passes(gate, other) for _ in range(100)]
        assert sum(isinstance(result, Run) for result in results) >= 85


@scenario
async def test_streams_at_a_time_over_all_workers_also_after_one_died(folder):
    async with node(folder, 2) as it:
        who = principal(Rate(STREAMS, "key_a", 2))
        first, second = [await passes(gate, who, stream=True) for gate in it.gates]
        assert await passes(it.gates[0], who, stream=True) == 1
        assert isinstance(await passes(it.gates[0], who), Run)  # a plain call is none
        it.gates[0].leave(first)
        third = await passes(it.gates[1], who, stream=True)
        assert isinstance(third, Run)
        await it.stop_worker(1)  # with both streams
        await until(lambda: it.server.worker_count() == 1)
        assert isinstance(await passes(it.gates[0], who, stream=True), Run)


@scenario
async def test_tokens_are_taken_by_what_is_asked_and_made_good_by_what_was_used(folder):
    async with node(folder, 2) as it:
        who = principal(Rate(TOKENS, "key_a", 10_000))
        run = await passes(it.gates[0], who, max_tokens=9_000)
        assert await passes(it.gates[1], who, max_tokens=5_000) > 20
        run.tokens = 1_000
        it.gates[0].leave(run)
        again = await passes(it.gates[0], who, max_tokens=5_000)
        again.tokens = 15_000  # more than it asked for
        it.gates[0].leave(again)
        assert await passes(it.gates[0], who, max_tokens=1) > 30


@scenario
async def test_a_new_keeper_gives_no_second_burst_and_no_stream_twice(folder):
    async with node(folder) as it:
        (gate,) = it.gates
        who, streaming = principal(Rate(REQUESTS, "key_a", 60)), principal(Rate(STREAMS, "key_a", 1))
        while isinstance(await passes(gate, who), Run):
            pass
        stream = await passes(gate, streaming, stream=True)
        await it.stop_keeper()
        await it.start_keeper(1)
        await until(lambda: it.links[0].is_connected)
        assert not isinstance(await passes(gate, who), Run)
        assert not isinstance(await passes(gate, streaming, stream=True), Run)
        gate.leave(stream)
        assert isinstance(await passes(gate, streaming, stream=True), Run)


@scenario
async def test_without_a_keeper_a_call_is_refused_at_once_as_an_outage(folder):
    async with node(folder) as it:
        await it.stop_keeper()
        it.links[0].lost_at -= 10
        with pytest.raises(GateError) as caught:
            await it.gates[0].enter(new_run(), principal(Rate(REQUESTS, "key_a", 60)))
        assert (caught.value.status, caught.value.retryable) == (503, True)
