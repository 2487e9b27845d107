"""The commands of `aigate`. Each is one request to a running server, or one look at local files; results go to stdout, the rest to stderr.

Everything slow to import is imported by the command that needs it: `aigate --help` must be instant.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from aigate import __version__
from aigate.cli.accounts import keys, provider_keys, sub_accounts
from aigate.cli.batches import batches, files
from aigate.cli.connection import CommandError, Server, read_settings
from aigate.cli.evals import evals
from aigate.cli.jobs import jobs
from aigate.cli.ledger import ledger
from aigate.cli.options import ConfigFile, on_server
from aigate.cli.output import show_line, show_note, show_rows, show_text
from aigate.cli.replay import replay
from aigate.cli.webhooks import webhooks
from aigate.config import ConfigError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_GROUPS = {
    "keys": keys, "sub-accounts": sub_accounts, "provider-keys": provider_keys, "jobs": jobs, "files": files, "batch": batches, "eval": evals,
    "webhooks": webhooks, "ledger": ledger,
}  # fmt: skip
for _name, _commands in _GROUPS.items():
    app.add_typer(_commands, name=_name)


def _say_version(is_asked: bool) -> None:
    if is_asked:
        show_line(f"aigate {__version__}")
        raise typer.Exit


@app.callback()
def aigate(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Show the version and exit.")] = False,
) -> None:
    """A self-hosted AI gateway."""


def main(arguments: Sequence[str]) -> int:
    try:
        return app(list(arguments), prog_name="aigate", standalone_mode=True)
    except (CommandError, ConfigError) as error:
        show_note(f"aigate: {error}")
        return 2 if isinstance(error, ConfigError) else 1


# --- the server ---------------------------------------------------------------------------------------------------------------


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def serve(context: typer.Context) -> None:
    """Run the gateway. Its own options: aigate serve --help."""
    from aigate.serve import main as run

    raise typer.Exit(run(context.args))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def sim(context: typer.Context) -> None:
    """Run the simulated provider on its own. Its options: aigate sim --help."""
    from aigate.sim.__main__ import main as run

    raise typer.Exit(run(context.args))


@app.command("check-config")
def check_config(config: ConfigFile = None) -> None:
    """Read the settings as 'serve' would, and show what is in force."""
    from aigate.cli.settings import setting_lines

    for line in setting_lines(read_settings(config)):
        show_line(line)


# --- usage and models ---------------------------------------------------------------------------------------------------------


@app.command()
@on_server
def usage(server: Server, month: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="UTC month; this one when left out.")] = None) -> None:
    """Show what a month cost, by tag and in all."""
    query = "?" + urlencode({"month": month}) if month else ""
    total = server.request("GET", "/v1/usage" + query)
    tags = server.request("GET", "/v1/usage/by-tag" + query)["data"]
    fields = ("requests", "input_tokens", "output_tokens")
    rows = [[row["label"], *(row[field] for field in fields), f"{row['cost_cents'] / 100:.6f}"] for row in [*tags, {**total, "label": "total"}]]
    show_rows(("tag", *fields, "cost_usd"), rows)


@app.command()
@on_server
def models(
    server: Server,
    modality: Annotated[str | None, typer.Option(help="Such as text or embedding.")] = None,
    provider: Annotated[str | None, typer.Option(help="Slug prefix, such as openai.")] = None,
) -> None:
    """List the models of the live providers."""
    query = urlencode({name: value for name, value in (("modality", modality), ("provider", provider)) if value})
    fields = ("id", "modality", "context_window", "max_output_tokens", "tier")
    show_rows(fields, ([row[field] for field in fields] for row in server.request("GET", f"/v1/models?{query}")["data"]))


@app.command()
@on_server
def call(
    server: Server,
    model: Annotated[str, typer.Argument(help="Such as sim/echo.")],
    prompt: Annotated[str, typer.Argument(help="'-' reads it from stdin.")],
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="Most tokens of the answer.")] = None,
) -> None:
    """Ask a model; its answer is streamed to stdout, usage and cost go to stderr."""
    body: dict[str, Any] = {"model": model, "stream": True, "messages": [{"role": "user", "content": sys.stdin.read() if prompt == "-" else prompt}]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    used: dict[str, Any] = {}
    for chunk in server.stream("/v1/chat/completions", body):
        if "error" in chunk:
            show_line("")
            raise CommandError(chunk["error"]["message"])
        used = chunk.get("usage") or used
        for choice in chunk["choices"]:
            show_text(choice["delta"].get("content") or "")
    show_line("")
    if used:
        show_note(f"{used['prompt_tokens']} tokens in, {used['completion_tokens']} out, ${used.get('cost', 0):.9f}")


app.command()(replay)
