"""`aigate eval`: which of some models does a job best, asked of a running server."""

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from aigate.cli.connection import CommandError, Server
from aigate.cli.options import on_server
from aigate.cli.output import show_line, show_note, show_rows
from aigate.cli.progress import watch

evals = typer.Typer(help="Compare models on a dataset.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="As 'list' shows it.")]

_COLUMNS = ("model", "score", "score_low", "score_high", "failed", "mean_cost_cents", "latency_p50_ms", "latency_p90_ms")


@evals.command("run")
@on_server
def run_eval(
    server: Server,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON Lines of items {input, expected?, …}; '-' reads stdin.")],
    models: Annotated[str, typer.Argument(metavar="MODELS", help="The candidates, with commas between them.")],
    metric: Annotated[str, typer.Option(help="quality, cost or speed.")] = "quality",
    name: Annotated[str | None, typer.Option(help="What it is called; the file's name when left out.")] = None,
    judge: Annotated[str | None, typer.Option(metavar="MODEL", help="Scores what has nothing to be compared with.")] = None,
    rubric: Annotated[str | None, typer.Option(metavar="TEXT", help="What a good answer is.")] = None,
) -> None:
    """Ask every candidate every item, wait for the end, and show how they did."""
    body: dict[str, Any] = {"dataset": _read_items(file), "candidate_models": [model for model in models.split(",") if model], "metric": metric}
    body |= {key: value for key, value in (("name", name or Path(file).name), ("judge_model", judge), ("rubric", rubric)) if value}
    made = server.request("POST", "/v1/evals", body, {"prefer": "respond-async"})
    show_note(f"{made['id']}: {made['dataset_size']} items for {len(made['candidate_models'])} candidates")
    _show_end(watch(lambda: server.request("GET", f"/v1/evals/{made['id']}"), _progress, made["id"]))


@evals.command("get")
@on_server
def get_eval(server: Server, eval_id: Id) -> None:
    """Show how the candidates did."""
    found = server.request("GET", f"/v1/evals/{quote(eval_id, safe='')}")
    if found["status"] == "running":
        show_line(f"{found['id']} is running: {found['summary']['answered']} of {found['summary']['answers']} answers")
    else:
        _show_end(found)


@evals.command("winner")
@on_server
def show_winner(server: Server, eval_id: Id) -> None:
    """Print the model that won."""
    found = server.request("GET", f"/v1/evals/{quote(eval_id, safe='')}")
    if found["winner_model"] is None:
        raise CommandError(f"{found['id']} has no winner: {found['error'] or found['status']}")
    show_line(found["winner_model"])


@evals.command("list")
@on_server
def list_evals(server: Server) -> None:
    """Show the newest evals."""
    fields = ("id", "name", "status", "metric", "dataset_size", "winner_model")
    show_rows(fields, ([row[field] for field in fields] for row in server.request("GET", "/v1/evals")["data"]))


def _read_items(file: str) -> list[Any]:
    try:
        lines = (typer.get_text_stream("stdin") if file == "-" else Path(file).open(encoding="utf-8")).read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: {error}") from None
    items = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                items.append(json.loads(line))
            except ValueError as error:
                raise CommandError(f"{file}, line {number}: is not JSON: {error}") from None
    if not items:
        raise CommandError(f"{file}: has no items")
    return items


def _progress(record: dict[str, Any]) -> tuple[float, float] | None:
    return (record["summary"]["answered"], record["summary"]["answers"]) if record["status"] == "running" else None


def _show_end(found: dict[str, Any]) -> None:
    rows = found["summary"].get("candidates", [])
    show_rows(_COLUMNS, ([_shown(row[column]) for column in _COLUMNS] for row in rows))
    if found["winner_model"] is None:
        raise CommandError(f"{found['id']} failed: {found['error']}")
    show_note(f"{found['winner_model']} wins; use it as the model eval:{found['id']}")


def _shown(value: Any) -> Any:
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
