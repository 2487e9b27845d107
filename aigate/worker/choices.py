"""Several choices from a target that makes one at a time: a run for each, all at once, and one reply or stream of all. Pure but for `Run`.

Each choice is an attempt of its own, with its own hold and row; the call has one row and one reply, whose usage is what all used together.
How their streams become one is merge.py's.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aigate.core.call import Call, Warning
from aigate.core.neutral import Reply
from aigate.core.target import Target
from aigate.core.usage import REPORTED, Usage
from aigate.dialects.dialect import Settlement
from aigate.worker.answer import stream_fields
from aigate.worker.merge import Branch, BranchWriter, Merge
from aigate.worker.run import Part, Run

_HAVE_N = frozenset({"openai-chat", "gemini"})  # wire formats with several choices
_SURFACES = _HAVE_N | {"openai-completions"}  # those that may ask for them and can be told of them


def makes_one(call: Call, target: Target) -> bool:
    """Whether `target` makes one choice at a time, where `call` wants more and they can be put together."""
    if call.surface not in _SURFACES or (call.surface == target.dialect == "gemini"):
        return False
    quirks = target.quirks
    return target.dialect not in _HAVE_N or "n" in quirks.unsupported or quirks.clamps.get("n") == (1, 1)


def split(run: Run) -> list[Run]:
    """A run for each choice that `run` asks for."""
    call = run.call
    single = msgspec.structs.replace(call, n=1, pairs={key: raw for key, raw in call.pairs.items() if key != "n"})
    return [run.fork(single) for _ in range(call.n)]


def split_stream(run: Run) -> tuple[list[Run], Merge]:
    """The same where their streams are to be one. The reply begins as the first of them says."""
    choices = split(run)

    def start(branch: Branch) -> None:
        first = choices[branch.place]
        run.target, run.warnings = first.target, first.warnings
        run.exchange.start(200, stream_fields(run))

    merge = Merge(run.exchange, run.surface.stream_writer(run.call, run.asked, run.exchange.request_id), start)
    for place, choice in enumerate(choices):
        choice.writer = writer = BranchWriter(merge)
        choice.exchange = Branch(merge, place, writer)  # type: ignore[assignment]
    return choices, merge


def join(run: Run, choices: Sequence[Run]) -> tuple[Reply, Settlement]:
    """What the client gets of those that were answered, and `run` told what all of them did."""
    parts: list[Part] = [choice.part for choice in choices if choice.part is not None]
    answered = next(choice for choice in choices if choice.part is not None)
    run.target, run.warnings = answered.target, answered.warnings
    add_up(run, choices)
    if len(parts) < len(choices):
        run.warnings += (Warning("clamped", "n", "the provider failed on the others", len(choices), len(parts)),)
    replies = [part.reply for part in parts if part.reply is not None]
    reply = replies[0]
    reply.choices = [choice for each in replies for choice in each.choices]
    for index, choice in enumerate(reply.choices):
        choice.index = index
    return reply, settle_all(parts)


def settle_all(parts: Sequence[Part]) -> Settlement:
    usage = Usage(*map(sum, zip(*(msgspec.structs.astuple(part.usage) for part in parts), strict=True)))
    sources = {part.source for part in parts}
    cost_nanousd = sum(part.cost_nanousd for part in parts)
    return Settlement(usage, cost_nanousd, source=sources.pop() if len(sources) == 1 else max(sources - {REPORTED}))


def add_up(run: Run, choices: Sequence[Run]) -> None:
    """What the runs of the choices spent is the call's, whether they were answered or not."""
    for choice in choices:
        run.cost_nanousd += choice.cost_nanousd
        run.tokens += choice.tokens
        if choice.first_byte_ms >= 0 and (run.first_byte_ms < 0 or choice.first_byte_ms < run.first_byte_ms):
            run.first_byte_ms = choice.first_byte_ms
        run.target = run.target or choice.target
