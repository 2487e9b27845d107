"""A job's life against a real provider on loopback: what its caller sees, what it costs, what is left behind."""

from __future__ import annotations

import asyncio

import pytest

from aigate.core.job_state import COMPLETED, FAILED, WAITING
from aigate.errors import ClientError
from aigate.keeper.db.job_tables import jobs
from aigate.keeper.db.tables import attempts, calls
from aigate.keeper.jobs.work import now_ms
from tests.keeper.jobs.media_provider import CLIP
from tests.keeper.jobs.world import SECOND_NANOUSD, SUB, WHOSE, AtOnce, WithKeys, WithLookUp


async def read(world, job):
    _, file = await world.service.file_of(job.id, "video.mp4", None)
    return b"".join([piece async for piece in await world.service.read(file, 0, file.size_bytes)])


async def until_taken(world):
    while not world.provider.taken.is_set():
        await asyncio.sleep(0.01)


def test_a_job_is_submitted_polled_taken_over_and_paid_once(run):
    async def test(world):
        job = await world.submit()
        assert await world.standing(SUB) == (0, 4 * SECOND_NANOUSD)
        done = await world.until(job, COMPLETED, FAILED)
        assert (done.stage, done.error, done.cost_nanousd) == (COMPLETED, "", 4 * SECOND_NANOUSD)
        assert await read(world, done) == CLIP
        assert await world.standing(SUB) == (4 * SECOND_NANOUSD, 0)
        assert len(world.provider.submissions) == 1
        (call,), (attempt,) = await world.rows(calls), await world.rows(attempts)
        assert (call.status, call.served_by, call.call_id, attempt.end) == (200, "media/clip", job.call_id, "complete")
        assert [kind for kind, _ in await world.events() if kind.startswith("job.")] == ["job.completed"]

    run(test)


def test_a_length_that_nobody_asked_for_is_held_for_at_its_longest_and_paid_as_it_came(run):
    async def test(world):
        job = await world.submit(duration=None)
        assert await world.standing(SUB) == (0, 600 * SECOND_NANOUSD)
        done = await world.until(job, COMPLETED, FAILED)
        assert (done.stage, done.cost_nanousd) == (COMPLETED, 4 * SECOND_NANOUSD)
        assert await world.standing(SUB) == (4 * SECOND_NANOUSD, 0)

    run(test)


@pytest.mark.parametrize(
    ("prompt", "code", "words"),
    [("fail", "content_rejected", "too rude"), ("reject", "provider_rejected", "not with me")],
)
def test_a_job_that_fails_costs_nothing_and_says_why(run, prompt, code, words):
    async def test(world):
        failed = await world.until(await world.submit(prompt), COMPLETED, FAILED)
        assert (failed.stage, failed.error_code, failed.cost_nanousd) == (FAILED, code, 0)
        assert words in failed.error
        assert await world.standing(SUB) == (0, 0)
        assert [kind for kind, _ in await world.events()] == ["job.failed"]

    run(test)


def test_a_provider_that_did_not_take_it_is_asked_again(run):
    async def test(world):
        done = await world.until(await world.submit("busy"), COMPLETED, FAILED)
        assert done.stage == COMPLETED
        assert len(world.provider.submissions) == 3 and len(world.provider.jobs) == 1

    run(test)


def test_what_does_not_fit_the_budget_is_refused_and_leaves_nothing(run):
    async def test(world):
        await world.limit(SUB, 6 * SECOND_NANOUSD)
        first = await world.submit("slow")
        with pytest.raises(ClientError, match="Monthly spend cap of .*reserved.*this job could cost more than is left") as refused:
            await world.submit("another")
        assert (refused.value.status, refused.value.code) == (402, "budget_exceeded")
        assert len(await world.rows(jobs)) == 1
        world.provider.released.set()
        await world.until(first, COMPLETED)
        assert await world.standing(SUB) == (4 * SECOND_NANOUSD, 0)

    run(test)


