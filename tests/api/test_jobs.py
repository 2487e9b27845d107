"""The routes of jobs and their files over a real service, whose provider is on loopback; nothing runs them further than the test lets it."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from aigate.core.account import Whose
from aigate.core.job_links import signed_path
from tests.api.plane import Plane, opened
from tests.keeper.jobs.media_provider import CLIP, MediaProvider
from tests.keeper.jobs.world import World

ASKED = {"model": "media/clip", "prompt": "a boat", "duration": 4}


@pytest.fixture(scope="module")
def provider():
    provider = MediaProvider(polls_needed=0)
    yield provider
    provider.close()


@pytest.fixture
def run(tmp_path, provider):
    """Runs a test with a plane whose jobs are served."""

    def run(test, **settings):
        async def serve():
            with opened(tmp_path) as database:
                world = World(database, tmp_path, provider, **settings)
                async with world.serving():
                    plane = Plane(database, tmp_path, jobs=world.service)
                    plane.world = world
                    try:
                        await test(plane)
                    finally:
                        await plane.client.aclose()

        asyncio.run(asyncio.wait_for(serve(), 60))

    return run


async def done(plane, job_id):
    async with asyncio.timeout(20):
        while True:
            job = (await plane.get(f"/v1/jobs/{job_id}")).json()
            if job["status"] in ("completed", "failed"):
                return job
            await asyncio.sleep(0.02)


async def made(plane, **fields):
    reply = await plane.post("/v1/videos/generations", {**ASKED, **fields})
    assert reply.status_code == 202, reply.text
    return await done(plane, reply.json()["id"])


def test_a_submission_answers_202_with_the_record_and_every_name_for_its_result(run):
    async def test(plane):
        reply = await plane.post("/v1/videos", {**ASKED, "webhookUrl": None, "aspectRatio": "16:9"})
        job = reply.json()
        assert (reply.status_code, job["status"], job["object"], job["modality"], job["result"], job["error"]) == (
            202, "queued", "job", "video", None, None,
        )  # fmt: skip
        job = await done(plane, job["id"])
        assert (job["status"], job["cost_cents"], job["usage"]) == ("completed", 40.0, {"cost_cents": 40.0})
        assert job["result_url"] == job["result"]["url"] == job["result"]["file_url"]
        assert {"created", "created_at", "updated_at", "model", "error_details", "progress"} <= job.keys()
        assert job["result"]["duration"] == 4.0

    run(test)


WRONG = [
    ({"prompt": "x" * 100_001}, "prompt", "at most 100000 characters"),
    ({"duration": -1}, "duration", "greater than 0"),
    ({"duration": "soon"}, "duration", "valid number"),
    ({"duration": True}, "duration", "must be a number"),
    ({"duration": 1e9}, "duration", "less than or equal to 86400"),
    ({"aspect_ratio": ["16:9"]}, "aspect_ratio", "valid string"),
    ({"image_url": "ftp://example.com/a.png"}, "image_url", "URL"),
    ({"image_url": "http://10.0.0.1/a.png"}, "image_url", "public internet"),
    ({"webhook_url": "http://93.184.216.34/hook"}, "webhook_url", "https://"),
    ({"webhookUrl": "https://169.254.169.254/latest"}, "webhook_url", "public internet"),
    ({"provider_key_id": "pk_1"}, "provider_key_id", "this gateway's own"),
    ({"is_instrumental": "maybe"}, "is_instrumental", "boolean"),
    ({"seed": 1.5}, "seed", "integer"),
]


def test_wrong_input_is_a_400_that_names_the_field(run):
    async def test(plane):
        for changes, field, words in WRONG:
            reply = await plane.post("/v1/videos/generations", {**ASKED, **changes})
            assert reply.status_code == 400, (changes, reply.text)
            assert reply.json()["error"]["param"] == field
            assert words in reply.json()["error"]["message"], (changes, reply.text)
        assert (await plane.get("/v1/jobs")).json()["data"] == []

    run(test)


def test_a_strict_submission_is_refused_rather_than_changed(run):
    async def test(plane):
        asked = {"model": "sim/video", "prompt": "a boat", "duration": 90, "lyrics": "la"}
        changed = await plane.post("/v1/videos/generations", asked)
        assert changed.status_code == 202 and changed.json()["warnings"] == changed.headers["x-aig-warning"]
        assert 'dropped;param="lyrics"' in changed.headers["x-aig-warning"] and "from=90.0;to=60.0" in changed.headers["x-aig-warning"]
        refused = await plane.post("/v1/videos/generations", asked, headers={"x-aig-strict": "true"})
        assert refused.status_code == 400 and "lyrics: unsupported; duration: outside" in refused.json()["error"]["message"]

    run(test, sim_base_url="http://127.0.0.1:9/v1")


def test_what_the_command_line_sends_is_taken(run):
    async def test(plane):
        job = await made(plane, prompt=2024, duration="5.5", seed="7", resolution=720, audio="true")
        assert (job["status"], job["cost_cents"]) == ("completed", 55.0)

    run(test)


def test_a_model_that_is_unknown_or_makes_something_else_is_refused(run):
    async def test(plane):
        unknown = await plane.post("/v1/videos/generations", {**ASKED, "model": "nobody/clip"})
        assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "model_not_found")
        wrong = await plane.post("/v1/audio/music", {**ASKED, "model": "media/clip"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "model")
        assert "makes videos" in wrong.json()["error"]["message"]
        none = await plane.post("/v1/3d/generations", {"prompt": "a chair"})
        assert none.status_code == 404 and "GET /v1/models?modality=3d" in none.json()["error"]["message"]

    run(test)


def test_a_model_left_out_is_the_first_there_is(run):
    async def test(plane):
        for model in (None, "", "auto", "auto/video"):
            reply = await plane.post("/v1/videos/generations", {"prompt": "slow", "model": model})
            assert (reply.status_code, reply.json()["model"]) == (202, "media/clip")

    run(test)


def test_a_key_that_may_not_use_the_model_is_refused_before_anything(run):
    async def test(plane):
        key = (await plane.post("/v1/keys", {"name": "k", "allowed_models": ["openai/*"]})).json()["key"]
        reply = await plane.post("/v1/videos/generations", ASKED, headers={"authorization": f"Bearer {key}"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "scope_exceeded")
        assert (await plane.get("/v1/jobs")).json()["data"] == []

    run(test)


def test_a_repeated_submission_is_the_same_job_and_says_so(run):
    async def test(plane):
        headers = {"idempotency-key": "one"}
        first = await plane.post("/v1/videos/generations", ASKED, headers=headers)
        again = await plane.post("/v1/videos/generations", dict(reversed(ASKED.items())), headers=headers)
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        assert again.headers["x-aig-idempotent-replay"] == "true"
        other = await plane.post("/v1/videos/generations", {**ASKED, "prompt": "a ship"}, headers=headers)
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")

    run(test)


def test_jobs_of_others_are_not_there(run):
    async def test(plane):
        mine = (await plane.post("/v1/keys", {"name": "mine"})).json()["key"]
        other = (await plane.post("/v1/keys", {"name": "other"})).json()["key"]
        as_mine, as_other = ({"authorization": f"Bearer {key}"} for key in (mine, other))
        job_id = (await plane.post("/v1/videos/generations", ASKED, headers=as_mine)).json()["id"]
        await done(plane, job_id)
        paths = (f"/v1/jobs/{job_id}", f"/v1/files/jobs/{job_id}/video.mp4", f"/v1/files/jobs/{job_id}/video.mp4/signed")
        for path in paths:
            assert (await plane.get(path, headers=as_other)).status_code == 404
            assert (await plane.get(path, headers=as_mine)).status_code == 200
        assert (await plane.post(f"/v1/jobs/{job_id}/cancel", headers=as_other)).status_code == 404
        assert (await plane.client.delete(f"/v1/jobs/{job_id}", headers=as_other)).status_code == 404
        assert [len((await plane.get("/v1/jobs", headers=each)).json()["data"]) for each in (as_mine, as_other)] == [1, 0]

    run(test)


def test_jobs_are_listed_in_pages_and_by_status(run):
    async def test(plane):
        ids = [(await made(plane))["id"] for _ in range(3)]
        first = (await plane.get("/v1/jobs?limit=2")).json()
        rest = (await plane.get(f"/v1/jobs?limit=2&cursor={first['next_cursor']}")).json()
        assert [job["id"] for job in first["data"] + rest["data"]] == ids[::-1] and rest["next_cursor"] is None
        assert (await plane.get("/v1/jobs?status=failed")).json()["data"] == []
        assert (await plane.get("/v1/jobs?status=lost")).status_code == 400
        assert (await plane.get("/v1/jobs?cursor=job_x")).status_code == 400

    run(test)


def test_both_ways_to_cancel_answer_the_whole_record(run):
    async def test(plane):
        for cancel in (lambda path: plane.client.delete(path), lambda path: plane.post(path + "/cancel")):
            job_id = (await plane.post("/v1/videos/generations", {**ASKED, "prompt": "slow"})).json()["id"]
            reply = await cancel(f"/v1/jobs/{job_id}")
            job = reply.json()
            assert (reply.status_code, job["id"], job["status"], job["error"]) == (200, job_id, "failed", "cancelled")
            assert job["error_details"] == {"code": "cancelled", "message": "cancelled"}
        finished = await made(plane)
        assert (await plane.client.delete(f"/v1/jobs/{finished['id']}")).json()["status"] == "completed"

    run(test)


def test_a_file_is_served_whole_in_ranges_and_by_its_version(run):
    async def test(plane):
        job = await made(plane)
        path = f"/v1/files/jobs/{job['id']}/video.mp4"
        whole = await plane.get(path)
        assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, CLIP, "video/mp4")
        assert whole.headers["x-content-type-options"] == "nosniff" and "sandbox" in whole.headers["content-security-policy"]
        part = await plane.get(path, headers={"range": "bytes=4-11"})
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, CLIP[4:12], f"bytes 4-11/{len(CLIP)}")
        head = await plane.client.head(path)
        assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(CLIP)), b"")
        etag = whole.headers["etag"]
        assert (await plane.get(path, headers={"if-none-match": etag})).status_code == 304
        assert (await plane.get(path, headers={"range": "bytes=0-3", "if-range": '"another"'})).status_code == 200
        assert (await plane.get(path, headers={"range": "bytes=0-3", "if-range": etag})).status_code == 206
        assert (await plane.get(path, headers={"range": f"bytes={len(CLIP)}-"})).status_code == 416
        assert (await plane.get(path.replace("video", "other"))).status_code == 404

    run(test)


def test_a_signed_link_works_without_a_key_until_it_is_changed_expired_or_retired(run):
    async def test(plane):
        job = await made(plane)
        path = f"/v1/files/jobs/{job['id']}/video.mp4"
        signed = (await plane.get(path + "/signed?expires_in=60")).json()
        url = httpx2.URL(signed["url"])
        anonymous = httpx2.AsyncClient(transport=plane.client._transport, base_url="http://gate")
        assert (await anonymous.get(signed["url"])).content == CLIP
        assert (await anonymous.get(httpx2.URL(job["result_url"]).raw_path.decode())).content == CLIP
        for name, value in (("exp", str(signed["expires_at"] + 1)), ("token", "AAAA"), ("k", "fk_none"), ("exp", "soon"), ("token", "é")):
            tampered = await anonymous.get(url.copy_set_param(name, value))
            assert tampered.status_code == 400, (name, value)
        key = await plane.world.service.link_key()
        old = await anonymous.get(signed_path(key, job["id"], "video.mp4", 1_000_000))
        assert (old.status_code, old.json()["error"]["code"]) == (400, "link_expired")
        assert (await anonymous.get(path)).status_code == 401
        for seconds in (59, 604_801, "x"):
            assert (await plane.get(f"{path}/signed?expires_in={seconds}")).status_code == 400
        rotated = await plane.post("/v1/files/jobs/signing-key/rotate", {"overlap_s": 3600})
        assert rotated.status_code == 200
        assert (await anonymous.get(signed["url"])).status_code == 200
        assert f"k={rotated.json()['id']}" in (await plane.get(path + "/signed")).json()["url"]
        await plane.post("/v1/files/jobs/signing-key/rotate", {"overlap_s": 0})
        assert (await anonymous.get(signed["url"])).status_code == 400
        await anonymous.aclose()

    run(test)


def test_a_providers_call_needs_the_jobs_own_token(run):
    async def test(plane):
        job_id = (await plane.post("/v1/videos/generations", {**ASKED, "prompt": "slow"})).json()["id"]
        job = await plane.world.service.get(Whose("acc_default"), job_id)
        assert (await plane.client.post(f"/v1/hooks/jobs/{job_id}/{job.hook_token}", content=b"anything")).status_code == 200
        assert (await plane.client.post(f"/v1/hooks/jobs/{job_id}/{'0' * 32}", content=b"")).status_code == 404
        await plane.client.delete(f"/v1/jobs/{job_id}")

    run(test)

