import asyncio
import json

import pytest

from tests.api.plane import run
from tests.api.test_files import new_key
from tests.keeper.batches.world import line

CREATE = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}


async def upload(plane, *lines, purpose="batch", **options):
    reply = await plane.client.post("/v1/files", files={"file": ("in.jsonl", b"\n".join(lines))}, data={"purpose": purpose}, **options)
    return reply.json()["id"]


async def ended(plane, batch_id, **options):
    while (batch := (await plane.get(f"/v1/batches/{batch_id}", **options)).json())["status"] not in ("completed", "failed", "cancelled"):
        await asyncio.sleep(0.005)
    return batch


def test_a_batch_over_http(tmp_path):
    async def test(plane):
        file_id = await upload(plane, line("a", name="a"), line("b", do=[404]))
        made = await plane.post("/v1/batches", {**CREATE, "input_file_id": file_id, "metadata": {"job": "nightly"}})
        assert made.status_code == 201
        batch = made.json()
        assert batch["object"] == "batch" and batch["status"] == "validating" and batch["input_file_id"] == file_id
        assert batch["expires_at"] == batch["created_at"] + 86_400 and batch["metadata"] == {"job": "nightly"}
        assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 0} and batch["output_file_id"] is None
        done = await ended(plane, batch["id"])
        assert done["request_counts"] == {"total": 2, "completed": 1, "failed": 1} and done["completed_at"] and done["cancelled_at"] is None
        output = (await plane.get(f"/v1/files/{done['output_file_id']}/content")).text.splitlines()
        assert [json.loads(each)["custom_id"] for each in output] == ["a"]
        assert done["usage"]["total_tokens"] == 0 and done["cost_cents"] == 0
        listed = (await plane.get("/v1/batches?limit=1")).json()
        assert listed == {"object": "list", "data": [done], "first_id": done["id"], "last_id": done["id"], "has_more": False}
        assert (await plane.post(f"/v1/batches/{done['id']}/cancel")).json() == done

    run(tmp_path, test)


def test_another_owners_batches_are_not_there(tmp_path):
    async def test(plane):
        mine, other = await new_key(plane), await new_key(plane)
        file_id = await upload(plane, line("a"), headers=mine)
        made = (await plane.post("/v1/batches", {**CREATE, "input_file_id": file_id}, headers=mine)).json()
        for refused in (
            await plane.get(f"/v1/batches/{made['id']}", headers=other),
            await plane.post(f"/v1/batches/{made['id']}/cancel", headers=other),
            await plane.post("/v1/batches", {**CREATE, "input_file_id": file_id}, headers=other),
        ):
            assert refused.status_code == 404 and refused.json()["error"]["code"] == "not_found"
        assert (await plane.get("/v1/batches", headers=other)).json()["data"] == []

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "input_file_id", "missing"),
        ({"input_file_id": 5}, "input_file_id", "string"),
        ({"input_file_id": "FILE", "endpoint": "/v1/images"}, "endpoint", "'/v1/chat/completions'"),
        ({"input_file_id": "FILE", "completion_window": "1h"}, "completion_window", "'24h'"),
        ({"input_file_id": "FILE", "metadata": {"a": 5}}, "metadata.a", "string"),
        ({"input_file_id": "FILE", "metadata": {str(n): "x" for n in range(17)}}, "metadata", "16"),
        ({"input_file_id": "FILE", "output_expires_after": {"anchor": "created_at", "seconds": 5}}, "output_expires_after.seconds", "3600"),
        ({"input_file_id": "FILE", "window": "24h"}, "window", "no such field"),
        ({"input_file_id": "FILE", "webhook_url": "http://169.254.169.254/"}, "webhook_url", "webhook_url"),
        ({"input_file_id": "TWICE"}, "input_file_id", "the custom_id 'a' of line 2 is that of line 1"),
        ({"input_file_id": "LONG"}, "input_file_id", "more than 50 lines"),
        ({"input_file_id": "BLANK"}, "input_file_id", "no lines"),
        ({"input_file_id": "IMAGE"}, "input_file_id", "purpose 'vision'"),
    ],
)
def test_a_bad_batch_is_refused_by_name(tmp_path, fields, param, words):
    async def test(plane):
        contents = {
            "FILE": [line("a")], "TWICE": [line("a"), line("a")], "LONG": [line(str(n)) for n in range(51)], "BLANK": [b" "], "IMAGE": [b"x"],
        }  # fmt: skip
        name = fields.get("input_file_id")
        if name in contents:
            fields["input_file_id"] = await upload(plane, *contents[name], purpose="vision" if name == "IMAGE" else "batch")
        reply = await plane.post("/v1/batches", fields)
        error = reply.json()["error"]
        assert reply.status_code == 400 and error["param"] == param and words in error["message"], error
        assert (await plane.get("/v1/batches")).json()["data"] == []

    run(tmp_path, test)
