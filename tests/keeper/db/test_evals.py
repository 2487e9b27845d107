from __future__ import annotations

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from aigate.core.account import Cap
from aigate.core.budget import KEY, Owner
from aigate.core.evals import COMPLETED, Eval, Item, Result
from aigate.core.scoring import Rule
from aigate.keeper.db.engine import Database
from aigate.keeper.db.evals import (
    delete_old_evals,
    end_eval,
    find_alias,
    get_eval,
    give_back,
    list_evals,
    place_eval,
    put_result,
    read_results,
    read_running,
    running_evals,
)
from aigate.keeper.db.holds import HoldRefused
from aigate.keeper.db.limits import find_standings, set_limit
from aigate.keeper.db.tables import outbox
from aigate.keeper.leases import InForce
from aigate.keeper.ledger import verify

KEY_OWNER: Owner = (KEY, "acc_a", "key_a")
OWNERS: list[Owner] = [("account", "acc_a", "acc_a"), KEY_OWNER]
ITEMS = [Item({"messages": [{"role": "user", "content": "6*7?"}], "max_tokens": 5}, Rule("json", {"a": [1, None]}), "mine")]


def an_eval(eval_id: str = "eval_01", *, hold: int = 700, owner_id: str = "key_a") -> Eval:
    return Eval(
        id=eval_id, account_id="acc_a", owner_id=owner_id, key_id="key_a", sub_account_id=None, tag=None, name="n", metric="quality",
        candidates=("sim/echo", "sim/slow"), judge_model=None, embedding_model=None, dataset_size=1, reserved_nanousd=hold, created_ms=10,
    )  # fmt: skip


def place(database: Database, new: Eval) -> None:
    database.write_now(place_eval, InForce(99, frozenset()), new, ITEMS, OWNERS)


def reserved(database: Database) -> int:
    return database.read_now(find_standings, [KEY_OWNER])[KEY_OWNER].reserved


def balances(database: Database) -> int:
    return database.read_now(verify).counts.get("balance", 0)


def test_what_is_kept_comes_back_as_it_was(database: Database) -> None:
    place(database, an_eval())
    found = database.read_now(read_running, "eval_01")
    assert found is not None
    which, items, results = found
    assert (replace(which, window=""), items, results) == (an_eval(), ITEMS, [])
    assert database.read_now(running_evals) == ["eval_01"]


def test_the_whole_run_is_set_aside_and_given_back_piece_by_piece(database: Database) -> None:
    place(database, an_eval(hold=700))
    assert (reserved(database), balances(database)) == (700, 0)
    database.write_now(give_back, "eval_01", 300, 11)
    assert (reserved(database), balances(database)) == (400, 0)
    database.write_now(give_back, "eval_01", 900, 11)
    database.write_now(give_back, "eval_01", None, 11)
    assert (reserved(database), balances(database)) == (0, 0)


def test_a_run_that_does_not_fit_a_limit_leaves_nothing_behind(database: Database) -> None:
    database.write_now(set_limit, KEY_OWNER, Cap(1_000), 1)
    place(database, an_eval(hold=700))
    with pytest.raises(HoldRefused) as refused:
        place(database, an_eval("eval_02", hold=301))
    assert (refused.value.refused.reason, refused.value.refused.scope) == ("over", KEY)
    assert database.read_now(get_eval, "acc_a", None, "eval_02") is None
    place(database, an_eval("eval_03", hold=300))
    assert (reserved(database), balances(database)) == (1_000, 0)


def test_evals_are_seen_by_their_owner_newest_first(database: Database) -> None:
    for number in range(1, 4):
        place(database, an_eval(f"eval_0{number}", hold=0))
    place(database, an_eval("eval_09", hold=0, owner_id="key_b"))
    seen = database.read_now(list_evals, "acc_a", "key_a", 2, None)
    assert [each.id for each in seen] == ["eval_03", "eval_02"]
    assert [each.id for each in database.read_now(list_evals, "acc_a", "key_a", 2, "eval_02")] == ["eval_01"]
    assert len(database.read_now(list_evals, "acc_a", None, 9, None)) == 4
    assert database.read_now(get_eval, "acc_a", "key_a", "eval_09") is None
    assert database.read_now(get_eval, "acc_b", None, "eval_01") is None


def test_an_answer_told_twice_is_one_row_and_pages_follow_their_order(database: Database) -> None:
    place(database, an_eval())
    for item, candidate in ((1, 0), (0, 1), (0, 0), (0, 1)):
        database.write_now(put_result, "eval_01", Result(item=item, candidate=candidate, call_id="req_x", score=0.5, cost_nanousd=3))
    results = database.read_now(read_results, "eval_01")
    assert [(each.item, each.candidate) for each in results] == [(0, 0), (0, 1), (1, 0)]
    assert database.read_now(read_results, "eval_01", 1, (0, 0)) == results[1:2]


def test_an_eval_ends_once_and_its_winner_is_pinned_by_use(database: Database) -> None:
    place(database, an_eval())
    assert database.write_now(find_alias, "acc_a", "key_a", "eval_01", 50).status == "running"
    changes = {"status": COMPLETED, "winner_model": "sim/echo", "summary": {"answers": 2}, "ended_ms": 60}
    assert database.write_now(end_eval, "eval_01", changes)
    assert not database.write_now(end_eval, "eval_01", {**changes, "winner_model": "sim/slow"})
    (event,) = database.read_now(lambda connection: connection.execute(select(outbox)).all())
    assert (event.type, event.subject, event.key_id, "sim/echo" in event.payload) == ("eval.completed", "eval_01", "key_a", True)
    place(database, an_eval("eval_02"))
    database.write_now(end_eval, "eval_02", changes)
    assert database.write_now(find_alias, "acc_a", "key_a", "eval_01", 70).winner_model == "sim/echo"
    assert database.write_now(delete_old_evals, 100) is False
    assert [each.id for each in database.read_now(list_evals, "acc_a", None, 9, None)] == ["eval_01"]


@pytest.mark.parametrize(("owner_id", "asks", "is_found"), [("key_a", "key_b", False), ("", "key_b", True), ("key_a", "key_a", True)])
def test_an_alias_is_the_owners_or_the_accounts(database: Database, owner_id: str, asks: str, is_found: bool) -> None:
    place(database, an_eval(owner_id=owner_id))
    assert (database.write_now(find_alias, "acc_a", asks, "eval_01", 1) is not None) == is_found
    assert database.write_now(find_alias, "acc_b", asks, "eval_01", 1) is None
