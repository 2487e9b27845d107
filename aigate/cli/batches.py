"""`aigate files` and `aigate batch`: files on a running server, and many requests of one file made at its own pace."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote, urlencode

import typer

from aigate.cli.connection import CommandError, Server
from aigate.cli.options import on_server
from aigate.cli.output import show_line, show_note, show_rows
from aigate.cli.progress import watch

files = typer.Typer(help="Files kept by the server.", no_args_is_help=True)
batches = typer.Typer(help="Many requests of one file, made at the server's pace.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="As 'list' shows it.")]
InputFile = Annotated[str, typer.Argument(metavar="FILE", help="'-' reads it from stdin.")]
Target = Annotated[str | None, typer.Option("--to", metavar="FILE", help="Where to write it; stdout when left out.")]

_RUNNING = ("validating", "in_progress", "finalizing", "cancelling")


# --- files --------------------------------------------------------------------------------------------------------------------


@files.command("upload")
@on_server
def upload_file(server: Server, file: InputFile, purpose: Annotated[str, typer.Option(help="What it is for.")] = "user_data") -> None:
    """Upload a file; its id is printed."""
    show_line(_upload(server, file, purpose)["id"])


@files.command("list")
@on_server
def list_files(server: Server, purpose: Annotated[str | None, typer.Option(help="Only of this purpose.")] = None) -> None:
    """Show your files, newest first."""
    fields = ("id", "filename", "purpose", "bytes", "created_at", "expires_at")
    rows = _rows(server, "/v1/files", {"limit": 1000, **({"purpose": purpose} if purpose else {})})
    show_rows(fields, ([_shown(field, row[field]) for field in fields] for row in rows))


@files.command("content")
@on_server
def show_content(server: Server, file_id: Id, to: Target = None) -> None:
    """Write the bytes of a file to stdout."""
    _save(server, file_id, to)


@files.command("delete")
@on_server
def delete_file(server: Server, file_id: Id) -> None:
    """Delete a file."""
    show_line(f"{server.request('DELETE', _path('/v1/files', file_id))['id']} deleted")


# --- batches ------------------------------------------------------------------------------------------------------------------


@batches.command("create")
@on_server
def create_batch(
    server: Server,
    file: InputFile,
    endpoint: Annotated[str, typer.Option(metavar="PATH", help="What every line is sent to.")] = "/v1/chat/completions",
    tag: Annotated[str | None, typer.Option(help="Tag of its calls.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
) -> None:
    """Upload a file of requests (JSON Lines) and make a batch of it; its id is printed."""
    uploaded = _upload(server, file, "batch")
    try:
        body = {"input_file_id": uploaded["id"], "endpoint": endpoint, "completion_window": "24h"}
        made = server.request("POST", "/v1/batches", body, {"x-aig-tag": tag} if tag else None)
    except CommandError:
        server.request("DELETE", _path("/v1/files", uploaded["id"]))  # no batch, no file
        raise
    show_line(made["id"])
    if wait:
        ended = watch(lambda: server.request("GET", _path("/v1/batches", made["id"])), _progress, made["id"])
        show_note(_sentence(ended))
        if ended["status"] != "completed":
            raise CommandError(_why(ended))


@batches.command("get")
@on_server
def get_batch(server: Server, batch_id: Id) -> None:
    """Show how far a batch is."""
    show_line(_sentence(server.request("GET", _path("/v1/batches", batch_id))))


@batches.command("list")
@on_server
def list_batches(server: Server) -> None:
    """Show your batches, newest first."""
    fields = ("id", "status", "endpoint", "total", "completed", "failed", "cost_cents", "created_at")
    rows = ({**row, **row["request_counts"]} for row in _rows(server, "/v1/batches", {"limit": 100}))
    show_rows(fields, ([_shown(field, row[field]) for field in fields] for row in rows))


@batches.command("cancel")
@on_server
def cancel_batch(server: Server, batch_id: Id) -> None:
    """Begin no further line of a batch; what is done is kept."""
    show_line(_sentence(server.request("POST", _path("/v1/batches", batch_id) + "/cancel")))


@batches.command("output")
@on_server
def show_output(
    server: Server, batch_id: Id, errors: Annotated[bool, typer.Option("--errors", help="The lines that failed.")] = False, to: Target = None
) -> None:
    """Write the results of a batch that has ended to stdout, a line each, in the order in which they came."""
    found = server.request("GET", _path("/v1/batches", batch_id))
    file_id = found["error_file_id" if errors else "output_file_id"]
    if found["status"] in _RUNNING:
        raise CommandError(f"{_sentence(found)}; its files are there once it has ended")
    if file_id is not None:
        _save(server, file_id, to)
    else:
        show_note(f"{found['id']} has no {'errors' if errors else 'output'}")


def _progress(batch: dict[str, Any]) -> tuple[float, float] | None:
    counts = batch["request_counts"]
    return (counts["completed"] + counts["failed"], counts["total"]) if batch["status"] in _RUNNING else None


def _sentence(batch: dict[str, Any]) -> str:
    counts = batch["request_counts"]
    cost = "" if batch["cost_cents"] is None else f", ${batch['cost_cents'] / 100:.6f}"
    return f"{batch['id']} {batch['status']}: {counts['completed']} of {counts['total']} lines done, {counts['failed']} failed{cost}"


def _why(batch: dict[str, Any]) -> str:
    errors = (batch["errors"] or {"data": []})["data"]
    return f"{batch['id']} {batch['status']}" + "".join(f": {error['message']}" for error in errors[:1])


# --- shared -------------------------------------------------------------------------------------------------------------------


def _upload(server: Server, file: str, purpose: str) -> dict[str, Any]:
    try:
        with _opened(file) as source:
            return server.upload("/v1/files", {"purpose": purpose}, "stdin" if file == "-" else Path(file).name, source)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror or error}") from None


def _opened(file: str) -> BinaryIO:
    return sys.stdin.buffer if file == "-" else Path(file).open("rb")


def _save(server: Server, file_id: str, to: str | None) -> None:
    path = _path("/v1/files", file_id) + "/content"
    if to is not None:
        server.download(path, Path(to))
        return
    for piece in server.read(path):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _rows(server: Server, path: str, query: dict[str, Any]) -> Any:
    """Of all pages."""
    while True:
        page = server.request("GET", f"{path}?{urlencode(query)}")
        yield from page["data"]
        if not page["has_more"]:
            return
        query = {**query, "after": page["last_id"]}


def _path(resource: str, id_: str) -> str:
    return f"{resource}/{quote(id_, safe='')}"


def _shown(field: str, value: Any) -> Any:
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M") if field.endswith("_at") and value else value
