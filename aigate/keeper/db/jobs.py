"""Queries over jobs. Each change names the stages it may start from, so that of two who want to change a job one wins and one is told.

A job and its money are one: it begins in the transaction that holds for it, and ends in the one that settles it and writes its event.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_leave_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_or_leave_sqlite

from aigate.core.account import Whose
from aigate.core.budget import Owner
from aigate.core.job_state import FETCHING, NEW, SENDING, STOPPING, WAITING, Job
from aigate.core.target import Price
from aigate.errors import ClientError
from aigate.journal.records import CallEnd, Intent, Settled
from aigate.keeper.db.holds import InForce, end_call, reserve, settle_reserved
from aigate.keeper.db.job_tables import job_submissions, jobs
from aigate.keeper.db.limits import FindMonth
from aigate.keeper.db.outbox import Event, add_events
from aigate.keeper.db.prices import keep_price

ROWS_A_STEP = 500
CLAIMED_MS = 60_000  # so long nobody else looks at a job that somebody began to look at

_c = jobs.c
_IS_DUE = _c.due_ms.is_not(None)


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one transaction makes a job of. `owner_id`: whose idempotency key it is."""

    job: Job
    intent: Intent
    owners: Sequence[Owner]
    price: Price | None
    owner_id: str
    idempotency_key: str | None
    digest: bytes
    max_active: int
    find_month: FindMonth


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ends. `settled` None: what it cost is not known, its hold stays reserved; `call` is then its call's end, as in `settled`."""

    stage: str
    values: dict[str, object]
    settled: Settled | None
    call: CallEnd
    events: Sequence[Event] = ()


def add_job(connection: Connection, in_force: InForce, new: Submission) -> tuple[Job, bool]:
    """(the job, whether it was there before under its idempotency key). Raises HoldRefused, ClientError 409 and 429."""
    job = new.job
    if new.idempotency_key is not None:
        known = _find_submission(connection, new)
        if known is not None:
            return known, True
    active = select(func.count()).select_from(jobs).where(_c.account_id == job.account_id, _IS_DUE)
    if connection.execute(active).scalar_one() >= new.max_active:
        words = f"{new.max_active} jobs of this account are not done yet, the most there may be; try again when some are."
        raise ClientError(words, status=429, type="rate_limit_error", code="too_many_jobs", retryable=True, retry_after_s=10)
    intent = msgspec.structs.replace(new.intent, window=new.find_month(connection))
    if new.price is not None:
        keep_price(connection, new.price, job.created_ms)
    reserve(connection, intent, new.owners, in_force)
    connection.execute(insert(jobs).values(msgspec.structs.asdict(job)))
    return job, False


def _find_submission(connection: Connection, new: Submission) -> Job | None:
    insert_or_leave = insert_or_leave_sqlite if connection.dialect.name == "sqlite" else insert_or_leave_postgresql
    s = job_submissions.c
    key = {"account_id": new.job.account_id, "owner_id": new.owner_id, "idempotency_key": new.idempotency_key}
    row = {**key, "digest": new.digest, "job_id": new.job.id, "created_ms": new.job.created_ms}
    inserted = insert_or_leave(job_submissions).values(row).on_conflict_do_nothing().returning(s.job_id)
    if connection.execute(inserted).one_or_none() is not None:
        return None
    known = connection.execute(select(job_submissions).where(*(s[name] == value for name, value in key.items()))).one()
    if known.digest != new.digest:
        words = "idempotency-key: it was used for another request in the last 24 hours; take a new one for a new job."
        raise ClientError(words, status=409, code="idempotency_conflict", param="idempotency-key")
    return get_job(connection, known.job_id)


def get_job(connection: Connection, job_id: str, whose: Whose | None = None) -> Job | None:
    row = connection.execute(select(jobs).where(_c.id == job_id, *_of(whose))).one_or_none()
    return None if row is None else Job(**row._mapping)


def list_jobs(connection: Connection, whose: Whose, limit: int, before_id: str | None, stages: Collection[str] = ()) -> list[Job]:
    """Newest first, from the one before `before_id` on."""
    query = select(jobs).where(*_of(whose)).order_by(_c.created_ms.desc(), _c.id.desc()).limit(limit)
    if stages:
        query = query.where(_c.stage.in_(stages))
    if before_id is not None:
        last = connection.execute(select(_c.created_ms, _c.id).where(_c.id == before_id, *_of(whose))).one_or_none()
        if last is None:
            raise ClientError(f"cursor: there is no job {before_id!r:.80}.", param="cursor")
        query = query.where(or_(_c.created_ms < last[0], and_(_c.created_ms == last[0], _c.id < last[1])))
    return [Job(**row._mapping) for row in connection.execute(query)]


