"""Rate limits: how many requests and tokens a minute, how many streams at a time. The keeper's buckets, dealt out in permits. Pure.

A bucket of `limit` a minute lets at most `limit / 60` a second through, and BURST_S seconds' worth at once after a pause. It lives in
the keeper, the only one that gives permits, so the limit holds over all workers. A worker may take some ahead; those are void LEASE_S after
it asked (unused ones go back), and the bucket is smaller by as many as can be out, so no interval ever sees more than the limit allows.
Tokens are taken before a call by what it asks for and made good after it by what it used; a bucket in debt gives nothing until it is paid.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

REQUESTS, TOKENS, STREAMS = "requests", "tokens", "streams"  # kinds of Rate

BURST_S = 10.0  # twice the rate for 10 s
LEASE_S = 1.0  # how long a permit that was taken ahead may be used
NO_RATE_WAIT_S = 1.0  # what to say where only the end of another stream helps
NEVER = float("inf")


class Rate(msgspec.Struct, frozen=True, array_like=True):
    """A limit of one key, sub-account or account (ids are unique over all of them): a minute's requests or tokens, or streams at a time."""

    kind: str
    owner_id: str
    limit: int

    @property
    def bucket(self) -> tuple[str, str]:
        """It outlives a change of its limit."""
        return self.kind, self.owner_id

    @property
    def per_second(self) -> float:
        return 0.0 if self.kind == STREAMS else self.limit / 60

    @property
    def most_ahead(self) -> int:
        """So many requests may be taken beyond what is needed now; tokens and streams are asked for by each call."""
        return int(self.per_second * LEASE_S) if self.kind == REQUESTS else 0

    @property
    def size(self) -> float:
        """What a full bucket holds. Of tokens a whole minute's, as one call may need them."""
        if self.kind != REQUESTS or not self.limit:
            return self.limit
        return max(1.0, self.per_second * (BURST_S - LEASE_S if self.most_ahead else BURST_S))


class Want(msgspec.Struct, frozen=True, array_like=True):
    """`need` 0: nobody waits for it. `ahead`: how many the worker would like on top."""

    rate: Rate
    need: int
    ahead: int = 0


class Share(msgspec.Struct, frozen=True, array_like=True):
    """The answer to one Want: `given` is 0 or at least the need; `left` in the bucket; `wait_s` until the need would be met."""

    given: int
    left: int
    wait_s: float = 0.0


class _Bucket:
    __slots__ = ("rate", "level", "at")

    def __init__(self, rate: Rate, now: float):
        self.rate = rate
        self.level = float(rate.size)
        self.at = now

    def fill(self, now: float) -> None:
        self.level = min(self.rate.size, self.level + self.rate.per_second * (now - self.at))
        self.at = now


class Buckets:
    """The keeper's, by (kind, owner)."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def take(self, want: Want, now: float) -> Share:
        bucket = self._bucket(want.rate, now)
        missing = want.need - bucket.level
        if missing > 0:
            per_second = want.rate.per_second
            return Share(0, max(0, int(bucket.level)), missing / per_second if per_second else NO_RATE_WAIT_S)
        given = want.need + max(0, min(want.ahead, want.rate.most_ahead, int(bucket.level) - want.need))
        bucket.level -= given
        return Share(given, max(0, int(bucket.level)))

    def give_back(self, rate: Rate, permits: int, now: float) -> None:
        """What was not used; negative: what was used on top."""
        bucket = self._bucket(rate, now)
        bucket.level = min(bucket.rate.size, bucket.level + permits)

    def note_use(self, rate: Rate, in_use: int, now: float) -> None:
        """A worker took from this bucket before this keeper knew it: it starts empty (of streams: without those that run)."""
        bucket = self._bucket(rate, now)
        bucket.level = bucket.level - in_use if rate.kind == STREAMS else min(bucket.level, 0.0)

    def sweep(self, now: float) -> None:
        """Full buckets say nothing that a new one does not."""
        for bucket in self._buckets.values():
            bucket.fill(now)
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket.level < bucket.rate.size}

    def __len__(self) -> int:
        return len(self._buckets)

    def _bucket(self, rate: Rate, now: float) -> _Bucket:
        bucket = self._buckets.get(rate.bucket)
        if bucket is None:
            bucket = self._buckets[rate.bucket] = _Bucket(rate, now)
            return bucket
        bucket.fill(now)
        if bucket.rate != rate:  # the limit has changed: what was taken stays taken
            bucket.level = rate.size - (bucket.rate.size - bucket.level) if rate.kind == STREAMS else min(bucket.level, rate.size)
            bucket.rate = rate
        return bucket


class Slice:
    """What a worker holds of one bucket. `left`: what the keeper's bucket had when it last said."""

    __slots__ = ("rate", "available", "ends_at", "left", "used", "running", "is_asked", "last_used_at")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self.available = 0
        self.ends_at = NEVER
        self.left = 0
        self.used = 0  # of late: what to take ahead next time
        self.running = 0  # streams
        self.is_asked = False  # permits ahead are on their way
        self.last_used_at = now


