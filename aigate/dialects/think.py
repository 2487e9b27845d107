"""Reasoning that a model writes into its text between `<think>` and `</think>` → reasoning and text apart. Pure.

Only a tag that opens the text counts: the same letters later on are the model's own words. Nothing is trimmed, so a folded stream equals
the plain reply.
"""

from __future__ import annotations

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkSplitter:
    """Fed the text of one choice piece by piece; holds back only what may turn out to be part of a tag."""

    __slots__ = ("_held", "_is_inside", "is_settled")

    def __init__(self) -> None:
        self._held = ""
        self._is_inside = False
        self.is_settled = False  # from here on all is text

    def feed(self, piece: str, is_last: bool) -> tuple[str, str]:
        """(reasoning, text) that are certain now."""
        if self.is_settled:
            return "", piece
        held = self._held + piece
        self._held = ""
        if not self._is_inside:
            start = held.lstrip()
            if not start.startswith(_OPEN):
                if not is_last and _OPEN.startswith(start):
                    self._held = held
                    return "", ""
                self.is_settled = True
                return "", held
            self._is_inside = True
            held = start[len(_OPEN) :]
        reasoning, tag, text = held.partition(_CLOSE)
        if tag:
            self.is_settled = True
            return reasoning, text
        kept = 0 if is_last else _overlap(held)
        self._held = held[len(held) - kept :]
        return held[: len(held) - kept], ""


def _overlap(text: str) -> int:
    """How many characters at the end of `text` may begin the closing tag."""
    for size in range(min(len(_CLOSE) - 1, len(text)), 0, -1):
        if text.endswith(_CLOSE[:size]):
            return size
    return 0


def split_thinking(text: str) -> tuple[str, str]:
    """The same for a whole text."""
    return ThinkSplitter().feed(text, True)
