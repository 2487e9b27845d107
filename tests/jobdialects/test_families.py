"""Each family against its samples: what it writes, what it makes of replies, how it fails."""

import json
import re
from email import message_from_bytes

import pytest

from aigate.core.job import JobLimits, JobRequest
from aigate.core.target import Model, Provider, Quirks, Target
from aigate.errors import ClientError, ProviderError
from aigate.jobdialects import JOB_DIALECTS
from aigate.jobdialects.dialect import COMPLETED, HttpReply
from tests.jobdialects.samples import ERRORS, FAMILIES, PNG, POLLED, SYNCHRONOUS

SUBMISSIONS = [(name, place) for name, family in FAMILIES.items() for place in range(len(family.submissions))]
KEY = "job_0123456789abcdef"


def target_of(name, model="m", modality="video", job=None):
    provider = Provider(name="p", base_url="https://api.example/v1", jobs=name, credential="sk-secret-of-the-gateway")
    return Target("p/" + model, provider, model, Model(slug="p/" + model, modality=modality, job=job), Quirks(), name, "/v1", modality)


def reply_of(body, status=200, headers=()):
    return HttpReply(status=status, headers=dict(headers), body=body if isinstance(body, bytes) else json.dumps(body).encode())


def request_of(family, submission):
    return JobRequest(**{"modality": family.modality, **submission.asks})


def read_form(written):
    """(fields, files) of a multipart body, as the standard library reads it."""
    message = message_from_bytes(b"content-type: " + written.headers["content-type"].encode() + b"\r\n\r\n" + written.body)
    fields, files = {}, {}
    for part in message.get_payload():
        place = files if part.get_filename() else fields
        place[part.get_param("name", header="content-disposition")] = part.get_payload(decode=True)
    return {name: value.decode() for name, value in fields.items()}, files


def stand(name, body, status=200):
    family = FAMILIES[name]
    return JOB_DIALECTS[name].read_poll(reply_of(body, status), family.handle, target_of(name, family.target_model, family.modality))


# --- writing


@pytest.mark.parametrize("name,place", SUBMISSIONS)
def test_a_submission_is_written_as_the_reference_has_it(name, place):
    family, sample = FAMILIES[name], FAMILIES[name].submissions[place]
    target = target_of(name, sample.model, family.modality)
    written = JOB_DIALECTS[name].write_submit(request_of(family, sample), target, KEY, sample.webhook_url)
    assert (written.method, written.url, written.is_media) == ("POST", sample.url, sample.is_media)
    if sample.body is not None:
        assert written.headers["content-type"] == "application/json"
        assert json.loads(written.body) == sample.body
    else:
        assert read_form(written) == (sample.form, sample.files)


@pytest.mark.parametrize("name", POLLED)
def test_polls_and_cancels_go_to_the_providers_own_paths(name):
    family, dialect, target = POLLED[name], JOB_DIALECTS[name], target_of(name, POLLED[name].target_model, POLLED[name].modality)
    poll, cancel = dialect.write_poll(family.handle, target), dialect.write_cancel(family.handle, target)
    assert (poll.method, poll.url) == family.poll
    assert (None if cancel is None else (cancel.method, cancel.url)) == family.cancel


def test_an_operation_of_a_project_is_asked_for_by_name():
    handle = "projects/p/locations/us-central1/publishers/google/models/veo-3.1-generate-001/operations/9"
    poll = JOB_DIALECTS["google-veo"].write_poll(handle, target_of("google-veo", "veo-3.1-generate-001"))
    assert (poll.method, poll.url) == ("POST", "/models/veo-3.1-generate-001:fetchPredictOperation")
    assert json.loads(poll.body) == {"operationName": handle}


def test_a_model_of_meshy_made_from_a_picture_is_asked_for_where_it_was_ordered():
    dialect, target = JOB_DIALECTS["meshy"], target_of("meshy", "meshy-6", "3d")
    submitted = dialect.read_submit(reply_of({"result": "77"}, 202), JobRequest(modality="3d", image_url=PNG), target)
    assert dialect.write_poll(submitted.handle, target).url == "/v1/image-to-3d/77"


