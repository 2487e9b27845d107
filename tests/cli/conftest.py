"""`aigate …` as a process."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment


@pytest.fixture
def aigate(gateway, tmp_path):
    """Runs `aigate …` in an empty folder, with the gateway's address and key in its environment."""

    def run(*arguments, text=None, **env):
        return subprocess.run(
            [sys.executable, "-m", "aigate", *arguments],
            input=text or "",
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env=environment({"AIGATE_URL": gateway.url, "AIGATE_KEY": gateway.key, "PYTHONPATH": str(Path(__file__).parents[2]), **env}),
        )

    return run
