"""`make catalog`: compiles the prices of the installed genai-prices package into aigate/catalog/prices.json. Needs no network.

Fails, changing nothing, when a price fell to nothing or by nine tenths against the committed file; `--accept PROVIDER/MODEL` says
that a fall is real.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from importlib.metadata import version
from pathlib import Path

import msgspec

from aigate.catalog.compile import compile_prices, suspicious_drops
from aigate.catalog.prices import FILE, PriceBook, PriceEntry


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effective", type=datetime.date.fromisoformat, default=datetime.date.today(), help="day whose prices to take")
    parser.add_argument("--accept", action="append", default=[], metavar="PROVIDER/MODEL", help="a fall in price that is real")
    parser.add_argument("--output", type=Path, default=FILE)
    options = parser.parse_args(argv)

    from genai_prices.data import providers

    compiled = compile_prices(providers, options.effective)
    old: dict[str, list[PriceEntry]] = {}
    if options.output.exists():
        book = PriceBook(options.output.read_bytes())
        old = {name: book.entries(name) for name in compiled.providers}
    drops = [drop for drop in suspicious_drops(old, compiled.providers) if drop.partition(": ")[0] not in options.accept]
    if drops:
        print("prices that fell too far to be believed:", *drops, sep="\n  ", file=sys.stderr)
        return 1
    options.output.write_bytes(encode(compiled.providers, f"genai-prices {version('genai-prices')}", options.effective.isoformat()))
    for name, entries in compiled.providers.items():
        print(f"{name}: {len(entries)} prices")
    for reason, count in sorted(compiled.skipped.items()):
        print(f"left out, {reason}: {count}")
    return 0


def encode(providers: dict[str, list[PriceEntry]], source: str, effective: str) -> bytes:
    """One line an entry, so that a change of prices reads well in review."""
    blocks = []
    for name, entries in providers.items():
        lines = b",\n".join(msgspec.json.encode(entry, order="deterministic") for entry in entries)
        blocks.append(msgspec.json.encode(name) + b":[\n" + lines + b"]")
    head = b'{"source":' + msgspec.json.encode(source) + b',"effective":' + msgspec.json.encode(effective)
    return head + b',"providers":{\n' + b",\n".join(blocks) + b"}}\n"


if __name__ == "__main__":
    sys.exit(main())