def claim_due(connection: Connection, node: str, now_ms: int, limit: int) -> list[Job]:
    """Jobs that something is to be done for, each given to one who asks: it is due again CLAIMED_MS later, unless changed before. What a
    node sends, only itself may judge, as long as its deadline has not passed."""
    is_mine = or_(_c.stage != SENDING, _c.node == node, _c.deadline_ms < now_ms)
    query = select(jobs).where(_IS_DUE, _c.due_ms <= now_ms, is_mine).order_by(_c.due_ms).limit(limit)
    found = [Job(**row._mapping) for row in connection.execute(query.with_for_update(skip_locked=True))]
    for start in range(0, len(found), ROWS_A_STEP):
        ids = [job.id for job in found[start : start + ROWS_A_STEP]]
        connection.execute(update(jobs).where(_c.id.in_(ids)).values(due_ms=now_ms + CLAIMED_MS))
    return found


def next_due(connection: Connection) -> int | None:
    return connection.execute(select(func.min(_c.due_ms)).where(_IS_DUE)).scalar()


def set_due(connection: Connection, due: Sequence[tuple[str, int]]) -> None:
    """(job, when), where nothing else of it has changed."""
    for job_id, due_ms in due:
        connection.execute(update(jobs).where(_c.id == job_id, _c.stage.in_((WAITING, STOPPING)), _IS_DUE).values(due_ms=due_ms))


def change_job(connection: Connection, job_id: str, from_stages: Collection[str], values: dict[str, object]) -> Job | None:
    """The job after the change; None where it is in none of these stages."""
    return _changed(connection, and_(_c.id == job_id, _c.stage.in_(from_stages)), values)


def _changed(connection: Connection, which: ColumnElement[bool], values: dict[str, object]) -> Job | None:
    row = connection.execute(update(jobs).where(which).values(values).returning(*jobs.c)).one_or_none()
    return None if row is None else Job(**row._mapping)


def begin_sending(connection: Connection, job_id: str, node: str, now_ms: int) -> Job | None:
    """The job, from now on being sent by this node; None: it is not to be sent (any more)."""
    which = and_(_c.id == job_id, _c.stage == NEW, _c.cancelled_ms.is_(None))
    sending = {"stage": SENDING, "node": node, "submitted_ms": now_ms, "updated_ms": now_ms, "due_ms": now_ms + CLAIMED_MS}
    return _changed(connection, which, sending)


def move_on(connection: Connection, job_id: str, stage: str, values: dict[str, object], now_ms: int) -> Job | None:
    """What was sent is now at the provider, in `stage`; to be stopped at once where its caller has cancelled it meanwhile."""
    job = change_job(connection, job_id, (SENDING,), {**values, "stage": stage, "updated_ms": now_ms})
    if job is None or job.cancelled_ms is None:
        return job
    return change_job(connection, job_id, (stage,), {"stage": STOPPING, "due_ms": now_ms, "tries": 0})


def cancel_job(connection: Connection, job_id: str, over: dict[str, object], ending: Ending, now_ms: int) -> Job | None:
    """By its caller, with its event. What was not sent ends (`ending`); what may be at the provider is stopped there (`over`: for its caller
    it has ended). None where it is over already."""
    ended = end_job(connection, job_id, (NEW,), ending, now_ms)
    if ended is not None:
        return ended
    stopped = stop_job(connection, job_id, over, ending.events, now_ms)
    if stopped is not None:
        return stopped
    which = and_(_c.id == job_id, _c.stage == SENDING, _c.cancelled_ms.is_(None))
    job = _changed(connection, which, over)
    if job is not None:
        add_events(connection, ending.events, now_ms)
    return job


def stop_job(connection: Connection, job_id: str, over: dict[str, object], events: Sequence[Event], now_ms: int) -> Job | None:
    job = change_job(connection, job_id, (WAITING, FETCHING), {**over, "stage": STOPPING, "due_ms": now_ms, "tries": 0})
    if job is not None:
        add_events(connection, events, now_ms)
    return job


def end_job(connection: Connection, job_id: str, from_stages: Collection[str], ending: Ending, now_ms: int) -> Job | None:
    """Once: None where it has ended, or is in another stage by now."""
    job = change_job(connection, job_id, from_stages, {**ending.values, "stage": ending.stage, "due_ms": None, "updated_ms": now_ms})
    if job is None:
        return None
    if ending.settled is None:
        end_call(connection, ending.call, now_ms)
    else:
        settle_reserved(connection, ending.settled, now_ms)
    add_events(connection, ending.events, now_ms)
    return job


def find_expired(connection: Connection, now_ms: int, limit: int) -> list[Job]:
    query = select(jobs).where(_c.expires_ms.is_not(None), _c.expires_ms <= now_ms).order_by(_c.expires_ms).limit(limit)
    return [Job(**row._mapping) for row in connection.execute(query)]


def forget_results(connection: Connection, job_ids: Sequence[str]) -> None:
    """Their bytes are gone; so are the words they were made of."""
    connection.execute(update(jobs).where(_c.id.in_(job_ids)).values(expires_ms=None, request="{}", polled=""))


def forget_submissions(connection: Connection, before_ms: int) -> None:
    connection.execute(delete(job_submissions).where(job_submissions.c.created_ms < before_ms))


def _of(whose: Whose | None) -> list[ColumnElement[bool]]:
    if whose is None:
        return []
    named = ("sub_account_id", "key_id")
    return [_c.account_id == whose.account_id, *(_c[name] == value for name in named if (value := getattr(whose, name)) is not None)]


