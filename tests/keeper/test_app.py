"""The keeper as a process: keys in force everywhere when a call answers, what a kill cannot bring back, the last rows shipped."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from aigate.core.client_key import ClientKey, key_digest, make_key
from aigate.errors import ClientError, GatewayError
from aigate.journal.records import CallEnd, Intent, Settled, encode_record
from aigate.journal.writer import JournalWriter
from aigate.keeper.db.engine import database_url, open_database
from aigate.keeper.db.keys import add_keys
from aigate.keeper.db.usage import recent_calls
from tests.conftest import wait_until
from tests.keeper.keeper_process import SECRET, keeper, key_rings


async def is_welcome(ring, key):
    try:
        await ring.authenticate({b"x-api-key": key.encode()}, time.time())
    except ClientError:
        return False
    return True


async def everywhere(rings, key):
    """What every worker says of a key: True, False, or None where they differ."""
    answers = set(await asyncio.gather(*(is_welcome(ring, key) for ring in rings)))
    return answers.pop() if len(answers) == 1 else None


def write_call(journal, call_id):
    intent = Intent(f"att_{call_id}", call_id, 1, int(time.time() * 1000), "sim", "sim/echo", 500, "", "acc_default", "key_root", None, "team-a")
    end = CallEnd(
        call_id, "openai-chat", "chat", "sim/echo", "sim/echo", 200, int(time.time() * 1000), 5, 3, False, 1, 400, "acc_default", "key_root", None, "team-a", None, ""
    )  # fmt: skip
    settled = Settled(intent.attempt_id, "complete", "reported", 3, 4, 0, 0, 0, 0, 0, 400, "", 200, "", 5, 3, b"{}", end)
    journal.intent(encode_record(intent))
    journal.settled(encode_record(settled))


def test_keys_are_in_force_on_every_worker_before_their_call_answers_and_stay_so(tmp_path):
    async def test(gate):
        async with gate.client() as client, key_rings(tmp_path, 4) as rings:

            async def life_of_a_key(name):
                made = (await client.post("/v1/keys", json={"name": name})).json()
                assert made["effective"] is True
                assert await everywhere(rings, made["key"]) is True
                racing = [asyncio.create_task(everywhere(rings, made["key"])) for _ in range(3)]
                revoked = (await client.delete(f"/v1/keys/{made['id']}")).json()
                assert revoked["effective"] is True
                assert await everywhere(rings, made["key"]) is False
                await asyncio.gather(*racing)
                assert await everywhere(rings, made["key"]) is False
                return made["key"]

            for batch in range(5):
                keys = await asyncio.gather(*(life_of_a_key(f"{batch}-{number}") for number in range(8)))
            metrics = (await client.get("/metrics")).text
            assert "aigate_workers_connected 4.0" in metrics
            assert 'aigate_looks_total{kind="fast"} 4.0' in metrics
            assert not any(key in metrics for key in keys)

    with keeper(tmp_path, workers=4) as gate:
        asyncio.run(asyncio.wait_for(test(gate), 60))


def test_a_key_revoked_before_the_keeper_was_killed_stays_revoked(tmp_path):
    async def test(gate):
        async with key_rings(tmp_path, 2) as rings:
            async with gate.client() as client:
                kept, lost = [(await client.post("/v1/keys", json={"name": name})).json() for name in ("kept", "lost")]
                assert await everywhere(rings, kept["key"]) is await everywhere(rings, lost["key"]) is True
                assert (await client.delete(f"/v1/keys/{lost['id']}")).json()["effective"] is True
            gate.stop(signal.SIGKILL)
            assert await everywhere(rings, kept["key"]) is True  # known, and the keeper not away for long
            assert lost["key"] and await _is_shut_out(rings, lost["key"])
            await asyncio.to_thread(gate.start)
            async with gate.client() as client:
                assert (await client.post("/v1/keys", json={"name": "new"})).json()["effective"] is True  # they are back
            assert await everywhere(rings, lost["key"]) is False
            assert await everywhere(rings, kept["key"]) is True

    with keeper(tmp_path, workers=2) as gate:
        asyncio.run(asyncio.wait_for(test(gate), 60))


async def _is_shut_out(rings, key):
    """No worker lets it in: it is refused, or nobody can say."""
    for ring in rings:
        ring._link._look_up_timeout_s = 0.05
        with pytest.raises((ClientError, GatewayError)):
            await ring.authenticate({b"x-api-key": key.encode()}, time.time())
        ring._link._look_up_timeout_s = 10
    return True


def test_a_key_revoked_while_a_worker_was_apart_is_dead_when_it_comes_back(tmp_path):
    async def test(gate):
        async with key_rings(tmp_path, 1) as (ring,):
            async with gate.client() as client:
                made = (await client.post("/v1/keys", json={"name": "web"})).json()
                assert await is_welcome(ring, made["key"])
            gate.stop(signal.SIGKILL)
            database = open_database(database_url(tmp_path))
            database.write_now(lambda connection: connection.exec_driver_sql("UPDATE keys SET revoked_ms = 1"))
            database.close()
            await asyncio.to_thread(gate.start)
            async with gate.client() as client:
                assert (await client.post("/v1/keys", json={"name": "new"})).json()["effective"] is True
            assert not await is_welcome(ring, made["key"])

    with keeper(tmp_path, workers=1) as gate:
        asyncio.run(asyncio.wait_for(test(gate), 60))


def test_ten_thousand_keys_are_found_by_every_worker(tmp_path):
    keys = [make_key(number.to_bytes(32, "big")) for number in range(10_000)]
    rows = [
        ClientKey(id=f"key_{number:05}", account_id="acc_default", name="k", digest=key_digest(SECRET, key.encode()), hint=key[-4:], created_ms=0)
        for number, key in enumerate(keys)
    ]
    database = open_database(database_url(tmp_path))
    database.write_now(add_keys, rows)
    database.close()

    async def test():
        async with key_rings(tmp_path, 2) as rings:
            for start in range(0, len(keys), 500):
                batch = keys[start : start + 500]
                assert await asyncio.gather(*(everywhere(rings, key) for key in batch)) == [True] * len(batch)
            headers = {b"authorization": b"Bearer " + keys[1234].encode()}
            requests = [SimpleNamespace(headers=headers, head=SimpleNamespace(key_digest=None)) for _ in rings]
            found = [ring.find(request) for ring, request in zip(rings, requests, strict=True)]
            assert {principal.key_id for principal in found} == {"key_01234"}

    with keeper(tmp_path, workers=2):
        asyncio.run(asyncio.wait_for(test(), 60))


def test_usage_is_never_behind_what_has_settled(tmp_path):
    journal = JournalWriter(tmp_path / "journals", "jrn_test", segment_bytes=1 << 20)
    with keeper(tmp_path) as gate:
        for number in range(1, 6):
            write_call(journal, f"req_{number}")
            recent = gate.request("GET", "/v1/usage/recent?limit=3").json()
            assert recent["data"][0]["request_id"] == f"req_{number}"
        assert recent["data"][0]["cost_cents"] == 0.00004
        tags = gate.request("GET", "/v1/usage/by-tag").json()["data"]
        assert [(entry["label"], entry["requests"], entry["cost_cents"]) for entry in tags] == [("team-a", 5, 0.0002)]
        bad = gate.request("GET", "/v1/usage/recent?cursor=%25")
        assert (bad.status_code, bad.json()["error"]["param"]) == (400, "cursor")
    journal.close()


def test_sigterm_ships_what_the_journals_still_hold(tmp_path):
    with keeper(tmp_path) as gate:
        journal = JournalWriter(tmp_path / "journals", "jrn_test", segment_bytes=1 << 20)
        for number in range(100):
            write_call(journal, f"req_{number:03}")
        journal.close()
        assert gate.stop(signal.SIGTERM) == 0
    database = open_database(database_url(tmp_path))
    calls, _ = database.read_now(recent_calls, limit=1000)
    database.close()
    assert len(calls) == 100


def test_the_death_of_the_supervisor_ends_the_keeper(tmp_path):
    with keeper(tmp_path) as gate:
        os.close(gate.life_fd)
        assert gate.process.wait(20) == 1


def test_sockets_are_the_owner_s_alone_and_memory_is_modest(tmp_path):
    with keeper(tmp_path) as gate:
        for name in ("control.sock", "keeper.sock"):
            assert (tmp_path / "run" / name).stat().st_mode & 0o777 == 0o600
        assert gate.request("GET", "/openapi.json").status_code == 200
        with open(f"/proc/{gate.process.pid}/status") as status:
            (rss_kb,) = [int(line.split()[1]) for line in status if line.startswith("VmRSS")]
        assert rss_kb < 95_000


def test_readiness_needs_a_worker(tmp_path):
    async def test(gate):
        async with gate.client() as client:
            assert (await client.get("/readyz")).json()["checks"]["workers"] == "none is connected"
            async with key_rings(tmp_path, 1):
                while (reply := await client.get("/readyz")).status_code != 200:
                    assert reply.json()["checks"]["database"] == "ok"

    with keeper(tmp_path) as gate:
        asyncio.run(asyncio.wait_for(test(gate), 30))


@pytest.mark.parametrize("path", ["/v1/models/sim/echo", "/v1/models/sim%2Fecho"])
def test_models_come_from_the_catalogue(tmp_path, path):
    with keeper(tmp_path) as gate:
        model = gate.request("GET", path).json()
        assert (model["id"], model["owned_by"]) == ("sim/echo", "sim") and model["schema"]["endpoint"]
        assert gate.request("GET", path + "/schema").json() == model["schema"]
        assert gate.request("GET", "/v1/models?provider=sim").json()["data"]
        missing = gate.request("GET", "/v1/models/nobody/nothing")
        assert (missing.status_code, missing.json()["error"]["type"]) == (404, "model_not_found")


def test_a_keeper_that_is_stopped_before_it_serves_ends_well(tmp_path):
    with subprocess.Popen([sys.executable, "-m", "aigate.keeper", "--name", "keeper-1"], stdin=subprocess.PIPE) as process:
        status = Path(f"/proc/{process.pid}/status")
        wait_until(lambda: int(status.read_text().split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1)
        process.terminate()  # it waits for its configuration
        assert process.wait(10) == 0


WATCHED = """
import gc, sys
from pathlib import Path
from aigate.keeper.__main__ import main
looks = []
gc.callbacks.append(lambda phase, _: phase == "start" and looks.append(gc.get_freeze_count()))
code = main()
Path({told!r}).write_text(f"{{gc.get_freeze_count()}} {{sum(map(bool, looks))}} {{looks.count(0)}}")
sys.exit(code)
"""


def test_garbage_collections_are_few_and_none_looks_at_what_the_keeper_is_made_of(tmp_path):
    told = tmp_path / "told"
    with keeper(tmp_path, program=("-c", WATCHED.format(told=str(told)))) as gate:
        for _ in range(40):
            assert gate.request("GET", "/v1/keys").status_code == 200
        assert gate.stop() == 0
    frozen, looks_after, looks_before = map(int, told.read_text().split())
    assert frozen > 50_000 and looks_after < 10 < looks_before
