from __future__ import annotations

import msgspec

from aigate.core.price import price_id, price_usage, with_id
from aigate.core.target import Price
from aigate.core.usage import Usage
from aigate.keeper.db.engine import Database
from aigate.keeper.db.prices import prices_by_id, save_prices

DEAR = with_id(Price(rates={"input": (3, 2), "output": (9, 1)}))
TIERED = with_id(Price(rates={"input": (1, 1)}, tiers=((1000, Price(rates={"input": (2, 1)})),), source="config"))


def test_a_price_comes_back_with_its_content_whole(database: Database) -> None:
    database.write_now(save_prices, [DEAR, TIERED], 1)
    found = database.read_now(prices_by_id, [DEAR.id, TIERED.id, "prc_unknown"])
    assert found == {DEAR.id: DEAR, TIERED.id: TIERED}
    assert all(price_id(price) == key for key, price in found.items())
    assert price_usage(found[TIERED.id], Usage(5000, 0)) == price_usage(TIERED, Usage(5000, 0))


def test_saving_again_changes_nothing(database: Database) -> None:
    database.write_now(save_prices, [DEAR], 1)
    database.write_now(save_prices, [DEAR, msgspec.structs.replace(DEAR, source="other"), TIERED], 2)
    assert database.read_now(prices_by_id, [DEAR.id]) == {DEAR.id: DEAR}


def test_prices_of_service_tiers_are_saved_too(database: Database) -> None:
    price = msgspec.structs.replace(TIERED, services={"priority": DEAR})
    database.write_now(save_prices, [price], 1)
    assert database.read_now(prices_by_id, [DEAR.id]) == {DEAR.id: DEAR}


def test_more_prices_than_one_statement_may_name(database: Database) -> None:
    many = [with_id(Price(rates={"input": (n, 1)})) for n in range(1, 1201)]
    database.write_now(save_prices, many, 1)
    assert len(database.read_now(prices_by_id, [price.id for price in many])) == 1200
