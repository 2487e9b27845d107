"""A worker's slices and holds. How worker and keeper keep the limits together: tests/money."""

from __future__ import annotations

import pytest

from aigate.core.budget import Limit, Want
from aigate.core.wallet import COMFORT_CALLS, FIRST_HOLDS, Hold, Shortage, Wallet

ACCOUNT, KEY, TAG = ("account", "a", "a"), ("key", "a", "k"), ("tag", "a", "t")
OWNERS = (ACCOUNT, KEY, TAG)
JANUARY, FEBRUARY = "2026-01", "2026-02"


def fill(wallet: Wallet, amounts: dict[int, int], window: str = JANUARY, *, tight: tuple[int, ...] = ()) -> tuple[tuple[int, str, int], ...]:
    """A grant that nobody waits for; what goes back."""
    ask = wallet.ask(Shortage(OWNERS, tuple(amounts), 1, tuple(amounts)), 0)
    wallet.abandon(ask.number)
    return wallet.granted(ask.number, 1, [(b, window, amount) for b, amount in amounts.items()], tight)[1]


def hold(wallet: Wallet, *budget_ids: int, amount: int = 10) -> Hold:
    result = wallet.hold(OWNERS, budget_ids, amount)
    assert isinstance(result, Hold)
    return result


def shortage(wallet: Wallet, *budget_ids: int, amount: int = 10) -> Shortage:
    result = wallet.hold(OWNERS, budget_ids, amount)
    assert isinstance(result, Shortage)
    return result


def test_a_hold_is_taken_on_all_budgets_or_on_none() -> None:
    wallet = Wallet()
    fill(wallet, {1: 20, 2: 10})
    hold(wallet, 1, 2)
    assert shortage(wallet, 1, 2).budget_ids == [2]
    hold(wallet, 1)  # nothing was taken from it by the one that fell short


def test_owners_without_a_limit_need_no_lease() -> None:
    wallet = Wallet()
    assert wallet.settle(hold(wallet), 7) == ()


def test_a_settle_ends_the_cost_and_frees_the_rest() -> None:
    wallet = Wallet()
    fill(wallet, {1: 10})
    assert wallet.settle(hold(wallet, 1), 4) == ((1, JANUARY, 4),)
    assert hold(wallet, 1, amount=6).leases == ((1, 1),)


@pytest.mark.parametrize(("free", "ended"), [(0, 10), (3, 13), (50, 25)])
def test_an_overrun_takes_as_much_as_the_slice_still_has(free: int, ended: int) -> None:
    wallet = Wallet()
    fill(wallet, {1: 10 + free})
    assert wallet.settle(hold(wallet, 1), 25) == ((1, JANUARY, ended),)


def test_a_hold_is_ended_once() -> None:
    wallet = Wallet()
    fill(wallet, {1: 10})
    held = hold(wallet, 1)
    wallet.settle(held, 1)
    with pytest.raises(KeyError):
        wallet.release(held)


def test_a_released_hold_is_free_again_or_goes_back() -> None:
    wallet = Wallet()
    fill(wallet, {1: 10})
    assert wallet.release(hold(wallet, 1)) == ()
    held = hold(wallet, 1)
    wallet.retire([1])
    assert wallet.release(held) == ((1, JANUARY, 10),)


def test_a_retired_slice_returns_what_is_free_now_and_the_whole_hold_at_its_end() -> None:
    wallet = Wallet()
    fill(wallet, {1: 25})
    held = hold(wallet, 1)
    assert wallet.retire([1, 2]) == ((1, JANUARY, 15),)
    assert shortage(wallet, 1).budget_ids == [1]
    assert wallet.settle(held, 4) == ((1, JANUARY, 10),)


# --- asking -------------------------------------------------------------------------------------------------------------------------


def test_the_hold_that_waited_is_taken_with_its_grant() -> None:
    wallet = Wallet()
    ask = wallet.ask(shortage(wallet, 1), 0)
    assert ask.wants == (Want(1, 10, 10 * FIRST_HOLDS),)
    result, returned = wallet.granted(ask.number, 9, [(1, JANUARY, 10)])
    assert isinstance(result, Hold) and (result.leases, result.window, returned) == (((1, 9),), JANUARY, ())
    assert wallet.seq == 9 and wallet.unanswered() == []


def test_a_tight_grant_leaves_nothing_behind() -> None:
    wallet = Wallet()
    fill(wallet, {1: 7})
    ask = wallet.ask(shortage(wallet, 1), 0)
    result, returned = wallet.granted(ask.number, 2, [(1, JANUARY, 10)], (1,))
    assert isinstance(result, Hold) and returned == ((1, JANUARY, 7),)
    assert wallet.settle(result, 1) == ((1, JANUARY, 10),)


