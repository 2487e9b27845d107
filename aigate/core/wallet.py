"""A worker's share of the budgets: slices of lease in memory, and the holds taken from them.

Everything here happens at once, between two awaits. What has to reach the journal is returned as leases: the caller writes it before it
acknowledges or awaits anything. No clock: `now_ms` is an argument. The keeper's side is core/budget.py. Pure.

A slice is *retired* when its budget is recalled, limited anew, idle, or of a past month: its free part goes back at once, its holds
end where they are and give all of themselves back. The next grant makes a new slice, so nothing ever waits for running calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aigate.core.budget import ALL_TIME, Lease, Limit, Owner, Place, Want

COMFORT_CALLS = 200  # a grant should last so many calls…
COMFORT_MS = 120_000  # … and so long: refilled at its half, it bridges a database that is away for a minute
FIRST_HOLDS = 32  # what a slice without a past asks for


class Slice:
    """What this journal holds of one budget's lease in one window: `available` is free, `held` is in holds."""

    __slots__ = ("budget_id", "window", "lease_number", "available", "held", "is_retired", "low", "spent", "settled", "seen", "asked_ms")

    def __init__(self, budget_id: int, window: str, *, lease_number: int = 0, asked_ms: int = 0):
        self.budget_id = budget_id
        self.window = window
        self.lease_number = lease_number  # `seq` of the grant that filled it last
        self.available = 0
        self.held = 0
        self.is_retired = False
        self.low = 0  # below this it is time to refill
        self.spent = 0  # since it last asked
        self.settled = 0
        self.seen = -1  # `settled` at the last sweep
        self.asked_ms = asked_ms


class Hold:
    """Money set aside for one attempt on all its budgets. Ended exactly once, by `settle` or `release`."""

    __slots__ = ("owners", "amount", "window", "slices")

    def __init__(self, owners: Sequence[Owner], amount: int, window: str, slices: list[Slice]):
        self.owners = owners
        self.amount = amount
        self.window = window  # the month that it counts in: of its leases, where none is by the month "" until `enter`
        self.slices = slices

    def enter(self, month: str) -> str:
        """Directly before the intent: the window to write there, `month` (of the sending) where no lease has chosen one."""
        self.window = self.window or month
        return self.window

    @property
    def leases(self) -> tuple[tuple[int, int], ...]:
        """(budget id, lease number), for the intent."""
        return tuple((s.budget_id, s.lease_number) for s in self.slices)


class Shortage:
    """A hold that does not fit the slices; `budget_ids` are those that must be asked for."""

    __slots__ = ("owners", "path", "amount", "budget_ids")

    def __init__(self, owners: Sequence[Owner], path: Sequence[int], amount: int, budget_ids: Sequence[int]):
        self.owners = owners
        self.path = path  # all budgets of the hold
        self.amount = amount
        self.budget_ids = budget_ids


class Ask:
    """A grant asked for and not answered yet; sent again with the same number after a lost connection."""

    __slots__ = ("number", "wants", "shortage", "now_ms", "void")

    def __init__(self, number: int, wants: tuple[Want, ...], shortage: Shortage | None, now_ms: int):
        self.number = number
        self.wants = wants
        self.shortage = shortage  # None: nobody waits
        self.now_ms = now_ms
        self.void: set[int] = set()  # budgets whose limit has changed since: what comes for them may be of the old one, and goes back


