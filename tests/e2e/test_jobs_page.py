"""What docs/jobs.md shows is run as it stands there."""

import re
import sys

import pytest

from aigate.api.job_record import Links, job_record
from aigate.core.job_state import Job
from tests.test_docs import DEFAULT_URL, ROOT, run

PAGE = (ROOT / "docs" / "jobs.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", blocks("python"))
def test_its_python_runs(gateway, tmp_path, snippet):
    output = run([sys.executable, "-c", snippet.replace(DEFAULT_URL, gateway.url).replace("THE_KEY", gateway.key)], gateway, tmp_path)
    assert "completed http" in output and "/public?token=" in output


@pytest.mark.parametrize("snippet", blocks("bash"))
def test_its_shell_commands_run(gateway, tmp_path, snippet):
    output = run(["bash", "-euc", snippet], gateway, tmp_path)
    assert output.startswith("boat.mp4\nhttp") and (gateway.data_dir.parent / "boat.mp4").read_bytes()[4:8] == b"ftyp"


def test_its_record_has_the_fields_of_a_record():
    job = Job(
        id="job_1", account_id="a", key_id="k", modality="video", asked_model="", model="m/v", request="{}", created_ms=0, updated_ms=0,
        deadline_ms=0, submit_key="", attempt_id="", call_id="", units="{}",
    )  # fmt: skip
    (shown,) = blocks("json")
    for name in re.findall(r'"(\w+)":', shown.split('"result": ')[0] + shown.split("}", 1)[1]):
        assert name in job_record(job, Links("", None, 0)), name
