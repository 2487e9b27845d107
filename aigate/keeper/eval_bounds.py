"""What one answer of an eval can cost at most, with what scoring it takes. Pure; the same again whenever it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from aigate.core.bounds import hold_nanousd, input_bound, output_bound
from aigate.core.evals import Eval, Item
from aigate.core.scoring import EMBEDDING, JUDGE, JUDGE_TEXT_CHARS, embedding_request, judge_request
from aigate.core.target import Target
from aigate.dialects import DIALECTS

_BYTES_A_CHAR = 4
_LONGEST_ANSWER = "x" * JUDGE_TEXT_CHARS * _BYTES_A_CHAR  # as many bytes as what is shown of an answer can have


class Bounds:
    """`resolve`: (slug, endpoint) → target."""

    def __init__(self, resolve: Callable[[str, str], Target], default_max_output_tokens: int):
        self._resolve = resolve
        self._default_max_output_tokens = default_max_output_tokens

    def of_answer(self, which: Eval, item: Item, candidate: int) -> int:
        """Nano-dollars. Raises ClientError: a model can no longer be called."""
        bound = self._of_call(item.request, which.candidates[candidate])
        if item.rule.method == JUDGE and which.judge_model:
            request = judge_request(item.rule, item.request, "")
            request["messages"].append({"role": "user", "content": _LONGEST_ANSWER})
            bound += self._of_call(request, which.judge_model)
        if item.rule.method == EMBEDDING and which.embedding_model:
            bound += self._of_call(embedding_request(item.rule, _LONGEST_ANSWER), which.embedding_model, "openai-embeddings")
        return bound

    def of_eval(self, which: Eval, items: list[Item]) -> int:
        return sum(self.of_answer(which, item, candidate) for item in items for candidate in range(len(which.candidates)))

    def _of_call(self, request: Mapping[str, Any], slug: str, surface: str = "openai-chat") -> int:
        endpoint = "embeddings" if surface == "openai-embeddings" else "chat"
        target = self._resolve(slug, endpoint)
        if target.model.price is None:
            return 0
        call = DIALECTS[surface].read_call(msgspec.json.encode({**request, "model": slug}), endpoint, _NO_HEAD)
        tokens_out = output_bound(call, target, self._default_max_output_tokens)
        return hold_nanousd(target.model.price, input_bound(call, target), tokens_out)


class _NoHead:
    path = query = ""
    headers: dict[bytes, bytes] = {}


_NO_HEAD = _NoHead()