class Wallet:
    """One per worker. `limits`: budgets known by owner (tags, and first limits since the start); they count even where a principal
    was read before they existed. `thirsty`: budgets to `refill`. For Hello and Grant: `seq` of the newest grant received, `limits_version`
    of the newest limits in force (0: new, -1: restated)."""

    __slots__ = ("limits", "thirsty", "seq", "limits_version", "month", "_slices", "_open", "_asks", "_eager", "_number")

    def __init__(self) -> None:
        self.limits: dict[Owner, int] = {}
        self.thirsty: set[int] = set()
        self.seq = 0
        self.limits_version = 0
        self.month = ""  # newest seen; every living slice by the month is of this one
        self._slices: dict[int, Slice] = {}
        self._open: set[Hold] = set()
        self._asks: dict[int, Ask] = {}
        self._eager: dict[int, int] = {}  # budget → the unanswered ask that wants more than it needs
        self._number = 0

    # --- holds: the hot path ----------------------------------------------------------------------------------------------------

    def hold(self, owners: Sequence[Owner], budget_ids: Sequence[int], amount: int) -> Hold | Shortage:
        """On all budgets or none. `owners` of the attempt, limited or not; `budget_ids`: those its principal knows a limit of."""
        if self.limits:
            budget_ids = self._path(owners, budget_ids)
        slices = self._slices
        taken = []
        window = ""
        for budget_id in budget_ids:
            piece = slices.get(budget_id)
            if piece is None or piece.available < amount:
                return self._shortage(owners, budget_ids, amount)
            taken.append(piece)
        for piece in taken:
            left = piece.available = piece.available - amount
            piece.held += amount
            if left < piece.low:
                self.thirsty.add(piece.budget_id)
            if piece.window != ALL_TIME:
                window = piece.window
        hold = Hold(owners, amount, window, taken)
        self._open.add(hold)
        return hold

    def settle(self, hold: Hold, cost: int) -> tuple[Lease, ...]:
        """The charges for the settled record. An overrun takes what the slice still has; the rest is only in the cost."""
        self._open.remove(hold)
        amount = hold.amount
        charges = []
        for piece in hold.slices:
            piece.held -= amount
            piece.settled += 1
            piece.spent += cost
            ended = amount
            if not piece.is_retired:
                ended = cost if cost <= amount + piece.available else amount + piece.available
                piece.available += amount - ended
            charges.append((piece.budget_id, piece.window, ended))
        return tuple(charges)

    def release(self, hold: Hold) -> tuple[Lease, ...]:
        """A hold whose intent was never written. → RETURNED"""
        self._open.remove(hold)
        returned = []
        for piece in hold.slices:
            piece.held -= hold.amount
            if piece.is_retired:
                returned.append((piece.budget_id, piece.window, hold.amount))
            else:
                piece.available += hold.amount
        return tuple(returned)

    def _path(self, owners: Sequence[Owner], budget_ids: Sequence[int]) -> Sequence[int]:
        limits = self.limits
        added = [limits[owner] for owner in owners if owner in limits and limits[owner] not in budget_ids]
        return (*budget_ids, *added) if added else budget_ids

    def _shortage(self, owners: Sequence[Owner], path: Sequence[int], amount: int) -> Shortage:
        slices = self._slices
        short = [b for b in path if b not in slices or slices[b].available < amount]
        return Shortage(owners, path, amount, short)

    # --- grants -----------------------------------------------------------------------------------------------------------------

    def ask(self, shortage: Shortage, now_ms: int) -> Ask:
        """Asks for the whole hold on each short budget, whatever their slices still have: that may be recalled meanwhile."""
        wants = tuple(Want(b, shortage.amount, self._comfort(b, shortage.amount, now_ms)) for b in shortage.budget_ids)
        return self._asked(wants, shortage, now_ms)

    def refill(self, now_ms: int) -> Ask | None:
        """Asks for what is `thirsty`, before anybody has to wait for it."""
        wants = []
        for budget_id in self.thirsty:
            piece = self._slices.get(budget_id)
            if piece is not None and piece.low:
                wants.append(Want(budget_id, 0, self._comfort(budget_id, 0, now_ms)))
                piece.low = 0
        self.thirsty.clear()
        return self._asked(tuple(wants), None, now_ms) if wants else None

    def granted(
        self, number: int, seq: int, leases: Sequence[Lease], tight: Sequence[int] = ()
    ) -> tuple[Hold | Shortage | None, tuple[Lease, ...]]:
        """(the hold that waited for it, taken at once; what goes back → RETURNED). A Shortage must be asked again: another budget of its
        path fell short meanwhile, so then all of it is asked. Answers to nothing we ask are not for us."""
        ask = self._answer(number)
        if ask is None:
            return None, ()
        self.seq = max(self.seq, seq)
        returned = self._fill(ask, seq, leases)
        result: Hold | Shortage | None = None
        if ask.shortage is not None:
            waiting = ask.shortage
            result = self.hold(waiting.owners, waiting.path, waiting.amount)
            if isinstance(result, Shortage):
                result.budget_ids = result.path
        return result, returned + self.retire(tight)

    def refused(self, number: int) -> None:
        self._answer(number)

    def abandon(self, number: int) -> None:
        """Nobody waits any more; what is granted goes into the slice."""
        if number in self._asks:
            self._asks[number].shortage = None

    def unanswered(self) -> list[Ask]:
        """To be sent again, oldest first, after a Welcome."""
        return list(self._asks.values())

    @property
    def answered(self) -> int:
        """Every number up to this one has been answered."""
        return next(iter(self._asks), self._number + 1) - 1

    def _asked(self, wants: tuple[Want, ...], shortage: Shortage | None, now_ms: int) -> Ask:
        self._number += 1
        ask = self._asks[self._number] = Ask(self._number, wants, shortage, now_ms)
        for want in wants:
            if want.comfort > want.need:
                self._eager[want.budget_id] = ask.number
        return ask

    def _answer(self, number: int) -> Ask | None:
        ask = self._asks.pop(number, None)
        for want in ask.wants if ask else ():
            if self._eager.get(want.budget_id) == number:
                del self._eager[want.budget_id]
        return ask

    def _comfort(self, budget_id: int, need: int, now_ms: int) -> int:
        """What would last a while, judged by what the slice has spent since it last asked. Only one ask at a time wants more than it
        needs: the others of a burst follow from it."""
        if budget_id in self._eager:
            return need
        piece = self._slices.get(budget_id)
        if piece is None or not piece.settled:
            return FIRST_HOLDS * need + (piece.held if piece else 0)
        calls_worth = COMFORT_CALLS * piece.spent // piece.settled
        time_worth = COMFORT_MS * piece.spent // max(now_ms - piece.asked_ms, 1)
        piece.spent = piece.settled = 0
        piece.seen = -1
        piece.asked_ms = now_ms
        return need + piece.held + max(calls_worth, time_worth)

    def _fill(self, ask: Ask, seq: int, leases: Sequence[Lease]) -> tuple[Lease, ...]:
        needs = {want.budget_id: want.need for want in ask.wants}
        returned: list[Lease] = []
        for budget_id, window, amount in leases:
            is_old = window != ALL_TIME and window < self.month  # an answer from before the month's end
            if is_old or budget_id in ask.void:
                returned.append((budget_id, window, amount))
                continue
            if window != ALL_TIME and window > self.month:
                self.month = window
                returned += self.retire_before(window)
            piece = self._slices.get(budget_id)
            if piece is None:
                piece = self._slices[budget_id] = Slice(budget_id, window, asked_ms=ask.now_ms)
            piece.lease_number = seq
            piece.available += amount
            piece.low = (amount - needs[budget_id]) // 2
        return tuple(lease for lease in returned if lease[2])

    # --- giving back ------------------------------------------------------------------------------------------------------------

    def retire(self, budget_ids: Iterable[int]) -> tuple[Lease, ...]:
        """Recalled, or limited anew. → RETURNED"""
        returned = []
        for budget_id in budget_ids:
            piece = self._slices.pop(budget_id, None)
            if piece is not None:
                piece.is_retired = True
                if piece.available:
                    returned.append((budget_id, piece.window, piece.available))
                    piece.available = 0
        return tuple(returned)

    def retire_before(self, month: str) -> tuple[Lease, ...]:
        """A month has ended. → RETURNED"""
        return self.retire([b for b, piece in self._slices.items() if piece.window != ALL_TIME and piece.window < month])

    def sweep(self, now_ms: int) -> tuple[Lease, ...]:
        """Called every few seconds: retires what had no call since the last time, so memory follows use; makes `thirsty` what would not
        last for half of the comfort as it is used by now. → RETURNED"""
        idle = []
        for budget_id, piece in self._slices.items():
            if piece.held == 0 and piece.seen == piece.settled:
                idle.append(budget_id)
            elif piece.low and piece.settled >= COMFORT_CALLS // 2:
                if piece.available < COMFORT_MS // 2 * piece.spent // max(now_ms - piece.asked_ms, 1):
                    self.thirsty.add(budget_id)
            piece.seen = piece.settled
        return self.retire(idle)

    # --- limits and restored databases --------------------------------------------------------------------------------------------

    def to_adopt(self, changes: Sequence[Limit]) -> tuple[Lease, ...]:
        """Open holds of an owner that do not count on its budget yet become lease of it. → ADOPTED, then `change_limits`; where
        it cannot be written, the limits are not in force."""
        held: dict[Place, int] = {}
        for change in changes:
            for hold, window in self._uncounted(change):
                place = (change.budget_id, window)
                held[place] = held.get(place, 0) + hold.amount
        return tuple((*place, amount) for place, amount in held.items() if amount)

    def change_limits(self, version: int, changes: Sequence[Limit], is_reset: bool) -> tuple[Lease, ...]:
        """A Limits message. Free slices of the changed budgets go back. → RETURNED"""
        if is_reset:
            self.limits.clear()
        if is_reset or self.limits_version >= 0:
            self.limits_version = max(self.limits_version, version)
        ids = [change.budget_id for change in changes]
        for ask in self._asks.values():
            ask.void.update(ids)
        for change in changes:
            if change.is_limited:
                self.limits[change.owner] = change.budget_id
                self._adopt(change)
            else:
                self.limits.pop(change.owner, None)
        return self.retire(ids)

    def _uncounted(self, limit: Limit) -> list[tuple[Hold, str]]:
        """Open holds of its owner that have nothing of its budget, and the windows to adopt them into."""
        if not limit.is_limited:
            return []
        return [
            (hold, limit.window if limit.window == ALL_TIME else hold.enter(limit.window))
            for hold in self._open
            if limit.owner in hold.owners and all(piece.budget_id != limit.budget_id for piece in hold.slices)
        ]

    def _adopt(self, limit: Limit) -> None:
        pieces: dict[str, Slice] = {}
        for hold, window in self._uncounted(limit):
            piece = pieces.get(window)
            if piece is None:
                piece = pieces[window] = Slice(limit.budget_id, window)
                piece.is_retired = True
            hold.slices.append(piece)
            piece.held += hold.amount

    def to_restate(self) -> tuple[Lease, ...]:
        """The database does not know all our grants. → RESTATED, also where it is empty: what the open holds stand on. Then
        `restate`."""
        held: dict[Place, int] = {}
        for hold in self._open:
            for piece in hold.slices:
                place = (piece.budget_id, piece.window)
                held[place] = held.get(place, 0) + hold.amount
        return tuple((*place, amount) for place, amount in held.items())

    def restate(self) -> None:
        """Every free slice is dropped, unanswered asks are void (whoever waits for one asks again after the Welcome)."""
        self.retire(list(self._slices))
        self._asks.clear()
        self._eager.clear()
        self.thirsty.clear()
        self.seq = 0
        self.limits_version = -1
