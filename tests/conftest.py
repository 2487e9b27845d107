"""A real gateway for tests: `aigate serve` in a process of its own, on a free port, with a data directory of its own and the sim."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.databases import put_sqlite

START_S, STOP_S = 30.0, 60.0
# Nothing of the machine's own settings reaches a gateway under test.
_INHERITED = ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR")

_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # loopback, whatever proxy this machine uses


class Gateway:
    """A running `aigate serve`. `errors` is the file that its stderr goes to."""

    def __init__(self, process: subprocess.Popen[str], url: str, data_dir: Path, errors: Path, banner: str):
        self.process = process
        self.url = url
        self.data_dir = data_dir
        self.errors = errors
        self.banner = banner

    @property
    def key(self) -> str:
        return (self.data_dir / "admin.key").read_text().strip()

    def stop(self) -> int:
        """As an operator would: SIGTERM, and everything drains. The exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """As a crash would; its children follow."""
        self.process.kill()
        self.process.wait(STOP_S)

    def request(self, method: str, path: str, body: object = None, key: str | None = None) -> tuple[int, dict[str, str], Any]:
        """(status, headers in lower case, decoded body)."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        request.add_header("authorization", f"Bearer {key or self.key}")
        request.add_header("content-type", "application/json")
        try:
            reply = _open(request, timeout=30)
        except urllib.error.HTTPError as error:
            reply = error
        with reply:
            text = reply.read().decode()
            headers = {name.lower(): value for name, value in reply.headers.items()}
        return reply.status, headers, json.loads(text) if "json" in headers.get("content-type", "") else text


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**{name: os.environ[name] for name in _INHERITED if name in os.environ}, **(extra or {})}


def prepare(data_dir: Path) -> None:
    """What a first start would take some time to make."""
    data_dir.mkdir(mode=0o700)
    (data_dir / "lock").touch(0o600)  # it is ours
    put_sqlite(data_dir)


def start_gateway(folder: Path, config_text: str = "", env: Mapping[str, str] | None = None, *arguments: str, is_prepared: bool = True) -> Gateway:
    """Starts a gateway whose data directory is `folder`/data (kept from an earlier start) and returns once it serves."""
    data_dir = folder / "data"
    if is_prepared and not data_dir.exists():
        prepare(data_dir)
    config = folder / "aigate.toml"
    config.write_text(config_text)
    errors = folder / "errors.txt"
    command = [sys.executable, "-m", "aigate", "serve", "--config", str(config), "--data-dir", str(data_dir), "--port", "0", *arguments]
    with errors.open("a") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment(env))
    assert process.stdout
    banner = ""
    while not banner.endswith("and that key.\n"):  # its last line; an end of file means that it did not start
        line = process.stdout.readline()
        if not line:
            process.wait(START_S)
            raise AssertionError(f"the gateway did not start:\n{errors.read_text()}")
        banner += line
    return Gateway(process, banner.split()[4], data_dir, errors, banner)


def wait_until(claim: Callable[[], Any], limit_s: float = 10.0) -> Any:
    """Looks again and again until `claim` holds; its value. Fails after `limit_s`, so a wait costs no more than it must."""
    deadline = time.monotonic() + limit_s
    while not (value := claim()):
        assert time.monotonic() < deadline, f"did not come true within {limit_s} s: {claim}"
        time.sleep(0.01)
    return value


# Files that take long, longest first: one of them begun last would leave the other workers idle.
_LONG = (
    "e2e/test_budgets.py",
    "e2e/test_outage.py",
    "e2e/test_kills.py",
    "keeper/test_app.py",
    "keeper/jobs/test_runner.py",
    "money/test_exhaustive.py",
    "test_serve.py",
    "e2e/test_batches.py",
    "dialects/test_laws.py",
    "keeper/durable/test_engine.py",
    "e2e/test_webhooks.py",
    "e2e/test_recordings.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are CPUs: most tests wait for processes."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways on this test's own folder; what still runs at its end is killed."""
    started: list[Gateway] = []

    def run(*arguments: Any, **options: Any) -> Gateway:
        started.append(start_gateway(tmp_path, *arguments, **options))
        return started[-1]

    yield run
    for gateway in started:
        if gateway.process.poll() is None:
            gateway.kill()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all tests that only use it."""
    running = start_gateway(tmp_path_factory.mktemp("gateway"))
    yield running
    running.kill()
