"""`aigate serve`: reads the configuration, takes the data directory and the port, runs the supervisor, prints the banner.

Stays lean (standard library, configuration and provider rows only), as this process lives as long as the server.
"""

from __future__ import annotations

import argparse
import errno
import os
import resource
import shlex
import socket
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from aigate.catalog.live import live_providers
from aigate.config import Config, ConfigError, find_file, load
from aigate.datadir import DataDir, DataDirError
from aigate.process import start_logging
from aigate.supervisor import Supervisor

BACKLOG = 4096  # connections waiting while a worker restarts; the kernel's own limit may be lower
OPEN_FILES = 65_536  # two per running call


class StartError(Exception):
    """The server cannot start: the message says why and what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    overrides = {f"server.{field}": value for field, value in vars(options).items() if field != "config" and value is not None}
    try:
        path = find_file(options.config, os.environ)
        config = load(path, os.environ, overrides)
        start_logging("supervisor", config.log.level)
        return _serve(config)
    except (ConfigError, DataDirError, StartError) as error:
        sys.stderr.write(f"aigate: {error}\n")
        return 2 if isinstance(error, ConfigError) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aigate serve", description="Run the gateway.", allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="settings (TOML); default: $AIGATE_CONFIG, else ./aigate.toml where it exists")
    parser.add_argument("--host", metavar="H", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", metavar="P", type=int, help="TCP port (4000); 0 takes a free one")
    parser.add_argument("--data-dir", metavar="D", help="where everything is kept (./data)")
    parser.add_argument("--workers", metavar="N", type=int, help="data-plane processes (1)")
    return parser


def _serve(config: Config) -> int:
    os.umask(0o077)
    _allow_open_files()
    if config.upstream.ca_file:
        _check_ca_file(config.upstream.ca_file)
    data_dir = DataDir(config.server.data_dir)
    listener = _listen_tcp(config.server.host, config.server.port)
    server = msgspec.structs.replace(config.server, port=listener.getsockname()[1], data_dir=str(data_dir.path))
    config = msgspec.structs.replace(
        config, server=server, root_key=config.auth.admin_key or data_dir.root_key(), key_secret=data_dir.key_secret()
    )
    sim_listener = _listen_unix(data_dir.run_path("sim.sock")) if config.sim.enabled else None
    supervisor = Supervisor(config, listener, sim_listener=sim_listener, inherited_fds=(data_dir.lock_fd,))

    url_file = data_dir.run_path("url")

    def announce() -> None:
        url_file.write_text(config.server.url + "\n")
        sys.stdout.write(banner(config, data_dir.admin_key_path, os.environ))
        sys.stdout.flush()

    try:
        return supervisor.run(announce)
    finally:
        url_file.unlink(missing_ok=True)


def _check_ca_file(path: str) -> None:
    try:
        is_pem = "BEGIN CERTIFICATE" in Path(path).read_text("latin-1")
    except OSError as error:
        raise StartError(f"upstream.ca_file: {path}: {error.strerror}") from error
    if not is_pem:
        raise StartError(f"upstream.ca_file: {path}: has no certificate in PEM form")


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _listen_tcp(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"port {port} on {host} is in use by another server; stop that one, or choose another with --port") from error
        raise StartError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def _listen_unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # of a server that was killed; the data directory's lock says it is gone
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(BACKLOG)
    return listener


# --- the banner -------------------------------------------------------------------------------------------------------------


def banner(config: Config, admin_key_path: Path, environ: Mapping[str, str]) -> str:
    url = config.server.url
    live, dormant = live_providers(config, "" if config.sim.enabled else None)
    if not config.auth.admin_key:
        key_place, key = str(admin_key_path), f"$(cat {shlex.quote(str(admin_key_path))})"
    elif environ.get("AIGATE_ADMIN_KEY") == config.auth.admin_key:
        key_place, key = "$AIGATE_ADMIN_KEY", "$AIGATE_ADMIN_KEY"
    else:
        key_place, key = "auth.admin_key in the settings", "YOUR_KEY"
    model = "sim/echo" if config.sim.enabled else "PROVIDER/MODEL"
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return f"""aigate is serving at {url}
  root key   {key_place}
  live       {', '.join(live) or 'none'}
{_dormant_lines(dormant)}
Try it:
  curl {url}/v1/chat/completions -H "Authorization: Bearer {key}" -H 'Content-Type: application/json' -d '{body}'
Any OpenAI client: base URL {url}/v1 and that key.
"""


def _dormant_lines(dormant: Mapping[str, str]) -> str:
    words = ", ".join(f"{name} ({reason})" for name, reason in dormant.items()) or "none"
    return textwrap.fill(words, 110, initial_indent="  not live   ", subsequent_indent=" " * 13, break_on_hyphens=False)


if __name__ == "__main__":
    sys.exit(main())