def test_the_same_idempotency_key_is_the_same_job_and_another_body_a_conflict(run):
    async def test(world):
        first = await world.submit("a boat", key="k1")
        assert (await world.submit("a boat", key="k1")).id == first.id
        with pytest.raises(ClientError, match="another request") as conflict:
            await world.submit("a ship", key="k1")
        assert (conflict.value.status, conflict.value.code) == (409, "idempotency_conflict")
        await world.until(first, COMPLETED)
        assert (await world.submit("a boat", key="k1")).stage == COMPLETED
        assert len(world.provider.submissions) == 1

    run(test)


def test_a_cancelled_job_is_stopped_at_its_provider_and_costs_what_that_says(run):
    async def test(world):
        job = await world.until(await world.submit("slow"), WAITING)
        over = await world.service.cancel(WHOSE, job.id)
        assert (over.status, over.error, over.error_code) == ("failed", "cancelled", "cancelled")
        ended = await world.until(job, FAILED)
        assert (ended.error_code, ended.cost_nanousd, world.provider.deleted) == ("cancelled", 0, [job.handle])
        assert await world.standing(SUB) == (0, 0)
        assert (await world.service.cancel(WHOSE, job.id)).updated_ms == ended.updated_ms
        assert [kind for kind, _ in await world.events()] == ["job.failed"]

    run(test)


def test_a_job_cancelled_while_it_is_sent_is_stopped_once_it_is_there(run):
    async def test(world):
        world.provider.reply_delay_s = 0.5
        job = await world.submit("slow")
        await until_taken(world)
        assert (await world.service.cancel(WHOSE, job.id)).status == "failed"
        ended = await world.until(job, FAILED)
        assert (ended.cost_nanousd, len(world.provider.deleted)) == (0, 1)

    run(test)


def test_a_cancelled_job_that_is_done_all_the_same_is_paid(run):
    async def test(world):
        job = await world.until(await world.submit("slow"), WAITING)
        world.provider.jobs[job.handle]["status"] = "completed"
        await world.service.cancel(WHOSE, job.id)
        world.provider.released.set()
        ended = await world.until(job, FAILED)
        assert (ended.error_code, ended.cost_nanousd) == ("cancelled", 4 * SECOND_NANOUSD)

    run(test)


def test_a_crash_before_the_reply_is_written_down_never_submits_twice(run):
    async def test(world):
        job = await world.submit("hang")
        await until_taken(world)
        await world.restart()
        ended = await world.until(job, COMPLETED, FAILED)
        assert (ended.error_code, ended.cost_nanousd) == ("submission_unknown", None)
        assert world.provider.submissions == ["hang"]
        assert await world.standing(SUB) == (0, 4 * SECOND_NANOUSD)
        (attempt,) = await world.rows(attempts)
        assert (attempt.end, attempt.reserved_nanousd) == ("unsettled", 4 * SECOND_NANOUSD)

    run(test)


def test_with_idempotency_keys_it_goes_on_with_the_one_job_there_is(run):
    async def test(world):
        world.provider.reply_delay_s = 30.0
        job = await world.submit("a boat")
        await until_taken(world)
        world.provider.reply_delay_s = 0.0
        await world.restart()
        done = await world.until(job, COMPLETED, FAILED)
        assert done.stage == COMPLETED and len(world.provider.jobs) == 1
        assert len(set(world.provider.keys)) == 1 and len(world.provider.keys) == 2

    run(test, dialects={"openai-videos": WithKeys()})


def test_where_it_can_be_looked_up_it_goes_on_with_the_job_that_was_taken(run):
    async def test(world):
        world.provider.reply_delay_s = 30.0
        job = await world.submit("a boat")
        await until_taken(world)
        await world.restart()
        done = await world.until(job, COMPLETED, FAILED)
        assert (done.stage, world.provider.submissions, world.provider.look_ups) == (COMPLETED, ["a boat"], 2)

    run(test, dialects={"openai-videos": WithLookUp()})


