"""What the simulated provider charges, as (picodollars, per this many tokens): the shape of Price.rates. Constants only."""

RATES = {
    "input": (100_000, 1),  # $0.10 a million
    "cached_input": (25_000, 1),  # $0.025 a million
    "output": (400_000, 1),  # $0.40 a million
}


def bill_nanousd(prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
    """The provider's own sum. Every rate is a whole number of nano-dollars a token, so nothing is rounded."""
    (input_rate, _), (cached_rate, _), (output_rate, _) = RATES["input"], RATES["cached_input"], RATES["output"]
    fresh_tokens = prompt_tokens - cached_tokens
    return (fresh_tokens * input_rate + cached_tokens * cached_rate + completion_tokens * output_rate) // 1000

# Of media: nano-dollars a second (video by its lines, music) or an item (3d). "" is for whatever else.
MEDIA_NANOUSD = {"video": {"720p": 100_000_000, "": 250_000_000}, "music": {"": 2_000_000}, "3d": {"": 50_000_000}}
