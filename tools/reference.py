"""`make docs`: writes the pages that are made from the code, docs/settings.md, docs/cli.md and docs/dialects.md. A test compares them with it."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from typer.testing import CliRunner

from aigate import config
from aigate.cli.app import app
from tools import crossings, media

DOCS = Path(__file__).parents[1] / "docs"
COMMANDS = (
    "serve", "check-config", "keys create", "keys list", "keys revoke", "keys rotate",
    "sub-accounts create", "sub-accounts list", "sub-accounts cap", "sub-accounts delete",
    "provider-keys add", "provider-keys list", "provider-keys delete", "provider-keys rotate",
    "jobs video", "jobs music", "jobs 3d", "jobs get", "jobs list", "jobs cancel", "jobs wait",
    "webhooks add", "webhooks list", "webhooks remove", "webhooks rotate", "webhooks secret", "webhooks deliveries", "webhooks resend",
    "jobs video", "jobs music", "jobs 3d", "jobs get", "jobs list", "jobs cancel", "jobs wait",
    "files upload", "files list", "files content", "files delete",
    "batch create", "batch get", "batch list", "batch cancel", "batch output",
    "usage", "models", "call", "replay", "eval run", "eval get", "eval winner", "eval list",
    "ledger verify", "ledger export", "ledger resolve", "ledger write-off", "sim",
)  # fmt: skip

SETTINGS_HEAD = """# Settings

Made by `make docs` from `aigate/config.py`. Nothing has to be set.

- **Where:** the command line, else the environment, else the file, else the default. The file is `--config FILE`, else `$AIGATE_CONFIG`, else
  `./aigate.toml` where there is one. `aigate check-config` shows what is in force.
- **Environment:** `AIGATE_` + section + field: `AIGATE_SERVER_PORT=5000`. Lists are separated by commas, tables are JSON, an empty value counts as
  none. A provider's name goes between: `AIGATE_PROVIDERS_MOCK_BASE_URL`. An entry of the file is reached by its name with every character but
  letters and digits as `_`: `AIGATE_MODELS_MOCK_GPT_CONTEXT_WINDOW` for `[models."mock/gpt"]`. `AIGATE_ADMIN_KEY` is short for `AIGATE_AUTH_ADMIN_KEY`.
- **Provider keys:** a built-in provider is live when its key variable (`OPENAI_API_KEY`, …) is set; `aigate check-config` names them all. A local one
  is live when its base URL is (`OLLAMA_BASE_URL`, …).
- An unknown name or a wrong value is an error that names the file or variable, the key and what is allowed. All of it is read once, at start.
"""


def settings_page() -> str:
    parts = [SETTINGS_HEAD]
    sections = {name: f"[{name}]" for name in config.SECTIONS} | {"providers": "[providers.NAME]", "models": '[models."provider/name"]'}
    for name, title in sections.items():
        struct = {**config.SECTIONS, **config.TABLES}[name]
        parts.append(f"## `{title}`\n\n{inspect.getdoc(struct)}\n\n| setting | default | meaning |\n|---|---|---|\n{''.join(_rows(struct))}")
    return "\n".join(parts)


def _rows(struct: type) -> Iterator[str]:
    comments = _comments(struct)
    for field in msgspec.structs.fields(struct):
        default = "" if field.default is None else f"`{msgspec.json.encode(field.default).decode()}`"
        yield f"| `{field.name}` | {default} | {comments[field.name]} |\n".replace("| |", "|  |")


def _comments(struct: type) -> dict[str, str]:
    """Field → the comment on its line."""
    source = inspect.getsource(struct)
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    lines = source.splitlines()
    return {
        node.target.id: lines[node.end_lineno - 1][node.end_col_offset :].strip().removeprefix("# ").replace("|", "\\|")
        for node in body
        if isinstance(node, ast.AnnAssign)
    }


def commands_page() -> str:
    parts = ["# Commands\n\nMade by `make docs` from the commands' own `--help`.\n"]
    for command in COMMANDS:
        text = _help(command)
        text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip()
        parts.append(f"## `aigate {command}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _help(command: str) -> str:
    words = [*command.split(), "--help"]
    if command in ("serve", "sim"):  # processes of their own
        env = {"COLUMNS": "120", "PATH": "", "PYTHONPATH": str(DOCS.parent)}
        return subprocess.run([sys.executable, "-m", "aigate", *words], capture_output=True, text=True, check=True, env=env).stdout
    shown = CliRunner().invoke(app, words, prog_name="aigate", env={"COLUMNS": "120", "TERMINAL_WIDTH": "120"})
    assert shown.exit_code == 0, shown.output
    return shown.output


PAGES = {"settings.md": settings_page, "cli.md": commands_page, "dialects.md": crossings.page, "media.md": media.page}


if __name__ == "__main__":
    for name, make in PAGES.items():
        (DOCS / name).write_text(make())
