"""Key changes reach every worker before they count as in force: real sockets, the real worker link and key ring."""

import asyncio
import contextlib
from types import SimpleNamespace

from aigate.core.account import ProviderKey
from aigate.core.call import Principal
from aigate.core.client_key import key_digest, make_key
from aigate.core.target import Model, Provider, Quirks, Target
from aigate.errors import ClientError
from aigate.keeper.push import MessageServer
from aigate.messages import Health, Hello, Push, encode_frame
from aigate.worker.auth import KeyRing
from aigate.worker.link import KeeperLink
from aigate.worker.own_keys import OwnKeys

SECRET = b"s" * 32
KEYS = [make_key(number.to_bytes(32, "big")).encode() for number in range(100)]
TARGET = Target("mine/m", Provider(name="mine", base_url="https://mine"), "m", Model(slug="mine/m"), Quirks(), "openai-chat", "/", "chat")
CATALOG = SimpleNamespace(providers={"mine": TARGET.provider}, origin_of=lambda name: (name, "https://mine"), own_key_price=None)
PROVIDER_KEY = ProviderKey(id="pk_1", account_id="", provider="mine", origin="https://mine", name="", hint="", created_ms=0)
DIGESTS = [key_digest(SECRET, key) for key in KEYS]


class Store:
    """Digest → principal, read slowly: a look-up sees the store as it was when it began."""

    def __init__(self):
        self.principals = {}
        self.reads = 0

    async def find(self, digests):
        self.reads += 1
        found = {digest: self.principals[digest] for digest in digests if digest in self.principals}
        for _ in range(5):
            await asyncio.sleep(0)
        return found


@contextlib.asynccontextmanager
async def serving(path, store, workers):
    server = MessageServer(store.find, expected_workers=workers)
    listener = await asyncio.get_running_loop().create_unix_server(server.protocol, str(path))
    try:
        yield server
    finally:
        listener.close()
        server.close()


@contextlib.asynccontextmanager
async def linked(path, count, counters=None):
    links = []
    for number in range(count):
        health = Health(f"worker-{number}", counters or {}, {"sim/echo": {"state": "closed"}})
        hello = Hello(f"worker-{number}", number, f"jrn_{number}")
        links.append(KeeperLink(str(path), hello, health=lambda health=health: health, health_interval_s=0.01))
    tasks = [asyncio.create_task(link.run()) for link in links]
    try:
        yield links
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def working(path, count, counters=None):
    async with linked(path, count, counters) as links:
        yield [KeyRing(SECRET, "", link) for link in links]


async def is_welcome(ring, key):
    try:
        await ring.authenticate({b"x-api-key": key}, 0.0)
    except ClientError:
        return False
    return True


def run(test):
    asyncio.run(asyncio.wait_for(test, 20))


def test_a_created_or_revoked_key_is_in_force_on_every_worker_when_the_push_returns(tmp_path):
    async def test():
        store = Store()
        async with serving(tmp_path / "k", store, 4) as server, working(tmp_path / "k", 4) as rings:
            for number, (key, digest) in enumerate(zip(KEYS, DIGESTS, strict=True)):
                store.principals[digest] = principal = Principal(key_id=str(number))
                assert await server.push(((digest, principal),))
                assert all([await is_welcome(ring, key) for ring in rings])
                del store.principals[digest]
                assert await server.push(((digest, None),))
                assert not any([await is_welcome(ring, key) for ring in rings])

    run(test())


def test_a_look_up_that_raced_with_a_revocation_never_brings_the_key_back(tmp_path):
    async def test():
        store = Store()
        async with serving(tmp_path / "k", store, 4) as server, working(tmp_path / "k", 4) as rings:
            for key, digest in zip(KEYS, DIGESTS, strict=True):
                store.principals[digest] = Principal(key_id="key")
                reads = store.reads
                racing = [asyncio.create_task(is_welcome(ring, key)) for ring in rings]
                while store.reads == reads:
                    await asyncio.sleep(0)
                del store.principals[digest]  # committed while the look-ups read
                assert await server.push(((digest, None),))
                assert not any([await is_welcome(ring, key) for ring in rings])
                await asyncio.gather(*racing)
                assert not any([await is_welcome(ring, key) for ring in rings])

    run(test())


