from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from aigate.core.replay import Replay
from aigate.keeper.db.engine import Database
from aigate.keeper.db.replays import add_replays, end_replay, get_replay, list_replays, running_replays


def a_replay(replay_id: str = "rpl_01", **fields: Any) -> Replay:
    known = Replay(
        id=replay_id, account_id="acc_a", owner_id="key_a", key_id="key_a", sub_account_id=None, tag=None, source_request_id="req_1",
        source_model="a/b", target_model="a/c", call_id=f"req_{replay_id}", source_started_ms=1, source_cost_nanousd=5, source_latency_ms=6,
        created_ms=10,
    )  # fmt: skip
    return replace(known, **fields)


def test_of_one_shadow_and_source_there_is_one_replay_and_only_it_counts_as_added(database: Database) -> None:
    first, again, other = a_replay("rpl_01", shadow_id="shd_1"), a_replay("rpl_02", shadow_id="shd_1"), a_replay("rpl_03", shadow_id="shd_2")
    assert database.write_now(add_replays, [first]) == ["rpl_01"]
    assert database.write_now(add_replays, [again, other]) == ["rpl_03"]
    assert [each.id for each in database.read_now(running_replays)] == ["rpl_01", "rpl_03"]


def test_a_source_may_be_replayed_again_and_again_by_itself(database: Database) -> None:
    assert database.write_now(add_replays, [a_replay("rpl_01"), a_replay("rpl_02")]) == ["rpl_01", "rpl_02"]


def test_a_replay_ends_once_whatever_its_answers_hold(database: Database) -> None:
    database.write_now(add_replays, [a_replay()])
    changes = {"status": "completed", "target_output": "a\0b", "diff": {"text": "a\0b"}, "score": 0.5, "ended_ms": 20}
    database.write_now(end_replay, "rpl_01", changes)
    database.write_now(end_replay, "rpl_01", {**changes, "status": "failed"})
    found = database.read_now(get_replay, "acc_a", "key_a", "rpl_01")
    assert found is not None and (found.status, found.target_output, found.score) == ("completed", "a\N{REPLACEMENT CHARACTER}b", 0.5)


def test_replays_are_seen_by_their_owner_newest_first(database: Database) -> None:
    database.write_now(add_replays, [a_replay("rpl_01"), a_replay("rpl_02"), a_replay("rpl_03", owner_id="key_b")])
    assert [each.id for each in database.read_now(list_replays, "acc_a", "key_a", 9, None, None)] == ["rpl_02", "rpl_01"]
    assert len(database.read_now(list_replays, "acc_a", None, 9, None, None)) == 3
    assert database.read_now(get_replay, "acc_b", None, "rpl_01") is None
