"""The documents are true: what they show is run, what is made from the code is up to date, what they link to exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aigate.cli.app import app
from tests.conftest import environment
from tools import reference

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
RUN_PAGES = ("evals.md", "replays.md")  # whose Python and shell blocks are run
DEFAULT_URL = "http://127.0.0.1:4000"


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(command, gateway, folder, more_env=None):
    """As a reader would, in the folder that holds data/, on the gateway under test instead of the one at the default port."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    (bin_folder / "aigate").write_text(f'#!/bin/sh\nexec {sys.executable} -m aigate "$@"\n')
    (bin_folder / "aigate").chmod(0o755)
    env = environment({"AIGATE_URL": gateway.url, "PYTHONPATH": str(ROOT), "PATH": f"{bin_folder}:{os.environ['PATH']}", **(more_env or {})})
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=gateway.data_dir.parent, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_of_the_readme_runs(gateway, tmp_path):
    (snippet,) = blocks("python")
    output = run([sys.executable, "-c", snippet.replace(DEFAULT_URL, gateway.url)], gateway, tmp_path)
    assert "simulated" in output and "cost=" in output


@pytest.mark.parametrize("snippet", blocks("bash"))
def test_the_shell_commands_of_the_readme_run(gateway, tmp_path, snippet):
    assert run(["bash", "-euc", snippet.replace(DEFAULT_URL, gateway.url)], gateway, tmp_path)


@pytest.mark.parametrize("page", RUN_PAGES)
def test_what_a_page_shows_runs_from_top_to_bottom(gateway, tmp_path, page):
    """Its Python blocks are one program, its shell blocks one script."""
    text = (ROOT / "docs" / page).read_text()
    env = {"AIGATE_URL": gateway.url, "AIGATE_KEY": gateway.key}
    for command in ([sys.executable, "-c", "\n".join(blocks("python", text))], ["bash", "-euc", "\n".join(blocks("bash", text))]):
        if command[-1]:
            run(command, gateway, tmp_path, env)


def test_the_settings_of_the_readme_are_right(tmp_path):
    from aigate.config import load

    (text,) = blocks("toml")
    (tmp_path / "aigate.toml").write_text(text)
    assert load(str(tmp_path / "aigate.toml"), {"MOCK_KEY": "k"}).credentials["mock"] == "k"


@pytest.mark.parametrize("name", reference.PAGES)
def test_pages_made_from_the_code_are_up_to_date(name):
    assert (ROOT / "docs" / name).read_text() == reference.PAGES[name](), "run 'make docs'"


def test_every_setting_has_a_meaning():
    assert " |  |\n" not in reference.settings_page()


def test_every_command_is_on_the_page():
    named = {command.name or command.callback.__name__ for command in app.registered_commands}
    for group in app.registered_groups:
        named |= {f"{group.name} {command.name or command.callback.__name__}" for command in group.typer_instance.registered_commands}
    assert named == set(reference.COMMANDS)


def test_links_lead_somewhere():
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_make_targets_named_in_the_documents_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`make ([a-z]+)`", page.read_text())}
    assert named <= targets


def test_no_loss_between_formats_is_silent():
    """Text and tools cross everywhere; a file of one vendor, which no other can read, is never just left out."""
    from tools import crossings

    for client in crossings.FORMATS:
        for provider in set(crossings.FORMATS) - {client}:
            assert crossings.outcome(client, provider, crossings.FEATURES["text"][client]) == "kept"
            assert crossings.outcome(client, provider, crossings.FEATURES["tools"][client]) == "kept"
            if client in crossings.FEATURES["file by id"]:
                assert crossings.outcome(client, provider, crossings.FEATURES["file by id"][client]) == "dropped"
