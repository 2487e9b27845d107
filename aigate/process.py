"""What a child process and the supervisor agree on: command-line options, configuration on stdin, life pipe, readiness byte, garbage
collection, log lines.

Used by worker, keeper and sim to start; knows nothing of what they do.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from aigate.config import Config

if TYPE_CHECKING:
    import asyncio  # only named here: the supervisor has no loop and stays small

GC_THRESHOLD = 20_000  # of new containers: a call or a batch of them leaves no cycles behind, a collection mostly looks at what is in use


class ChildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`life_fd`: read end of a pipe, EOF = the supervisor died. `ready_fd`: gets one byte when serving. None = not supervised."""

    name: str
    listen_fd: int | None = None
    life_fd: int | None = None
    ready_fd: int | None = None


def child_options(argv: Sequence[str]) -> ChildOptions:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--name", required=True)
    for option in ("--listen-fd", "--life-fd", "--ready-fd"):
        parser.add_argument(option, type=int)
    return ChildOptions(**vars(parser.parse_args(argv)))


def read_config(stream: BinaryIO) -> Config:
    return msgspec.json.decode(stream.read(), type=Config)


def write_config(config: Config) -> bytes:
    return msgspec.json.encode(config)


def watch_life(loop: asyncio.AbstractEventLoop, life_fd: int | None) -> None:
    """Exits at once when the supervisor is gone: what is in the journal is replayed, what is not was never promised."""
    if life_fd is not None:
        loop.add_reader(life_fd, os._exit, 1)


def say_ready(ready_fd: int | None) -> None:
    if ready_fd is not None:
        os.write(ready_fd, b"1")
        os.close(ready_fd)


def settle_memory() -> None:
    """Once a process is built: no collection looks at what it is made of again, and there are few."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def start_logging(name: str, level: str) -> None:
    """One line an event on stderr: time, level, process, words."""
    import logging  # here, as a worker never logs

    logging.basicConfig(level=level.upper(), format=f"%(asctime)s %(levelname)s {name}: %(message)s")
