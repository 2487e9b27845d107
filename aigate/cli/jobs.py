"""`aigate jobs`: videos, music and 3D models from the command line, waited for with a progress bar, their files saved."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol
from urllib.parse import quote, urlencode

import typer

from aigate.cli.connection import CommandError, Server
from aigate.cli.options import on_server
from aigate.cli.output import show_line, show_note, show_rows

jobs = typer.Typer(help="Videos, music and 3D models.", no_args_is_help=True)

FIRST_LOOK_S, LAST_LOOK_S = 0.5, 5.0

Id = Annotated[str, typer.Argument(metavar="ID", help="As 'list' shows it.")]
Prompt = Annotated[str, typer.Argument(help="What is to be made. '-' reads it from stdin.")]
Model = Annotated[str | None, typer.Option(help="Such as sim/video; the server's choice when left out.")]
Field = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any field of the request, such as image_url=https://…; may be repeated.")
]
Duration = Annotated[float | None, typer.Option(metavar="S", help="Seconds.")]
Wait = Annotated[bool, typer.Option("--wait", help="Until it is done.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Save the result there; '.' takes its own name. Waits until it is done.")]


@jobs.command("video")
@on_server
def make_video(
    server: Server, prompt: Prompt, model: Model = None, duration: Duration = None, fields: Field = None, wait: Wait = False, out: Out = None
) -> None:
    """Make a video. Prints the job's id, or with --wait the link to its result."""
    _make(server, "/v1/videos/generations", prompt, ({"model": model, "duration": duration}, fields), (wait, out))


@jobs.command("music")
@on_server
def make_music(
    server: Server, prompt: Prompt, model: Model = None, duration: Duration = None, fields: Field = None, wait: Wait = False, out: Out = None
) -> None:
    """Make music."""
    _make(server, "/v1/audio/music", prompt, ({"model": model, "duration": duration}, fields), (wait, out))


@jobs.command("3d")
@on_server
def make_3d(server: Server, prompt: Prompt, model: Model = None, fields: Field = None, wait: Wait = False, out: Out = None) -> None:
    """Make a 3D model."""
    _make(server, "/v1/3d/generations", prompt, ({"model": model}, fields), (wait, out))


@jobs.command("get")
@on_server
def get_job(server: Server, job_id: Id) -> None:
    """Show a job."""
    job = server.request("GET", _path(job_id))
    show_rows(("field", "value"), [(name, value) for name, value in job.items() if value is not None and not isinstance(value, dict | list)])


@jobs.command("list")
@on_server
def list_jobs(
    server: Server,
    status: Annotated[str | None, typer.Option(help="queued, processing, completed or failed.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many.")] = 20,
) -> None:
    """Show jobs, newest first."""
    query = urlencode({"limit": limit, **({"status": status} if status else {})})
    rows = server.request("GET", f"/v1/jobs?{query}")["data"]
    show_rows(
        ("id", "status", "model", "created_at", "cost_cents", "error"),
        [(job["id"], job["status"], job["model"], _time(job["created_at"]), job["cost_cents"], job["error"]) for job in rows],
    )


@jobs.command("cancel")
@on_server
def cancel_job(server: Server, job_id: Id) -> None:
    """Cancel a job."""
    job = server.request("DELETE", _path(job_id))
    show_line(f"{job['id']} {job['error'] or job['status']}")


@jobs.command("wait")
@on_server
def wait_for_job(server: Server, job_id: Id, out: Out = None) -> None:
    """Wait until a job is done, and print the link to its result or save it."""
    _finish(server, server.request("GET", _path(job_id)), out)


def _make(server: Server, path: str, prompt: str, asked: tuple[dict[str, Any], list[str] | None], then: tuple[bool, Path | None]) -> None:
    given, fields = asked
    body = {"prompt": sys.stdin.read().strip() if prompt == "-" else prompt}
    body |= {name: value for name, value in given.items() if value is not None}
    body |= dict(_pair(text) for text in fields or ())
    job = server.request("POST", path, body)
    if job["warnings"]:
        show_note(f"changed: {job['warnings']}")
    wait, out = then
    if not wait and out is None:
        show_line(job["id"])
        return
    show_note(job["id"])
    _finish(server, job, out)


def _finish(server: Server, job: dict[str, Any], out: Path | None) -> None:
    job = _watch(server, job)
    if job["status"] == "failed":
        raise CommandError(f"{job['id']} failed: {job['error']}")
    result = job["result"]
    if result is None:
        raise CommandError(f"{job['id']}: its result was deleted")
    if out is None:
        show_line(job["result_url"])
    else:
        path = out / result["filename"] if out.is_dir() else out
        server.download(f"/v1/files/jobs/{quote(job['id'], safe='')}/{quote(result['filename'])}", path)
        show_line(str(path))
    show_note(f"${(job['cost_cents'] or 0) / 100:.6f}")


def _watch(server: Server, job: dict[str, Any]) -> dict[str, Any]:
    wait_s = FIRST_LOOK_S
    with _bar(job) as bar:
        while job["status"] not in ("completed", "failed"):
            time.sleep(wait_s)
            wait_s = min(wait_s * 1.3, LAST_LOOK_S)
            job = server.request("GET", _path(job["id"]))
            bar.show(job)
    return job


class Bar(Protocol):
    def show(self, job: dict[str, Any]) -> None: ...


class _Quiet:
    """Where nobody looks: a line whenever the status changes."""

    def __init__(self, status: str):
        self._status = status

    def show(self, job: dict[str, Any]) -> None:
        if job["status"] != self._status:
            self._status = job["status"]
            show_note(self._status)


@contextmanager
def _bar(job: dict[str, Any]) -> Iterator[Bar]:
    if not sys.stderr.isatty():
        yield _Quiet(job["status"])
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(job["status"], total=None)

        class _Shown:
            def show(self, job: dict[str, Any]) -> None:
                done = job["progress"]
                progress.update(task, description=job["status"], total=None if done is None else 1.0, completed=done or 0)

        yield _Shown()


def _pair(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark or not name:
        raise CommandError(f"--set {text!r}: expected NAME=VALUE")
    return name, value


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _time(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
