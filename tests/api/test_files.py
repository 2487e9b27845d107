import json
import random

import pytest

from tests.api.plane import run

BODY = b'{"custom_id": "1"}\n{"custom_id": "2"}\n'


async def new_key(plane, **fields):
    return {"authorization": "Bearer " + (await plane.post("/v1/keys", {"name": "k", **fields})).json()["key"]}


def form(*parts, boundary="cut"):
    """Parts as (headers, body)."""
    sections = [f"--{boundary}\r\n".encode() + head.encode() + b"\r\n\r\n" + body + b"\r\n" for head, body in parts]
    return b"".join(sections) + f"--{boundary}--\r\n".encode()


FILE = ('content-disposition: form-data; name="file"; filename="in.jsonl"\r\ncontent-type: application/jsonl', BODY)


def field(name, value):
    return f'content-disposition: form-data; name="{name}"', value.encode()


def test_a_file_is_uploaded_listed_read_and_deleted(tmp_path):
    async def test(plane):
        reply = await plane.client.post("/v1/files", files={"file": ("häuser.jsonl", BODY)}, data={"purpose": "batch"})
        assert reply.status_code == 201
        file = reply.json()
        assert file["object"] == "file" and file["bytes"] == len(BODY) and file["filename"] == "häuser.jsonl" and file["purpose"] == "batch"
        assert file["id"].startswith("file-") and file["status"] == "processed" and file["expires_at"] is None
        assert (await plane.get(f"/v1/files/{file['id']}")).json() == file
        listed = (await plane.get("/v1/files?purpose=batch")).json()
        assert listed == {"object": "list", "data": [file], "first_id": file["id"], "last_id": file["id"], "has_more": False}
        assert (await plane.get("/v1/files?purpose=vision")).json()["data"] == []
        content = await plane.get(f"/v1/files/{file['id']}/content")
        assert content.content == BODY and content.headers["content-length"] == str(len(BODY))
        assert content.headers["content-disposition"] == "attachment; filename*=UTF-8''h%C3%A4user.jsonl"
        deleted = await plane.client.delete(f"/v1/files/{file['id']}")
        assert deleted.json() == {"id": file["id"], "object": "file", "deleted": True}
        assert (await plane.get(f"/v1/files/{file['id']}/content")).status_code == 404

    run(tmp_path, test)


def test_pages_of_files(tmp_path):
    async def test(plane):
        ids = [(await plane.client.post("/v1/files", files={"file": (f"{n}", b"x")})).json()["id"] for n in range(5)]
        seen, after = [], ""
        while True:
            page = (await plane.get(f"/v1/files?limit=2&order=asc{after}")).json()
            seen += [each["id"] for each in page["data"]]
            if not page["has_more"]:
                break
            after = f"&after={page['last_id']}"
        assert seen == ids

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=0-3", 206, BODY[:4], f"bytes 0-3/{len(BODY)}"),
        ("bytes=10-", 206, BODY[10:], f"bytes 10-{len(BODY) - 1}/{len(BODY)}"),
        ("bytes=-5", 206, BODY[-5:], f"bytes {len(BODY) - 5}-{len(BODY) - 1}/{len(BODY)}"),
        ("bytes=30-9999", 206, BODY[30:], f"bytes 30-{len(BODY) - 1}/{len(BODY)}"),
        ("bytes=0-1,3-4", 200, BODY, None),
        ("bytes=5-2", 200, BODY, None),
        ("lines=1-2", 200, BODY, None),
        ("bytes=9999-", 416, None, None),
        ("bytes=-0", 416, None, None),
    ],
)
def test_ranges(tmp_path, asked, status, body, content_range):
    async def test(plane):
        file = (await plane.client.post("/v1/files", files={"file": ("x", BODY)})).json()
        reply = await plane.get(f"/v1/files/{file['id']}/content", headers={"range": asked})
        assert reply.status_code == status and reply.headers.get("content-range") == content_range
        assert body is None or reply.content == body

    run(tmp_path, test)


