"""Options that several commands share, given to a command as one value: which server and key, which limits, which data directory."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from aigate.cli.connection import Server, find_server

ConfigFile = Annotated[str | None, typer.Option("--config", metavar="FILE", help="Settings file of the server.")]
DataDirectory = Annotated[str | None, typer.Option("--data-dir", metavar="D", help="Data directory of the server.")]

Command = Callable[..., None]


def on_server(command: Command) -> Command:
    """Gives a command the four options that say which server and which key; it receives them as one `server`."""
    options = {
        "url": Annotated[str | None, typer.Option(envvar="AIGATE_URL", help="Where the server is.", show_default="from the settings")],
        "key": Annotated[str | None, typer.Option(envvar="AIGATE_KEY", help="Key to use.", show_default="the root key")],
        "config": ConfigFile,
        "data_dir": DataDirectory,
    }
    return _grouped(command, "server", options, _server)


def with_limits(command: Command) -> Command:
    """Gives a command the options that bound a key or a sub-account; it receives those that were used as fields of the API, `limits`."""
    options = {
        "cap_cents": Annotated[int | None, typer.Option(metavar="N", help="Most that it may spend in a month.")],
        "rpm": Annotated[int | None, typer.Option(metavar="N", help="Most requests a minute.")],
        "model": Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Models it may call, such as 'openai/*'; may be repeated.")],
        "tag": Annotated[str | None, typer.Option(help="Tag of its calls that name none.")],
    }
    return _grouped(command, "limits", options, _limits)


def _server(*, url: str | None, key: str | None, config: str | None, data_dir: str | None) -> Server:
    return find_server(url, key, config, data_dir)


def _limits(*, cap_cents: int | None, rpm: int | None, model: list[str] | None, tag: str | None) -> dict[str, Any]:
    fields = {"spend_cap_cents": cap_cents, "rate_limit_rpm": rpm, "allowed_models": model or None, "default_tag": tag}
    return {name: value for name, value in fields.items() if value is not None}


def _grouped(command: Command, parameter: str, options: dict[str, Any], build: Callable[..., object]) -> Command:
    """The command with `options` in the place of one parameter, which `build` makes of them."""
    own = [known for name, known in inspect.signature(command).parameters.items() if name != parameter]
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in options.items()]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        command(**{parameter: build(**{name: values.pop(name) for name in options})}, **values)

    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {known.name: known.annotation for known in (*own, *added)}
    del run.__wrapped__  # type: ignore[attr-defined]  # else its signature would be taken for ours
    return run
