"""The simulated media service over real connections, by way of the real job dialects: orders, behaviours, files, webhooks, its own bill."""

import io
import json
import signal
import struct
import wave
from urllib.parse import urlsplit

import pytest

from aigate.catalog.job_models import load_job_models
from aigate.core.job import JobRequest
from aigate.core.target import Model, Provider, Quirks, Target
from aigate.errors import ProviderError
from aigate.jobdialects import JOB_DIALECTS
from aigate.jobdialects.dialect import HttpReply, HttpRequest
from aigate.sim.rates import MEDIA_NANOUSD
from tests.http_host import Handler, serving
from tests.sim.test_app import wait_until

PREFIX = {"fal": "/fal", "openai-videos": "/v1"}
KINDS = [("openai-videos", "video"), ("fal", "video"), ("fal", "music"), ("fal", "3d")]


class Client:
    """What the keeper does of a job: the dialect's requests over real connections."""

    def __init__(self, sim, form="fal", model="video"):
        modality = model.partition("+")[0]
        provider = Provider(name="sim", base_url=sim.base_url, jobs=form)
        self.sim, self.dialect = sim, JOB_DIALECTS[form]
        self.target = Target("sim/" + model, provider, model, Model(slug="sim/" + model, modality=modality), Quirks(), form, PREFIX[form], modality)
        self.request = JobRequest(modality=modality, prompt="a paper boat", duration=2.0 if modality != "3d" else None)

    def send(self, request: HttpRequest, **headers):
        status, replied, body, is_whole = self.sim.request(request.method, PREFIX[self.dialect.name] + request.url, request.body, {**request.headers, **headers})
        self.is_whole = is_whole
        return HttpReply(status=status, headers={name.lower(): value for name, value in replied.items()}, body=body)

    def submit(self, webhook_url=None, **headers):
        written = self.dialect.write_submit(self.request, self.target, "job_1", webhook_url)
        return self.dialect.read_submit(self.send(written, **headers), self.request, self.target).handle

    def poll(self, handle):
        polled = self.dialect.read_poll(self.send(self.dialect.write_poll(handle, self.target)), handle, self.target)
        return self.dialect.read_poll(self.send(polled.then), handle, self.target) if polled.then else polled

    def done(self, handle):
        wait_until(lambda: self.poll(handle).state not in ("queued", "processing"))
        return self.poll(handle)

    def fetch(self, polled):
        return self.send(polled.results[0].request)

    def made(self):
        return [row for row in self.sim.get("/sim/submissions")["submissions"] if row["model"] == self.target.upstream_model]


@pytest.fixture
def fresh(sim):
    sim.request("POST", "/sim/reset")
    return sim


# --- files


def boxes(data):
    """(kind, body) of each box of an MP4."""
    while data:
        size, kind = struct.unpack_from(">I4s", data)
        yield kind, data[8:size]
        data = data[size:]


def check_file(kind, data):
    if kind == "video":
        assert [name for name, _ in boxes(data)][:4] == [b"ftyp", b"free", b"moov", b"mdat"]
        moov = dict(boxes(data))[b"moov"]
        scale, duration = struct.unpack_from(">II", dict(boxes(moov))[b"mvhd"], 12)
        assert duration / scale == 2.0
    elif kind == "music":
        with wave.open(io.BytesIO(data)) as tune:
            assert tune.getnframes() / tune.getframerate() == 2.0
    else:
        magic, version, size, json_size, json_kind = struct.unpack_from("<4sIII4s", data)
        assert (magic, version, size, json_kind) == (b"glTF", 2, len(data), b"JSON")
        document = json.loads(data[20 : 20 + json_size])
        bin_size, bin_kind = struct.unpack_from("<I4s", data, 20 + json_size)
        assert bin_kind == b"BIN\x00" and bin_size == document["buffers"][0]["byteLength"]
        for view in document["bufferViews"]:
            assert view["byteOffset"] + view["byteLength"] <= bin_size
        count = document["accessors"][0]["count"]
        indices = struct.unpack_from(f"<{document['accessors'][1]['count']}H", data, 28 + json_size + document["bufferViews"][1]["byteOffset"])
        assert max(indices) < count


