"""Evals: their nouns, what a dataset may hold, and which candidate wins. Pure; how an answer is scored is core/scoring.py's.

An eval asks every candidate model every item of a dataset. Candidates that answered all items come before those that did not; among
these the metric decides: the best mean score, the lowest mean cost, or the lowest median latency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, median, stdev
from typing import Any

import msgspec

from aigate.core.scoring import AUTO, METHODS, NONE, Rule, find_rule
from aigate.errors import ClientError

QUALITY, COST, SPEED = "quality", "cost", "speed"
RUNNING, COMPLETED, FAILED = "running", "completed", "failed"
ALIAS = "eval:"  # before an eval's id, where it stands for its winner

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
# Student's t at that confidence for 1, 2, … degrees of freedom; from then on it is nearly normal.
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip

_ITEM_FIELDS = ("input", "expected", "contains", "regex", "rubric", "scorer", "id")


class Item(msgspec.Struct, frozen=True):
    """One thing every candidate is asked: `request` is a chat request without its model; `rule` says how an answer is scored."""

    request: dict[str, Any]
    rule: Rule
    name: str = ""  # the caller's own id of it


class Eval(msgspec.Struct, frozen=True, kw_only=True):
    """One eval as it is kept. Times are unix milliseconds. `owner_id` "": everybody's in the account who may see all of it."""

    id: str  # eval_…
    account_id: str
    owner_id: str
    key_id: str
    sub_account_id: str | None
    tag: str | None
    name: str
    metric: str
    candidates: tuple[str, ...]
    judge_model: str | None
    embedding_model: str | None
    dataset_size: int
    status: str = RUNNING
    error: str = ""
    winner_model: str | None = None
    summary: dict[str, Any] = {}
    window: str = ""  # month of what is reserved
    reserved_nanousd: int = 0  # for calls of it that were not sent yet
    created_ms: int
    ended_ms: int | None = None
    used_ms: int | None = None


class Defaults(msgspec.Struct, frozen=True):
    """What holds for items that do not say otherwise."""

    scorer: str = AUTO
    rubric: str = ""
    has_judge: bool = False
    needs_scores: bool = True
    max_output_tokens: int = 4096


def read_dataset(dataset: Sequence[Any], defaults: Defaults) -> list[Item]:
    """Raises ClientError naming the item and field that is wrong."""
    return [_read_item(item, f"dataset[{place}]", defaults) for place, item in enumerate(dataset)]


def _read_item(item: Any, path: str, defaults: Defaults) -> Item:
    if not isinstance(item, dict):
        raise _wrong(path, "must be an object with an input")
    unknown = next((name for name in item if name not in _ITEM_FIELDS), None)
    if unknown is not None:
        raise _wrong(f"{path}.{unknown}"[:200], f"is no field of an item; allowed are {', '.join(_ITEM_FIELDS)}")
    scorer = item.get("scorer") or defaults.scorer
    if scorer not in METHODS:
        raise _wrong(f"{path}.scorer", f"must be one of {', '.join(METHODS)}")
    rule = find_rule(item, path, scorer, rubric=defaults.rubric, has_judge=defaults.has_judge)
    if rule.method == NONE and defaults.needs_scores:
        raise _wrong(path, "gives nothing to score answers by; add expected, contains, regex or rubric, or name a judge_model for the eval")
    request = _read_request(item.get("input"), f"{path}.input")
    if not any(name in request for name in ("max_tokens", "max_completion_tokens")):
        request["max_tokens"] = defaults.max_output_tokens
    return Item(request, rule, str(item.get("id") or ""))


def _read_request(given: Any, path: str) -> dict[str, Any]:
    if isinstance(given, str) and given:
        return {"messages": [{"role": "user", "content": given}]}
    if isinstance(given, list) and given:
        _check_messages(given, path)
        return {"messages": given}
    if isinstance(given, dict):
        messages = given.get("messages")
        if not isinstance(messages, list) or not messages:
            raise _wrong(f"{path}.messages", "must be a list of messages: an input that is an object is a whole chat request")
        _check_messages(messages, f"{path}.messages")
        if given.get("n") not in (None, 1):
            raise _wrong(f"{path}.n", "must be 1: an answer is scored, not several")
        dropped = ("model", "stream", "stream_options", "n", "fallbacks")
        return {name: value for name, value in given.items() if name not in dropped}
    raise _wrong(path, "must be a text, a list of messages or a chat request, and not empty")


def _check_messages(messages: list[Any], path: str) -> None:
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _wrong(f"{path}[{place}]", "must be a message with a role")


