"""Admission over a real socket to a keeper by hand, and a real journal: holds, grants, clamps, refusals, recalls, limits."""

import asyncio
import contextlib

import msgspec
import pytest

from aigate.core.budget import Limit
from aigate.core.call import Attempt, Principal
from aigate.core.target import Model, Price, Provider, Quirks, Target
from aigate.dialects import DIALECTS
from aigate.errors import ClientError, GateError
from aigate.journal.reader import JournalReader
from aigate.journal.records import ADOPTED, RESTATED, RETURNED, decode_leases
from aigate.journal.writer import JournalWriter
from aigate.messages import Ack, Grant, Granted, Health, Hello, Limits, Recall, Refused, Welcome
from aigate.worker.admit import Admission
from aigate.worker.link import KeeperLink
from aigate.worker.run import Run
from tests.worker.test_link import Keeper

PRICE = Price(id="prc_1", rates={"input": (0, 1), "output": (1_000_000, 1)})  # 1,000 nano-dollars a token of output, input is free
ROUNDING = 8  # nano-dollars that every hold has on top
MONTH = "2026-11"
ANNA = Principal(key_id="key_anna", budgets=(7,))


def target(*, is_reasoning=False, quirks=Quirks(), max_output_tokens=1_000):
    provider = Provider(name="sim", base_url="http://localhost")
    model = Model(slug="sim/m", price=PRICE, max_output_tokens=max_output_tokens, is_reasoning=is_reasoning)
    return Target("sim/m", provider, "m", model, quirks, "openai-chat", "/v1", "chat")


