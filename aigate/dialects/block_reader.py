"""What the stream readers of three formats share: events cut out of bytes, those of a learnt template passed on undecoded. Pure.

A format's reader says what one block means (`_read_block`) and calls `_learn` for those whose likes will follow (template.py).
"""

from __future__ import annotations

from aigate.core.events import Event
from aigate.core.neutral import Chunk
from aigate.core.sse import BlockSplitter
from aigate.dialects.template import Template, learn
from aigate.dialects.texts import KeptText
from aigate.errors import ProviderError

MAX_EVENT_BYTES = 16 << 20
MAX_LESSONS = 16  # templates learnt in a row without one match: then this stream has none


class BlockReader:
    __slots__ = ("_is_spliced", "_blocks", "_template", "_lessons", "_kept", "_is_done", "_is_final", "_has_failed")

    def __init__(self, is_spliced: bool):
        self._is_spliced = is_spliced
        self._blocks = BlockSplitter()
        self._template: Template | None = None
        self._lessons = 0
        self._kept = KeptText()
        self._is_done = self._is_final = self._has_failed = False

    # --- what a format says -------------------------------------------------------------------------------------------------

    def _read_block(self, block: bytes) -> Event | None:
        raise AssertionError("a format reads its own blocks")

    def _read_again(self, block: bytes) -> Chunk | None:
        """The chunk of a block like one just read, with no trace left in the reader; None where it is nothing to learn from."""
        raise AssertionError("a format reads its own blocks")

    def _is_told(self, event: Event) -> bool:
        """Whether an event of what was left without its end is one: half an event says nothing."""
        return True

    def _read_run(self, run: bytes) -> list[Event]:
        """The events of whole blocks."""
        return self._read_blocks(run)

    # --- for the relay ------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> list[Event]:
        template = self._template
        if template is not None and self._blocks.is_between:
            text = template.match_one(data)
            if text is not None:
                self._lessons = 0
                self._kept.add(text, len(text))
                return [Event(b"", 1, template.chunk, [text])]
        run = self._blocks.feed(data)
        return self._read_run(run) if run else self._check_size()

    def close(self) -> list[Event]:
        rest = self._blocks.close()
        events: list[Event] = []
        if rest and not self._is_done:
            if rest.lstrip().startswith(b"{"):  # no stream but a JSON body
                rest = b"data: " + rest.replace(b"\n", b" ")
            events = [event for event in self._read_blocks(rest + b"\n\n") if self._is_told(event)]
        if not self._is_done and not self._has_failed:
            if self._is_final:
                events.append(Event(is_done=True))
            else:
                events.append(Event(error=ProviderError("the provider's stream ended before it was complete", kind="cut")))
        return events

    def text_so_far(self) -> tuple[str, int]:
        return self._kept.text(), self._kept.more_bytes

    # --- for the formats ----------------------------------------------------------------------------------------------------

    def _check_size(self) -> list[Event]:
        if self._blocks.held_bytes <= MAX_EVENT_BYTES or self._has_failed:
            return []
        self._has_failed = True
        return [Event(error=ProviderError(f"the provider sent an event of more than {MAX_EVENT_BYTES} bytes", kind="bad_reply"))]

    def _read_blocks(self, run: bytes, at: int = 0) -> list[Event]:
        """The events of whole blocks, from `at` on."""
        events: list[Event] = []
        end = len(run)
        refused = None  # the template whose events are taken one by one, lest each of many looks at all that is left
        while at < end and not self._is_done:
            template = self._template
            if template is not None and run.startswith(template.head, at):
                found = None if template is refused else template.match_run(run, at)
                if found is None:
                    refused = template
                    found = template.match_first(run, at)
                if found is not None:
                    texts, joined, at = found
                    self._lessons = 0
                    self._kept.add(joined, len(joined))
                    last = events[-1] if events else None
                    if last is not None and last.texts is not None and last.chunk is template.chunk:
                        last.texts += texts
                        last.count += len(texts)
                    else:
                        events.append(Event(b"", len(texts), template.chunk, texts))
                    continue
            if run[at] == 0x0A:  # more blank lines than one
                at += 1
                continue
            stop = run.find(b"\n\n", at) + 2
            event = self._read_block(run[at:stop])
            at = stop
            if event is not None:
                events.append(event)
        return events

    def _keep(self, *texts: str | None) -> None:
        for text in texts:
            if text:
                self._kept.add(text, len(text))

    def _learn(self, block: bytes, chunk: Chunk) -> None:
        if self._is_spliced and self._lessons < MAX_LESSONS:
            template = learn(block, chunk, self._read_again)
            if template is not None:
                self._template = template
                self._lessons += 1
