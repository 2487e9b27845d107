"""The process: its sockets, its seed, its end."""

import json
import os
import signal
import socket
import subprocess
import sys


def get_bill(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        sock.sendall(b"GET /sim/bill HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        data = b""
        while got := sock.recv(65536):
            data += got
    return json.loads(data.partition(b"\r\n\r\n")[2])


def test_a_seed_changes_every_answer(tmp_path, start):
    sims = [start(tmp_path / str(at), "--seed", seed) for at, seed in enumerate("112")]
    texts = [sim.chat("echo").json()["choices"][0]["message"]["content"] for sim in sims]
    assert [sim.stop() for sim in sims] == [0, 0, 0]
    assert texts[0] == texts[1] != texts[2]


def test_running_streams_finish_when_it_is_told_to_stop(tmp_path, start):
    sim = start(tmp_path / "bill")
    body = b'{"model":"slow-5ms+long-40","stream":true,"messages":[{"role":"user","content":"x"}]}'
    with socket.create_connection(("127.0.0.1", sim.port), timeout=10) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        data = sock.recv(65536)
        sim.process.send_signal(signal.SIGTERM)
        while got := sock.recv(65536):
            data += got
    assert data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert sim.ended() == 0
    assert '"end":"complete"' in (tmp_path / "bill").read_text()


def start_child(listener, config=b"{}"):
    """As the supervisor starts it: the process, and the write end of its life pipe."""
    life_out, life_in = os.pipe()
    ready_out, ready_in = os.pipe()
    command = [sys.executable, "-m", "aigate.sim", "--name", "sim", "--listen-fd", str(listener.fileno())]
    command += ["--life-fd", str(life_out), "--ready-fd", str(ready_in)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(listener.fileno(), life_out, ready_in))
    process.stdin.write(config)
    process.stdin.close()
    os.close(life_out)
    os.close(ready_in)
    assert os.read(ready_out, 1) == b"1"
    os.close(ready_out)
    return process, life_in


def test_a_child_takes_the_socket_it_is_given_and_leaves_it_to_the_next(tmp_path):
    path = tmp_path / "sim.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(16)
        for _ in range(2):
            process, life = start_child(listener, json.dumps({"server": {"data_dir": str(tmp_path)}, "log": " " * 200_000}).encode())
            assert get_bill(path)["totals"]["seen"] == 0
            process.send_signal(signal.SIGINT)  # the supervisor's to decide: nothing happens
            assert get_bill(path)
            process.terminate()
            assert process.wait(timeout=10) == 0
            os.close(life)
            assert path.exists()
            assert (tmp_path / "sim-jobs.jsonl").exists()


def test_a_child_ends_when_its_supervisor_is_gone(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process, life = start_child(listener)
        os.close(life)
        assert process.wait(timeout=10) == 1


def test_a_unix_socket_of_its_own(tmp_path):
    path = tmp_path / "own.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # what a killed process leaves behind
    process = subprocess.Popen([sys.executable, "-m", "aigate.sim", "--unix", str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == f"Simulated provider at unix://{path}\n"
    process.stdout.close()
    assert get_bill(path)["attempts"] == []
    second = subprocess.run([sys.executable, "-m", "aigate.sim", "--unix", str(path)], capture_output=True, text=True, timeout=20)
    assert second.returncode == 1 and "another process listens" in second.stderr
    process.terminate()
    assert process.wait(timeout=10) == 0 and not path.exists()


def test_a_start_that_cannot_be_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for options in (["--port", str(taken.getsockname()[1])], ["--bill", str(tmp_path / "none" / "bill")], ["--jobs", str(tmp_path / "none" / "jobs")]):
            ended = subprocess.run([sys.executable, "-m", "aigate.sim", "--port", "0", *options], capture_output=True, text=True, timeout=20)
            assert (ended.returncode, ended.stderr.count("\n")) == (1, 1) and ended.stderr.startswith("aigate sim cannot start: ")
