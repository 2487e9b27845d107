"""The commands of `aigate`. Each is one request to a running server, or one look at local files; results go to stdout, the rest to stderr.

Everything slow to import is imported by the command that needs it: `aigate --help` must be instant.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from aigate.cli.connection import CommandError, Server, find_server, read_settings
from aigate.cli.output import show_line, show_note, show_rows, show_text
from aigate.config import ConfigError

app = typer.Typer(
    help="A self-hosted AI gateway.", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
keys = typer.Typer(help="Client keys.", no_args_is_help=True)
ledger = typer.Typer(help="The record of every attempt and its cost.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(ledger, name="ledger")

ConfigFile = Annotated[str | None, typer.Option("--config", metavar="FILE", help="Settings file of the server.")]
DataDirectory = Annotated[str | None, typer.Option("--data-dir", metavar="D", help="Data directory of the server.")]


def main(arguments: Sequence[str]) -> int:
    try:
        return app(list(arguments), prog_name="aigate", standalone_mode=True)
    except (CommandError, ConfigError) as error:
        show_note(f"aigate: {error}")
        return 2 if isinstance(error, ConfigError) else 1


def _on_server(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the four options that say which server and which key; it receives them as one `server`."""
    options = {
        "url": Annotated[str | None, typer.Option(envvar="AIGATE_URL", help="Where the server is.", show_default="from the settings")],
        "key": Annotated[str | None, typer.Option(envvar="AIGATE_KEY", help="Key to use.", show_default="the root key")],
        "config": ConfigFile,
        "data_dir": DataDirectory,
    }
    own = [parameter for name, parameter in inspect.signature(command).parameters.items() if name != "server"]
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in options.items()]

    @functools.wraps(command)
    def run(*, url: str | None, key: str | None, config: str | None, data_dir: str | None, **values: Any) -> None:
        command(server=find_server(url, key, config, data_dir), **values)

    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
    del run.__wrapped__  # type: ignore[attr-defined]  # else its signature would be taken for ours
    return run


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


# --- keys ---------------------------------------------------------------------------------------------------------------------


@keys.command("create")
@_on_server
def create_key(
    server: Server,
    name: Annotated[str, typer.Argument(help="What it is for.")] = "default",
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601, such as 2027-01-31.")] = None,
    model: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Models it may call, such as 'openai/*'; may be repeated.")] = None,
    tag: Annotated[str | None, typer.Option(help="Tag of its calls that name none.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="It may manage keys and see all usage.")] = False,
) -> None:
    """Make a key. It is printed once and kept nowhere."""
    body = {"name": name, "is_admin": admin, "allowed_models": model or []}
    body |= {field: value for field, value in (("expires_at", expires), ("default_tag", tag)) if value}
    made = server.request("POST", "/v1/keys", body)
    show_line(made["key"])
    show_note(f"{made['id']}: shown this once" + ("" if made["effective"] else "; not yet in force on every worker"))


@keys.command("list")
@_on_server
def list_keys(server: Server) -> None:
    """Show all keys, newest first."""
    rows = server.request("GET", "/v1/keys")["data"]
    fields = ("id", "name", "status", "hint", "created_at", "expires_at", "default_tag", "is_admin")
    show_rows(fields, ([_shown(field, row[field]) for field in fields] for row in rows))


@keys.command("revoke")
@_on_server
def revoke_key(server: Server, key_id: Annotated[str, typer.Argument(metavar="ID", help="As 'keys list' shows it.")]) -> None:
    """Revoke a key. It is refused everywhere once this has answered."""
    revoked = server.request("DELETE", f"/v1/keys/{quote(key_id, safe='')}")
    show_line(f"{revoked['id']} revoked" + ("" if revoked["effective"] else "; not yet in force on every worker"))


def _shown(field: str, value: Any) -> Any:
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M") if field.endswith("_at") and value else value


# --- usage and models ---------------------------------------------------------------------------------------------------------


@app.command()
@_on_server
def usage(server: Server, month: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="UTC month; this one when left out.")] = None) -> None:
    """Show what a month cost, by tag and in all."""
    query = "?" + urlencode({"month": month}) if month else ""
    total = server.request("GET", "/v1/usage" + query)
    tags = server.request("GET", "/v1/usage/by-tag" + query)["data"]
    fields = ("requests", "input_tokens", "output_tokens")
    rows = [[row["label"], *(row[field] for field in fields), f"{row['cost_cents'] / 100:.6f}"] for row in [*tags, {**total, "label": "total"}]]
    show_rows(("tag", *fields, "cost_usd"), rows)


@app.command()
@_on_server
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
@_on_server
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


# --- ledger -------------------------------------------------------------------------------------------------------------------


@ledger.command("verify")
def verify_ledger(config: ConfigFile = None, data_dir: DataDirectory = None) -> None:
    """Recompute every cost and sum from the rows themselves. The server may be running or not."""
    from aigate.cli.verify import report_lines, verify_data_dir

    report = verify_data_dir(read_settings(config, data_dir).server.data_dir)
    for line in report_lines(report):
        show_line(line)
    if not report.is_sound:
        raise typer.Exit(1)
