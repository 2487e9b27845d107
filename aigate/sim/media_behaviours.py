"""Which behaviour the name of a simulated media model asks for: video, music or 3d, then `+part` for each row of MEDIA_PARTS. Pure."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from aigate.sim.behaviours import NEVER, Part, UnknownBehaviour, always, fields_of

KINDS = {
    "video": "makes a little MP4 that says it is simulated, in about two seconds",
    "music": "makes a little WAV, in about two seconds",
    "3d": "makes a little GLB, in about two seconds",
}
_MOST_BYTES = 4 << 30


class MediaBehaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How one job goes."""

    kind: str
    takes_s: float = 2.0
    ends: str = "well"  # well | early (fails at once) | late (fails when it should be done) | blocked (its content is refused, late) | never
    status: int = 200  # of the reply to a submission
    failures: int = NEVER  # so many of these for one prompt, then it is taken
    loses: str = ""  # reply (taken, then the connection ends) | request (not taken, the connection ends)
    is_keyless: bool = False  # pays no heed to an idempotency key and cannot be asked for a job by it
    posts: int = 1  # how often it calls the webhook
    pad_bytes: int = 0  # the file is larger by so much, of what players skip
    cuts_file: bool = False  # the first time the file is fetched, the connection ends in the middle
    is_flaky: bool = False  # every second look at a job is answered 503


_UNITS = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}

MEDIA_PARTS: tuple[Part, ...] = (
    Part("video+fast", "done at once", "fast", always(takes_s=0.0)),
    Part("video+slow-30s", "done after this long (also ms)", r"slow-(\d{1,6})(ms|s)",
          lambda number, unit: {"takes_s": int(number) / (1000 if unit == "ms" else 1)}),
    Part("video+fails", "taken, then fails at once", "fails", always(ends="early")),
    Part("video+fails-late", "fails when it should be done", "fails-late", always(ends="late")),
    Part("video+blocked", "fails when it should be done, as its content is not allowed", "blocked", always(ends="blocked")),
    Part("video+stalls", "never ends", "stalls", always(ends="never")),
    Part("video+503", "refused with this status (any 4xx, 5xx)", r"([45]\d\d)", lambda status: {"status": int(status)}),
    Part("video+429-then-ok-2", "refused so many times for one prompt, then taken", r"([45]\d\d)-then-ok(?:-(\d{1,4}))?",
          lambda status, count: {"status": int(status), "failures": int(count or 1)}),
    Part("video+lost-reply", "taken, but the connection ends before the reply", "lost-reply", always(loses="reply")),
    Part("video+lost-request", "not taken: the connection ends", "lost-request", always(loses="request")),
    Part("video+keyless", "pays no heed to an Idempotency-Key", "keyless", always(is_keyless=True)),
    Part("video+no-hook", "never calls the webhook", "no-hook", always(posts=0)),
    Part("video+hook-twice", "calls the webhook twice", "hook-twice", always(posts=2)),
    Part("video+big-50MB", "a file larger by this much (also KB, GB)", r"big-(\d{1,6})(KB|MB|GB)",
          lambda number, unit: {"pad_bytes": min(int(number) * _UNITS[unit], _MOST_BYTES)}),
    Part("video+cut-file", "the first fetch of the file ends in the middle", "cut-file", always(cuts_file=True)),
    Part("video+flaky", "every second look at a job is answered 503", "flaky", always(is_flaky=True)),
)


@lru_cache(maxsize=1024)
def read_media_behaviour(model: str) -> MediaBehaviour:
    """Raises UnknownBehaviour naming the part; a name has to begin with a kind."""
    kind, *parts = model.split("+")
    if kind not in KINDS:
        raise UnknownBehaviour(f"The simulated provider makes no media with {model!r}: names are {', '.join(KINDS)}, with +behaviours.")
    fields: dict[str, object] = {}
    for part in parts:
        found = fields_of(part, MEDIA_PARTS)
        if found is None:
            raise UnknownBehaviour(f"The simulated provider knows no behaviour {part!r} (of the model name {model!r}).")
        fields.update(found)
    return MediaBehaviour(kind=kind, **fields)
