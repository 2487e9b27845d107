"""The bill adds up, in memory and in its file."""

import json

from aigate.providers.table import SIM_PRICE
from aigate.sim.bill import ROWS_KEPT, Bill
from aigate.sim.rates import RATES, bill_nanousd


def test_cost_is_exact():
    assert bill_nanousd(1_000_000, 0, 0) == 100_000_000  # $0.10
    assert bill_nanousd(1_000_000, 1_000_000, 0) == 25_000_000
    assert bill_nanousd(0, 0, 1_000_000) == 400_000_000
    assert bill_nanousd(10, 4, 3) == 6 * 100 + 4 * 25 + 3 * 400


def test_the_gateway_knows_the_same_rates():
    assert {name: picodollars / per for name, (picodollars, per) in SIM_PRICE.rates.items()} == {
        name: picodollars / per for name, (picodollars, per) in RATES.items()
    }


def test_every_arrival_is_a_row_and_a_line(tmp_path):
    path = tmp_path / "bill"
    bill = Bill(str(path))
    first, again = bill.see("att_1"), bill.see("att_1")
    first.prompt_tokens, first.completion_tokens = 5, 7
    bill.charge(first, "complete")
    bill.charge(again, "cancelled")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["event"], line["attempt"]) for line in lines] == [("seen", "att_1")] * 2 + [("billed", "att_1")] * 2
    assert [line["end"] for line in lines[2:]] == ["complete", "cancelled"]
    assert lines[2]["cost_nanousd"] == 5 * 100 + 7 * 400 == bill.totals.cost_nanousd
    assert (bill.totals.seen, bill.totals.billed, bill.totals.completion_tokens) == (2, 2, 7)
    bill.close()


def test_a_reset_forgets_memory_but_not_the_file(tmp_path):
    path = tmp_path / "bill"
    bill = Bill(str(path))
    bill.charge(bill.see("att_1"), "complete")
    bill.reset()
    assert not bill.rows and bill.totals.seen == 0
    assert len(path.read_text().splitlines()) == 2
    bill.close()


def test_memory_holds_the_last_rows_only():
    bill = Bill()
    for number in range(ROWS_KEPT + 1):
        bill.see(str(number))
    assert len(bill.rows) == ROWS_KEPT and bill.rows[0].attempt == "1"
    assert bill.totals.seen == ROWS_KEPT + 1