@pytest.mark.parametrize("form,kind", KINDS)
def test_a_job_becomes_a_real_file_that_says_what_it_is(fresh, form, kind):
    client = Client(fresh, form, f"{kind}+fast")
    polled = client.done(client.submit())
    assert polled.state == "completed"
    file = client.fetch(polled)
    assert file.headers["content-type"] in ("video/mp4", "audio/wav", "model/gltf-binary")
    assert b"simulated provider" in file.body
    check_file(kind, file.body)


@pytest.mark.parametrize("kind", ["video", "music", "3d"])
def test_a_large_file_is_a_real_one_too(fresh, kind):
    client = Client(fresh, "fal", f"{kind}+fast+big-3MB")
    file = client.fetch(client.done(client.submit()))
    assert len(file.body) > 3 << 20 and len(file.body) == int(file.headers["content-length"])
    check_file(kind, file.body)


def test_the_same_order_is_the_same_file_and_a_seed_makes_another(fresh):
    client = Client(fresh, "fal", "video+fast")
    first, again = (client.fetch(client.done(client.submit())).body for _ in range(2))
    client.request.seed = 5
    assert first == again != client.fetch(client.done(client.submit())).body


def test_a_video_has_the_shape_that_was_asked_for(fresh):
    client = Client(fresh, "openai-videos", "video+fast")
    client.request.aspect_ratio, client.request.resolution = "9:16", "1080p"
    polled = client.done(client.submit())
    assert polled.results[0].resolution == "64x112"  # of the file as it is
    moov = dict(boxes(client.fetch(polled).body))[b"moov"]
    track = dict(boxes(dict(boxes(moov))[b"trak"]))[b"tkhd"]
    wide, high = struct.unpack(">II", track[-8:])
    assert (wide >> 16, high >> 16) == (64, 112)
    assert client.made()[-1]["resolution"] == "1080p"


def test_a_fetch_that_is_cut_can_be_tried_again(fresh):
    client = Client(fresh, "fal", "video+fast+cut-file")
    polled = client.done(client.submit())
    client.fetch(polled)
    assert not client.is_whole
    check_file("video", client.fetch(polled).body)


# --- how jobs go


@pytest.mark.parametrize("form", ["fal", "openai-videos"])
def test_a_job_waits_works_and_is_done(fresh, form):
    client = Client(fresh, form, "video+slow-400ms")
    handle = client.submit()
    seen = [client.poll(handle).state]
    while seen[-1] != "completed":
        state = client.poll(handle).state
        seen += [state] if state != seen[-1] else []
    assert seen == ["queued", "processing", "completed"]


@pytest.mark.parametrize("form,kind", KINDS)
@pytest.mark.parametrize("behaviour,code", [("fails", "provider_failed"), ("fails-late", "provider_failed"), ("blocked", "content_rejected")])
def test_a_job_that_fails_costs_nothing_and_says_why(fresh, form, kind, behaviour, code):
    client = Client(fresh, form, f"{kind}+slow-50ms+{behaviour}")
    polled = client.done(client.submit())
    assert (polled.state, polled.failure.code) == ("failed", code)
    assert "as asked" in polled.failure.message
    assert client.made()[0]["cost_nanousd"] == 0


@pytest.mark.parametrize("form", ["fal", "openai-videos"])
def test_a_job_that_stalls_is_stopped_by_cancelling(fresh, form):
    client = Client(fresh, form, "video+fast+stalls")
    handle = client.submit()
    assert client.poll(handle).state == "processing"
    assert client.send(client.dialect.write_cancel(handle, client.target)).status in (200, 202)
    if form == "fal":
        assert client.poll(handle).state == "cancelled"
    else:  # a deleted video is gone
        with pytest.raises(ProviderError, match="404"):
            client.poll(handle)
    assert client.made()[0]["cost_nanousd"] == 0


def test_a_done_job_is_not_cancelled(fresh):
    client = Client(fresh, "fal", "video+fast")
    handle = client.submit()
    assert client.send(client.dialect.write_cancel(handle, client.target)).status == 400
    assert client.poll(handle).state == "completed"


