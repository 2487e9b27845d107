"""The worker's connection to the keeper over real Unix sockets: order of answers and pushes, coming back, staying silent."""

import asyncio
import contextlib

import pytest

from aigate.core.call import Principal
from aigate.errors import GatewayError
from aigate.messages import Ack, Found, Health, Hello, LookUp, Ping, Push, decode_frames, encode_frame
from aigate.worker.link import KeeperLink

ANNA = Principal(key_id="key_anna")
HELLO = Hello("worker-1", 1, "jrn_1")


class Keeper:
    """A keeper by hand: reads frames one by one, says what the test tells it to."""

    def __init__(self, path):
        self.path = str(path)
        self.connections = asyncio.Queue()

    async def __aenter__(self):
        self.server = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def __aexit__(self, *error):
        self.server.close()

    async def _accept(self, reader, writer):
        self.connections.put_nowait(Connection(reader, writer))


class Connection:
    def __init__(self, reader, writer):
        self.reader, self.writer, self.buffer, self.messages = reader, writer, bytearray(), []

    async def next(self, kind):
        """The next message of this kind; others are passed over."""
        while True:
            while self.messages:
                message = self.messages.pop(0)
                if isinstance(message, kind):
                    return message
            data = await self.reader.read(65536)
            assert data, "the worker hung up"
            self.buffer += data
            self.messages += decode_frames(self.buffer)

    def say(self, *messages):
        self.writer.write(b"".join(map(encode_frame, messages)))


@contextlib.asynccontextmanager
async def linked(path, **options):
    link = KeeperLink(str(path), HELLO, health=lambda: Health("worker-1", {"calls_total": 1.0}, {}), **options)
    changes = []
    link.on_keys = lambda keys, is_reset: changes.append((keys, is_reset))
    task = asyncio.create_task(link.run())
    try:
        yield link, changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def run(test):
    asyncio.run(asyncio.wait_for(test, 10))


def test_the_worker_says_hello_first_then_reports_its_health(tmp_path):
    async def test():
        async with Keeper(tmp_path / "k") as keeper, linked(tmp_path / "k", health_interval_s=0.01):
            connection = await keeper.connections.get()
            assert await connection.next(object) == HELLO
            for _ in range(3):
                assert (await connection.next(Health)).counters == {"calls_total": 1.0}

    run(test())


def test_a_push_is_acknowledged_after_it_was_applied(tmp_path):
    async def test():
        async with Keeper(tmp_path / "k") as keeper, linked(tmp_path / "k") as (_, changes):
            connection = await keeper.connections.get()
            connection.say(Push(7, ((b"d", ANNA),)), Push(8, is_reset=True))
            assert await connection.next(Ack) == Ack(7)
            assert await connection.next(Ack) == Ack(8)
            assert changes == [(((b"d", ANNA),), False), ((), True)]

    run(test())


def test_look_ups_of_one_key_share_one_question(tmp_path):
    async def test():
        async with Keeper(tmp_path / "k") as keeper, linked(tmp_path / "k") as (link, _):
            connection = await keeper.connections.get()
            asked = [asyncio.create_task(link.look_up(digest)) for digest in (b"a", b"a", b"b", b"a")]
            first, second = await connection.next(LookUp), await connection.next(LookUp)
            assert (first.digest, second.digest) == (b"a", b"b")
            asked[0].cancel()  # one caller leaves: the others still get their answer
            connection.say(Found(second.number, None), Found(first.number, ANNA))
            assert await asyncio.gather(*asked[1:]) == [ANNA, None, ANNA]

    run(test())


def test_answers_and_pushes_are_applied_in_the_order_they_were_sent(tmp_path):
    async def test():
        async with Keeper(tmp_path / "k") as keeper, linked(tmp_path / "k") as (link, changes):
            connection = await keeper.connections.get()
            asked = asyncio.create_task(link.look_up(b"a"))
            question = await connection.next(LookUp)
            connection.say(Found(question.number, ANNA), Push(1, ((b"a", None),)))
            await connection.next(Ack)
            await asked
            assert changes == [(((b"a", ANNA),), False), (((b"a", None),), False)]

    run(test())


def test_a_question_survives_the_keeper_s_restart(tmp_path):
    async def test():
        async with linked(tmp_path / "k") as (link, _):
            asked = asyncio.create_task(link.look_up(b"a"))
            async with Keeper(tmp_path / "k") as keeper:
                connection = await keeper.connections.get()
                assert (await connection.next(LookUp)).digest == b"a"
                connection.writer.close()
                connection = await keeper.connections.get()
                assert await connection.next(object) == HELLO
                question = await connection.next(LookUp)
                connection.say(Found(question.number, ANNA))
                assert await asked == ANNA

    run(test())


def test_a_question_without_a_keeper_ends_as_a_retryable_503(tmp_path):
    async def test():
        async with linked(tmp_path / "k", look_up_timeout_s=0.05) as (link, _):
            for _ in range(2):
                with pytest.raises(GatewayError) as caught:
                    await link.look_up(b"a")
                assert (caught.value.status, caught.value.retryable) == (503, True)
            assert link._waiting == {} and link._number_of == {}

    run(test())


def test_a_flood_of_different_keys_is_refused_rather_than_queued_without_end(tmp_path):
    async def test():
        async with linked(tmp_path / "k", look_up_timeout_s=0.2) as (link, _):
            asked = [asyncio.create_task(link.look_up(str(n).encode())) for n in range(3_000)]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            assert len(link._waiting) <= 1_000
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(result, GatewayError) for result in results)

    run(test())


def test_silence_makes_the_link_stale_and_a_word_ends_that(tmp_path):
    async def test():
        async with (
            Keeper(tmp_path / "k") as keeper,
            linked(tmp_path / "k", max_staleness_s=0.05, health_interval_s=0.01) as (link, _),
        ):
            connection = await keeper.connections.get()
            while not link.is_stale:
                await connection.next(Health)
            connection.say(Push(1))
            await connection.next(Ack)
            assert not link.is_stale
            for _ in range(20):  # as long as the keeper answers, nothing gets stale
                await connection.next(Health)
                connection.say(Ping())
                assert not link.is_stale

    run(test())


def test_garbage_ends_the_connection_and_a_new_one_is_made(tmp_path):
    async def test():
        async with Keeper(tmp_path / "k") as keeper, linked(tmp_path / "k"):
            for garbage in (b"\xff\xff\xff\xff", b"\0\0\0\x01\xc1"):
                connection = await keeper.connections.get()
                await connection.next(Hello)
                connection.writer.write(garbage)
            connection = await keeper.connections.get()
            await connection.next(Hello)

    run(test())