def test_another_owners_files_are_not_there(tmp_path):
    async def test(plane):
        mine, other = await new_key(plane), await new_key(plane)
        file = (await plane.client.post("/v1/files", files={"file": ("x", BODY)}, headers=mine)).json()
        for path in (f"/v1/files/{file['id']}", f"/v1/files/{file['id']}/content"):
            assert (await plane.get(path, headers=mine)).status_code == 200
            for key in (other, {}):  # an admin's key neither
                refused = await plane.get(path, headers=key)
                assert refused.status_code == 404 and refused.json()["error"]["code"] == "not_found"
        assert (await plane.client.delete(f"/v1/files/{file['id']}", headers=other)).status_code == 404
        assert (await plane.get("/v1/files", headers=other)).json()["data"] == []

    run(tmp_path, test)


def test_a_form_may_come_in_any_pieces_and_order(tmp_path):
    async def test(plane):
        source = random.Random(7)
        content = source.randbytes(200_000).replace(b"--cut", b"------") + b"\r\n--cu\r\n"
        whole = form(field("expires_after[anchor]", "created_at"), (FILE[0], content), field("expires_after[seconds]", "3600"), field("purpose", "vision"))
        for cuts in (1, 40, 4000):
            places = sorted(source.sample(range(1, len(whole)), cuts))
            pieces = [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True)]

            async def stream(pieces=pieces):
                for piece in pieces:
                    yield piece

            reply = await plane.client.post("/v1/files", content=stream(), headers={"content-type": "multipart/form-data; boundary=cut"})
            file = reply.json()
            assert reply.status_code == 201, file
            assert file["purpose"] == "vision" and file["expires_at"] == file["created_at"] + 3600 and file["filename"] == "in.jsonl"
            assert (await plane.get(f"/v1/files/{file['id']}/content")).content == content

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (form(field("purpose", "batch")), "file: missing"),
        (form(FILE, FILE), "one file a request"),
        (form(('content-disposition: form-data; name="data"; filename="a"', b"x")), "data: the file is sent as 'file'"),
        (form(FILE, field("purpose", "fun")), "purpose: allowed are batch"),
        (form(FILE, field("porpoise", "batch")), "porpoise: no such field"),
        (form(FILE, field("expires_after[seconds]", "60")), "expires_after[seconds]: a whole number from 3600"),
        (form(FILE, field("expires_after[anchor]", "last_use"), field("expires_after[seconds]", "3600")), "the only one is created_at"),
        (form((FILE[0], b"")), "file: is empty"),
        (form(FILE, field("purpose", "x" * 20_000)), "purpose: has more than 16384 bytes"),
        (form(FILE)[:-12], "last multipart boundary is missing"),
        (form(FILE, ("x-header: " + "y" * 100_000, b"")), "cannot be read as multipart"),
        (b"not a form", "cannot be read as multipart"),
        (b"", "last multipart boundary is missing"),
    ],
)
def test_a_bad_form_is_refused_by_name(tmp_path, body, words):
    async def test(plane):
        reply = await plane.client.post("/v1/files", content=body, headers={"content-type": "multipart/form-data; boundary=cut"})
        assert reply.status_code == 400 and words in reply.json()["error"]["message"]
        assert (await plane.get("/v1/files")).json()["data"] == []
        assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == []

    run(tmp_path, test)


def test_what_is_no_form_is_refused(tmp_path):
    async def test(plane):
        assert "sent as multipart/form-data" in (await plane.post("/v1/files", {"purpose": "batch"})).json()["error"]["message"]
        long = await plane.client.post("/v1/files", content=b"x", headers={"content-type": "multipart/form-data; boundary=" + "x" * 400})
        assert long.status_code == 400

    run(tmp_path, test)


def test_a_file_may_be_larger_than_other_requests_but_not_than_its_limit(tmp_path):
    async def test(plane):
        fits = await plane.client.post("/v1/files", files={"file": ("x", b"x" * 1_000_000)}, data={"purpose": "vision"})
        assert fits.status_code == 201
        refused = await plane.client.post("/v1/files", files={"file": ("x", b"x" * 1_000_001)})
        assert refused.status_code == 413 and "1000000 bytes" in refused.json()["error"]["message"]
        assert json.loads(refused.content)["error"]["code"] == "payload_too_large"

    run(tmp_path, test)