@pytest.mark.parametrize("name", ["fal", "replicate"])
def test_a_row_says_how_a_model_writes_a_field(name):
    limits = JobLimits(written={"duration": "length={:g}s", "audio": "with_sound", "seed": "seed={}"})
    request = JobRequest(modality="video", prompt="x", duration=9.0, audio=True, seed=3)
    body = json.loads(JOB_DIALECTS[name].write_submit(request, target_of(name, "o/m", job=limits), KEY, None).body)
    assert body.get("input", body) == {"prompt": "x", "length": "9s", "with_sound": True, "seed": "3"}


@pytest.mark.parametrize("name", ["google-veo", "google-omni", "stability"])
def test_a_picture_that_must_be_sent_itself_is_refused_by_url(name):
    request = JobRequest(modality="3d" if name == "stability" else "video", prompt="x", image_url="https://pics.example/a.png")
    with pytest.raises(ClientError, match="image_url"):
        JOB_DIALECTS[name].write_submit(request, target_of(name), KEY, None)


# --- reading


@pytest.mark.parametrize("name", POLLED)
def test_an_accepted_submission_gives_the_handle(name):
    family = POLLED[name]
    request = request_of(family, family.submissions[0])
    submitted = JOB_DIALECTS[name].read_submit(reply_of(family.accepted, 201), request, target_of(name, family.target_model, family.modality))
    assert submitted.handle == family.handle
    assert submitted.polled.state in ("queued", "processing")


@pytest.mark.parametrize("name,body,state", [(name, *sample) for name, family in POLLED.items() for sample in family.states])
def test_every_state_is_understood(name, body, state):
    assert stand(name, body).state == state


@pytest.mark.parametrize("name,body,progress", [(name, *family.progress) for name, family in POLLED.items() if family.progress])
def test_progress_is_a_fraction(name, body, progress):
    assert stand(name, body).progress == pytest.approx(progress)


@pytest.mark.parametrize("name,body,place", [(name, *sample) for name, family in POLLED.items() for sample in family.results])
def test_a_finished_job_names_its_file(name, body, place):
    polled = stand(name, body)
    assert polled.state == COMPLETED
    first = polled.results[0]
    if place == "data":
        assert first.request is None and first.data.endswith(b"ftypmp42")
    else:
        assert (first.request.method, first.request.url, first.request.is_media, first.data) == ("GET", place, True, b"")


@pytest.mark.parametrize("name,body,code,piece", [(name, *sample) for name, family in POLLED.items() for sample in family.failures])
def test_a_failed_job_says_why(name, body, code, piece):
    polled = stand(name, body)
    assert (polled.state, polled.failure.code) == ("failed", code)
    assert piece in polled.failure.message


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_a_reply_that_is_the_media_ends_the_job(name):
    family = SYNCHRONOUS[name]
    request = request_of(family, family.submissions[0])
    submitted = JOB_DIALECTS[name].read_submit(reply_of(b"", headers={"content-type": "audio/wav; rate=1"}), request, target_of(name, modality="music"))
    assert (submitted.handle, submitted.polled.state) == ("", COMPLETED)
    assert (submitted.polled.results[0].media_type, submitted.polled.results[0].request) == ("audio/wav", None)


@pytest.mark.parametrize("name,status,headers,body,kind,piece", ERRORS)
def test_a_refusal_reads_alike_whoever_refuses(name, status, headers, body, kind, piece):
    family = FAMILIES[name]
    with pytest.raises(ProviderError) as caught:
        JOB_DIALECTS[name].read_submit(reply_of(body, status, headers), request_of(family, family.submissions[0]), target_of(name))
    assert (caught.value.kind, caught.value.provider_status) == (kind, status)
    assert piece in caught.value.message


