"""`aigate ledger export|resolve|write-off`, each as a process, on the files of a real gateway."""

import csv
import http.client
import io
import json
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import wait_until

ASK = {"model": "sim/echo", "messages": [{"role": "user", "content": "one, two"}]}


def test_attempts_are_exported_as_json_lines_and_csv(start, aigate):
    gateway = start()
    for tag in ("a", "b"):
        key = gateway.request("POST", "/v1/keys", {"name": "k", "default_tag": tag})[2]["key"]
        assert gateway.request("POST", "/v1/chat/completions", ASK, key=key)[0] == 200
    total = gateway.request("GET", "/v1/usage")[2]  # waits for the rows
    folder = ("--data-dir", str(gateway.data_dir))
    rows = [json.loads(line) for line in aigate("ledger", "export", *folder).stdout.splitlines()]
    assert {row["tag"] for row in rows} == {"a", "b"}
    assert sum(row["cost_nanousd"] for row in rows) == pytest.approx(total["cost_cents"] * 1e7)
    table = list(csv.DictReader(io.StringIO(aigate("ledger", "export", "--format", "csv", *folder).stdout)))
    assert [{name: str(value) if value is not None else "" for name, value in row.items()} for row in rows] == table
    month = rows[0]["sent_at"][:7]
    assert len(aigate("ledger", "export", "--month", month, *folder).stdout.splitlines()) == 2
    assert aigate("ledger", "export", "--month", "2001-01", *folder).stdout == ""
    assert "--month '2001-13'" in aigate("ledger", "export", "--month", "2001-13", *folder).stderr


@pytest.mark.parametrize(("how", "cost_cents"), [(("--cost", "0.0000125"), 0.00125), (("--none",), 0)])
def test_an_attempt_of_unknown_end_is_resolved(start, aigate, how, cost_cents):
    gateway = start()
    made = gateway.request("POST", "/v1/sub-accounts", {"name": "acme", "spend_cap_cents": 100})[2]
    _leave_one_open(gateway, made["key"])
    path = f"/v1/sub-accounts/{made['id']}"
    wait_until(lambda: gateway.request("GET", path)[2]["reserved_cents"] > 0)
    folder = ("--data-dir", str(gateway.data_dir))
    (attempt,) = [json.loads(line) for line in aigate("ledger", "export", *folder).stdout.splitlines()]
    assert attempt["end"] == "unsettled"
    done = aigate("ledger", "resolve", attempt["attempt_id"], *how, *folder)
    assert done.returncode == 0 and "a hold of $0.0" in done.stdout
    after = gateway.request("GET", path)[2]
    assert (after["spent_cents"], after["reserved_cents"]) == (cost_cents, 0)
    assert aigate("ledger", "verify", *folder).returncode == 0
    again = aigate("ledger", "resolve", attempt["attempt_id"], *how, *folder)
    assert again.returncode == 1 and "no such attempt that is unsettled" in again.stderr


def _leave_one_open(gateway, key):
    """A call whose worker is killed after it was sent."""
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=30)
    body = json.dumps({"model": "sim/hang", "messages": ASK["messages"]})
    connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {key}", "content-type": "application/json"})
    wait_until(lambda: gateway.request("GET", "/v1/sub-accounts")[2]["data"][0]["held_cents"] > 0)
    for pid in _workers_of(gateway.process.pid):
        os.kill(pid, signal.SIGKILL)
    connection.close()


def _workers_of(supervisor):
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parent = int(path.with_name("stat").read_text().rpartition(")")[2].split()[1])
            if parent == supervisor and b"aigate.worker" in path.read_bytes():
                yield int(path.parent.name)
        except OSError:
            continue  # it ended meanwhile


@pytest.mark.parametrize("how", [(), ("--cost", "1", "--none"), ("--cost", "-1"), ("--cost", "much"), ("--cost", "NaN"), ("--cost", "0.0000000001"), ("--cost", "1e99"), ("--cost", "1e999999999")])
def test_a_cost_that_is_none_is_told_of(aigate, gateway, how):
    done = aigate("ledger", "resolve", "att_x", *how, "--data-dir", str(gateway.data_dir))
    assert done.returncode == 1 and done.stderr.startswith("aigate: ") and "cost" in done.stderr


def test_what_is_not_there_cannot_be_written_off(aigate, gateway):
    done = aigate("ledger", "write-off", "jrn_x", "--data-dir", str(gateway.data_dir))
    assert done.returncode == 1 and "jrn_x: there is no such journal" in done.stderr
