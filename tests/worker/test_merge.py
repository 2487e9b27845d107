from __future__ import annotations

from itertools import permutations

import pytest

from aigate.worker.merge import Merge


class Exchange:
    def __init__(self) -> None:
        self.sent = b""

    def send(self, data: bytes) -> bool:
        self.sent += data
        return False


@pytest.mark.parametrize("order", sorted(set(permutations([0, 0, 1, 1, 2, 2]))))
def test_the_first_of_each_choice_comes_in_their_order_and_nothing_is_lost(order: tuple[int, ...]) -> None:
    exchange = Exchange()
    merge = Merge(exchange, None, lambda branch: None)  # type: ignore[arg-type]
    for index in order:
        merge.send(index, b"%d" % index)
    sent = exchange.sent.decode()
    assert sorted(sent) == sorted("001122")
    assert sent.index("0") < sent.index("1") < sent.index("2")
    assert merge.rest() == b""


def test_what_waits_for_a_choice_that_never_says_anything_comes_at_the_end() -> None:
    exchange = Exchange()
    merge = Merge(exchange, None, lambda branch: None)  # type: ignore[arg-type]
    merge.send(2, b"c")
    merge.send(1, b"b")
    assert (exchange.sent, merge.rest()) == (b"", b"bc")