def test_a_finished_fal_request_is_asked_for_its_output():
    polled = stand("fal", {"status": "COMPLETED", "metrics": {"inference_time": 3.7}})
    assert (polled.then.method, polled.then.url) == ("GET", "/fal-ai/kling-video/requests/764cabcf")


@pytest.mark.parametrize("detail,code,piece", [
    ([{"loc": ["body"], "msg": "content could not be processed", "type": "content_policy_violation"}], "content_rejected", "could not be processed"),
    ("duration: out of range", "provider_failed", "out of range"), (None, "provider_failed", "refused the input"),
])  # fmt: skip
def test_what_a_model_of_fal_says_of_the_input_is_a_failure_of_the_job(detail, code, piece):
    polled = stand("fal", {"detail": detail}, status=422)
    assert (polled.state, polled.failure.code) == ("failed", code)
    assert piece in polled.failure.message


def test_meshy_charges_the_credits_it_says_it_took():
    body = {"status": "SUCCEEDED", "model_urls": {"glb": "https://a.example/m.glb"}, "consumed_credits": 20}
    assert dict(stand("meshy", body).units) == {"credit": 20_000}
    assert stand("meshy", {**body, "consumed_credits": 1e30}).units is None


@pytest.mark.parametrize("url", ["ftp://h/x", "//h/x", "javascript:1", "https://h/a b", "", 7, None, {"a": 1}, "https://" + "h" * 9000])
def test_what_is_no_url_is_no_result(url):
    with pytest.raises(ProviderError, match="output"):
        stand("runway", {"status": "SUCCEEDED", "output": [url]})


@pytest.mark.parametrize("handle", ["../../v1/files", "a/b?c=d#e", "ü %"])
@pytest.mark.parametrize("name", sorted(set(POLLED) - {"google-veo"}))
def test_an_id_cannot_lead_to_another_path(name, handle):
    family, dialect = POLLED[name], JOB_DIALECTS[name]
    target = target_of(name, family.target_model, family.modality)
    key = {"runway": "id", "luma": "id", "fal": "request_id", "meshy": "result"}.get(name, "id")
    body = {**family.accepted, key: handle}
    submitted = dialect.read_submit(reply_of(body), request_of(family, family.submissions[0]), target)
    for written in (dialect.write_poll(submitted.handle, target), dialect.write_cancel(submitted.handle, target)):
        if written is not None:
            assert re.fullmatch(r"/[A-Za-z0-9._~/%-]+", written.url) and "/../" not in written.url
            assert written.url.count("/") == dialect.write_poll(family.handle, target).url.count("/") or written.method != "GET"


@pytest.mark.parametrize("name", ["../secrets", "models/a b/operations/c", "x?y", ""])
def test_a_name_that_is_no_operation_is_not_polled(name):
    with pytest.raises(ProviderError, match="operation"):
        JOB_DIALECTS["google-veo"].read_submit(reply_of({"name": name}), JobRequest(modality="video"), target_of("google-veo"))


@pytest.mark.parametrize("name", JOB_DIALECTS)
def test_no_family_claims_what_it_has_not(name):
    dialect = JOB_DIALECTS[name]
    assert not dialect.can_look_up
    sample = FAMILIES[name].submissions[0]
    written = dialect.write_submit(request_of(FAMILIES[name], sample), target_of(name), KEY, None)
    assert dialect.has_idempotency_key == (KEY in written.headers.values())
    with pytest.raises(LookupError, match="by a key"):
        dialect.write_look_up(KEY, target_of(name))
    with pytest.raises(LookupError, match="by a key"):
        dialect.read_look_up(reply_of({}), KEY, target_of(name))


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_what_answers_at_once_is_never_polled(name):
    with pytest.raises(LookupError, match="at once"):
        JOB_DIALECTS[name].write_poll("x", target_of(name))
    with pytest.raises(LookupError, match="at once"):
        JOB_DIALECTS[name].read_poll(reply_of({}), "x", target_of(name))
