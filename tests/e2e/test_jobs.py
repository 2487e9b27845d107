"""Jobs of a real gateway with the official SDK, from submission to a link that works without a key; and the ledger behind them."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aigateway import AIgateway, AsyncAIgateway, verify_webhook

from aigate.cli.verify import report_lines, verify_data_dir
from tests.conftest import start_gateway, wait_until
from tests.e2e.receiver import receiver

CONFIG = "[webhooks]\nallow_loopback = true\nretry_delays_s = [0.1, 0.1, 0.1]\n"
MAGIC = {"video": b"ftyp", "music": b"WAVE", "3d": b"glTF"}


def open_without_key(url: str) -> tuple[bytes, str]:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as reply:
        return reply.read(), reply.headers["content-type"]


def asked(url: str, method: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request(method, f"{parts.path}?{parts.query}", headers=headers or {})
    return connection.getresponse()


def test_a_job_through_the_official_sdk_from_submission_to_signed_link_and_webhook(tmp_path: Path) -> None:
    with receiver(tmp_path) as hooks:
        gateway = start_gateway(tmp_path, CONFIG)
        try:
            key = gateway.request("POST", "/v1/keys", {"name": "product"})[2]["key"]
            with AIgateway(api_key=key, base_url=gateway.url, media_base_url=gateway.url, tag="spring") as client:
                secret = client.webhook_secret.get()["secret"]
                made = {
                    "video": client.jobs.create_video(
                        model="sim/video+fast", prompt="A paper boat.", duration=4, resolution="720p", webhook_url=hooks.url + "/jobs"
                    ),
                    "music": client.jobs.create_music(prompt="Rain on a roof.", model="sim/music+fast", duration="3", is_instrumental=True),
                    "3d": client.jobs.create_3d(prompt="A chair.", model="sim/3d+fast"),
                }
                cancelled = client.jobs.cancel(client.jobs.create_video(model="sim/video+stalls", prompt="Never done.").id)
                assert (cancelled.status, cancelled.error) == ("failed", "cancelled")
                failed = client.jobs.create_video(model="sim/video+fails", prompt="No.")
                for modality, job in made.items():
                    assert (job.status, job.modality) in (("queued", modality), ("processing", modality))
                    done = client.jobs.wait(job.id, poll_interval_seconds=0.2, timeout_seconds=30)
                    assert (done.status, done.error, done.model) == ("completed", None, f"sim/{modality}+fast")
                    filename = done.raw["result"]["filename"]
                    data = client.files.download(job.id, filename)
                    assert MAGIC[modality] in data[:16] and len(data) == done.raw["result"]["bytes"]
                    signed = client.files.signed_url(job.id, filename, expires_in=120)
                    assert open_without_key(signed["url"]) == (data, done.raw["result"]["media_type"])
                    assert open_without_key(done.result_url)[0] == data
                assert client.jobs.wait(failed.id, poll_interval_seconds=0.2).status == "failed"
            [got] = wait_until(hooks.got)
            assert verify_webhook(secret, got["body"], got["headers"]["x-gateway-signature"])
            told = json.loads(got["body"])
            assert (told["id"], told["status"], told["cost_cents"]) == (made["video"].id, "completed", 40.0)
            assert told["result_url"].startswith(gateway.url) or told["result_url"].startswith("http://127.0.0.1")
            by_tag = gateway.request("GET", "/v1/usage/by-tag")[2]["data"]
            assert [(row["tag"], row["cost_cents"], row["requests"]) for row in by_tag] == [("spring", 45.6, 5)]
            recent = gateway.request("GET", "/v1/usage/recent")[2]["data"]
            assert {call["request_id"] for call in recent} >= {told["request_id"]}
            assert gateway.stop() == 0
        finally:
            gateway.kill()
        report = verify_data_dir(str(gateway.data_dir))
        assert report.is_sound and report.cost_nanousd == 456_000_000, report_lines(report)


def test_the_asynchronous_client_does_the_same(tmp_path: Path) -> None:
    gateway = start_gateway(tmp_path, CONFIG)

    async def use() -> tuple[Any, bytes, str]:
        async with AsyncAIgateway(api_key=gateway.key, base_url=gateway.url, media_base_url=gateway.url) as client:
            jobs = await asyncio.gather(*(client.jobs.create_video(model="sim/video+fast", prompt=f"Boat {n}.") for n in range(3)))
            done = await asyncio.gather(*(client.jobs.wait(job.id, poll_interval_seconds=0.2, timeout_seconds=30) for job in jobs))
            assert [job.status for job in done] == ["completed"] * 3
            data = await client.files.download(done[0].id, "video.mp4")
            return done[0], data, (await client.files.signed_url(done[0].id, "video.mp4"))["url"]

    try:
        job, data, url = asyncio.run(use())
        assert b"ftyp" in data[:16] and open_without_key(url)[0] == data and job.raw["progress"] == 1.0
        head = asked(url, "HEAD")
        assert (head.status, head.headers["content-length"], head.headers["accept-ranges"], head.read()) == (200, str(len(data)), "bytes", b"")
        part = asked(url, "GET", {"range": f"bytes={len(data) - 5}-"})
        assert (part.status, part.read()) == (206, data[-5:])
    finally:
        gateway.kill()


def test_a_jobs_hold_counts_against_the_same_caps_as_calls(tmp_path: Path) -> None:
    """A worker has leased of the budget meanwhile: what it has unused is recalled for the job."""
    gateway = start_gateway(tmp_path, CONFIG)
    try:
        made = gateway.request("POST", "/v1/sub-accounts", {"name": "Acme", "spend_cap_cents": 60})[2]
        call = {"model": "sim/echo", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
        assert gateway.request("POST", "/v1/chat/completions", call, made["key"])[0] == 200
        asked = {"model": "sim/video+stalls", "prompt": "A boat.", "duration": 5.9}
        status, _, job = gateway.request("POST", "/v1/videos/generations", asked, made["key"])
        assert status == 202, job
        status, headers, refused = gateway.request("POST", "/v1/videos/generations", asked, made["key"])
        assert (status, refused["error"]["code"], refused["error"]["scope"]) == (402, "budget_exceeded", "sub_account")
        assert headers["x-should-retry"] == "false"
        shown = gateway.request("GET", f"/v1/sub-accounts/{made['id']}")[2]
        assert shown["reserved_cents"] == 59
        assert gateway.request("DELETE", f"/v1/jobs/{job['id']}", key=made["key"])[2]["status"] == "failed"
        free = wait_until(lambda: gateway.request("GET", f"/v1/sub-accounts/{made['id']}")[2]["reserved_cents"] == 0)
        assert free
    finally:
        gateway.kill()
