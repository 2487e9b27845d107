"""The two files that a batch's results are appended to while it runs: output and errors. They say which lines are done.

A line is in the file once `add` returns, also for whoever comes after a killed process; `sync` makes it outlast the machine. What was half
written is cut off when they are opened again.
"""

from __future__ import annotations

import os
from pathlib import Path

from aigate.core.batch_lines import number_of

OUTPUT, ERRORS = "output", "errors"
_READ_BYTES = 1 << 20


class Spool:
    def __init__(self, folder: Path, batch_id: str):
        self._batch_id = batch_id
        self._paths = {kind: folder / f"{batch_id}.{kind}" for kind in (OUTPUT, ERRORS)}
        self._files: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

    def open(self) -> tuple[set[int], set[int]]:
        """Numbers of the lines that have a result: (in the output, in the errors). One in both counts as the first says."""
        self._paths[OUTPUT].parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = {}
        for kind, path in self._paths.items():
            self._files[kind] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            found[kind], self._sizes[kind] = self._read(self._files[kind])
            os.truncate(self._files[kind], self._sizes[kind])
        return found[OUTPUT], found[ERRORS] - found[OUTPUT]

    def add(self, kind: str, line: bytes) -> None:
        """OSError where the disk is full: then nothing of it stays."""
        file = self._files[kind]
        try:
            if os.write(file, line) != len(line):
                raise OSError("the disk took a part of a line only")
        except OSError:
            os.truncate(file, self._sizes[kind])
            raise
        self._sizes[kind] += len(line)

    def sync(self) -> None:
        for file in self._files.values():
            os.fdatasync(file)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def path(self, kind: str) -> Path:
        return self._paths[kind]

    def has(self, kind: str) -> bool:
        """Whether anything was written there."""
        return self._sizes[kind] > 0

    def remove(self) -> None:
        self.close()
        for path in self._paths.values():
            path.unlink(missing_ok=True)

    def _read(self, file: int) -> tuple[set[int], int]:
        """(numbers of its whole lines, their bytes)."""
        numbers: set[int] = set()
        size = 0
        with os.fdopen(os.dup(file), "rb", _READ_BYTES) as reader:
            reader.seek(0)
            for line in reader:
                number = number_of(line, self._batch_id)
                if number is None:
                    break
                numbers.add(number)
                size += len(line)
        return numbers, size
