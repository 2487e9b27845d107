"""`aigate ledger`: commands over the ledger's own files. The server may be running or not."""

from typing import Annotated, Literal

import typer

from aigate.cli.connection import CommandError, read_settings
from aigate.cli.options import ConfigFile, DataDirectory
from aigate.cli.output import show_line, show_text

ledger = typer.Typer(help="The record of every attempt and its cost.", no_args_is_help=True)


@ledger.command("verify")
def verify_ledger(config: ConfigFile = None, data_dir: DataDirectory = None) -> None:
    """Recompute every cost, sum and balance from the rows themselves. The server may be running or not."""
    from aigate.cli.verify import report_lines, verify_data_dir

    report = verify_data_dir(_folder(config, data_dir))
    for line in report_lines(report):
        show_line(line)
    if not report.is_sound:
        raise typer.Exit(1)


@ledger.command("export")
def export_ledger(
    format: Annotated[Literal["csv", "jsonl"], typer.Option(help="JSON Lines, or CSV with a line of names.")] = "jsonl",
    month: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="UTC month; all when left out.")] = None,
    config: ConfigFile = None,
    data_dir: DataDirectory = None,
) -> None:
    """Write every attempt to stdout, with its usage, its cost in nano-dollars and how it ended. The server may be running or not."""
    from aigate.cli.ledger_files import export_lines

    for text in export_lines(_folder(config, data_dir), format, month):
        show_text(text)


@ledger.command("resolve")
def resolve_attempt(
    attempt_id: Annotated[str, typer.Argument(metavar="ATTEMPT", help="As 'ledger verify' shows it.")],
    cost: Annotated[str | None, typer.Option(metavar="USD", help="What it cost, by the provider's own bill.")] = None,
    none: Annotated[bool, typer.Option("--none", help="It cost nothing.")] = False,
    config: ConfigFile = None,
    data_dir: DataDirectory = None,
) -> None:
    """Say what an unsettled attempt cost. Its hold ends, and what it cost counts. The server may be running or not."""
    from aigate.cli.ledger_files import resolve_in_data_dir

    if (cost is None) != none:
        raise CommandError("say what it cost: either --cost USD or --none")
    show_line(resolve_in_data_dir(_folder(config, data_dir), attempt_id, cost))


@ledger.command("write-off")
def write_off(
    journal_id: Annotated[str, typer.Argument(metavar="JOURNAL", help="As 'ledger verify' shows it.")],
    config: ConfigFile = None,
    data_dir: DataDirectory = None,
) -> None:
    """Give back the leases of a journal that ended damaged, once you know what its calls cost. The server may be running or not."""
    from aigate.cli.ledger_files import write_off_in_data_dir

    show_line(write_off_in_data_dir(_folder(config, data_dir), journal_id))


def _folder(config: str | None, data_dir: str | None) -> str:
    return read_settings(config, data_dir).server.data_dir
