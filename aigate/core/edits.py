"""Edits: the changes one target needs, planned once from the call and the target's quirks, then applied by one of two appliers.

`plan_edits` decides; `apply_to_pairs` (same dialect on both sides) and `apply_to_request` (the neutral form) only do as told.
Edits speak neutral parameter names (core/params.py), so one plan serves every pair of dialects. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Raw

from aigate.core.call import Call, Warning
from aigate.core.neutral import Request
from aigate.core.param_types import check_params
from aigate.core.params import EFFORT, GATEWAY_FIELDS, MAX_OUTPUT_TOKENS, THINKING
from aigate.core.target import Quirks, Target

MAX_KNOWN_PLANS = 1024

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")  # weakest first

# thinking.budget_tokens → effort: each budget buys the strongest effort whose floor it reaches. The floors follow what the
# vendors that know both document (Google's OpenAI layer: low 1K, medium 8K, high 24K; read 2026-11).
BUDGET_FLOORS = ((24_576, "high"), (8_192, "medium"), (1, "low"), (0, "none"))


class Edit(msgspec.Struct, frozen=True):
    """`op` drop | set | rename of the parameter `name`. `key` is its key on the target's wire, where that is not the dialect's own
    spelling; `value` the new value of a set. A rename keeps the value and means nothing to the neutral form."""

    op: str
    name: str
    value: Raw | None = None
    key: str | None = None


class EditPlan(msgspec.Struct, frozen=True):
    edits: tuple[Edit, ...] = ()
    warnings: tuple[Warning, ...] = ()


NO_EDITS = EditPlan()


def effort_of_budget(budget_tokens: int) -> str:
    """The reasoning effort that a thinking budget stands for."""
    for floor, effort in BUDGET_FLOORS:
        if budget_tokens >= floor:
            return effort
    return "none"


def nearest_effort(asked: str, allowed: Sequence[str]) -> str | None:
    """The allowed effort closest to the one asked, the weaker one of two equally close; None where none is allowed."""
    if not allowed:
        return None
    if asked in allowed or asked not in EFFORTS:
        return asked
    place = EFFORTS.index(asked)
    return min(allowed, key=lambda effort: (abs(EFFORTS.index(effort) - place), EFFORTS.index(effort)))


def plan_edits(call: Call, target: Target, names: Mapping[str, str]) -> EditPlan:
    """What must change for `target`. `names`: the surface's wire key → neutral name.

    A warning is made for what is lost (dropped) or bent (clamped), never for a change of spelling.
    """
    quirks = target.quirks
    edits: list[Edit] = []
    warnings: list[Warning] = []
    if call.effort is not None or call.thinking_budget is not None:
        _plan_reasoning(call, quirks, edits, warnings)
    reasons = target.model.is_reasoning and bool(quirks.unsupported_when_reasoning) and is_reasoning(call, quirks)
    for key, raw in call.pairs.items():
        name = names.get(key, key)
        if name in quirks.unsupported:
            edits.append(Edit("drop", name))
            warnings.append(Warning("dropped", key, "unsupported"))
        elif reasons and name in quirks.unsupported_when_reasoning:
            edits.append(Edit("drop", name))
            warnings.append(Warning("dropped", key, "unsupported while reasoning"))
        elif name in quirks.clamps:
            _plan_clamp(Edit("set", name, key=quirks.spelling.get(name)), key, raw, quirks, edits, warnings)
        elif name in quirks.values:
            _plan_value(name, raw, quirks, edits)
        elif name in quirks.spelling and quirks.spelling[name] != key:
            edits.append(Edit("rename", name, key=quirks.spelling[name]))
    if quirks.extra:
        asked = {names.get(key, key) for key in call.pairs}
        edits += [Edit("set", name, Raw(msgspec.json.encode(v))) for name, v in quirks.extra.items() if name not in asked]
    return EditPlan(tuple(edits), tuple(warnings)) if edits else NO_EDITS


def plan_request(call: Call, request: Request, target: Target, names: Mapping[str, str]) -> EditPlan:
    """The same for a call that crosses dialects: planned over what the neutral form says, warned of in the caller's spelling. ClientError for
    a parameter that is not of its type: what is passed on to its own provider is for that to refuse, what is translated is for us."""
    own = {name: key for key, name in names.items()} | request.spelling
    check_params(request.params, own)
    pairs = {own.get(name, name): raw for name, raw in request.params.items()}
    if request.tools is not None:
        pairs["tools"] = Raw(b"[]")  # only whether there are any matters here
    effort = request.params.get(EFFORT)
    thinking = request.params.get(THINKING)
    asked = None if effort is None else msgspec.json.decode(effort)
    mode = None if thinking is None else msgspec.json.decode(thinking)
    budget = None
    if isinstance(mode, dict):
        given = mode.get("budget_tokens")
        budget = 0 if mode.get("type") == "disabled" else given if type(given) is int else None
        if mode.get("type") == "enabled" and budget is None and asked is None:  # to reason, it does not say how much
            asked = "medium"
            request.params[EFFORT] = pairs[own.get(EFFORT, EFFORT)] = Raw(b'"medium"')
    crossing = msgspec.structs.replace(call, pairs=pairs, effort=asked if isinstance(asked, str) else None, thinking_budget=budget)
    return plan_edits(crossing, target, names)


class EditPlanner:
    """`plan` is `plan_edits` with a memory: which keys a call has decides most plans, and calls of one application have the same ones."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], tuple[Target, EditPlan]] = {}

    def plan(self, call: Call, target: Target, names: Mapping[str, str]) -> EditPlan:
        if call.effort is not None or call.thinking_budget is not None:
            return plan_edits(call, target, names)
        key = (call.surface, target.slug, *call.pairs)
        known = self._known.get(key)
        if known is not None and known[0] is target:  # the catalogue may have made the target anew
            return known[1]
        plan = plan_edits(call, target, names)
        quirks = target.quirks
        asked = {names.get(name, name) for name in call.pairs}
        if asked.isdisjoint(quirks.clamps) and asked.isdisjoint(quirks.values):  # else the values count too
            if len(self._known) >= MAX_KNOWN_PLANS:
                self._known.clear()
            self._known[key] = target, plan
        return plan


