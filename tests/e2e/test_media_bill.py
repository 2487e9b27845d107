"""Media jobs of a real gateway at the simulated provider, in both forms it speaks: what it charged is what the ledger says, nothing was ordered twice."""

import http.client
import json
import socket
import urllib.request

from tests.conftest import Gateway, start_gateway, wait_until

CLIPS = """
[providers.clips]
jobs = "openai-videos"
base_url = "unix://{socket}:/v1"
api_key = "none"

[models."clips/video+fast"]
modality = "video"
usd_per_second = 0.10

[models."clips/video+fast+fails"]
modality = "video"
usd_per_second = 0.10
"""
ORDERS = (  # route, model, how it ends, (cents of the caller)
    ("videos/generations", "sim/video+fast", "completed", 20.0),
    ("videos/generations", "sim/video+fast+cut-file", "completed", 20.0),
    ("videos/generations", "sim/video+blocked+fast", "content_rejected", 0.0),
    ("videos/generations", "sim/video+fast+429-then-ok-1", "completed", 20.0),
    ("videos/generations", "sim/video+fast+lost-reply", "submission_unknown", None),
    ("audio/music", "sim/music+fast", "completed", 0.4),
    ("3d/generations", "sim/3d+fast", "completed", 5.0),
    ("videos/generations", "clips/video+fast", "completed", 20.0),
    ("videos/generations", "clips/video+fast+fails", "provider_failed", 0.0),
)


def ask(gateway: Gateway, path: str, body: dict | None = None) -> dict:
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    request = urllib.request.Request(f"{gateway.url}/v1/{path}", None if body is None else json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def book_of_the_provider(gateway: Gateway) -> list[dict]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(gateway.data_dir / "run" / "sim.sock"))
        connection = http.client.HTTPConnection("sim")
        connection.sock = sock
        connection.request("GET", "/sim/submissions")
        return json.loads(connection.getresponse().read())["submissions"]


def test_the_provider_charges_what_the_caller_pays_and_is_never_asked_twice(tmp_path):
    gateway = start_gateway(tmp_path, CLIPS.format(socket=tmp_path / "data" / "run" / "sim.sock"))
    try:
        for number, (route, model, _, _) in enumerate(ORDERS):
            ask(gateway, route, {"model": model, "prompt": f"order {number}", "duration": 2})
        wait_until(lambda: all(job["status"] in ("completed", "failed") for job in ask(gateway, "jobs")["data"]), limit_s=60)
        jobs = list(reversed(ask(gateway, "jobs")["data"]))
        rows = book_of_the_provider(gateway)
    finally:
        gateway.kill()
    assert [(job["model"], job["error_code"] or job["status"], job["cost_cents"]) for job in jobs] == [order[1:] for order in ORDERS]
    assert sorted(row["prompt"] for row in rows) == [f"order {number}" for number in range(len(ORDERS))]  # each was taken, and none twice
    book = {row["prompt"]: row for row in rows}
    for number, (_, model, end, cents) in enumerate(ORDERS):
        row = book[f"order {number}"]
        assert row["model"] == model.partition("/")[2]
        if cents is not None:
            assert row["cost_nanousd"] == round(cents * 1e7)
        else:  # made and charged, but nobody was told: the ledger keeps its hold, and says that it does not know
            assert end == "submission_unknown" and row["cost_nanousd"] > 0
