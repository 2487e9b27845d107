"""What the supervisor does about children that neither die nor serve. The rest of it is tested with the whole server (test_serve.py)."""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import environment, wait_until

RUN = """
import socket, sys
from aigate.config import Config, Server
from aigate.datadir import DataDir
from aigate.process import start_logging
from aigate.supervisor import Patience, Supervisor

data_dir = DataDir(sys.argv[1])
listener = socket.create_server(("127.0.0.1", 0))
start_logging("supervisor", "info")
config = Config(server=Server(data_dir=str(data_dir.path)), root_key="root", key_secret=data_dir.key_secret())
supervisor = Supervisor(config, listener, patience=Patience(*map(float, sys.argv[2:])))
sys.exit(supervisor.run(lambda: print("ready", flush=True)))
"""


@contextmanager
def supervised(folder, *patience):
    """(process, a function that reads its stderr)."""
    errors = folder / "errors.txt"
    with errors.open("w") as stderr:
        command = [sys.executable, "-c", RUN, str(folder / "data"), *map(str, patience)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment(), cwd=Path(__file__).parent.parent)
    with process:
        try:
            yield process, errors.read_text
        finally:
            process.kill()


def test_a_child_that_is_long_in_starting_is_named_once(tmp_path):
    with supervised(tmp_path, 0.02, 60, 10) as (process, errors):
        assert process.stdout.readline() == "ready\n", errors()
        process.terminate()
        assert process.wait(30) == 0
        for kind in ("worker", "keeper"):
            assert len(re.findall(rf"{kind}-1\.1 \(process \d+\) is not ready after 0.02 s", errors())) == 1


def test_a_keeper_that_is_frozen_is_replaced_and_one_that_answers_is_not(tmp_path):
    with supervised(tmp_path, 30, 3, 0.2) as (process, errors):
        assert process.stdout.readline() == "ready\n", errors()
        kept_by = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        (keeper,) = [pid for pid in map(int, kept_by.read_text().split()) if b"aigate.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(keeper, signal.SIGSTOP)
        wait_until(lambda: "killed by SIGKILL" in errors(), 20)
        process.terminate()
        assert process.wait(30) == 0
        assert re.findall(r"(\S+) \(process (\d+)\) has not answered", errors()) == [("keeper-1.1", str(keeper))]
        assert "keeper-1.2 (process" in errors()
