"""How commands show rows: a table for people, tab-separated lines for programs. The only part of aigate that prints to a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def show_rows(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    texts = [["" if value is None else str(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        show_line("\t".join(columns))
        for row in texts:
            show_line("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in texts:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


def show_line(text: str) -> None:
    show_text(text + "\n")


def show_text(text: str) -> None:
    """At once: a stream is read as it comes."""
    sys.stdout.write(text)
    sys.stdout.flush()


def show_note(text: str) -> None:
    """Beside the result: on stderr, so that a pipe gets the result alone."""
    sys.stderr.write(text + "\n")
