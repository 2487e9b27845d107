"""How much one attempt can cost at most, before it is sent: token bounds and the hold in nano-dollars.

A bound must never be below what the provider may charge, and must be cheap: a few looks at the body, no parsing. Pure.
Whether a hold fits a budget, and what is clamped when it does not, is the budget's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from aigate.core.call import Call
from aigate.core.params import MAX_ASKED_TOKENS, MAX_OUTPUT_TOKENS
from aigate.core.price import Rate
from aigate.core.target import Price, Target

# Tokens that a provider adds around ours: chat template, its own system prompt, the tool-use preamble. The largest one
# documented is Anthropic's tool preamble (804 tokens, platform.claude.com tool-use pricing, read 2026-11).
OVERHEAD_TOKENS = 1024

# One image, by URL or inline, at the finest detail any provider offers (OpenAI: 10,000 patches, weighted up to 2.5 on small models).
IMAGE_TOKENS = 25_000
# A document or a video is bounded by what the model can read at all; where that is unknown, by the widest window there is.
WIDEST_WINDOW_TOKENS = 2_000_000

_PARTS = re.compile(rb'"(source|image_url|inline_?[dD]ata|input_audio|audio_url|video_url|file|file_url|file_?[dD]ata|file_id)"\s*:')
_INLINE_IMAGE = re.compile(rb'"(?:image_)?url"\s*:\s*"data:image/[^"\\]{0,64};base64,')
# Gemini's: the type stands before the data or right behind it.
_INLINE_DATA = re.compile(
    rb'"inline_?[dD]ata"\s*:\s*\{\s*("mime_?[tT]ype"\s*:\s*"image/[^"\\]{0,64}"\s*,\s*)?"data"\s*:\s*"'
)
_IMAGE_FOLLOWS = re.compile(rb'"\s*,\s*"mime_?[tT]ype"\s*:\s*"image/')
_WIDE_TYPE = re.compile(rb'"mime_?[tT]ype"\s*:\s*"(?:application|video|text)/')
_ESCAPED_LETTER = re.compile(rb"\\u00[567]")  # a part's key may hide behind these

# A class is rounded up on its own, so a sum over all classes may pass the bound times the dearest rate by one nano-dollar each.
_ROUNDING_NANOUSD = 8

_OUTPUT_CLASSES = frozenset({"output", "audio_output"})


def input_bound(call: Call, target: Target) -> int:
    """Tokens of input at most. Text makes no more tokens than it has UTF-8 bytes, and JSON never makes it shorter."""
    messages = call.pairs.get("messages") or call.pairs.get("input") or call.pairs.get("contents")
    if messages is None:
        return call.body_bytes + OVERHEAD_TOKENS
    text = bytes(messages)
    if text.find(b"[", 1) < 0:  # media parts stand in arrays inside the messages: one look for one byte tells that there are none
        return call.body_bytes + OVERHEAD_TOKENS
    if b'"source"' in text or b'_url"' in text or b'_audio"' in text or b'"file' in text or b'"inline' in text or b"\\u00" in text:
        return call.body_bytes + OVERHEAD_TOKENS + _media_bound(text, target)
    return call.body_bytes + OVERHEAD_TOKENS


def _media_bound(text: bytes, target: Target) -> int:
    """Tokens that media parts may add to what their bytes are counted as; inline images count by the part, not by the byte."""
    window = target.model.context_window or WIDEST_WINDOW_TOKENS
    images = whole_window = 0
    for match in _PARTS.finditer(text):
        if match[1] in (b"image_url", b"source") or match[1].startswith(b"inline"):
            images += 1
        elif match[1] != b"input_audio":  # inline audio has more bytes than tokens
            whole_window += 1
    whole_window += b'"document"' in text  # its source may be a few bytes that say where it is
    whole_window += _WIDE_TYPE.search(text) is not None  # a page may cost more tokens than it has bytes
    images += len(_ESCAPED_LETTER.findall(text))
    return images * IMAGE_TOKENS + min(whole_window, 1) * window - _inline_image_bytes(text)


def _inline_image_bytes(text: bytes) -> int:
    total = 0
    for match in _INLINE_IMAGE.finditer(text):
        total += max(0, text.find(b'"', match.end()) - match.end())
    for match in _INLINE_DATA.finditer(text):
        end = text.find(b'"', match.end())
        if end >= 0 and (match[1] is not None or _IMAGE_FOLLOWS.match(text, end)):
            total += end - match.end()
    return total


def output_bound(call: Call, target: Target, default_max_output_tokens: int) -> int:
    """Tokens of output at most, over all choices: what was asked, else the model's limit, else the configured default."""
    if call.endpoint == "embeddings":
        return 0
    return max_output_tokens(call, target, default_max_output_tokens) * max(call.n, 1)


def max_output_tokens(call: Call, target: Target, default_max_output_tokens: int) -> int:
    """Of one choice: what was asked, as far as it reaches the provider as it was asked."""
    quirks = target.quirks
    tokens = target.model.max_output_tokens or default_max_output_tokens
    if call.max_output_tokens is not None and MAX_OUTPUT_TOKENS not in quirks.unsupported:
        tokens = min(call.max_output_tokens, MAX_ASKED_TOKENS)  # whatever a surface lets through: the hold stays inside 64 bits
    if MAX_OUTPUT_TOKENS in quirks.clamps:
        low, high = quirks.clamps[MAX_OUTPUT_TOKENS]
        tokens = int(min(max(tokens, low), high))
    return tokens


# What a hold needs of rates: the dearest of input, the dearest of output, nano-dollars a request. A rate here is (picodollars,
# per so many times 1000), which gives nano-dollars.
_Dearest = tuple[int, int, int, int, int]
_known: dict[int, tuple[Price, _Dearest, list[tuple[int, _Dearest]]]] = {}  # by id(price), true as long as the price is kept beside it
_MAX_KNOWN = 4096


def hold_nanousd(price: Price | None, input_tokens: int, output_tokens: int) -> int:
    """The most that so many tokens can cost: every token at the dearest rate of any tier that the input could reach."""
    if price is None:
        return 0
    _, (input_pico, input_per, output_pico, output_per, request_nanousd), tiers = _known.get(id(price)) or _remember(price)
    hold = request_nanousd - -input_tokens * input_pico // input_per - -output_tokens * output_pico // output_per
    for above, (input_pico, input_per, output_pico, output_per, request_nanousd) in tiers:
        if input_tokens > above:
            hold = max(hold, request_nanousd - -input_tokens * input_pico // input_per - -output_tokens * output_pico // output_per)
    return hold + _ROUNDING_NANOUSD


def _remember(price: Price) -> tuple[Price, _Dearest, list[tuple[int, _Dearest]]]:
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    known = _known[id(price)] = price, _dearest(price.rates), [(above, _dearest(tier.rates)) for above, tier in price.tiers]
    return known


def _dearest(rates: Mapping[str, Rate]) -> _Dearest:
    """Rounding up keeps order, so the dearest rate is also the dearest once its cost is rounded."""
    inputs: list[Rate] = [(0, 1)]
    outputs: list[Rate] = [(0, 1)]
    request_nanousd = 0
    for name, (picodollars, per) in rates.items():
        if name == "request":
            request_nanousd = -(-picodollars // (per * 1000))
        else:
            (outputs if name in _OUTPUT_CLASSES else inputs).append((picodollars, per * 1000))
    return *max(inputs, key=_exactly), *max(outputs, key=_exactly), request_nanousd


def _exactly(rate: Rate) -> Fraction:
    return Fraction(*rate)
