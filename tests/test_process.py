"""What a child process and the supervisor agree on."""

import os
import subprocess
import sys

import pytest

from aigate.process import ChildOptions, child_options, say_ready


def test_a_child_knows_its_name_and_descriptors():
    arguments = ["--name", "worker-1.2", "--life-fd", "7", "--ready-fd", "8", "--listen-fd", "9"]
    assert child_options(arguments) == ChildOptions(name="worker-1.2", life_fd=7, ready_fd=8, listen_fd=9)
    assert child_options(["--name", "keeper-1.1"]).listen_fd is None


@pytest.mark.parametrize("arguments", [[], ["--name", "a", "--life-fd", "x"], ["--name", "a", "--unknown"]])
def test_wrong_options_end_the_child(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        child_options(arguments)
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err


def test_readiness_is_one_byte_and_then_the_end():
    reader, writer = os.pipe()
    say_ready(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"1"


CHILD = """
import asyncio, sys
from aigate.process import say_ready, watch_life
loop = asyncio.new_event_loop()
watch_life(loop, int(sys.argv[1]))
say_ready(int(sys.argv[2]))
loop.run_forever()
"""


def test_a_child_exits_when_the_supervisor_is_gone():
    life, own_life = os.pipe()
    ready, child_ready = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(life), str(child_ready)], pass_fds=(life, child_ready))
    os.close(life)
    os.close(child_ready)
    with os.fdopen(ready, "rb") as pipe:
        assert pipe.read() == b"1"
    assert child.poll() is None
    os.close(own_life)
    assert child.wait(10) == 1
