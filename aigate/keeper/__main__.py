"""Starts the keeper: `python -m aigate.keeper`, a child of the supervisor (process.py says what they agree on).

Its two sockets are open before anything heavy is loaded, so that workers and probes wait in a queue rather than fail.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from aigate.process import child_options, read_config, start_logging

BACKLOG = 1024


def main(argv: Sequence[str] | None = None) -> int:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until it serves: nothing has begun that needs an end
    options = child_options(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = read_config(sys.stdin.buffer)
    start_logging(options.name, config.log.level)
    run_dir = Path(config.server.data_dir) / "run"
    run_dir.mkdir(mode=0o700, exist_ok=True)
    control, messages = _listen(run_dir / "control.sock"), _listen(run_dir / "keeper.sock")

    from aigate.keeper.app import run  # after the sockets are open

    return run(config, options, (control, messages))


def _listen(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # left by a keeper that was killed; the data directory's lock says that none is alive
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    os.chmod(path, 0o600)
    listener.listen(BACKLOG)
    return listener


if __name__ == "__main__":
    sys.exit(main())