def test_whoever_falls_short_again_asks_for_the_whole_path() -> None:
    wallet = Wallet()
    fill(wallet, {1: 10})
    ask = wallet.ask(shortage(wallet, 1, 2), 0)
    hold(wallet, 1)
    result, _ = wallet.granted(ask.number, 2, [(2, JANUARY, 10)])
    assert isinstance(result, Shortage) and result.budget_ids == (1, 2)


def test_what_nobody_waits_for_any_more_fills_the_slice() -> None:
    wallet = Wallet()
    ask = wallet.ask(shortage(wallet, 1), 0)
    wallet.abandon(ask.number)
    assert wallet.granted(ask.number, 1, [(1, JANUARY, 10)]) == (None, ())
    hold(wallet, 1)


def test_an_answer_to_nothing_asked_changes_nothing() -> None:
    wallet = Wallet()
    assert wallet.granted(5, 1, [(1, JANUARY, 10)]) == (None, ())
    assert wallet.seq == 0
    shortage(wallet, 1)


def test_unanswered_asks_keep_their_numbers_in_order() -> None:
    wallet = Wallet()
    first, second, third = (wallet.ask(shortage(wallet, b), 0) for b in (1, 2, 3))
    wallet.refused(second.number)
    assert wallet.unanswered() == [first, third] and wallet.answered == 0
    wallet.refused(first.number)
    assert wallet.answered == 2
    wallet.refused(third.number)
    assert wallet.answered == 3


def test_of_a_burst_only_the_first_asks_for_comfort() -> None:
    wallet = Wallet()
    asks = [wallet.ask(shortage(wallet, 1), 0) for _ in range(3)]
    assert [ask.wants[0].comfort for ask in asks] == [10 * FIRST_HOLDS, 10, 10]
    wallet.refused(asks[0].number)
    assert wallet.ask(shortage(wallet, 1), 0).wants[0].comfort > 10


def test_comfort_follows_what_is_spent_by_call_and_by_time() -> None:
    wallet = Wallet()
    fill(wallet, {1: 100})
    for _ in range(10):
        wallet.settle(hold(wallet, 1), 2)
    hold(wallet, 1, amount=75)
    slow = wallet.ask(shortage(wallet, 1), 100_000)
    assert slow.wants == (Want(1, 10, 10 + 75 + COMFORT_CALLS * 2),)
    wallet.granted(slow.number, 2, [(1, JANUARY, 100)])
    for _ in range(4):
        wallet.settle(hold(wallet, 1), 2)
    hold(wallet, 1, amount=80)
    assert wallet.ask(shortage(wallet, 1, amount=20), 100_010).wants[0].comfort >= 8 * 10_000 // 10


def test_a_slice_that_runs_low_is_refilled_before_anybody_waits() -> None:
    wallet = Wallet()
    fill(wallet, {1: 101})  # asked for 1: low below 50
    wallet.settle(hold(wallet, 1, amount=50), 50)
    assert not wallet.thirsty
    wallet.settle(hold(wallet, 1, amount=10), 10)
    ask = wallet.refill(1000)
    assert ask is not None and [(want.budget_id, want.need) for want in ask.wants] == [(1, 0)] and ask.wants[0].comfort > 0
    hold(wallet, 1, amount=1)
    assert wallet.refill(1000) is None  # one is under way


def test_a_slice_that_turns_out_to_be_used_fast_is_refilled_before_it_runs_low() -> None:
    wallet = Wallet()
    fill(wallet, {1: 1_000})
    for calls in (99, 1):
        assert wallet.sweep(10_000) == () and not wallet.thirsty
        for _ in range(calls):
            wallet.settle(hold(wallet, 1, amount=1), 1)
    assert wallet.sweep(3_600_000) == () and not wallet.thirsty  # it lasts for hours
    wallet.settle(hold(wallet, 1, amount=1), 1)
    wallet.sweep(5_000)
    assert wallet.thirsty == {1}
    ask = wallet.refill(5_000)
    assert ask is not None and ask.wants[0].comfort == 101 * 120_000 // 5_000


# --- months, idleness, limits ---------------------------------------------------------------------------------------------------------