def _wrong(path: str, problem: str) -> ClientError:
    return ClientError(f"{path}: {problem}.", param=path)


# --- results ------------------------------------------------------------------------------------------------------------------


class Result(msgspec.Struct, kw_only=True):
    """One candidate's answer to one item. `score` None: it was not scored, `error` or the rule says why."""

    item: int
    candidate: int
    call_id: str
    output: str = ""
    error: str = ""
    score: float | None = None
    reason: str = ""  # the judge's
    cost_nanousd: int = 0
    scoring_nanousd: int = 0  # what judging it cost
    latency_ms: int = 0


class Standing(msgspec.Struct, kw_only=True):
    """How one candidate did over all items."""

    model: str
    items: int
    failed: int
    score: float | None  # mean over its scored answers
    score_low: float | None  # ends of its confidence interval
    score_high: float | None
    scored: int
    cost_nanousd: int
    mean_cost_nanousd: int
    latency_p50_ms: int
    latency_p90_ms: int
    latency_p99_ms: int


def stand(model: str, results: Sequence[Result]) -> Standing:
    answered = [result for result in results if not result.error]
    scores = [result.score for result in answered if result.score is not None]
    if scores:  # an answer that failed is worth nothing: leaving it out would reward failing where it is hard
        scores += [0.0] * (len(results) - len(answered))
    low, high = score_interval(scores)
    latencies = sorted(result.latency_ms for result in answered)
    cost = sum(result.cost_nanousd for result in results)
    return Standing(
        model=model,
        items=len(results),
        failed=len(results) - len(answered),
        score=fmean(scores) if scores else None,
        score_low=low,
        score_high=high,
        scored=len(scores),
        cost_nanousd=cost,
        mean_cost_nanousd=cost // max(1, len(answered)),
        latency_p50_ms=percentile(latencies, 50),
        latency_p90_ms=percentile(latencies, 90),
        latency_p99_ms=percentile(latencies, 99),
    )


def find_winner(standings: Sequence[Standing], metric: str) -> Standing | None:
    """None where no candidate gave an answer that the metric can judge. Ties go to the better score, then the cheaper, then the faster, then
    the one named first."""
    able = [each for each in standings if each.failed < each.items and (metric != QUALITY or each.score is not None)]
    if not able:
        return None
    fewest = min(each.failed for each in able)
    if metric != QUALITY:  # failing is neither cheap nor fast
        able = [each for each in able if each.failed == fewest]
    order = {
        QUALITY: lambda each: (-(each.score or 0.0), each.mean_cost_nanousd, each.latency_p50_ms),
        COST: lambda each: (each.mean_cost_nanousd, -(each.score or 0.0), each.latency_p50_ms),
        SPEED: lambda each: (each.latency_p50_ms, -(each.score or 0.0), each.mean_cost_nanousd),
    }[metric]
    return min(able, key=order)


def confidence_of(winner: Sequence[Result], other: Sequence[Result], metric: str) -> dict[str, float] | None:
    """How sure it is that the winner beats the other: the mean difference in the metric (score, cents, milliseconds), item by item, in the
    winner's favour, with its interval. Above 0 at its low end: it is no accident of these items. None: too few items in common."""
    pairs = [(a, b) for a, b in zip(winner, other, strict=True) if not a.error and not b.error]
    if metric == QUALITY:
        differences = [a.score - b.score for a, b in pairs if a.score is not None and b.score is not None]
    elif metric == COST:
        differences = [float(b.cost_nanousd - a.cost_nanousd) / 1e7 for a, b in pairs]  # cents
    else:
        differences = [float(b.latency_ms - a.latency_ms) for a, b in pairs]
    if len(differences) < 2:
        return None
    low, high = mean_interval(differences)
    return {"difference": fmean(differences), "low": low, "high": high, "confidence": CONFIDENCE}


def score_interval(scores: Sequence[float]) -> tuple[float | None, float | None]:
    """Wilson's, which is sound for few scores and for all of them alike; (None, None) where there is none."""
    if not scores:
        return None, None
    n, p, z = len(scores), fmean(scores), _Z
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's, of the mean of at least two values."""
    freedom = len(values) - 1
    reach = (_STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _Z) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - reach, fmean(values) + reach


def percentile(ordered: Sequence[int], percent: int) -> int:
    """Nearest rank of values in order; 0 where there are none."""
    if not ordered:
        return 0
    if percent == 50:
        return int(median(ordered))
    return ordered[min(len(ordered) - 1, -(-len(ordered) * percent // 100) - 1)]
