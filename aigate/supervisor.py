"""The supervisor's loop: starts the children, restarts the dead and a keeper that is frozen, hands the sim its socket when something connects, drains.

Signals and child exits only wake the loop; all that follows happens in it. No asyncio: this process only waits.
Its death ends every child (the life pipe closes), so there is nothing to clean up after a kill.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from aigate.config import Config
from aigate.probe import Probe
from aigate.process import write_config

FIRST_DELAY_S, LAST_DELAY_S = 0.1, 5.0  # before a restart, doubling while the child keeps dying young
YOUNG_S = 10.0
GRACE_S = 2.0  # over its own limit, before a draining child is killed
KEEPER_DRAIN_S = 20.0  # to ship what the journals still hold; the next start ships the rest
_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

log = logging.getLogger("supervisor")


class Patience(msgspec.Struct, frozen=True):
    """`start_s`: a child that is not ready by then is named. `silence_s`: of a keeper, before it is replaced."""

    start_s: float = 10.0
    silence_s: float = 60.0
    probe_every_s: float = 10.0


class Slot:
    """A place in the tree, held by one process after another. `kind` is the module that runs: worker, keeper or sim."""

    __slots__ = ("kind", "number", "listen", "generation", "process", "ready_fd", "is_ready", "started_at", "slow_at", "delay_s", "due_at", "exit_code")

    def __init__(self, kind: str, number: int = 1, listen: socket.socket | None = None):
        self.kind = kind
        self.number = number
        self.listen = listen
        self.generation = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.ready_fd: int | None = None
        self.is_ready = False
        self.exit_code: int | None = None  # of the last process that ended
        self.started_at = 0.0
        self.slow_at: float | None = None  # monotonic time from which its start takes too long; None = it has not, or that was said
        self.delay_s = FIRST_DELAY_S
        self.due_at: float | None = None  # monotonic time of its next start; None = not to be started

    @property
    def name(self) -> str:
        """New with each process: a restarted worker is another worker, with a journal of its own."""
        return f"{self.kind}-{self.number}.{self.generation}"


class Supervisor:
    """Runs the tree below it until it is told to stop. `inherited_fds` are kept open by every child (the data directory's lock)."""

    def __init__(
        self,
        config: Config,
        listener: socket.socket,
        *,
        sim_listener: socket.socket | None = None,
        inherited_fds: tuple[int, ...] = (),
        patience: Patience = Patience(),
    ):
        self._config = write_config(config)
        self._drain_s = config.server.drain_s
        self._listener = listener
        self._inherited_fds = inherited_fds
        self._workers = [Slot("worker", number, listener) for number in range(1, config.server.workers + 1)]
        self._keeper = Slot("keeper")
        self._sim = Slot("sim", listen=sim_listener) if sim_listener else None
        self._slots = [self._keeper, *self._workers, *([self._sim] if self._sim else [])]
        self._selector = selectors.DefaultSelector()
        self._patience = patience
        self._probe = Probe(Path(config.server.data_dir) / "run" / "control.sock", self._selector)
        self._probe_at: float | None = None  # monotonic time of the next; None = the keeper is not ready
        self._life_fd, self._own_life_fd = os.pipe()
        self._stop_requests = 0

    def run(self, on_ready: Callable[[], None]) -> int:
        """Serves until a signal; returns the exit code. `on_ready` is called once, when every child serves."""
        self._listen_to_signals()
        self._await_sim_client()
        for slot in (self._keeper, *self._workers):
            slot.due_at = 0.0
        is_serving = False
        while not self._stop_requests:
            self._start_due()
            self._name_slow()
            self._probe_keeper()
            self._wait(self._next_due())
            for slot in self._reap():
                if not is_serving and slot is not self._sim:
                    log.error("%s could not start; its own message is above", slot.kind)
                    self._kill(self._slots)
                    return 1
                self._plan_restart(slot)
            if not is_serving and all(slot.is_ready for slot in (self._keeper, *self._workers)):
                is_serving = True
                on_ready()
        return self._drain()

    # --- waiting ----------------------------------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        for number in (*_STOP_SIGNALS, signal.SIGCHLD):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
                signal.signal(number, lambda *_: None)  # a handler must exist for the wake-up byte to be written
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wake_writer = writer  # kept: the descriptor lives as long as the loop
        self._selector.register(reader, selectors.EVENT_READ, lambda: self._read_signals(reader))

    def _read_signals(self, reader: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            self._stop_requests += sum(number in _STOP_SIGNALS for number in reader.recv(4096))

    def _wait(self, until: float | None) -> None:
        timeout = None if until is None else max(0.0, until - time.monotonic())
        for key, _ in self._selector.select(timeout):
            key.data()

    def _next_due(self) -> float | None:
        times = [self._probe_at, *(slot.due_at for slot in self._slots), *(slot.slow_at for slot in self._slots)]
        return min((due for due in times if due is not None), default=None)

    def _name_slow(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.slow_at is not None and slot.slow_at <= now:
                slot.slow_at = None
                assert slot.process
                log.warning("%s (process %d) is not ready after %g s; waiting for it", slot.name, slot.process.pid, self._patience.start_s)

    def _probe_keeper(self) -> None:
        """One that neither dies nor answers is killed; its end starts the next one."""
        keeper, now = self._keeper, time.monotonic()
        if not keeper.process or not keeper.is_ready:
            self._probe_at = None
        elif self._probe_at is None:
            self._probe.heard_at = now
            self._probe_at = now + self._patience.probe_every_s
        elif self._probe_at <= now:
            self._probe_at = now + self._patience.probe_every_s
            silence_s = now - self._probe.heard_at
            if silence_s < self._patience.silence_s:
                self._probe.ask()
            else:
                log.error("%s (process %d) has not answered for %d s and is killed", keeper.name, keeper.process.pid, silence_s)
                keeper.process.kill()

    # --- starting ---------------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.due_at is not None and slot.due_at <= now:
                slot.due_at = None
                if slot is self._sim:
                    self._await_sim_client()
                else:
                    self._spawn(slot)

    def _await_sim_client(self) -> None:
        if self._sim and self._sim.listen:
            self._selector.register(self._sim.listen, selectors.EVENT_READ, self._start_sim)

    def _start_sim(self) -> None:
        """Something connected: the connection waits in the backlog, and the sim takes the listening socket over."""
        assert self._sim and self._sim.listen
        self._selector.unregister(self._sim.listen)
        self._spawn(self._sim)

    def _spawn(self, slot: Slot) -> None:
        slot.generation += 1
        slot.started_at = time.monotonic()
        slot.slow_at = slot.started_at + self._patience.start_s
        slot.is_ready = False
        slot.ready_fd, child_ready_fd = os.pipe()
        fds = [self._life_fd, child_ready_fd, *self._inherited_fds]
        command = [sys.executable, "-m", f"aigate.{slot.kind}", "--name", slot.name]
        command += ["--life-fd", str(self._life_fd), "--ready-fd", str(child_ready_fd)]
        if slot.listen:
            fds.append(slot.listen.fileno())
            command += ["--listen-fd", str(slot.listen.fileno())]
        self._selector.register(slot.ready_fd, selectors.EVENT_READ, lambda: self._read_ready(slot))
        try:
            # A process group of its own: Ctrl-C in the terminal reaches the supervisor alone, which then drains in order.
            slot.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=fds, process_group=0)
        except OSError as error:
            log.error("%s cannot be started: %s", slot.name, error.strerror)
            self._plan_restart(slot)
            return
        finally:
            os.close(child_ready_fd)
        with contextlib.suppress(BrokenPipeError):  # it died already, which its exit code will tell
            assert slot.process.stdin
            slot.process.stdin.write(self._config)
            slot.process.stdin.close()

    def _read_ready(self, slot: Slot) -> None:
        assert slot.ready_fd is not None
        slot.is_ready = bool(os.read(slot.ready_fd, 1))
        self._forget_ready(slot)

    def _forget_ready(self, slot: Slot) -> None:
        if slot.ready_fd is not None:
            self._selector.unregister(slot.ready_fd)
            os.close(slot.ready_fd)
            slot.ready_fd = None
            slot.slow_at = None

    # --- ending -----------------------------------------------------------------------------------------------------------

    def _reap(self) -> list[Slot]:
        """The slots whose process has ended since the last look."""
        ended = []
        for slot in self._slots:
            if slot.process and (code := slot.process.poll()) is not None:
                level = logging.WARNING if code or not self._stop_requests else logging.INFO
                log.log(level, "%s (process %d) ended: %s", slot.name, slot.process.pid, _exit_words(code))
                slot.process = None
                slot.exit_code = code
                self._forget_ready(slot)
                ended.append(slot)
        return ended

    def _plan_restart(self, slot: Slot) -> None:
        self._forget_ready(slot)
        now = time.monotonic()
        is_young = now - slot.started_at < YOUNG_S
        slot.delay_s = min(slot.delay_s * 2, LAST_DELAY_S) if is_young and slot.generation > 1 else FIRST_DELAY_S
        slot.due_at = now + slot.delay_s

    def _drain(self) -> int:
        """Workers first, so that calls end; then the keeper, so that what they wrote is shipped; the sim may answer until then."""
        log.info("draining: running calls have %g s; a second signal ends them at once", self._drain_s)
        self._listener.close()
        self._stop(self._workers, self._drain_s + GRACE_S)
        for _ in range(2):  # one that dies of something else meanwhile has not shipped: another tries
            self._await_keeper()
            self._stop([self._keeper], KEEPER_DRAIN_S)
            if self._keeper.exit_code == 0:
                break
        self._stop([self._sim] if self._sim else [], GRACE_S)
        log.info("stopped")
        return 0 if self._stop_requests < 2 else 1

    def _await_keeper(self) -> None:
        """One that has just died, or has only begun to start, would ship nothing of the journals when it is told to stop."""
        keeper, deadline = self._keeper, time.monotonic() + KEEPER_DRAIN_S
        self._reap()
        if not keeper.process:
            self._spawn(keeper)
        while keeper.process and not keeper.is_ready and self._stop_requests < 2 and time.monotonic() < deadline:
            self._wait(deadline)
            self._reap()

    def _stop(self, slots: Iterable[Slot], limit_s: float) -> None:
        slots = list(slots)
        deadline = time.monotonic() + limit_s
        for slot in slots:
            if slot.process:
                slot.process.terminate()
        while any(slot.process for slot in slots) and self._stop_requests < 2 and time.monotonic() < deadline:
            self._wait(deadline)
            self._reap()
        self._kill(slots)

    def _kill(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            if slot.process:
                log.warning("%s (process %d) is killed", slot.name, slot.process.pid)
                slot.process.kill()
                slot.process.wait()
                slot.process = None


def _exit_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
