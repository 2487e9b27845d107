"""Waiting for long work on a server: asked again and again until it has ended, with a progress bar where a person looks on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

FIRST_PAUSE_S, LAST_PAUSE_S = 0.2, 5.0

Record = dict[str, Any]


def watch(read: Callable[[], Record], measure: Callable[[Record], tuple[float, float] | None], label: str) -> Record:
    """`read`: the work as it stands; `measure`: (done, of how much) of it, None once it has ended. The work as it ended."""
    record, pause_s = read(), FIRST_PAUSE_S
    if measure(record) is None:
        return record
    with _bar(label) as show:
        while (at := measure(record)) is not None:
            show(*at)
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LAST_PAUSE_S)
            record = read()
    return record


class _bar:
    """On stderr, and only on a terminal."""

    def __init__(self, label: str):
        self._label = label
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> Callable[[float, float], None]:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
            self._task = self._progress.add_task(self._label, total=None)
        return self._show

    def _show(self, done: float, total: float) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total or None)

    def __exit__(self, *_error: object) -> None:
        if self._progress is not None:
            self._progress.stop()
