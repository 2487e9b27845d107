"""Runs the simulated provider: `aigate sim …` on its own, or as a child of the supervisor with inherited descriptors."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from aigate.process import say_ready, watch_life
from aigate.sim.app import SimulatedProvider
from aigate.sim.bill import Bill

DRAIN_S = 5.0
JOBS_FILE = "sim-jobs.jsonl"  # of the data directory
BACKLOG = 2048


class _ChildServer(msgspec.Struct):
    data_dir: str = ""


class _ChildConfig(msgspec.Struct):
    """What concerns the sim of the configuration that every child is given."""

    server: _ChildServer = msgspec.field(default_factory=_ChildServer)


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="aigate sim", allow_abbrev=False, description="A simulated provider that speaks OpenAI chat and Responses, Anthropic Messages and Gemini.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100, help="0 takes a free one (default 9100)")
    parser.add_argument("--unix", metavar="PATH", help="listen on a Unix socket instead")
    parser.add_argument("--bill", metavar="FILE", help="append one JSON line when an attempt arrives and one when it is billed")
    parser.add_argument("--jobs", metavar="FILE", help="append media jobs to it, and go on with them after a restart")
    parser.add_argument("--seed", type=int, default=0, help="changes every answer")
    parser.add_argument("--name", help=argparse.SUPPRESS)  # these four: the supervisor's
    for option in ("--listen-fd", "--life-fd", "--ready-fd"):
        parser.add_argument(option, type=int, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def listening_socket(options: argparse.Namespace) -> socket.socket:
    if options.listen_fd is not None:
        return socket.socket(fileno=options.listen_fd)
    if options.unix is not None:
        sock = socket.socket(socket.AF_UNIX)
        if os.path.exists(options.unix):
            _remove_dead_socket(options.unix)
        sock.bind(options.unix)
    else:
        sock = socket.create_server((options.host, options.port), backlog=BACKLOG)
    sock.listen(BACKLOG)
    return sock


def _remove_dead_socket(path: str) -> None:
    """Removes what a killed process left. Raises OSError where someone still listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(f"{path}: another process listens there")


async def serve(options: argparse.Namespace, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    is_child = options.life_fd is not None
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGINT, (lambda: None) if is_child else stopped.set)  # Ctrl-C is for the supervisor to decide
    watch_life(loop, options.life_fd)
    provider = SimulatedProvider(Bill(options.bill), options.seed, options.jobs)
    provider.media.start()
    is_unix = sock.family == socket.AF_UNIX
    server = await (loop.create_unix_server if is_unix else loop.create_server)(provider.protocol, sock=sock)
    say_ready(options.ready_fd)
    if not is_child:
        sys.stdout.write(f"Simulated provider at {_address(sock)}\n")
        sys.stdout.flush()
    await stopped.wait()
    server.close()
    await provider.drain(DRAIN_S)
    provider.bill.close()


def _address(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        return f"unix://{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def main(argv: Sequence[str] | None = None) -> int:
    options = read_options(argv)
    if options.life_fd is not None:
        config = msgspec.json.decode(sys.stdin.buffer.read(), type=_ChildConfig)
        options.jobs = str(Path(config.server.data_dir) / JOBS_FILE) if config.server.data_dir else None
    try:
        for path in filter(None, (options.bill, options.jobs)):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        sock = listening_socket(options)
    except OSError as error:
        sys.stderr.write(f"aigate sim cannot start: {error}\n")
        return 1
    uvloop.run(serve(options, sock))
    if options.unix is not None:
        os.unlink(options.unix)
    return 0


if __name__ == "__main__":
    sys.exit(main())
