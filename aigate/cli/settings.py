"""`aigate check-config`: the settings in force, one a line, secrets hidden; then which providers they make live."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from aigate.catalog.live import live_providers
from aigate.config import SECRETS, SECTIONS, TABLES, Config, Section


def setting_lines(config: Config) -> Iterator[str]:
    for name in SECTIONS:
        yield from _fields(name, getattr(config, name), leave_out=())
    for name in TABLES:
        for entry, fields in getattr(config, name).items():
            yield from _fields(f'{name}."{entry}"', fields, leave_out=(None, ""))
    live, dormant = live_providers(config, "" if config.sim.enabled else None)
    yield f"# live: {', '.join(live)}"
    for name, reason in dormant.items():
        yield f"# not live: {name}: {reason}"


def _fields(prefix: str, section: Section, *, leave_out: tuple[object, ...]) -> Iterator[str]:
    for field in section.__struct_fields__:
        value = getattr(section, field)
        if value in leave_out:
            continue
        if field in SECRETS and value and not str(value).startswith("env:") and value != "none":
            value = "(hidden)"
        yield f"{prefix}.{field} = {msgspec.json.encode(value).decode()}"