@pytest.mark.parametrize("status,kind", [(400, "rejected"), (429, "rate_limited"), (503, "overloaded"), (500, "error")])
def test_a_refused_submission_makes_no_job(fresh, status, kind):
    client = Client(fresh, "fal", f"video+{status}")
    with pytest.raises(ProviderError) as caught:
        client.submit()
    assert caught.value.kind == kind and client.made() == []


def test_a_submission_is_taken_after_so_many_refusals(fresh):
    client = Client(fresh, "fal", "video+fast+503-then-ok-2")
    for _ in range(2):
        with pytest.raises(ProviderError):
            client.submit()
    assert client.done(client.submit()).state == "completed"


@pytest.mark.parametrize("form", ["fal", "openai-videos"])
def test_every_second_look_at_a_flaky_job_fails(fresh, form):
    client = Client(fresh, form, "video+fast+flaky")
    handle = client.submit()
    with pytest.raises(ProviderError, match="503"):
        client.poll(handle)
    assert client.poll(handle).state == "completed"


@pytest.mark.parametrize("form", ["fal", "openai-videos"])
@pytest.mark.parametrize("behaviour,made", [("lost-reply", 1), ("lost-request", 0)])
def test_a_connection_that_ends_tells_nothing_but_the_book_knows(fresh, form, behaviour, made):
    client = Client(fresh, form, f"video+fast+{behaviour}")
    with pytest.raises((ConnectionError, OSError)):
        client.submit()
    assert len(client.made()) == made


@pytest.mark.parametrize("form", ["fal", "openai-videos"])
def test_a_key_makes_a_submission_safe_to_repeat_and_finds_its_job(fresh, form):
    client = Client(fresh, form, "video+fast+lost-reply")
    with pytest.raises((ConnectionError, OSError)):
        client.submit(**{"idempotency-key": "k-1"})
    handle = client.submit(**{"idempotency-key": "k-1"})
    assert [row["id"] for row in client.made()] == [handle]
    path = "/fal/requests" if form == "fal" else "/v1/videos"
    assert handle in json.dumps(fresh.get(f"{path}?idempotency_key=k-1"))
    assert handle not in json.dumps(fresh.get(f"{path}?idempotency_key=k-2"))


def test_a_model_may_pay_no_heed_to_keys(fresh):
    client = Client(fresh, "fal", "video+fast+keyless")
    assert client.submit(**{"idempotency-key": "k-3"}) != client.submit(**{"idempotency-key": "k-3"})
    assert fresh.get("/fal/requests?idempotency_key=k-3") == {"requests": []}


@pytest.mark.parametrize("body,status", [
    (b"{", 400), (b"[]", 400), (b'{"prompt": 7}', 422), (b"{}", 422), (b'{"prompt": "x", "duration": "long"}', 422),
    (b'{"prompt": "x", "duration": "nan"}', 422), (b'{"prompt": "x", "duration": 1e999}', 422), (b'{"prompt": "x", "seed": [1]}', 422),
])  # fmt: skip
def test_a_wrong_order_is_refused(fresh, body, status):
    assert fresh.request("POST", "/fal/video", body)[0] == status
    assert fresh.get("/sim/submissions")["submissions"] == []


@pytest.mark.parametrize("fields", [b'"prompt": "half \\ud83d"', b'"prompt": "x", "aspect_ratio": [1], "resolution": {"a": "\\ud800"}', b'"prompt": "x", "seed": -7'])
def test_an_odd_order_is_taken_all_the_same(fresh, fields):
    assert fresh.request("POST", "/fal/video+fast", b"{" + fields + b"}")[0] == 200
    (row,) = fresh.get("/sim/submissions")["submissions"]
    assert fresh.request("GET", f"/fal/files/{row['id']}/video.mp4")[0] == 200


@pytest.mark.parametrize("model", ["film", "video+sings", "video+"])
def test_an_unknown_model_is_a_404(fresh, model):
    assert fresh.request("POST", f"/fal/{model}", b'{"prompt": "x"}')[0] == 404


@pytest.mark.parametrize("method,path", [("GET", "/fal/video/requests/none/status"), ("GET", "/v1/videos/none"), ("GET", "/fal/files/none/x"), ("POST", "/v1/videos/none/x")])
def test_what_is_not_there_is_a_404(fresh, method, path):
    assert fresh.request(method, path, b"{}")[0] == 404


