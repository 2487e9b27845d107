"""The server as a tree of processes: it starts, heals, drains, and takes everything with it when it dies."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import environment, start_gateway, wait_until

CHAT = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}]}


def children(gateway):
    """Kind → process ids, of the children that run now."""
    found = {}
    for pid in Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            continue
        if len(words) > 2:
            found.setdefault(words[2].decode().removeprefix("aigate."), []).append(int(pid))
    return found


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def chat_works(gateway):
    try:
        return gateway.request("POST", "/v1/chat/completions", CHAT)[0] == 200
    except OSError:
        return False


def open_stream(gateway, model):
    """A streamed call whose first bytes have come."""
    address = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps({**CHAT, "model": model, "stream": True}), headers)
    reply = connection.getresponse()
    return reply, reply.readline()


def run_serve(*arguments, env=None):
    """A start that is expected to fail."""
    return subprocess.run([sys.executable, "-m", "aigate", "serve", *arguments], capture_output=True, text=True, timeout=60, env=environment(env))


def test_the_first_start_makes_a_private_data_directory(start):
    gateway = start(is_prepared=False)
    modes = {name: (gateway.data_dir / name).stat().st_mode & 0o777 for name in (".", "admin.key", "secret.key", "run", "journals")}
    assert modes == {".": 0o700, "admin.key": 0o600, "secret.key": 0o600, "run": 0o700, "journals": 0o700}
    assert len((gateway.data_dir / "secret.key").read_bytes()) == 32
    assert gateway.key.startswith("sk-aig-") and len(gateway.key) == 50
    assert gateway.key not in gateway.banner
    assert chat_works(gateway)


def test_the_snippet_of_the_banner_works_when_pasted(gateway):
    command = next(line for line in gateway.banner.splitlines() if "curl" in line)
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert "simulated" in json.loads(answer.stdout)["choices"][0]["message"]["content"]


def test_a_file_of_authorities_that_is_none_is_refused_at_start(tmp_path):
    (tmp_path / "no.pem").write_text("hello")
    for name, problem in (("missing.pem", "No such file"), ("no.pem", "PEM")):
        refused = run_serve("--data-dir", str(tmp_path / "data"), env={"AIGATE_UPSTREAM_CA_FILE": str(tmp_path / name)})
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1) and "upstream.ca_file" in refused.stderr and problem in refused.stderr


def test_a_data_directory_may_have_any_name():
    with tempfile.TemporaryDirectory() as short:  # there are sockets in it, and their paths have little room
        folder = Path(short) / "Ann's büro: 100%"
        folder.mkdir()
        gateway = start_gateway(folder)
        try:
            test_the_snippet_of_the_banner_works_when_pasted(gateway)
        finally:
            gateway.kill()


def test_the_banner_says_what_is_live_and_what_is_missing(start):
    banner = start("", {"GROQ_API_KEY": "gsk-hidden"}).banner
    live = next(line for line in banner.splitlines() if line.startswith("  live"))
    assert "sim" in live and "groq" in live
    assert "OPENAI_API_KEY is not set" in banner
    assert "hidden" not in banner


def test_keys_outlive_a_restart(start):
    first = start()
    key = first.request("POST", "/v1/keys", {"name": "a"})[2]["key"]
    root = first.key
    assert first.stop() == 0
    second = start()
    assert second.key == root
    assert second.request("POST", "/v1/chat/completions", CHAT, key)[0] == 200


def test_the_root_key_can_be_given(start):
    gateway = start("", {"AIGATE_ADMIN_KEY": "my-own-root-key"})
    assert gateway.request("POST", "/v1/chat/completions", CHAT, "my-own-root-key")[0] == 200
    assert not (gateway.data_dir / "admin.key").exists()
    assert "my-own-root-key" not in gateway.banner + gateway.errors.read_text()


def test_two_servers_cannot_share_a_data_directory(gateway):
    failed = run_serve("--port", "0", "--data-dir", str(gateway.data_dir))
    assert failed.returncode == 1
    assert f"another aigate uses it (process {gateway.process.pid})" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_a_port_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        failed = run_serve("--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert failed.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in failed.stderr


@pytest.mark.parametrize(
    "name, content, words",
    [("version", "2\n", "newer aigate"), ("version", "x", "not a number"), ("thesis.doc", "", "not made by aigate")],
)
def test_a_data_directory_that_is_not_ours_to_use_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    failed = run_serve("--port", "0", "--data-dir", str(tmp_path))
    assert failed.returncode == 1 and words in failed.stderr
    assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("admin.key", b"\n", "holds no key"),
        ("admin.key", b"two words\n", "holds no key"),
        ("admin.key", b"\xff\xfe", "holds no key"),
        ("secret.key", b"short", "has 5 bytes where 32 are due"),
    ],
)
def test_a_key_file_that_holds_none_is_refused_and_left_alone(tmp_path, name, content, words):
    (tmp_path / "version").write_text("1\n")
    (tmp_path / name).write_bytes(content)
    failed = run_serve("--port", "0", "--data-dir", str(tmp_path))
    assert failed.returncode == 1 and words in failed.stderr and failed.stderr.count("\n") == 1
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of another user")
def test_a_data_directory_of_another_user_is_refused(tmp_path):
    os.chown(tmp_path, 12345, 12345)
    assert "belongs to user 12345" in run_serve("--port", "0", "--data-dir", str(tmp_path)).stderr


def test_a_path_too_long_for_sockets_is_refused_before_anything_is_made(tmp_path):
    path = tmp_path / ("d" * 120)
    assert "too long" in run_serve("--port", "0", "--data-dir", str(path)).stderr
    assert not path.exists()


def test_a_data_directory_that_cannot_be_made_is_a_line(tmp_path):
    (tmp_path / "file").touch()
    failed = run_serve("--port", "0", "--data-dir", str(tmp_path / "file" / "data"))
    assert failed.returncode == 1 and failed.stderr.endswith("Not a directory\n") and failed.stderr.count("\n") == 1


def test_the_secret_stays_whatever_an_earlier_start_left_behind(start):
    """A start that was cut off leaves a draft, not a short key."""
    first = start()
    first.stop()
    secret = (first.data_dir / "secret.key").read_bytes()
    (first.data_dir / "secret.new").write_bytes(b"half")
    assert chat_works(start())
    assert (first.data_dir / "secret.key").read_bytes() == secret


def test_wrong_settings_are_a_line_and_exit_code_2(tmp_path):
    failed = run_serve("--data-dir", str(tmp_path), env={"AIGATE_SERVER_PORT": "many"})
    assert failed.returncode == 2
    assert failed.stderr.startswith("aigate: AIGATE_SERVER_PORT: 'many'") and failed.stderr.count("\n") == 1


def test_a_start_that_fails_ends_the_server(start):
    with pytest.raises(AssertionError, match="keeper could not start"):
        first = start()
        first.stop()
        (first.data_dir / "gate.sqlite").write_bytes(b"this is no database" * 100)
        start()


@pytest.mark.parametrize("kind", ["worker", "keeper", "sim"])
def test_a_killed_child_is_replaced(start, kind):
    gateway = start()
    assert chat_works(gateway)
    (victim,) = children(gateway)[kind]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: is_gone(victim))
    wait_until(lambda: chat_works(gateway) and gateway.request("GET", "/v1/models")[0] == 200)
    (replacement,) = children(gateway)[kind]
    assert replacement != victim
    assert "killed by SIGKILL" in gateway.errors.read_text()


def test_the_sim_is_started_by_its_first_caller(start):
    gateway = start()
    assert "sim" not in children(gateway)
    assert chat_works(gateway)
    assert len(children(gateway)["sim"]) == 1


def test_every_worker_of_several_serves(start):
    gateway = start("[server]\nworkers = 2")
    workers = children(gateway)["worker"]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGSTOP)
    try:
        wait_until(lambda: chat_works(gateway))
    finally:
        os.kill(workers[0], signal.SIGCONT)


def test_a_killed_supervisor_takes_all_children_along_and_the_next_start_works(start):
    gateway = start()
    assert chat_works(gateway)
    orphans = [pid for pids in children(gateway).values() for pid in pids]
    assert len(orphans) == 3
    gateway.kill()
    again = start()
    assert all(is_gone(pid) for pid in orphans)
    assert chat_works(again)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_lets_a_running_stream_end(start, number):
    gateway = start()
    reply, _ = open_stream(gateway, "sim/slow")
    gateway.process.send_signal(number)
    assert reply.read().rstrip().endswith(b"data: [DONE]")
    assert gateway.process.wait(30) == 0


def test_a_drain_has_a_limit(start):
    gateway = start("[server]\ndrain_s = 0.2")
    open_stream(gateway, "sim/stall-2")
    began = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - began < 10


def test_a_second_signal_ends_everything_at_once(start):
    gateway = start()
    open_stream(gateway, "sim/stall-2")
    all_pids = [pid for pids in children(gateway).values() for pid in pids]
    gateway.process.send_signal(signal.SIGINT)
    wait_until(lambda: "draining" in gateway.errors.read_text())
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.process.wait(5) == 1
    assert all(is_gone(pid) for pid in all_pids)


def test_nothing_is_lost_by_a_drain(start):
    gateway = start()
    for _ in range(20):
        assert chat_works(gateway)
    gateway.stop()
    assert len(start().request("GET", "/v1/usage/recent?limit=1000")[2]["data"]) == 20


def test_the_tree_is_small(gateway):
    """Bounds far enough from what it is to hold on any machine: these are leaks and wrong imports, not measurements."""
    assert chat_works(gateway)

    def rss_mb(pid):
        return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024

    kinds = {kind: rss_mb(pids[0]) for kind, pids in children(gateway).items()}
    assert rss_mb(gateway.process.pid) < 30
    assert kinds["worker"] < 60
    assert sum(kinds.values()) + rss_mb(gateway.process.pid) < 200