def _asked_effort(call: Call) -> str | None:
    if call.effort is not None:
        return call.effort
    return None if call.thinking_budget is None else effort_of_budget(call.thinking_budget)


def is_reasoning(call: Call, quirks: Quirks) -> bool:
    """Whether a model that can reason will do so for this call."""
    asked = _asked_effort(call)
    effort = quirks.effort_default if asked is None else asked
    if effort == "none" and quirks.effort and "none" not in quirks.effort:
        return True  # it cannot be switched off
    return effort != "none"


def _plan_reasoning(call: Call, quirks: Quirks, edits: list[Edit], warnings: list[Warning]) -> None:
    """One setting, three spellings on the wires: reasoning_effort, thinking.type, thinking.budget_tokens."""
    asked = _asked_effort(call)
    assert asked is not None
    param = EFFORT if call.effort is not None else "thinking.budget_tokens"
    if quirks.thinking in ("budget", "both") and call.thinking_budget is not None:
        return  # its own spelling: untouched
    if EFFORT in quirks.unsupported and THINKING in quirks.unsupported:
        return  # the general rule drops both, with a warning each
    if quirks.thinking == "toggle":
        kind = "disabled" if asked == "none" else "enabled"
        edits.append(Edit("set", THINKING, Raw(msgspec.json.encode({"type": kind}))))
        if quirks.effort is not None and (not quirks.effort or asked == "none"):
            if call.effort is not None:
                edits.append(Edit("drop", EFFORT))
            if asked not in ("none", quirks.effort_default):
                warnings.append(Warning("clamped", param, "the model reasons or not, without degrees", asked, kind))
            return
    elif call.thinking_budget is not None:
        edits.append(Edit("drop", THINKING))
    given = asked if quirks.effort is None else nearest_effort(asked, quirks.effort)
    if given is None:
        edits.append(Edit("drop", EFFORT))
        warnings.append(Warning("dropped", param, "unsupported"))
        return
    on_wire = quirks.values.get(EFFORT, {}).get(given, given)
    if on_wire != call.effort:
        edits.append(Edit("set", EFFORT, Raw(msgspec.json.encode(on_wire)), quirks.spelling.get(EFFORT)))
    if given != asked:
        warnings.append(Warning("clamped", param, "the model takes " + " ".join(quirks.effort or ()), asked, given))


