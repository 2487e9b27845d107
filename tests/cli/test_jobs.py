"""`aigate jobs`, each command as a process, against a real server and its simulated provider."""

import re
from pathlib import Path


def test_a_video_is_made_waited_for_and_saved(aigate, tmp_path: Path):
    done = aigate("jobs", "video", "A paper boat.", "--model", "sim/video+fast", "--duration", "2", "--set", "resolution=720", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    saved = Path(done.stdout.strip())
    assert saved == tmp_path / "video.mp4" and saved.read_bytes()[4:8] == b"ftyp"
    assert "completed" in done.stderr and "$0.200000" in done.stderr
    job_id = re.search(r"job_\w+", done.stderr).group()
    shown = dict(line.split("\t") for line in aigate("jobs", "get", job_id).stdout.splitlines())
    assert (shown["status"], shown["cost_cents"]) == ("completed", "20.0")
    again = aigate("jobs", "wait", job_id)
    assert again.returncode == 0 and again.stdout.startswith("http://") and "/public?token=" in again.stdout
    assert any(line.startswith(job_id + "\tcompleted\tsim/video+fast") for line in aigate("jobs", "list").stdout.splitlines())


def test_a_job_is_cancelled_and_says_so(aigate):
    made = aigate("jobs", "music", "-", "--model", "sim/music+stalls", text="Rain on a roof.\n")
    job_id = made.stdout.strip()
    assert re.fullmatch(r"job_\w+", job_id), made.stderr
    assert aigate("jobs", "cancel", job_id).stdout == f"{job_id} cancelled\n"
    waited = aigate("jobs", "wait", job_id)
    assert (waited.returncode, waited.stderr) == (1, f"aigate: {job_id} failed: cancelled\n")
    assert job_id in aigate("jobs", "list", "--status", "failed").stdout


def test_mistakes_are_told_in_a_line(aigate):
    assert aigate("jobs", "3d", "A chair.", "--set", "seed").stderr == "aigate: --set 'seed': expected NAME=VALUE\n"
    assert aigate("jobs", "video", "A boat.", "--duration", "-1").stderr.startswith("aigate: 400: duration: ")
    assert aigate("jobs", "get", "job_nothing").stderr.startswith("aigate: 404: There is no job 'job_nothing'")
    assert aigate("jobs", "list", "--status", "lost").stderr.startswith("aigate: 400: status")
