"""The node's name: made once, kept in the data directory, so that what it began is known as its own after a restart."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def node_id(data_dir: Path) -> str:
    path = data_dir / "node.id"
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.write_text(f"node_{secrets.token_hex(8)}\n")
        os.replace(draft, path)  # whole, or not at all
    return path.read_text("ascii").strip()
