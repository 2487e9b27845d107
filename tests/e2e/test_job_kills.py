"""SIGKILL of the keeper or of everything while jobs run, exactly between a provider's reply and its record too: every job ends, none is
submitted twice, each is charged once, what nobody can know stays reserved, each end is told once.

AIGATE_KILLS sets how many kills (default 3, on 24 jobs; 200 jobs from 20 kills on), AIGATE_SEED the seed.
"""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from aigate.cli.verify import report_lines, verify_data_dir
from tests.conftest import start_gateway, wait_until
from tests.keeper.jobs.media_provider import MediaProvider
from tests.test_serve import children, is_gone

KILLS = int(os.environ.get("AIGATE_KILLS", "3"))
SEED = int(os.environ.get("AIGATE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
JOBS = 200 if KILLS >= 20 else 24
CLIENTS = 4
VICTIMS = ("reply", "keeper", "all", "reply")
COST_NANOUSD = 400_000_000
CONFIG = """
[jobs]
poll_max_s = 0.5
[providers.media]
jobs = "openai-videos"
base_url = "{url}"
api_key = "none"
[providers.keyed]
jobs = "openai-videos"
base_url = "{url}"
api_key = "none"
idempotency_header = "idempotency-key"
[models."media/clip"]
modality = "video"
usd_per_second = 0.1
[models."keyed/clip"]
modality = "video"
usd_per_second = 0.1
"""


class Field:
    """The gateway that is there now, and what was asked of it."""

    def __init__(self, folder: Path, provider: MediaProvider):
        self._folder = folder
        self._config = CONFIG.format(url=provider.url)
        self.provider = provider
        self.gateway = start_gateway(folder, self._config)
        self.ids: dict[str, str] = {}  # prompt → job
        self.random = random.Random(SEED)
        self.lock = threading.Lock()

    def submit(self, numbers: list[int]) -> None:
        """With an idempotency key each, again and again until it is answered."""
        for number in numbers:
            prompt = f"{'fail' if number % 10 == 9 else 'clip'} {number}"
            body = {"model": "keyed/clip" if number % 4 == 3 else "media/clip", "prompt": prompt, "duration": 4}
            while prompt not in self.ids:
                try:
                    status, reply = self._post(body, f"key-{number}")
                except (OSError, ValueError):
                    time.sleep(0.05)
                    continue
                if status == 202:
                    self.ids[prompt] = reply["id"]
                else:
                    assert status in (502, 503), (status, reply)
                    time.sleep(0.05)

    def _post(self, body: dict, key: str) -> tuple[int, dict]:
        request = urllib.request.Request(self.gateway.url + "/v1/videos/generations", json.dumps(body).encode(), method="POST")
        for name, value in (("authorization", f"Bearer {self.gateway.key}"), ("content-type", "application/json"), ("idempotency-key", key)):
            request.add_header(name, value)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def kill(self, kind: str) -> None:
        with self.lock:
            if kind == "reply":
                self._kill_behind_a_reply()
            elif kind == "keeper":
                os.kill(self._keeper(), signal.SIGKILL)
            else:
                everyone = [self.gateway.process.pid, *(pid for pids in children(self.gateway).values() for pid in pids)]
                for pid in everyone:
                    os.kill(pid, signal.SIGKILL)
                self.gateway.process.wait(10)
                wait_until(lambda: all(is_gone(pid) for pid in everyone))
                self.gateway = start_gateway(self._folder, self._config)

    def _kill_behind_a_reply(self) -> None:
        """The keeper stands still from the moment its provider has taken a job until the reply is in its socket; then it is killed."""
        pid = self._keeper()
        done = threading.Event()

        def stop_it(has_replied: bool) -> None:
            os.kill(pid, signal.SIGKILL if has_replied else signal.SIGSTOP)
            if has_replied:
                done.set()

        self.provider.around_reply = stop_it
        if not done.wait(3):
            self.provider.around_reply = None  # no submission is left
            os.kill(pid, signal.SIGKILL)

    def _keeper(self) -> int:
        return wait_until(lambda: children(self.gateway).get("keeper"))[0]

    def records(self) -> dict[str, dict]:
        found: dict[str, dict] = {}
        for job_id in self.ids.values():
            found[job_id] = self.gateway.request("GET", f"/v1/jobs/{job_id}")[2]
        return found

    def have_ended(self) -> bool:
        status, _, queued = self.gateway.request("GET", "/v1/jobs?status=queued")
        status_2, _, processing = self.gateway.request("GET", "/v1/jobs?status=processing")
        return status == status_2 == 200 and not queued["data"] and not processing["data"]


def rows(data_dir: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(f"file:{data_dir / 'gate.sqlite'}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def run(field: Field) -> collections.Counter[str]:
    numbers = list(range(JOBS))
    clients = [threading.Thread(target=field.submit, args=(numbers[start::CLIENTS],)) for start in range(CLIENTS)]
    for client in clients:
        client.start()
    done: collections.Counter[str] = collections.Counter()
    for place in range(KILLS):
        time.sleep(field.random.uniform(0.0, 1.5))
        field.kill(kind := VICTIMS[place % len(VICTIMS)])
        done[kind] += 1
    for client in clients:
        client.join(120)
    wait_until(lambda: len(field.ids) == JOBS, 60)
    wait_until(field.have_ended, 120)
    return done


def check(field: Field, records: dict[str, dict]) -> collections.Counter[str]:
    """What the provider saw, what the callers see and what the ledger says are one."""
    provider, data_dir = field.provider, field.gateway.data_dir
    taken = collections.Counter(job["prompt"] for job in provider.jobs.values())
    assert max(taken.values()) == 1, f"submitted twice: {taken.most_common(3)}"
    sent = collections.Counter(prompt for prompt in provider.submissions)
    ends: collections.Counter[str] = collections.Counter()
    for prompt, job_id in field.ids.items():
        job = records[job_id]
        is_keyed = job["model"] == "keyed/clip"
        ends[job["error_code"] or job["status"]] += 1
        if job["status"] == "completed":
            assert job["cost_cents"] == 40.0 and prompt.startswith("clip")
        elif job["error_code"] == "submission_unknown":
            assert job["cost_cents"] is None and not is_keyed
        else:
            assert job["cost_cents"] == 0 and prompt.startswith("fail"), job
        assert is_keyed or sent[prompt] <= 1, f"{prompt}: sent {sent[prompt]} times"
    attempts = rows(data_dir, "SELECT end, cost_nanousd, reserved_nanousd FROM attempts")
    assert len(attempts) == JOBS == len(rows(data_dir, "SELECT 1 FROM calls"))
    assert sum(row[1] for row in attempts) == ends["completed"] * COST_NANOUSD
    assert sum(row[2] for row in attempts) == ends["submission_unknown"] * COST_NANOUSD
    told = collections.Counter(row[0] for row in rows(data_dir, "SELECT cause FROM outbox WHERE type LIKE 'job.%'"))
    assert len(told) == JOBS and set(told.values()) == {1}
    return ends


def test_no_kill_loses_doubles_or_mischarges_a_job(tmp_path: Path) -> None:
    print(f"seed {SEED}, {KILLS} kills, {JOBS} jobs")
    provider = MediaProvider()
    provider.reply_delay_s = 0.02
    field = Field(tmp_path, provider)
    try:
        done = run(field)
        records = field.records()
        assert field.gateway.stop() == 0
        ends = check(field, records)
    finally:
        field.gateway.kill()
        provider.close()
    report = verify_data_dir(str(field.gateway.data_dir))
    assert report.is_sound, report_lines(report)
    files = [path for path in (field.gateway.data_dir / "files" / "jobs").rglob("*") if path.is_file()]
    assert len(files) == ends["completed"]
    print(f"killed {dict(done)}; ends {dict(ends)}")
    if done["reply"]:
        assert ends["submission_unknown"] + sum(count > 1 for count in collections.Counter(provider.submissions).values()) > 0


