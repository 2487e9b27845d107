"""Proofs of reasoning in messages of OpenAI chat: `reasoning_details`, as routers over this format have it (openrouter.ai/docs, reasoning tokens;
read 2026-11). Pure.

This format has no place of its own for them. Clients that send an assistant's message back as they got it bring them along, so a model that wants
its earlier thinking again gets it. They are sealed: whoever reads `reasoning_content` finds the same text there.
"""

from __future__ import annotations

from collections.abc import Sequence

from aigate.core.neutral import Bag, Part, Reasoning
from aigate.dialects.proof import seal, unseal

DETAILS = "reasoning_details"
_UNPROVED = seal("", "")


def write_detail(thought: Reasoning, place: int, *, is_first: bool) -> Bag | None:
    """One entry; None for a thought without a proof. `is_first` False: something was said before it. Where it stood cannot be told here, and its
    provider takes back all as it was or nothing: so it says only that there was one, and none of this message is brought back."""
    proof = thought.signature or thought.encrypted
    if not proof or not thought.origin:
        return None
    sealed = seal(thought.origin, proof if is_first else "")
    if thought.signature is None:
        return {"type": "reasoning.encrypted", "data": sealed, "index": place}
    return {"type": "reasoning.text", "text": thought.text, "signature": sealed, "index": place}


def write_details(parts: Sequence[Part]) -> list[Bag]:
    """An entry for each thought, where one of them has a proof."""
    details: list[Bag] = []
    is_first = True
    for part in parts:
        if type(part) is not Reasoning:
            is_first = False
            continue
        unproved = {"type": "reasoning.text", "text": part.text, "signature": _UNPROVED, "index": len(details)}
        details.append(write_detail(part, len(details), is_first=is_first) or unproved)
    return details if any(detail.get("signature") != _UNPROVED for detail in details) else []


def take_details(fields: Bag) -> list[Reasoning] | None:
    """The thoughts that were sealed here, taken out of a message with the text that says the same; None where it has none to bring back.
    Entries that are not ours stay as they are."""
    details = fields.get(DETAILS)
    if type(details) is not list or not details:
        return None
    thoughts = [thought for entry in details if (thought := _read_detail(entry)) is not None]
    if len(thoughts) < len(details):
        return None
    del fields[DETAILS]
    if any(thought.origin and not thought.signature and not thought.encrypted for thought in thoughts):
        return None  # a proof is missing that its provider would miss
    told = "".join(thought.text for thought in thoughts)
    whole = fields.pop("reasoning_content", None)
    if isinstance(whole, str) and whole.startswith(told) and whole != told:  # a stream went on to think and proved no more
        thoughts.append(Reasoning(whole[len(told) :]))
    return thoughts


def _read_detail(entry: object) -> Reasoning | None:
    given = entry.get("signature") or entry.get("data") if type(entry) is dict else None
    sealed = unseal(given) if isinstance(given, str) else None
    if sealed is None:
        return None
    origin, proof = sealed
    text = entry.get("text")  # type: ignore[union-attr]
    if not origin:
        return Reasoning(text if isinstance(text, str) else "")
    if entry.get("type") == "reasoning.encrypted":  # type: ignore[union-attr]
        return Reasoning("", encrypted=proof, origin=origin)
    return Reasoning(text if isinstance(text, str) else "", signature=proof, origin=origin)

