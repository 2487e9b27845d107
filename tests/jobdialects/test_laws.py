"""Laws over anything a provider may send and anything a caller may ask: only clear errors, no secrets in a URL, nothing lost or forged."""

import json
from email import message_from_bytes

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aigate.core.job import JobRequest
from aigate.errors import ClientError, ProviderError
from aigate.jobdialects import JOB_DIALECTS
from aigate.jobdialects.dialect import ENDS, PROCESSING, QUEUED, HttpReply, Polled
from aigate.jobdialects.family import multipart
from tests.jobdialects.samples import FAMILIES, PNG, POLLED
from tests.jobdialects.test_families import KEY, request_of, target_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
BODIES = {
    name: [sample[0] for sample in (*family.states, *family.results, *family.failures)] + [family.accepted]
    for name, family in POLLED.items()
}  # fmt: skip
STATUSES = st.sampled_from([200, 201, 202, 204, 301, 400, 401, 404, 409, 422, 429, 500, 503])
TEXT = st.text(max_size=40)
REQUESTS = st.builds(
    JobRequest,
    modality=st.just("video"),
    prompt=TEXT,
    negative_prompt=st.none() | TEXT,
    duration=st.none() | st.floats(0.1, 600),
    aspect_ratio=st.none() | st.sampled_from(["16:9", "9:16", "1:1"]) | TEXT,
    resolution=st.none() | st.sampled_from(["720p", "1080p", "1280x720"]) | TEXT,
    image_url=st.none() | st.just(PNG) | st.just("https://pics.example/a.png"),
    lyrics=st.none() | TEXT,
    audio=st.none() | st.booleans(),
    seed=st.none() | st.integers(0, 2**31),
    extra=st.dictionaries(TEXT, JSON, max_size=3),
)


def damaged(value, choose):
    """`value` with something of it changed or gone."""
    if isinstance(value, dict) and value:
        name = choose(st.sampled_from(sorted(value)))
        change = choose(st.sampled_from(["drop", "replace", "deeper"]))
        rest = {key: inner for key, inner in value.items() if key != name}
        return rest if change == "drop" else {**rest, name: choose(JSON) if change == "replace" else damaged(value[name], choose)}
    if isinstance(value, list) and value:
        return [damaged(value[0], choose), *value[1:]]
    return choose(JSON)


def read_all(name, reply):
    """Both readers; what they return is whole, what they raise is a ProviderError."""
    family, dialect = FAMILIES[name], JOB_DIALECTS[name]
    target = target_of(name, family.target_model, family.modality)
    for read in (
        lambda: dialect.read_submit(reply, request_of(family, family.submissions[0]), target).polled,
        lambda: dialect.read_poll(reply, family.handle, target),
    ):
        try:
            polled = read()
        except ProviderError as error:
            assert error.message and error.kind
            continue
        except LookupError:
            assert not family.handle  # what answers at once is never polled
            continue
        assert isinstance(polled, Polled) and polled.state in {*ENDS, QUEUED, PROCESSING}
        assert (polled.failure is not None) == (polled.state == "failed")
        assert (len(polled.results) > 0) == (polled.state == "completed")
        assert polled.progress is None or 0 <= polled.progress <= 1
        for result in polled.results:
            assert result.request is None or result.request.url.startswith(("https://", "http://", "/"))


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=30, deadline=None)
@given(body=JSON, status=STATUSES)
def test_any_json_is_read_or_refused_clearly(name, body, status):
    read_all(name, HttpReply(status=status, body=json.dumps(body).encode()))


@pytest.mark.parametrize("name", POLLED)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_damaged_reply_is_read_or_refused_clearly(name, data):
    body = damaged(data.draw(st.sampled_from(BODIES[name])), data.draw)
    read_all(name, HttpReply(status=data.draw(STATUSES), body=json.dumps(body).encode()))


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=30, deadline=None)
@given(body=st.binary(max_size=60), status=STATUSES, value=st.text(max_size=30))
def test_any_bytes_are_read_or_refused_clearly(name, body, status, value):
    read_all(name, HttpReply(status=status, headers={"retry-after": value, "content-type": value}, body=body))


@pytest.mark.parametrize("name", FAMILIES)
def test_json_nested_beyond_reason_is_refused_clearly(name):
    read_all(name, HttpReply(status=200, body=b'{"status":' + b"[" * 100_000))


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=30, deadline=None)
@given(request=REQUESTS)
def test_a_submission_holds_no_secret_and_its_url_is_one(name, request):
    family = FAMILIES[name]
    request.modality = family.modality
    target = target_of(name, "owner/model", family.modality)
    try:
        written = JOB_DIALECTS[name].write_submit(request, target, KEY, "https://gate.example/hook/é?x=1&y=2")
    except ClientError as error:
        assert error.param == "image_url"
        return
    assert written.url.startswith("/") and written.url.isascii() and written.url.isprintable() and " " not in written.url
    text = written.url.encode() + repr(dict(written.headers)).encode() + written.body
    assert target.provider.credential.encode() not in text
    assert KEY not in written.url and KEY.encode() not in written.body
    assert KEY.encode() not in text or JOB_DIALECTS[name].has_idempotency_key  # where a provider has no use for it, it is not told
    assert all(name == name.lower() and "\n" not in value for name, value in written.headers.items())
    if written.headers["content-type"] == "application/json":
        msgspec.json.decode(written.body)


@settings(max_examples=30, deadline=None)
@given(fields=st.dictionaries(st.text("abc\"\r\n[]%é", min_size=1, max_size=8), st.text(max_size=30), max_size=4), data=st.binary(max_size=60))
def test_nothing_in_a_form_can_forge_a_part(fields, data):
    written = multipart("/x", fields, {"file": ("image/png", data)}, KEY)
    head = b"content-type: " + written.headers["content-type"].encode() + b"\r\n\r\n"
    parts = message_from_bytes(head + written.body).get_payload()
    assert len(parts) == len(fields) + 1
    assert parts[-1].get_filename() == "file.png"
    assert written.body.count(b"\r\n" + data + b"\r\n--aig-") >= 1


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=20, deadline=None)
@given(request=REQUESTS)
def test_the_same_request_is_written_the_same_way(name, request):
    family = FAMILIES[name]
    request.modality = family.modality
    target = target_of(name, "m", family.modality)
    try:
        assert JOB_DIALECTS[name].write_submit(request, target, KEY, None) == JOB_DIALECTS[name].write_submit(request, target, KEY, None)
    except ClientError:
        assert request.image_url
