"""A real keeper process on a data directory of its own, and what a worker does towards it: for tests."""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys

import httpx2

from aigate.config import Config, Server
from aigate.messages import Health, Hello
from aigate.process import write_config
from aigate.worker.auth import KeyRing
from aigate.worker.link import KeeperLink

ROOT_KEY = "root-secret"
SECRET = b"s" * 32


class KeeperProcess:
    def __init__(self, data_dir, *, workers=0, program=("-m", "aigate.keeper")):
        self.data_dir = data_dir
        self._program = program
        for name in ("journals", "run"):
            (data_dir / name).mkdir(exist_ok=True)
        server = Server(data_dir=str(data_dir), workers=max(workers, 1))
        self._config = write_config(Config(server=server, root_key=ROOT_KEY, key_secret=SECRET))
        self.start()

    def start(self):
        ready, ready_child = os.pipe()
        life_child, self.life_fd = os.pipe()
        command = [sys.executable, *self._program, "--name", "keeper-1", "--life-fd", str(life_child), "--ready-fd", str(ready_child)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(life_child, ready_child))
        self.process.stdin.write(self._config)
        self.process.stdin.close()
        os.close(ready_child)
        os.close(life_child)
        with os.fdopen(ready, "rb") as pipe:
            assert pipe.read() == b"1", "the keeper did not start"

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(20)
        with contextlib.suppress(OSError):
            os.close(self.life_fd)
        return code

    def client(self, key=ROOT_KEY):
        transport = httpx2.AsyncHTTPTransport(uds=str(self.data_dir / "run" / "control.sock"))
        return httpx2.AsyncClient(transport=transport, base_url="http://keeper", headers={"authorization": f"Bearer {key}"}, timeout=20)

    def request(self, method, path, **options):
        """One request, outside any loop."""

        async def send():
            async with self.client() as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())


@contextlib.contextmanager
def keeper(data_dir, **options):
    process = KeeperProcess(data_dir, **options)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.stop(signal.SIGKILL)


@contextlib.asynccontextmanager
async def key_rings(data_dir, count):
    """The rings of `count` workers, connected as real ones are. Their journals' ids are made up."""
    links, tasks = [], []
    for number in range(count):
        hello = Hello(f"worker-{number}", os.getpid(), "jrn_" + secrets.token_hex(8))
        health = Health(hello.worker, {"looks_total;kind=fast": 1.0}, {})
        links.append(KeeperLink(str(data_dir / "run" / "keeper.sock"), hello, health=lambda health=health: health, look_up_timeout_s=10))
    rings = [KeyRing(SECRET, ROOT_KEY, link) for link in links]
    tasks = [asyncio.create_task(link.run()) for link in links]
    try:
        yield rings
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
