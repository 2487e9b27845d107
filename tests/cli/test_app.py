"""The commands, each as a process, against a real server."""

import http.client
import json
import re
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from aigate import __version__
from tests.conftest import environment, wait_until


def test_help_lists_every_command_and_is_instant(aigate):
    aigate("--help")
    assert min(_cpu_s(aigate) for _ in range(5)) < 0.3
    text = aigate("--help").stdout
    assert [name for name in ("serve", "check-config", "keys", "sub-accounts", "provider-keys", "usage", "call", "models", "ledger", "sim") if name not in text] == []


def test_the_version_is_told(aigate):
    assert aigate("--version").stdout == f"aigate {__version__}\n"


def _cpu_s(aigate):
    """Of the command, not of whatever else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    aigate("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_key_lives_from_create_to_revoke(aigate, gateway):
    made = aigate("keys", "create", "laptop", "--tag", "team-a", "--model", "sim/*")
    key = made.stdout.strip()
    assert re.fullmatch(r"sk-aig-[\w-]{43}", key)
    key_id = re.match(r"key_\w+", made.stderr).group()
    assert aigate("call", "sim/echo", "hi", AIGATE_KEY=key).returncode == 0
    listed = next(line for line in aigate("keys", "list").stdout.splitlines() if line.startswith(key_id))
    assert listed.split("\t")[1:4] == ["laptop", "active", f"sk-aig-…{key[-4:]}"]
    assert aigate("keys", "revoke", key_id).stdout == f"{key_id} revoked\n"
    refused = aigate("call", "sim/echo", "hi", AIGATE_KEY=key)
    assert refused.returncode == 1 and refused.stderr.startswith("aigate: 401:") and key not in refused.stderr


def test_an_ordinary_key_cannot_manage_keys(aigate):
    key = aigate("keys", "create").stdout.strip()
    assert aigate("keys", "list", AIGATE_KEY=key).stderr.startswith("aigate: 403:")


def test_call_streams_the_answer_and_tells_the_cost(aigate):
    done = aigate("call", "sim/echo", "Hello there")
    assert "You said: Hello there" in done.stdout
    assert re.search(r"\d+ tokens in, \d+ out, \$0\.0000\d+", done.stderr)


def test_call_reads_the_prompt_from_stdin_and_bounds_the_answer(aigate):
    done = aigate("call", "sim/long-100", "-", "--max-tokens", "7", text="Hello from a pipe")
    assert " 7 out" in done.stderr


def test_call_tells_what_a_provider_said(aigate):
    done = aigate("call", "sim/400", "hi")
    assert done.returncode == 1 and done.stderr.startswith("aigate: 400:")


def test_call_tells_of_a_stream_that_broke(aigate):
    done = aigate("call", "sim/cut-5", "hi")
    assert done.returncode == 1 and done.stderr.startswith("aigate: ")


def test_usage_and_the_ledger_show_what_was_called(aigate, gateway):
    aigate("call", "sim/echo", "hi", AIGATE_KEY=aigate("keys", "create", "--tag", "seen").stdout.strip())
    wait_until(lambda: "seen\t1\t" in aigate("usage").stdout)
    assert aigate("usage", "--month", "2001-01").stdout.splitlines()[-1].startswith("total\t0\t0\t0\t0.0")
    verified = aigate("ledger", "verify", "--data-dir", str(gateway.data_dir))
    assert verified.returncode == 0 and verified.stdout.endswith("the ledger is sound\n")


def test_verify_finds_a_cost_that_was_changed(start, aigate):
    gateway = start()
    gateway.request("POST", "/v1/chat/completions", {"model": "sim/echo", "messages": [{"role": "user", "content": "x"}]})
    gateway.stop()
    import sqlite3

    with sqlite3.connect(gateway.data_dir / "gate.sqlite") as database:
        assert database.execute("UPDATE attempts SET cost_nanousd = cost_nanousd + 1").rowcount == 1
    database.close()
    verified = aigate("ledger", "verify", "--data-dir", str(gateway.data_dir))
    assert verified.returncode == 1 and "WRONG: 1 ×" in verified.stdout


def test_verify_makes_no_ledger_where_there_is_none(aigate, tmp_path):
    assert "there is no ledger" in aigate("ledger", "verify", "--data-dir", str(tmp_path)).stderr
    assert not list(tmp_path.iterdir())


def test_models_are_listed_and_filtered(aigate):
    assert "sim/echo\ttext" in aigate("models").stdout
    assert aigate("models", "--provider", "nobody").stdout.splitlines() == ["id\tmodality\tcontext_window\tmax_output_tokens\ttier"]
    assert aigate("models", "--modality", "smell").stderr.startswith("aigate: 400: modality")


def test_check_config_shows_what_is_in_force_and_hides_secrets(aigate):
    shown = aigate("check-config", AIGATE_SERVER_PORT="5000", OPENAI_API_KEY="sk-hunter", AIGATE_ADMIN_KEY="hunter", GROQ_API_KEY="")
    assert "server.port = 5000" in shown.stdout
    assert "# live: openai, sim" in shown.stdout or "# live: sim, openai" in shown.stdout
    assert "# not live: groq: GROQ_API_KEY is not set" in shown.stdout
    assert "hunter" not in shown.stdout


def test_check_config_refuses_what_serve_would(aigate, tmp_path):
    (tmp_path / "aigate.toml").write_text("[server]\nprot = 1\n")
    refused = aigate("check-config")
    assert refused.returncode == 2
    assert refused.stderr == "aigate: aigate.toml: server.prot: no such setting; did you mean port?\n"


def test_the_server_and_its_key_are_found_by_the_settings(gateway, tmp_path):
    port = gateway.url.rpartition(":")[2]
    (tmp_path / "aigate.toml").write_text(f'[server]\nport = {port}\ndata_dir = "{gateway.data_dir}"\n')
    done = subprocess.run(
        [sys.executable, "-m", "aigate", "models"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment({"PYTHONPATH": str(Path(__file__).parents[2])}),
    )
    assert "sim/echo" in done.stdout


def test_no_server_is_one_clear_line(aigate):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    refused = aigate("models", "--url", f"http://127.0.0.1:{port}")
    assert refused.returncode == 1
    assert refused.stderr == f"aigate: no server answers at http://127.0.0.1:{port}; start one with 'aigate serve', or name another with --url\n"


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://[", "http://h:99999"])
def test_an_unusable_url_is_one_clear_line(aigate, url):
    refused = aigate("models", "--url", url)
    assert refused.returncode == 1 and refused.stderr.startswith("aigate: --url") and refused.stderr.count("\n") == 1


@pytest.mark.parametrize("body", [b"<htm>", b"{}", b"[1]"])
def test_an_answer_of_something_else_is_one_clear_line(aigate, body):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_answer_nonsense, args=(listener, body), daemon=True).start()
        refused = aigate("models", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert refused.returncode == 1 and refused.stderr.endswith(": what answers there is not aigate\n") and refused.stderr.count("\n") == 1


def _answer_nonsense(listener, body):
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


def test_commands_find_the_server_of_their_data_directory(start):
    gateway = start()
    command = [sys.executable, "-m", "aigate", "models", "--data-dir", str(gateway.data_dir)]
    assert "sim/echo" in subprocess.run(command, capture_output=True, text=True, env=environment()).stdout
    gateway.stop()
    assert not (gateway.data_dir / "run" / "url").exists()


def test_no_key_is_one_clear_line(tmp_path):
    refused = subprocess.run(
        [sys.executable, "-m", "aigate", "models"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment({"PYTHONPATH": str(Path(__file__).parents[2])}),
    )
    assert refused.returncode == 1 and "--key" in refused.stderr and refused.stderr.count("\n") == 1


def test_the_sim_runs_on_its_own(tmp_path):
    command = [sys.executable, "-m", "aigate", "sim", "--unix", str(tmp_path / "sim.sock")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until((tmp_path / "sim.sock").exists)
        connection = http.client.HTTPConnection("sim")
        connection.sock = socket.socket(socket.AF_UNIX)
        wait_until(lambda: connection.sock.connect_ex(str(tmp_path / "sim.sock")) in (0, 106))
        connection.request("GET", "/v1/models")
        assert json.loads(connection.getresponse().read())["data"]
    finally:
        process.terminate()
        process.communicate(timeout=20)