class Purse:
    """A worker's permits. `take` is sync and at once, like holds of money (core/wallet.py). Returned lists of (Rate, permits) go back
    to the keeper."""

    __slots__ = ("slices",)

    def __init__(self) -> None:
        self.slices: dict[tuple[str, str], Slice] = {}

    def take(self, wants: Sequence[Want], now: float) -> list[Want]:
        """All of them or nothing. What is short must be asked for; nothing is where all was taken."""
        pieces = [self._slice(want.rate, now) for want in wants]
        short = [w for w, piece in zip(wants, pieces, strict=True) if piece.available < w.need or now >= piece.ends_at]
        if not short:
            for want, piece in zip(wants, pieces, strict=True):
                piece.available -= want.need
                piece.used += want.need
                piece.last_used_at = now
                if want.rate.kind == STREAMS:
                    piece.running += want.need
        return short

    def ahead(self, want: Want, now: float) -> Want:
        """The same want with as many ahead as were used of late."""
        return Want(want.rate, want.need, min(self._slice(want.rate, now).used, want.rate.most_ahead))

    def thirsty(self, wants: Sequence[Want], now: float) -> list[Want]:
        """What to ask for before anybody has to wait."""
        asked = []
        for want in wants:
            piece = self._slice(want.rate, now)
            if want.rate.most_ahead and piece.used > 4 * piece.available and piece.used > 4 and not piece.is_asked:
                piece.is_asked = True
                asked.append(self.ahead(Want(want.rate, 0), now))
        return asked

    def add(self, want: Want, share: Share, asked_at: float, now: float) -> list[tuple[Rate, int]]:
        """What the keeper gave. It must be used LEASE_S after it was asked for; one end for the whole slice, the earliest."""
        piece = self._slice(want.rate, now)
        piece.left = share.left
        piece.is_asked = False
        back = self._expire(piece, now)
        if not piece.available and want.rate.most_ahead:
            piece.ends_at = asked_at + LEASE_S
        piece.available += share.given
        return back

    def standing(self, rate: Rate, now: float) -> tuple[int, int, int]:
        """(limit a minute, permits left as far as this worker knows, seconds until the bucket is full again)."""
        piece = self._slice(rate, now)
        remaining = piece.available + piece.left
        missing = max(0.0, rate.size + rate.most_ahead - remaining)
        return rate.limit, remaining, -int(-missing // rate.per_second) if rate.per_second else 0

    def end(self, want: Want, used: int) -> list[tuple[Rate, int]]:
        """A call that took permits has ended; of tokens it used so many (perhaps more than it took). Requests stay used."""
        if want.rate.kind == REQUESTS:
            return []
        piece = self.slices.get(want.rate.bucket)
        if want.rate.kind == STREAMS and piece is not None:
            piece.running -= want.need
        return [(want.rate, want.need - used)] if want.need != used else []

    def sweep(self, now: float) -> list[tuple[Rate, int]]:
        """Called every second. Permits past their end go back; slices unused for a while are dropped."""
        back = []
        for key, piece in list(self.slices.items()):
            if not piece.rate.most_ahead:
                piece.ends_at = now  # taken for a call that another limit refused
            back += self._expire(piece, now)
            piece.used //= 2
            if not piece.available and not piece.running and now - piece.last_used_at > 2 * BURST_S:
                del self.slices[key]
        return back

    def in_use(self, now: float) -> list[tuple[Rate, int]]:
        """For a keeper that may not know: streams that run, and what was taken of late."""
        return [
            (piece.rate, piece.running)
            for piece in self.slices.values()
            if piece.running or (piece.rate.kind != STREAMS and now - piece.last_used_at < BURST_S)
        ]

    def _expire(self, piece: Slice, now: float) -> list[tuple[Rate, int]]:
        if now < piece.ends_at:
            return []
        available, piece.available, piece.ends_at = piece.available, 0, NEVER
        return [(piece.rate, available)] if available else []

    def _slice(self, rate: Rate, now: float) -> Slice:
        piece = self.slices.get(rate.bucket)
        if piece is None:
            piece = self.slices[rate.bucket] = Slice(rate, now)
        piece.rate = rate
        return piece