def test_a_submission_that_a_look_up_does_not_find_is_sent_again(run):
    async def test(world):
        world.provider.reply_delay_s = 30.0
        job = await world.submit("a boat")
        await until_taken(world)
        world.provider.reply_delay_s = 0.0
        world.provider.jobs.clear()
        await world.restart()
        done = await world.until(job, COMPLETED, FAILED)
        assert (done.stage, len(world.provider.submissions), len(world.provider.jobs)) == (COMPLETED, 2, 1)

    run(test, dialects={"openai-videos": WithLookUp()})


def test_an_answer_that_is_the_media_itself_is_stored_as_it_comes(run):
    async def test(world):
        done = await world.until(await world.submit("at once"), COMPLETED, FAILED)
        assert (done.stage, done.cost_nanousd, world.provider.polls) == (COMPLETED, 4 * SECOND_NANOUSD, 0)
        assert await read(world, done) == CLIP

    run(test, dialects={"openai-videos": AtOnce()})


def test_a_job_past_its_deadline_has_failed_and_is_stopped(run):
    async def test(world):
        job = await world.submit("slow")
        ended = await world.until(job, FAILED)
        assert (ended.error_code, ended.cost_nanousd, len(world.provider.deleted)) == ("deadline_exceeded", 0, 1)

    run(test, deadline_s=0.5)


def test_a_job_that_its_provider_has_lost_fails(run):
    async def test(world):
        job = await world.until(await world.submit("slow"), WAITING)
        world.provider.jobs.clear()
        ended = await world.until(job, FAILED, limit_s=50)
        assert (ended.error_code, ended.cost_nanousd) == ("provider_lost", 0)

    run(test)


def test_results_are_deleted_when_their_time_has_come(run, tmp_path):
    async def test(world):
        done = await world.until(await world.submit(), COMPLETED)
        files = tmp_path / "files" / "jobs" / done.id
        assert [path.stat().st_size for path in files.iterdir()] == [len(CLIP)]
        past = jobs.update().values(expires_ms=now_ms() - 1)
        await world.database.write(lambda connection: connection.execute(past))
        assert await world.service.file_of(done.id, "video.mp4", None) is None
        await world.desk.results.forget_expired()
        assert list(files.iterdir()) == []
        forgotten = await world.get(done)
        assert (forgotten.expires_ms, forgotten.request, forgotten.status) == (None, "{}", "completed")

    run(test)


def test_a_result_that_is_larger_than_allowed_fails_the_job(run):
    async def test(world):
        ended = await world.until(await world.submit(), COMPLETED, FAILED)
        assert (ended.error_code, ended.cost_nanousd) == ("result_unavailable", 0)
        assert "has more than 2048 bytes" in ended.error

    run(test, max_result_bytes=2048)


def test_too_many_jobs_at_once_are_refused(run):
    async def test(world):
        await world.submit("slow")
        with pytest.raises(ClientError, match="1 jobs of this account are not done") as refused:
            await world.submit("slow")
        assert refused.value.status == 429

    run(test, max_active=1)


def test_a_submission_whose_answer_breaks_off_is_not_repeated(run):
    async def test(world):
        job = await world.submit("hang")
        await until_taken(world)
        world.provider.cut()
        ended = await world.until(job, FAILED)
        assert (ended.error_code, world.provider.submissions) == ("submission_unknown", ["hang"])

    run(test)


def test_a_picture_that_cannot_be_read_fails_the_job_before_anything_is_sent(run):
    async def test(world):
        job = await world.submit(model="google/gemini-omni-1.2-flash", image_url=world.provider.url + "/none.png")
        done = await world.until(job, COMPLETED, FAILED)
        assert (done.error_code, done.cost_nanousd, world.provider.submissions) == ("image_unreadable", 0, [])
        assert "its server answered 404" in done.error

    run(test)
