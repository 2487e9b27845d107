"""The arithmetic of budgets on the keeper's side: what is granted, and what shipped records change.

The keeper reads rows, calls these functions and writes what they say, in one transaction each; the model in tests/money calls them the
same way. Amounts are integer nano-dollars. A *place* is (budget id, window). The worker's side is core/wallet.py. Pure.

    spent     settled cost of the owner, with or without a limit; rises only when records are shipped
    reserved  holds of attempts whose end nobody will ever hear of; counts, is not billed
    leased    given to journals and not yet shipped back: their free slices and their holds. Sum of `leases` over the journals
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

ACCOUNT, SUB_ACCOUNT, KEY, TAG = "account", "sub_account", "key", "tag"
BY_MONTH, ALL_TIME = "month", "all"  # budgets.window_kind; ALL_TIME is its own window

Owner = tuple[str, str, str]  # scope, account id, id (of a tag: its text)
Place = tuple[int, str]  # budget id, window
Lease = tuple[int, str, int]  # budget id, window, nano-dollars

_NEVER = -(1 << 62)  # below any amount


def window_of(window_kind: str, month: str) -> str:
    """Where an attempt of `month` (its intent's window, else the month it was sent in) counts for a budget of this kind."""
    return ALL_TIME if window_kind == ALL_TIME else month


# --- grants ---------------------------------------------------------------------------------------------------------------------


class Want(msgspec.Struct, array_like=True, frozen=True):
    """`need` must be given for the asking hold to be admitted (0: a refill, nobody waits); `comfort` (≥ need) is what the worker would
    like, so that it asks seldom."""

    budget_id: int
    need: int
    comfort: int


class Limit(msgspec.Struct, array_like=True, frozen=True):
    """One owner's limit has changed. `window`: the one that a first limit adopts open holds into."""

    owner: Owner
    budget_id: int
    is_limited: bool
    window: str


class WindowRow(msgspec.Struct):
    """One budget in one window, as the transaction sees it. `limit` None: unlimited."""

    limit: int | None
    spent: int = 0
    reserved: int = 0
    leased: int = 0

    @property
    def room(self) -> int | None:
        """What may still be leased; negative after an overrun, an adoption or a lowered limit."""
        return None if self.limit is None else self.limit - self.spent - self.reserved - self.leased


class Given(msgspec.Struct, frozen=True):
    """Every want is met: `amounts`, in their order, each at least the need. The caller adds them to `leased` and to the journal's leases.
    `tight`: budgets so near their end that a slice is exactly one hold; the worker keeps nothing of it after the hold."""

    amounts: tuple[int, ...]
    tight: tuple[int, ...] = ()


class Short(msgspec.Struct, frozen=True):
    """Only leases are in the way: recall the unused ones and try again. `available` fits now."""

    budget_id: int
    available: int


class Over(msgspec.Struct, frozen=True):
    """Does not fit even if every lease came back unused. `available` would, at most."""

    budget_id: int
    available: int


def grant(wants: Sequence[Want], rows: Sequence[WindowRow], *, journals: int, is_scarce: bool = False) -> Given | Short | Over:
    """All wants or none. `rows` in the order of `wants`; `journals` living ones share what is left, so no one takes it all.
    `is_scarce`: others wait for one of these budgets, so nothing beyond the needs is given."""
    over: Over | None = None
    short: Short | None = None
    for want, row in zip(wants, rows, strict=True):
        room = row.room
        if room is None or want.need == 0 or want.need <= room:
            continue
        if want.need > room + row.leased:
            if over is None or room + row.leased < over.available:
                over = Over(want.budget_id, max(0, room + row.leased))
        elif short is None or room < short.available:
            short = Short(want.budget_id, max(0, room))
    if over is not None:
        return over
    if short is not None:
        return short
    amounts, tight = [], []
    for want, row in zip(wants, rows, strict=True):
        extra = 0 if is_scarce else _extra(want, row.room, journals)
        amounts.append(want.need + max(extra, 0))
        if want.need and (is_scarce or extra < 0):
            tight.append(want.budget_id)
    return Given(tuple(amounts), tuple(tight))


def _extra(want: Want, room: int | None, journals: int) -> int:
    """Comfort beyond the need: at most a share that leaves half of the room to the others. Negative where the room nears its end: where
    the share is below one more hold, or below a fair part of a refill (nobody waits for that, so it is not worth scraps)."""
    wish = want.comfort - want.need
    if room is None:
        return wish
    share = (room - want.need) // (2 * max(journals, 1))
    return min(wish, share) if share >= (want.need or wish // 8) else -1


# --- shipped records ------------------------------------------------------------------------------------------------------------


class Change(msgspec.Struct):
    """What is added to one row of `windows`."""

    spent: int = 0
    reserved: int = 0
    leased: int = 0


class Changes:
    """What a batch of one journal's records changes, told record by record in journal order; then `result`, once.

    `spend` and `reserve` are told for every owner of an attempt, limited or not (so a first limit starts from the truth); leases end
    by what the journal's own records say. A lease never falls below 0: a restored database may not know the grant that it came from.
    """

    __slots__ = ("_spent", "_reserved", "_leases", "_start", "is_whole")

    def __init__(self) -> None:
        self._spent: dict[Place, int] = {}
        self._reserved: dict[Place, int] = {}
        # A run of falls (to 0 at least) and rises, whatever it starts from, is one function: lease → max(lease + shift, floor).
        self._leases: dict[Place, tuple[int, int]] = {}
        self._start = (0, _NEVER)  # of a place not met before: its lease is what it was
        self.is_whole = False  # touches every lease of the journal, also those it does not name

    def spend(self, place: Place, cost: int) -> None:
        self._spent[place] = self._spent.get(place, 0) + cost

    def reserve(self, place: Place, hold: int) -> None:
        """An attempt that was sent and never settled."""
        self._reserved[place] = self._reserved.get(place, 0) + hold

    def end_leases(self, leases: Iterable[Lease]) -> None:
        """Charges of a Settled, or a RETURNED record."""
        for budget_id, window, amount in leases:
            place = (budget_id, window)
            shift, floor = self._leases.get(place, self._start)
            self._leases[place] = (shift - amount, max(floor - amount, 0))

    def adopt(self, leases: Iterable[Lease]) -> None:
        """An ADOPTED record."""
        for budget_id, window, amount in leases:
            place = (budget_id, window)
            shift, floor = self._leases.get(place, self._start)
            self._leases[place] = (shift + amount, floor + amount)

    def restate(self, leases: Iterable[Lease]) -> None:
        """A RESTATED record."""
        self.seal()
        for budget_id, window, amount in leases:
            self._leases[budget_id, window] = (_NEVER, amount)

    def seal(self) -> None:
        """The journal has been read to its end and nobody writes it any more: what is left of its leases returns."""
        self.is_whole = True
        self._start = (_NEVER, 0)
        self._leases = dict.fromkeys(self._leases, self._start)

    @property
    def places(self) -> list[Place]:
        """Where the journal's leases must be read for `result`, unless `is_whole`: then everywhere."""
        return list(self._leases)

    def result(self, leases: Mapping[Place, int]) -> tuple[dict[Place, Change], dict[Place, int]]:
        """(what is added to each window, the journal's new leases where they changed), from its leases before the batch."""
        after = {place: max(leases.get(place, 0) + shift, floor) for place, (shift, floor) in self._leases.items()}
        if self.is_whole:
            after = dict.fromkeys(leases, 0) | after
        changes = {place: Change(spent=cost) for place, cost in self._spent.items()}
        for place, hold in self._reserved.items():
            changes.setdefault(place, Change()).reserved = hold
        for place, amount in after.items():
            if amount != leases.get(place, 0):
                changes.setdefault(place, Change()).leased = amount - leases.get(place, 0)
        return changes, after


def resolve(hold: int, cost: int | None) -> Change:
    """The end of an unsettled attempt, for every owner of it: what it cost, or None for nothing."""
    return Change(spent=cost or 0, reserved=-hold)
