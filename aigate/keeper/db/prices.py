"""Prices ever used, by id. A price id is the hash of its content, so a row is written once and never changes."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert as insert_or_leave_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_or_leave_sqlite

from aigate.core.price import every_price
from aigate.core.target import Price
from aigate.keeper.db.tables import prices

_IDS_A_QUERY = 500


def save_prices(connection: Connection, used: Iterable[Price], now_ms: int) -> None:
    """Adds those that are new, those of their service tiers and variants with them: each may stand on a ledger row."""
    known = set(connection.execute(select(prices.c.id)).scalars())
    new = {price.id: price for top in used for price in every_price(top) if price.id and price.id not in known}
    if new:
        rows = [dict(id=price_id, content=_content(price), created_ms=now_ms) for price_id, price in new.items()]
        connection.execute(prices.insert(), rows)


def keep_price(connection: Connection, price: Price, now_ms: int) -> None:
    """One that may have been kept before."""
    if price.id not in prices_by_id(connection, [price.id]):
        insert_or_leave = insert_or_leave_sqlite if connection.dialect.name == "sqlite" else insert_or_leave_postgresql
        row = dict(id=price.id, content=_content(price), created_ms=now_ms)
        connection.execute(insert_or_leave(prices).values(row).on_conflict_do_nothing())


def prices_by_id(connection: Connection, ids: Iterable[str]) -> dict[str, Price]:
    wanted = list(ids)
    found: dict[str, Price] = {}
    for start in range(0, len(wanted), _IDS_A_QUERY):
        rows = connection.execute(select(prices.c.id, prices.c.content).where(prices.c.id.in_(wanted[start : start + _IDS_A_QUERY])))
        found.update((row.id, msgspec.json.decode(row.content, type=Price)) for row in rows)
    return found


def _content(price: Price) -> str:
    return msgspec.json.encode(msgspec.structs.replace(price, services={}, variants={})).decode()