def test_media_models_are_listed_beside_the_others(sim):
    listed = {model["id"] for model in sim.get("/v1/models")["data"]}
    assert {"video", "music", "3d", "video+fast", "echo"} <= listed


# --- money


@pytest.mark.parametrize("model,units,resolution", [("video", 2, "720p"), ("video", 2, "1080p"), ("music", 2, None), ("3d", 1, None)])
def test_the_provider_charges_what_the_catalogue_says(fresh, model, units, resolution):
    client = Client(fresh, "fal", f"{model}+fast")
    client.request.resolution = resolution
    client.done(client.submit())
    row = load_job_models()[f"sim/{model}"]
    name = f"{row.job.unit}:{resolution}"
    usd = row.usd.get(name, row.usd[row.job.unit])
    assert client.made()[0]["cost_nanousd"] == round(float(usd) * units * 1e9)


def test_the_rates_are_written_twice_and_agree():
    for kind, rates in MEDIA_NANOUSD.items():
        row = load_job_models()[f"sim/{kind}"]
        for variant, nanousd in rates.items():
            usd = row.usd[f"{row.job.unit}:{variant}" if variant else row.job.unit]
            assert round(float(usd) * 1e9) == nanousd


# --- webhooks


@pytest.fixture
def hook():
    """(url, bodies that came); the first call is answered 500."""
    bodies, answers = [], [500]

    class Hook(Handler):
        def do_POST(self):
            body, status = self.body(), answers.pop() if answers else 200
            if status == 200:
                bodies.append((self.path, json.loads(body)))
            self.answer(status, "text/plain", b"")

    with serving(Hook) as port:
        yield f"http://127.0.0.1:{port}/hooks/e?job=1", bodies


@pytest.mark.parametrize("behaviour,status", [("", "OK"), ("+fails", "ERROR")])
def test_a_webhook_is_called_when_the_job_is_done_and_again_until_it_answers(fresh, hook, behaviour, status):
    url, bodies = hook
    client = Client(fresh, "fal", "music+slow-50ms" + behaviour)
    handle = client.submit(webhook_url=url)
    wait_until(lambda: client.made()[0]["posts"] == 1)
    assert [(path, body["request_id"], body["status"]) for path, body in bodies] == [("/hooks/e?job=1", handle, status)]


def test_a_webhook_may_come_twice_or_never(fresh, hook):
    url, bodies = hook
    silent = Client(fresh, "fal", "music+fast+no-hook").submit(webhook_url=url)
    twice = Client(fresh, "fal", "music+fast+hook-twice").submit(webhook_url=url)
    wait_until(lambda: len(bodies) == 2)
    assert [body["request_id"] for _, body in bodies] == [twice, twice] and silent != twice


# --- its own kill


def test_jobs_outlive_a_kill(start, tmp_path, hook):
    url, bodies = hook
    jobs = tmp_path / "jobs.jsonl"
    first = start(tmp_path / "bill.jsonl", "--jobs", str(jobs))
    client = Client(first, "fal", "video+slow-300ms")
    handle = client.submit(webhook_url=url, **{"idempotency-key": "k-9"})
    gone = Client(first, "fal", "video+stalls").submit()
    Client(first, "fal", "video+stalls").send(HttpRequest(method="PUT", url=f"/video/requests/{gone}/cancel"))
    first.process.send_signal(signal.SIGKILL)
    first.ended()
    with jobs.open("ab") as file:
        file.write(b'{"submitted":{"id":"half')  # a line that the kill cut short
    second = start(tmp_path / "bill.jsonl", "--jobs", str(jobs))
    client = Client(second, "fal", "video+slow-300ms")
    assert client.submit(**{"idempotency-key": "k-9"}) == handle
    assert client.done(handle).state == "completed"
    assert Client(second, "fal", "video+stalls").poll(gone).state == "cancelled"
    wait_until(lambda: [body["request_id"] for _, body in bodies] == [handle])
    assert urlsplit(url).port
    assert second.stop() == 0