def test_a_grant_of_a_new_month_retires_every_slice_of_the_old_one() -> None:
    wallet = Wallet()
    fill(wallet, {1: 20, 2: 30})
    fill(wallet, {3: 5}, "all")
    held = hold(wallet, 1, 2)
    assert set(fill(wallet, {1: 40}, FEBRUARY)) == {(1, JANUARY, 10), (2, JANUARY, 20)}
    assert hold(wallet, 1, 3, amount=5).window == FEBRUARY
    assert wallet.settle(held, 1) == ((1, JANUARY, 10), (2, JANUARY, 10))


def test_an_answer_from_the_month_before_goes_back() -> None:
    wallet = Wallet()
    fill(wallet, {1: 20}, FEBRUARY)
    assert fill(wallet, {2: 30}, JANUARY) == ((2, JANUARY, 30),)
    shortage(wallet, 2)


def test_idle_slices_go_back_at_the_second_sweep() -> None:
    wallet = Wallet()
    fill(wallet, {1: 20, 2: 20, 3: 20})
    held = hold(wallet, 2)
    assert wallet.sweep(0) == ()
    wallet.settle(hold(wallet, 3), 1)
    assert wallet.sweep(0) == ((1, JANUARY, 20),)
    wallet.settle(held, 1)


def test_a_first_limit_makes_lease_of_the_holds_that_run() -> None:
    wallet = Wallet()
    held = hold(wallet)
    change = (Limit(TAG, 4, True, JANUARY),)
    assert wallet.to_adopt(change) == ((4, JANUARY, 10),)
    assert wallet.change_limits(2, change, False) == ()
    assert wallet.to_adopt(change) == ()
    assert wallet.settle(held, 3) == ((4, JANUARY, 10),)
    assert wallet.limits_version == 2


def test_a_running_hold_is_adopted_into_the_month_it_counts_in() -> None:
    wallet = Wallet()
    held = hold(wallet)
    assert held.enter(JANUARY) == JANUARY
    unsent = hold(wallet)
    adopted = wallet.to_adopt((Limit(TAG, 4, True, FEBRUARY),))
    wallet.change_limits(2, (Limit(TAG, 4, True, FEBRUARY),), False)
    assert sorted(adopted) == [(4, JANUARY, 10), (4, FEBRUARY, 10)]
    assert unsent.enter("2026-03") == FEBRUARY


def test_a_limit_counts_even_for_principals_read_before_it() -> None:
    wallet = Wallet()
    wallet.change_limits(2, (Limit(TAG, 4, True, JANUARY),), False)
    assert shortage(wallet).budget_ids == [4]
    wallet.change_limits(3, (Limit(TAG, 4, False, JANUARY),), False)
    hold(wallet)


def test_a_lowered_limit_takes_free_slices_and_no_hold() -> None:
    wallet = Wallet()
    fill(wallet, {1: 25})
    held = hold(wallet, 1)
    assert wallet.change_limits(2, (Limit(ACCOUNT, 1, True, JANUARY),), False) == ((1, JANUARY, 15),)
    wallet.settle(held, 10)


def test_a_grant_overtaken_by_a_changed_limit_goes_back() -> None:
    wallet = Wallet()
    ask = wallet.ask(shortage(wallet, 1), 0)
    wallet.change_limits(2, (Limit(ACCOUNT, 1, True, JANUARY),), False)
    result, returned = wallet.granted(ask.number, 1, [(1, JANUARY, 80)])
    assert isinstance(result, Shortage) and returned == ((1, JANUARY, 80),)


def test_a_restatement_says_what_open_holds_stand_on_and_forgets_the_rest() -> None:
    wallet = Wallet()
    fill(wallet, {1: 25, 2: 99})
    hold(wallet, 1)
    retired = hold(wallet, 1, amount=5)
    wallet.retire([1])
    wallet.ask(shortage(wallet, 3), 0)
    assert wallet.to_restate() == ((1, JANUARY, 15),)
    wallet.restate()
    assert (wallet.seq, wallet.limits_version, wallet.unanswered()) == (0, -1, [])
    shortage(wallet, 2)
    assert wallet.settle(retired, 1) == ((1, JANUARY, 5),)


def test_after_a_restatement_only_a_whole_set_of_limits_counts() -> None:
    wallet = Wallet()
    wallet.change_limits(7, (Limit(TAG, 4, True, JANUARY),), False)
    wallet.restate()
    wallet.change_limits(3, (Limit(KEY, 2, True, JANUARY),), False)
    assert wallet.limits_version == -1 and set(wallet.limits) == {TAG, KEY}
    wallet.change_limits(3, (Limit(ACCOUNT, 1, True, JANUARY),), True)
    assert wallet.limits_version == 3 and set(wallet.limits) == {ACCOUNT}
