"""`aigate replay`: a past call asked of another model, by a running server."""

from typing import Annotated, Any

import typer

from aigate.cli.connection import CommandError, Server
from aigate.cli.options import on_server
from aigate.cli.output import show_line, show_note, show_rows
from aigate.cli.progress import watch


@on_server
def replay(
    server: Server,
    request_id: Annotated[str, typer.Argument(metavar="ID", help="x-request-id of the call, as 'GET /v1/usage/recent' lists it.")],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model to ask.")],
    diff: Annotated[bool, typer.Option("--diff", help="Show where the answers differ.")] = False,
) -> None:
    """Ask another model what was asked in a past call, and compare the answers, costs and times."""
    made = server.request("POST", "/v1/replays", {"source_request_id": request_id, "target_model": model}, {"prefer": "respond-async"})
    ended = watch(lambda: server.request("GET", f"/v1/replays/{made['id']}"), _progress, made["id"])
    if ended["status"] != "completed":
        raise CommandError(f"{ended['id']} failed: {ended['error']}")
    columns = ("", "model", "cost_cents", "latency_ms")
    show_rows(columns, [[side, ended[f"{side}_model"], ended[f"{side}_cost_cents"], ended[f"{side}_latency_ms"]] for side in ("source", "target")])
    if ended["similarity"] is not None:
        show_note(f"{ended['id']}: the answers are {ended['similarity']:.1%} alike")
    if diff:
        show_line(ended["diff"].get("text") or "no difference")


def _progress(record: dict[str, Any]) -> tuple[float, float] | None:
    return (0, 1) if record["status"] == "running" else None