def test_a_stored_provider_key_that_was_opened_while_it_was_revoked_is_not_kept(tmp_path):
    """Its call may go on with it; later ones may not."""
    stored = {}
    reads = 0

    async def reveal(account_id, sub_account_id, key_id):
        nonlocal reads
        found = stored.get(key_id)
        reads += 1
        for _ in range(5):
            await asyncio.sleep(0)
        return found

    async def test():
        async with serving(tmp_path / "k", Store(), 1) as server, linked(tmp_path / "k", 1) as (link,):
            server.reveal_key = reveal
            own_keys = OwnKeys(CATALOG, link, asyncio.get_running_loop())

            async def opens(key_id):
                run = SimpleNamespace(call=SimpleNamespace(pairs={"provider_key_id": b'"%b"' % key_id.encode()}), exchange=SimpleNamespace(headers={}))
                try:
                    (target,) = await own_keys.put_in(run, Principal(key_id="key"), [TARGET])
                except ClientError:
                    return False
                return target.provider.credential == "own"

            while not server.worker_count():
                await asyncio.sleep(0.001)
            for key_id in (f"pk_{number}" for number in range(20)):
                stored[key_id] = PROVIDER_KEY, "own"
                assert await opens(key_id) and await opens(key_id)
                del stored[key_id]
                assert await server.push((), provider_keys=[key_id])
                assert not await opens(key_id)
                stored[key_id] = PROVIDER_KEY, "own"
                before = reads
                racing = asyncio.create_task(opens(key_id))
                while reads == before:
                    await asyncio.sleep(0)
                del stored[key_id]  # committed while it is read
                assert await server.push((), provider_keys=[key_id])
                await racing
                assert not await opens(key_id)

    run(test())


def test_a_change_is_not_in_force_while_a_worker_is_missing(tmp_path):
    async def test():
        async with serving(tmp_path / "k", Store(), 2) as server, working(tmp_path / "k", 1):
            assert not await server.push((), timeout_s=0.05)
            push = asyncio.create_task(server.push((), timeout_s=10))
            async with working(tmp_path / "k", 1):
                assert await push

    run(test())


def test_a_worker_that_does_not_acknowledge_keeps_the_change_from_being_in_force(tmp_path):
    async def test():
        async with serving(tmp_path / "k", Store(), 1) as server:
            _, writer = await asyncio.open_unix_connection(tmp_path / "k")
            writer.write(encode_frame(Hello("mute", 1, "jrn_mute")))
            assert not await server.push((), timeout_s=0.05)
            writer.close()

    run(test())


def test_a_restarted_keeper_makes_workers_forget_what_was_revoked_meanwhile(tmp_path):
    async def test():
        store = Store()
        store.principals[DIGESTS[0]] = Principal(key_id="key")
        async with working(tmp_path / "k", 2) as rings:
            async with serving(tmp_path / "k", store, 2):
                assert all([await is_welcome(ring, KEYS[0]) for ring in rings])
            store.principals.clear()
            assert all([await is_welcome(ring, KEYS[0]) for ring in rings])  # known, and the keeper not away for long
            (tmp_path / "k").unlink(missing_ok=True)
            async with serving(tmp_path / "k", store, 2) as server:
                assert await server.push(())
                assert not any([await is_welcome(ring, KEYS[0]) for ring in rings])

    run(test())


def test_many_look_ups_are_answered_by_few_reads(tmp_path):
    async def test():
        store = Store()
        store.principals = {digest: Principal(key_id=str(n)) for n, digest in enumerate(DIGESTS)}
        async with serving(tmp_path / "k", store, 1), working(tmp_path / "k", 1) as (ring,):
            assert all(await asyncio.gather(*(is_welcome(ring, key) for key in KEYS)))
            assert store.reads < 10

    run(test())


def test_counters_are_summed_and_outlive_their_worker_but_gauges_do_not(tmp_path):
    async def test():
        async with serving(tmp_path / "k", Store(), 3) as server:
            async with working(tmp_path / "k", 3, {"calls_total;status=200": 5.0, "calls_running": 2.0}):
                while server.counters().get("calls_total;status=200") != 15:
                    await asyncio.sleep(0.001)
                assert server.counters()["calls_running"] == 6
                assert server.targets() == [{"sim/echo": {"state": "closed"}}] * 3
            while server.worker_count():
                await asyncio.sleep(0.001)
            assert server.counters() == {"calls_total;status=200": 15.0}
            assert server.targets() == []

    run(test())


def test_the_counters_of_very_many_ended_workers_are_kept_as_one_sum(tmp_path):
    async def test():
        async with serving(tmp_path / "k", Store(), 0) as server:
            for number in range(200):
                server.reported(f"jrn_{number}", Health("w", {"calls_total": 1.0, "calls_running": 1.0}, {}))
            assert server.counters() == {"calls_total": 200.0}
            assert len(server._reports) <= 65

    run(test())


def test_a_connection_that_speaks_garbage_or_another_version_is_closed(tmp_path):
    async def test():
        async with serving(tmp_path / "k", Store(), 0) as server:
            for words in (b"\xff\xff\xff\xff", b"\0\0\0\x01\xc1", encode_frame(Hello("w", 1, "j", version=99))):
                reader, writer = await asyncio.open_unix_connection(tmp_path / "k")
                writer.write(words)
                assert await reader.read() == b""
                writer.close()
            assert server.worker_count() == 0

    run(test())


def test_the_first_word_to_a_worker_is_to_forget(tmp_path):
    async def test():
        async with serving(tmp_path / "k", Store(), 0):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "k")
            writer.write(encode_frame(Hello("w", 1, "j")))
            expected = encode_frame(Push(0, is_reset=True))
            assert await reader.readexactly(len(expected)) == expected
            writer.close()

    run(test())
