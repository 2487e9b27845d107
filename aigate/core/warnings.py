"""The `x-aig-warning` value: an RFC 9651 list, one item per change made to a request. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from aigate.core.call import Warning

LIMIT_CHARS = 4096  # values echoed from input are capped


def _value(value: int | float | str) -> str:
    if isinstance(value, bool):
        return "?1" if value else "?0"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):  # an RFC 9651 decimal has at most three decimals
        text = f"{value:.3f}".rstrip("0")
        return text + "0" if text.endswith(".") else text
    printable = "".join(char if " " <= char <= "~" else "?" for char in value[:200])
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'


def warning_item(warning: Warning) -> str:
    """`dropped;param="logit_bias";reason="unsupported"`, `clamped;param="max_tokens";from=4096;to=512;reason="budget"`."""
    item = f"{warning.kind};param={_value(warning.param)}"
    if warning.before is not None:
        item += f";from={_value(warning.before)}"
    if warning.after is not None:
        item += f";to={_value(warning.after)}"
    return item + f";reason={_value(warning.reason)}"


def warning_header(warnings: Sequence[Warning]) -> str:
    """All items, whole, as many as fit in 4 KB; a last `more` item says how many did not."""
    items: list[str] = []
    size = 0
    for place, warning in enumerate(warnings):
        item = warning_item(warning)
        if size + len(item) + 2 > LIMIT_CHARS - 20:
            items.append(f"more;count={len(warnings) - place}")
            break
        items.append(item)
        size += len(item) + 2
    return ", ".join(items)