def new_run(principal=ANNA, *, is_strict=False, **fields):
    run = Run(None, DIALECTS["openai-chat"], "chat")
    run.principal = principal
    run.is_strict = is_strict
    body = {"model": "sim/m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    run.call = run.surface.read_call(msgspec.json.encode(body), "chat", None)
    return run


class Till:
    """An admission, its journal, and the keeper's end of its connection."""

    def __init__(self, admission, journal, keeper, connection):
        self.admission, self.journal, self.keeper, self.connection = admission, journal, keeper, connection
        self.attempts = 0

    def admit(self, run, hold, to=None):
        self.attempts += 1
        attempt = Attempt(id=f"att_{self.attempts}", call_id="req_1", number=1, hold_nanousd=hold, price_id="prc_1", started_at=0.0)
        return attempt, asyncio.ensure_future(self.admission.admit(run, attempt, to or target(), ()))

    async def grant(self, extra=0, window=MONTH, seq=1):
        """Answers the next question with what it needs and `extra`."""
        asked = await self.connection.next(Grant)
        leases = tuple((want.budget_id, window, want.need + extra) for want in asked.wants)
        self.connection.say(Granted(asked.number, seq, leases))
        return asked

    def records(self):
        reader = JournalReader(self.journal.folder)
        return [(kind, decode_leases(body).leases) for kind, body, *_ in reader.read()]


@contextlib.asynccontextmanager
async def till(folder, *, is_welcome=True):
    journal = JournalWriter(folder / "journals", "jrn_1", segment_bytes=256 << 10)
    link = KeeperLink(str(folder / "k"), Hello("worker-1", 1, "jrn_1"), health=lambda: Health("worker-1", {}, {}))
    admission = Admission(link=link, journal=journal, default_max_output_tokens=32_768, loop=asyncio.get_running_loop())
    async with Keeper(folder / "k") as keeper:
        task = asyncio.create_task(link.run())
        connection = await keeper.connections.get()
        assert await connection.next(Hello) == Hello("worker-1", 1, "jrn_1")
        if is_welcome:
            connection.say(Welcome())
            await asyncio.wait_for(admission._told, 5)
        try:
            yield Till(admission, journal, keeper, connection)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            journal.close()


async def until(claim):
    while not claim():
        await asyncio.sleep(0.001)


def scenario(test):
    """Runs `test(folder)` as a whole, within ten seconds."""

    def run(tmp_path):
        asyncio.run(asyncio.wait_for(test(tmp_path), 10))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


def maximum(edits):
    return next(msgspec.json.decode(edit.value) for edit in edits if edit.name == "max_output_tokens")


@scenario
async def test_a_first_call_waits_for_one_grant_and_those_after_it_for_none(folder):
    async with till(folder) as it:
        first, edits = it.admit(new_run(), 100)
        asked = await it.grant(extra=200)
        await edits
        assert [want.need for want in asked.wants] == [100] and asked.wants[0].comfort > 100
        assert (first.hold.amount, first.hold.leases, first.hold.window) == (100, ((7, 1),), MONTH)
        second, edits = it.admit(new_run(), 200)
        await edits
        assert it.admission.settle(first, 30) == ((7, MONTH, 30),)
        assert it.admission.settle(second, 200) == ((7, MONTH, 200),)


@scenario
async def test_the_maximum_that_a_hold_stands_on_is_always_stated(folder):
    async with till(folder) as it:
        _, edits = it.admit(new_run(), 100)
        await it.grant(extra=10_000)
        assert maximum(await edits) == 1_000
        _, edits = it.admit(new_run(max_tokens=9), 100)
        assert await edits == ()  # it is
        _, edits = it.admit(new_run(), 100, target(max_output_tokens=0))
        assert maximum(await edits) == 32_768
        _, edits = it.admit(new_run(), 100, target(quirks=Quirks(unsupported=frozenset({"max_output_tokens"}))))
        assert await edits == ()


def refused(asked, available=0, **fields):
    return Refused(
        asked.number, "over", 7, **{"scope": "sub_account", "limit": 5 * 10**9, "spent": 4_990_000_000, "resets_at": 1.8e9, **fields}, available=available
    )


@scenario
async def test_near_the_limit_the_maximum_is_lowered_to_what_fits_and_said(folder):
    async with till(folder) as it:
        run = new_run(max_completion_tokens=900)
        attempt, edits = it.admit(run, 900_000 + ROUNDING)
        asked = await it.connection.next(Grant)
        it.connection.say(refused(asked, available=300_500))
        again = await it.grant()
        assert again.wants[0].need == again.wants[0].comfort or again.wants[0].need == 300_000 + ROUNDING
        assert maximum(await edits) == 300
        assert attempt.hold.amount == attempt.hold_nanousd == 300_000 + ROUNDING
        (warning,) = run.warnings
        assert (warning.kind, warning.param, warning.reason, warning.before, warning.after) == ("clamped", "max_completion_tokens", "budget", 900, 300)


@pytest.mark.parametrize(
    ("to", "fields", "available", "fits"),
    [
        (target(), {}, 256_008, 256),
        (target(), {}, 256_007, None),  # below the floor
        (target(max_output_tokens=9_000, is_reasoning=True), {}, 2_047_999, None),
        (target(max_output_tokens=9_000, is_reasoning=True), {}, 2_048_008, 2_048),
        (target(max_output_tokens=9_000, is_reasoning=True), {"thinking": {"type": "enabled", "budget_tokens": 4_000}}, 2_048_008, None),
        (target(), {"max_tokens": 100}, 90_000, None),  # what was asked is below the floor already
        (target(), {"n": 3}, 3 * 300_000 + 8, 300),
        (target(quirks=Quirks(unsupported=frozenset({"max_output_tokens"}))), {}, 300_000, None),  # it could not be said
    ],
)
def test_no_maximum_is_lowered_below_its_floor(tmp_path, to, fields, available, fits):
    async def test(folder):
        async with till(folder) as it:
            _, edits = it.admit(new_run(**fields), 10**9, to)
            it.connection.say(refused(await it.connection.next(Grant), available))
            if fits is not None:
                await it.grant()
                assert maximum(await edits) == fits
                return
            with pytest.raises(ClientError):
                await edits

    asyncio.run(asyncio.wait_for(test(tmp_path), 10))


@scenario
async def test_a_refusal_says_whose_limit_it_is_and_when_it_ends(folder):
    async with till(folder) as it:
        _, edits = it.admit(new_run(is_strict=True), 900_000)
        asked = await it.connection.next(Grant)
        it.connection.say(refused(asked, 600_000, reserved=20_000_000, leased=5_000_000, retry_after_s=1.5))
        with pytest.raises(ClientError) as caught:
            await edits
        error = caught.value
        assert (error.status, error.type, error.code, error.origin, error.retryable) == (402, "budget_exceeded", "budget_exceeded", "budget", False)
        assert error.extra == {
            "scope": "sub_account", "limit_cents": 500, "spent_cents": 499, "reserved_cents": 2, "held_cents": 0.5, "resets_at": 1_800_000_000,
        }  # fmt: skip
        assert "sub-account" in error.message and "$5.00" in error.message and "$4.99" in error.message


@scenario
async def test_an_empty_balance_is_another_refusal_than_a_cap(folder):
    async with till(folder) as it:
        _, edits = it.admit(new_run(), 100)
        it.connection.say(refused(await it.connection.next(Grant), scope="account", resets_at=None))
        with pytest.raises(ClientError) as caught:
            await edits
        assert (caught.value.status, caught.value.code) == (402, "insufficient_credits")


@scenario
async def test_a_ledger_that_cannot_say_is_a_503_and_never_a_402(folder):
    async with till(folder) as it:
        _, edits = it.admit(new_run(), 100)
        it.connection.say(Refused((await it.connection.next(Grant)).number, "unavailable"))
        with pytest.raises(GateError) as caught:
            await edits
        assert (caught.value.status, caught.value.code, caught.value.retryable) == (503, "ledger_unavailable", True)


@scenario
async def test_without_a_keeper_warm_budgets_go_on_and_cold_ones_get_503(folder):
    async with till(folder) as it:
        _, edits = it.admit(new_run(), 100)
        await it.grant(extra=100)
        await edits
        link = it.admission._link
        link.is_connected, link.lost_at = False, -10.0
        _, edits = it.admit(new_run(), 100)
        await edits
        _, edits = it.admit(new_run(), 100)
        with pytest.raises(GateError) as caught:
            await edits
        assert caught.value.code == "ledger_unavailable"
        link.is_connected = True


@scenario
async def test_a_question_is_asked_again_on_a_new_connection_once_it_is_welcome(folder):
    async with till(folder) as it:
        _, edits = it.admit(new_run(), 100)
        asked = await it.connection.next(Grant)
        it.connection.writer.close()
        it.connection = await it.keeper.connections.get()
        await it.connection.next(Hello)
        it.connection.say(Welcome())
        assert await it.grant() == asked
        await edits


@scenario
async def test_what_is_recalled_is_in_the_journal_before_it_is_acknowledged(folder):
    async with till(folder) as it:
        attempt, edits = it.admit(new_run(), 100)
        await it.grant(extra=50)
        await edits
        it.connection.say(Recall(9, (7,)))
        assert await it.connection.next(Ack) == Ack(9)
        assert it.records() == [(RETURNED, ((7, MONTH, 50),))]
        assert it.admission.settle(attempt, 10) == ((7, MONTH, 100),)  # the slice is gone: nothing of the hold stays
        it.connection.say(Recall(10, (7,)))
        assert await it.connection.next(Ack) == Ack(10)
        assert len(it.records()) == 1


@scenario
async def test_a_first_limit_counts_the_calls_that_run_without_one(folder):
    async with till(folder) as it:
        free = Principal(key_id="key_free")
        run = new_run(free)
        attempt = Attempt(id="att_free", call_id="req_1", number=1, hold_nanousd=400, price_id="", started_at=0.0, window=MONTH)
        it.admission.unlimited[attempt.id] = run, attempt
        owner = ("key", "acc_default", "key_free")
        it.connection.say(Limits(3, 1, (Limit(owner, 21, True, MONTH),)))
        assert await it.connection.next(Ack) == Ack(3)
        assert it.records() == [(ADOPTED, ((21, MONTH, 400),))]
        assert it.admission.limits == {owner: 21}
        assert it.admission.settle(attempt, 150) == ((21, MONTH, 400),)
        _, edits = it.admit(run, 100)  # the principal knows nothing of the budget yet; it counts all the same
        assert [want.budget_id for want in (await it.grant()).wants] == [21]
        await edits


@scenario
async def test_an_attempt_that_was_never_sent_costs_nothing(folder):
    async with till(folder) as it:
        attempt, edits = it.admit(new_run(), 100)
        await it.grant()
        await edits
        it.admission.withdraw(attempt)
        _, edits = it.admit(new_run(), 100)
        await edits  # out of the same slice
        assert it.records() == []


@scenario
async def test_after_a_restored_database_the_worker_says_what_it_holds_and_asks_again(folder):
    async with till(folder) as it:
        attempt, edits = it.admit(new_run(), 100)
        await it.grant(extra=50, seq=12)
        await edits
        _, waiting = it.admit(new_run(), 700)
        await it.connection.next(Grant)
        it.connection.say(Welcome(is_restored=True))
        assert await it.connection.next(Hello) == Hello("worker-1", 1, "jrn_1", grant_seq=0, limits_version=-1)
        assert it.records() == [(RESTATED, ((7, MONTH, 100),))]
        it.connection.say(Welcome())
        assert [want.need for want in (await it.grant()).wants] == [700]
        await waiting


@scenario
async def test_slices_that_nobody_uses_go_back(folder):
    async with till(folder) as it:
        attempt, edits = it.admit(new_run(), 100)
        await it.grant()
        await edits
        it.admission.settle(attempt, 40)
        now = asyncio.get_running_loop().time()
        for seconds in (11, 22):
            it.admission.tick(now + seconds, 0.0)
        assert it.records() == [(RETURNED, ((7, MONTH, 60),))]


@scenario
async def test_a_worker_that_has_just_begun_admits_nobody_before_it_knows_who_is_limited(folder):
    async with till(folder, is_welcome=False) as it:
        assert it.admission.limits  # so that every call comes to be admitted
        free, tagged = Principal(key_id="key_free"), new_run(Principal(key_id="key_free"))
        tagged.tag = "batch"
        attempt, edits = it.admit(new_run(free), 100)
        _, others = it.admit(tagged, 100)
        it.connection.say(Limits(1, 5, (Limit(("tag", "acc_default", "batch"), 8, True, MONTH),)))
        assert await it.connection.next(Ack) == Ack(1)
        assert not edits.done() and not others.done()
        it.connection.say(Welcome())
        assert [want.budget_id for want in (await it.grant()).wants] == [8]
        await others
        assert await edits == ()  # no maximum is stated where no budget asks for one
        assert attempt.hold.amount == 100 and attempt.hold.leases == ()


@scenario
async def test_without_any_limit_only_what_runs_is_noted(folder):
    async with till(folder, is_welcome=False) as it:
        attempt, edits = it.admit(new_run(Principal(key_id="key_free")), 100)
        it.connection.say(Welcome())
        assert await edits == ()
        assert attempt.hold is None and list(it.admission.unlimited) == [attempt.id] and not it.admission.limits
        assert it.admission.settle(attempt, 5) == () and not it.admission.unlimited


def fill_up(journal, is_full=True):
    """As if so many attempts ran that every slot is promised."""
    journal.open_intents = 1_000_000 if is_full else 0


@scenario
async def test_a_first_limit_that_the_journal_has_no_room_for_is_not_in_force_until_it_has(folder):
    async with till(folder) as it:
        run = new_run(Principal(key_id="key_free"))
        attempt = Attempt(id="att_free", call_id="req_1", number=1, hold_nanousd=400, price_id="", started_at=0.0, window=MONTH)
        it.admission.unlimited[attempt.id] = run, attempt
        fill_up(it.journal)
        owner = ("key", "acc_default", "key_free")
        it.connection.say(Limits(3, 5, (Limit(owner, 21, True, MONTH),)))
        it.connection.say(Limits(4, 6, (Limit(("tag", "acc_default", "t"), 22, True, MONTH),)))
        await until(lambda: len(it.admission._untaken) == 2)
        it.admission.tick(0.0, 0.0)
        assert it.records() == [] and it.admission.hello().limits_version == 0 and not it.admission.limits
        fill_up(it.journal, False)
        it.admission.tick(0.0, 0.0)
        assert [await it.connection.next(Ack), await it.connection.next(Ack)] == [Ack(3), Ack(4)]
        assert it.records() == [(ADOPTED, ((21, MONTH, 400),))] and it.admission.hello().limits_version == 6


@scenario
async def test_what_was_not_taken_is_left_to_the_next_connection(folder):
    async with till(folder) as it:
        run = new_run(Principal(key_id="key_free"))
        attempt = Attempt(id="att_free", call_id="req_1", number=1, hold_nanousd=400, price_id="", started_at=0.0, window=MONTH)
        it.admission.unlimited[attempt.id] = run, attempt
        fill_up(it.journal)
        it.connection.say(Limits(3, 5, (Limit(("key", "acc_default", "key_free"), 21, True, MONTH),)))
        await until(lambda: it.admission._untaken)
        it.connection.writer.close()
        it.connection = await it.keeper.connections.get()
        assert (await it.connection.next(Hello)).limits_version == 0
        assert not it.admission._untaken


@scenario
async def test_a_restatement_waits_for_room_in_the_journal(folder):
    async with till(folder) as it:
        _, edits = it.admit(new_run(), 100)
        await it.grant(extra=50, seq=12)
        await edits
        fill_up(it.journal)
        it.connection.say(Welcome(is_restored=True))
        await until(lambda: it.admission._untaken)
        assert it.admission.hello().grant_seq == 12  # a new connection would hear the same
        fill_up(it.journal, False)
        it.admission.tick(0.0, 0.0)
        assert await it.connection.next(Hello) == Hello("worker-1", 1, "jrn_1", grant_seq=0, limits_version=-1)
        assert it.records() == [(RESTATED, ((7, MONTH, 100),))]


@scenario
async def test_lease_that_the_journal_has_no_room_to_give_back_goes_back_later_and_once(folder):
    async with till(folder) as it:
        _, edits = it.admit(new_run(), 100)
        await it.grant(extra=50)
        await edits
        fill_up(it.journal)
        it.connection.say(Recall(9, (7,)))
        await until(lambda: it.admission._owed)
        fill_up(it.journal, False)
        it.connection.say(Recall(10, (7,)))
        assert await it.connection.next(Ack) == Ack(10)
        it.admission.tick(0.0, 0.0)
        assert it.records() == [(RETURNED, ((7, MONTH, 50),))]


@scenario
async def test_a_model_that_cost_more_than_was_held_is_held_at_more_from_then_on(folder):
    async with till(folder) as it:
        to = target()
        assert it.admission.raise_bound(to, 1_000) == 1_000
        it.admission.note_overrun(to, 1_000, 1_500)
        assert it.admission.raise_bound(to, 1_000) == 1_500
        it.admission.note_overrun(to, 1_500, 1_501)
        assert it.admission.raise_bound(to, 1_000) == 1_501
        run = new_run()
        attempt, edits = it.admit(run, it.admission.raise_bound(to, 1_000_000))
        asked = await it.connection.next(Grant)
        it.connection.say(refused(asked, available=900_000))
        await it.grant()
        tokens = maximum(await edits)
        assert tokens < 600 and attempt.hold.amount <= 900_000 < it.admission.raise_bound(to, (tokens + 1) * 1_000 + ROUNDING)
        it.admission.note_overrun(to, 1, 10**15)
        assert it.admission.raise_bound(to, 1_000) == 10_000
