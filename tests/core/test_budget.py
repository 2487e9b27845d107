"""Grants, and what shipped records change. How all of it keeps its promises together: tests/money."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.core.budget import Change, Changes, Given, Over, Short, Want, WindowRow, grant, resolve, window_of

PLACE = (1, "2026-01")
AMOUNTS = st.integers(0, 100)


def ask(row: WindowRow, *, need: int = 5, comfort: int = 100, journals: int = 1, is_scarce: bool = False) -> Given | Short | Over:
    return grant([Want(1, need, comfort)], [row], journals=journals, is_scarce=is_scarce)


def test_comfort_is_given_while_half_of_the_room_stays_for_others() -> None:
    assert ask(WindowRow(1000)) == Given((100,))
    assert ask(WindowRow(105)) == Given((55,))
    assert ask(WindowRow(105), journals=4) == Given((17,))


def test_near_the_end_exactly_the_need_is_given() -> None:
    assert ask(WindowRow(14)) == Given((5,), tight=(1,))
    assert ask(WindowRow(5)) == Given((5,), tight=(1,))


def test_while_others_wait_exactly_the_need_is_given() -> None:
    assert ask(WindowRow(1000), is_scarce=True) == Given((5,), tight=(1,))


def test_a_budget_without_a_limit_gives_what_is_wanted() -> None:
    assert ask(WindowRow(None, spent=10**15)) == Given((100,))


def test_a_refill_gets_a_fair_part_of_what_it_wants_or_nothing_and_is_never_refused() -> None:
    assert ask(WindowRow(1000), need=0) == Given((100,))
    assert ask(WindowRow(150), need=0) == Given((75,))
    assert ask(WindowRow(20), need=0) == Given((0,))
    assert ask(WindowRow(10, spent=30), need=0) == Given((0,))


def test_what_would_not_fit_even_if_every_lease_came_back_is_over() -> None:
    assert ask(WindowRow(10, spent=4, reserved=2, leased=3)) == Over(1, 4)
    assert ask(WindowRow(10, spent=12, leased=1)) == Over(1, 0)
    assert ask(WindowRow(0)) == Over(1, 0)


def test_what_only_leases_stand_in_the_way_of_is_short() -> None:
    assert ask(WindowRow(10, spent=3, leased=4)) == Short(1, 3)


def test_all_wants_are_met_or_none_and_the_tightest_is_named() -> None:
    wants = [Want(1, 5, 5), Want(2, 5, 5), Want(3, 5, 5)]
    assert grant(wants, [WindowRow(100), WindowRow(9, spent=5), WindowRow(9, spent=7)], journals=1) == Over(3, 2)
    assert grant(wants, [WindowRow(100), WindowRow(9, leased=5), WindowRow(9, leased=7)], journals=1) == Short(3, 2)
    assert grant(wants, [WindowRow(9, leased=7), WindowRow(9, spent=5), WindowRow(100)], journals=1) == Over(2, 4)


@given(st.one_of(st.none(), AMOUNTS), AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, st.integers(0, 5), st.booleans())
def test_a_grant_never_goes_past_the_limit(
    limit: int | None, spent: int, reserved: int, leased: int, need: int, wish: int, journals: int, is_scarce: bool
) -> None:
    row = WindowRow(limit, spent, reserved, leased)
    given = ask(row, need=need, comfort=need + wish, journals=journals, is_scarce=is_scarce)
    if isinstance(given, Given):
        assert need <= given.amounts[0] <= need + wish
        assert not given.amounts[0] or limit is None or spent + reserved + leased + given.amounts[0] <= limit
    else:
        assert given.available < need
        assert isinstance(given, Over) == (spent + reserved + need > (limit or 0))


def test_a_month_or_all_time_is_the_window() -> None:
    assert (window_of("month", "2026-01"), window_of("all", "2026-01")) == ("2026-01", "all")


def test_a_settled_attempt_moves_lease_to_spent() -> None:
    changes = Changes()
    changes.spend(PLACE, 7)
    changes.spend((2, "2026-01"), 7)  # an owner without a limit
    changes.end_leases([(*PLACE, 7)])
    assert changes.result({PLACE: 10}) == ({PLACE: Change(spent=7, leased=-7), (2, "2026-01"): Change(spent=7)}, {PLACE: 3})


def test_an_overrun_is_spent_in_full_and_ends_only_the_lease_there_was() -> None:
    changes = Changes()
    changes.spend(PLACE, 25)
    changes.end_leases([(*PLACE, 10)])
    assert changes.result({PLACE: 10}) == ({PLACE: Change(spent=25, leased=-10)}, {PLACE: 0})


def test_a_seal_returns_every_lease_and_reserves_what_is_open() -> None:
    changes = Changes()
    changes.end_leases([(*PLACE, 4)])
    changes.reserve(PLACE, 6)
    changes.seal()
    other = (2, "all")
    assert changes.is_whole
    assert changes.result({PLACE: 10, other: 3}) == ({PLACE: Change(reserved=6, leased=-10), other: Change(leased=-3)}, {PLACE: 0, other: 0})


def test_a_restatement_voids_what_it_does_not_name() -> None:
    changes = Changes()
    changes.restate([(*PLACE, 6)])
    changes.end_leases([(*PLACE, 2)])
    other = (2, "all")
    assert changes.result({PLACE: 1, other: 3}) == ({PLACE: Change(leased=3), other: Change(leased=-3)}, {PLACE: 4, other: 0})


@pytest.mark.parametrize(("cost", "spent"), [(None, 0), (0, 0), (3, 3)])
def test_a_resolved_attempt_is_no_longer_reserved(cost: int | None, spent: int) -> None:
    assert resolve(8, cost) == Change(spent=spent, reserved=-8)


@given(AMOUNTS, st.lists(st.tuples(st.sampled_from(["end", "adopt", "restate", "seal"]), AMOUNTS)))
def test_a_batch_does_to_a_lease_what_its_records_do_one_by_one(lease: int, records: list[tuple[str, int]]) -> None:
    changes, expected = Changes(), lease
    for what, amount in records:
        if what == "end":
            changes.end_leases([(*PLACE, amount)])
            expected = max(expected - amount, 0)
        elif what == "adopt":
            changes.adopt([(*PLACE, amount)])
            expected += amount
        elif what == "restate":
            changes.restate([(*PLACE, amount)])
            expected = amount
        else:
            changes.seal()
            expected = 0
    _, after = changes.result({PLACE: lease})
    assert after.get(PLACE, lease) == expected
