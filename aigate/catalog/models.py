"""What is known of models by name: our own file of limits, modality and capabilities, which the price data lacks.

Pure but for reading its own data file. Prices are in prices.py, what an operator says in configuration wins over both (load.py).
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

FILE = Path(__file__).with_name("models.json")

# A dated, floating or routed name has the facts of its family: gpt-5.4-2026-03-05, gpt-5.4-20260305, claude-opus-4-1@20250805, GLM-5.2:novita.
_VERSION = re.compile(r"([-@]20\d\d-?\d\d-?\d\d|[-@](latest|default)|:[a-z0-9-]+)$")
_DASHED = re.compile(r"(?<=-\d)-(?=\d\b)")  # claude-opus-4-7 is claude-opus-4.7


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of models.json. 0 and empty: not known."""

    modality: str = "text"
    context_window: int = 0
    max_output_tokens: int = 0
    capabilities: tuple[str, ...] = ()
    is_reasoning: bool = False
    fallbacks: tuple[str, ...] = ()
    description: str = ""
    created: int = 0


def load_facts() -> dict[str, Facts]:
    """slug → facts."""
    return msgspec.json.decode(FILE.read_bytes(), type=dict[str, Facts])


def find_facts(facts: dict[str, Facts], slug: str) -> Facts | None:
    for name in (slug, _VERSION.sub("", slug)):
        found = facts.get(name) or facts.get(_DASHED.sub(".", name))
        if found is not None:
            return found
    return None