def _plan_clamp(edit: Edit, key: str, raw: Raw, quirks: Quirks, edits: list[Edit], warnings: list[Warning]) -> None:
    value = msgspec.json.decode(raw)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return  # not a number: the provider says what it thinks of it
    low, high = quirks.clamps[edit.name]
    bounded = min(max(value, low), high)
    if bounded == value:
        if edit.key is not None and edit.key != key:
            edits.append(Edit("rename", edit.name, key=edit.key))
        return
    bounded = int(bounded) if isinstance(value, int) and float(bounded).is_integer() else bounded
    edits.append(Edit("set", edit.name, Raw(msgspec.json.encode(bounded)), edit.key))
    warnings.append(Warning("clamped", key, "outside what the model takes", value, bounded))


def _plan_value(name: str, raw: Raw, quirks: Quirks, edits: list[Edit]) -> None:
    value = msgspec.json.decode(raw)
    new = quirks.values[name].get(value) if isinstance(value, str) else None
    if new is not None:
        edits.append(Edit("set", name, Raw(msgspec.json.encode(new)), quirks.spelling.get(name)))
    elif name in quirks.spelling:
        edits.append(Edit("rename", name, key=quirks.spelling[name]))


def set_max_output_tokens(value: int, target: Target) -> Edit:
    """The edit by which admission lowers (or first sets) the output bound."""
    return Edit("set", MAX_OUTPUT_TOKENS, Raw(msgspec.json.encode(value)), target.quirks.spelling.get(MAX_OUTPUT_TOKENS))


def apply_to_pairs(
    pairs: Mapping[str, Raw], edits: Sequence[Edit], names: Mapping[str, str], keys: Mapping[str, str]
) -> dict[str, Raw]:
    """A new dict of pairs with the gateway's own fields gone and the edits applied.

    `names`: wire key → neutral name; `keys`: neutral name → the dialect's own key. A parameter under several keys is one parameter.
    """
    if edits:
        changed = {edit.name: edit for edit in edits}
        kept: dict[str, Raw] = {}
        for key, raw in pairs.items():
            edit = changed.get(names.get(key, key))
            if key in GATEWAY_FIELDS:
                continue
            if edit is None:
                kept[key] = raw
            elif edit.op == "rename":
                kept[edit.key or key] = raw
        for edit in edits:
            if edit.op == "set":
                assert edit.value is not None
                kept[edit.key or keys.get(edit.name, edit.name)] = edit.value
        return kept
    if GATEWAY_FIELDS.isdisjoint(pairs):
        return dict(pairs)
    return {key: raw for key, raw in pairs.items() if key not in GATEWAY_FIELDS}


def apply_to_request(request: Request, edits: Sequence[Edit]) -> None:
    """The same edits on the neutral form, in place. Spelling is the writing dialect's business, so a rename does nothing here."""
    for edit in edits:
        if edit.op == "set":
            assert edit.value is not None
            request.params[edit.name] = edit.value
        elif edit.op == "drop":
            if edit.name == "tools":
                request.tools = None
            request.params.pop(edit.name, None)
            for bag in request.bags.values():
                bag.pop(edit.name, None)
