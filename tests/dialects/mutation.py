"""Damaged JSON: a value of a recording with junk put in a place or two, or a part taken out."""

from __future__ import annotations

import copy
import random
from typing import Any

JUNK: tuple[Any, ...] = (
    None, True, 7, -1, 1.5, "", "x", [], [[]], {}, {"type": "text"}, {"type": 3}, [None], ["x"], {"a": {"b": []}},
    1e300, 10**30, float("nan"), float("-inf"), "9" * 5000, "half \ud800", "\0", {"error": {"code": "9" * 5000}}, {"message": "half \ud800"},
)  # fmt: skip


def damage(value: Any, chance: random.Random) -> Any:
    damaged = copy.deepcopy(value)
    for _ in range(chance.randint(1, 2)):
        places = list(_places(damaged))
        if places:
            holder, key = chance.choice(places)
            if chance.random() < 0.3:
                del holder[key]
            else:
                holder[key] = copy.deepcopy(chance.choice(JUNK))
    return damaged


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from _places(inner)
