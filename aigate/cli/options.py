"""Options that several commands share: which server and which key, or which settings and data directory."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from aigate.cli.connection import find_server

ConfigFile = Annotated[str | None, typer.Option("--config", metavar="FILE", help="Settings file of the server.")]
DataDirectory = Annotated[str | None, typer.Option("--data-dir", metavar="D", help="Data directory of the server.")]


def on_server(command: Callable[..., None]) -> Callable[..., None]:
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
