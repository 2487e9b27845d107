"""Durable work: functions whose finished steps are kept, so that a keeper that died in the middle goes on behind the last of them.

Owns DBOS, its thread and its file `work.sqlite`; nothing else imports that library. It costs 30 MB and half a second, so it is loaded when
the first workflow is started, or found unfinished, and not before. What a workflow does is the business of whoever registers it:

    engine.register("job.submit.1", submit)                # def submit(job_id): plain and sync; a changed workflow is a new name, the old one stays
    engine.add_queue("jobs:runway", Limits(at_once=20, per_tenant=4))
    await engine.start_workflow("job.submit.1", job_id, job_id, queue="jobs:runway", tenant=account_id)

    def submit(job_id: str) -> None:
        row = engine.step("hold", place_hold, job_id)      # async def: runs on the keeper's loop; its result is kept as JSON
        engine.step("send", send_to_provider, job_id)      # may run again after a crash: idempotent by a key that is stored already

Between steps a workflow only decides, from its arguments and its steps' results. Arguments and results are ids and small values, never bodies
or secrets. Waiting is not a workflow's business (a thread each): rows with a due time are, driven by a loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from aigate.errors import GatewayError
from aigate.keeper.durable.node import node_id

if TYPE_CHECKING:
    from dbos import DBOS

log = logging.getLogger("aigate.keeper")

APPLICATION = "aigate"
VERSION = "1"  # never changed: with another one, work that an earlier release began would not be gone on with
KEPT_DAYS = 7  # an id may be started again after its workflow is so long ended
LOOK_S = 3600.0
LAUNCH_AGAIN_S = 30.0
QUEUE_POLL_S = 0.5  # 2.4 ms of CPU each
NOTICE_POLL_S = 0.25  # none is used; a drain waits so long for its thread
MAX_THREADS = 64  # workflows that run at once
REMOVED_AT_ONCE = 200
FIRST_DELAY_S, LAST_DELAY_S = 0.1, 10.0  # of a step while the database is away
OUTAGES = (OperationalError, InterfaceError)
_ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]

Json = Any


class Limits(NamedTuple):
    """How many workflows of a queue run at once, in all and for each tenant. A queue is one thing that is scarce: a provider, mostly."""

    at_once: int
    per_tenant: int


class Stopping(BaseException):
    """Ends a workflow's thread at the keeper's end. No Exception, so that nothing records it: the next keeper goes on with the workflow."""


class Engine:
    """One per process. `data_dir`: where its file and the node's name are. `hurry`: by what its polls are shorter, for tests."""

    def __init__(self, data_dir: Path, *, hurry: float = 1.0):
        self._path = data_dir / "work.sqlite"
        self._hurry = hurry
        self._registered: dict[str, Callable[..., Json]] = {}
        self._workflows: dict[str, Callable[..., Json]] = {}  # as DBOS has wrapped them
        self._queues: dict[str, Limits] = {}
        self._opened_queues: set[str] = set()
        self._dbos: type[DBOS] | None = None  # None: not launched
        self._is_open = False  # true also while a launch is under way
        self._thread = ThreadPoolExecutor(1, "durable")  # DBOS must not meet a running loop
        self._loop: asyncio.AbstractEventLoop | None = None  # the keeper's, where steps that are coroutines run
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: set[Future[Json]] = set()  # what workflow threads wait for on the loop

    @property
    def is_launched(self) -> bool:
        return self._dbos is not None

    # --- before the start ---

    def register(self, name: str, workflow: Callable[..., Json]) -> None:
        if self.is_launched or name in self._registered:
            raise ValueError(f"workflow {name}: registered twice, or too late")
        self._registered[name] = workflow

    def add_queue(self, name: str, limits: Limits) -> None:
        """Costs nothing until something is put into it. May be called at any time; the last limits given count from the next launch."""
        self._queues[name] = limits

    # --- the keeper's side ---

    async def start_workflow(self, name: str, workflow_id: str, *args: Json, queue: str | None = None, tenant: str = "") -> None:
        """Returns once it is certain to run. The same id again does nothing. Without a queue it begins at once, whatever else runs."""
        await self._in_thread(self._start_workflow, name, workflow_id, args, queue, tenant)

    async def status(self, workflow_id: str) -> str | None:
        """PENDING | ENQUEUED | SUCCESS | ERROR | …; None: there is none of this id (any more)."""
        return await self._in_thread(self._status, workflow_id)

    async def run(self) -> None:
        """Until cancelled: goes on with what the keeper before left unfinished, and removes what ended long ago."""
        self._loop = asyncio.get_running_loop()
        while not self.is_launched and await self._in_thread(self._has_unfinished):
            try:
                await self._in_thread(self._launch)
            except GatewayError:
                await asyncio.sleep(LAUNCH_AGAIN_S)
        while True:
            try:
                if self.is_launched:
                    await self._in_thread(self.remove_ended, timedelta(days=KEPT_DAYS))
            except SQLAlchemyError as error:
                log.error("ended workflows could not be removed: %s", type(error).__name__)
            await asyncio.sleep(LOOK_S)

    async def drain(self, limit_s: float) -> None:
        """Lets running steps end, begins no other, then closes. A step that lasts longer is left as a crash would leave it."""
        self._stopping.set()
        deadline = asyncio.get_running_loop().time() + limit_s
        while self._running and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        with self._lock:
            left = list(self._waiting)
        for future in left:
            future.cancel()
        await asyncio.sleep(0)  # for those that were cancelled
        await self._in_thread(self._close)

    # --- the workflows' side ---

    def step(self, name: str, function: Callable[..., Json], *args: Json) -> Json:
        """The result of `function`, run once, or again where a crash came before its result was kept. An outage of the database is waited out."""
        assert self._dbos is not None
        return self._dbos.run_step({"name": name}, self._attempt, function, args)

    def on_loop(self, function: Callable[..., Any], *args: Json) -> Json:
        """From a workflow's thread: the result of a coroutine function on the keeper's loop. In a step, else it is not kept."""
        with self._lock:
            if self._stopping.is_set():
                raise Stopping
            assert self._loop is not None
            future = asyncio.run_coroutine_threadsafe(function(*args), self._loop)
            self._waiting.add(future)
        try:
            return future.result()
        except CancelledError:
            if self._stopping.is_set():
                raise Stopping from None
            raise
        finally:
            with self._lock:
                self._waiting.discard(future)

    def _attempt(self, function: Callable[..., Json], args: tuple[Json, ...]) -> Json:
        delay_s = FIRST_DELAY_S
        while True:
            if self._stopping.is_set():
                raise Stopping
            try:
                return self.on_loop(function, *args) if inspect.iscoroutinefunction(function) else function(*args)
            except OUTAGES as error:
                log.warning("a step waits for the database: %s", type(error).__name__)
            if self._stopping.wait(delay_s):
                raise Stopping
            delay_s = min(delay_s * 2, LAST_DELAY_S)

    def _counted(self, name: str, workflow: Callable[..., Json]) -> Callable[..., Json]:
        def run(*args: Json) -> Json:
            with self._lock:
                self._running += 1
            try:
                if self._stopping.is_set():
                    raise Stopping
                return workflow(*args)
            except Exception as error:
                log.error("workflow %s of %s failed: %s", name, args[:1], type(error).__name__)
                raise
            finally:
                with self._lock:
                    self._running -= 1

        return run

    # --- in the engine's own thread ---

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        self._loop = self._loop or asyncio.get_running_loop()
        return await self._loop.run_in_executor(self._thread, work, *args)

    def _launch(self) -> type[DBOS]:
        if self._dbos is not None:
            return self._dbos
        if self._stopping.is_set():
            raise _unavailable("the gateway is stopping")
        from dbos import DBOS, DBOSPortableJSONSerializer

        try:
            self._prepare_file()
            DBOS(
                config={
                    "name": APPLICATION,
                    "system_database_url": f"sqlite:///{self._path}",
                    "application_version": VERSION,
                    "executor_id": node_id(self._path.parent),
                    "serializer": DBOSPortableJSONSerializer(),
                    "max_executor_threads": MAX_THREADS,
                    "enable_otlp": False,
                    "notification_listener_polling_interval_sec": NOTICE_POLL_S / self._hurry,
                    "log_level": "WARNING",
                }
            )
            self._is_open = True
            self._workflows = {
                name: DBOS.workflow(name=name, max_recovery_attempts=None)(self._counted(name, workflow))
                for name, workflow in self._registered.items()
            }  # no limit on attempts: money may hang on the end of a workflow
            DBOS.launch()
            self._dbos = DBOS
            for queue in DBOS.list_queues():
                if queue.name in self._queues:
                    self._open_queue(queue.name)  # its limits may have changed
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            self._close()
            log.error("durable work cannot start (%s): %s", self._path.name, type(error).__name__)
            raise _unavailable(f"{self._path.name} cannot be used ({type(error).__name__})") from error
        return DBOS

    def _prepare_file(self) -> None:
        """Its log quiet and ours, its file in WAL mode (which stays)."""
        library = logging.getLogger("dbos")
        if not any(isinstance(handler, _Relay) for handler in library.handlers):
            library.handlers, library.propagate = [_Relay()], False
        with sqlite3.connect(self._path) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.close()

    def _close(self) -> None:
        if self._is_open:
            from dbos import DBOS

            DBOS.destroy(destroy_registry=True)
            self._dbos, self._is_open = None, False
            self._opened_queues.clear()

    def _has_unfinished(self) -> bool:
        if not self._path.exists():
            return False
        connection = sqlite3.connect(self._path)
        try:
            query = "SELECT 1 FROM workflow_status WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED') LIMIT 1"
            return connection.execute(query).fetchone() is not None
        except sqlite3.Error:
            return True  # a launch will say what is wrong with it
        finally:
            connection.close()

    def _start_workflow(self, name: str, workflow_id: str, args: tuple[Json, ...], queue: str | None, tenant: str) -> None:
        dbos = self._launch()
        from dbos import SetEnqueueOptions, SetWorkflowID

        workflow = self._workflows[name]
        try:
            with SetWorkflowID(workflow_id):
                if queue is None:
                    dbos.start_workflow(workflow, *args)
                    return
                self._open_queue(queue)
                with SetEnqueueOptions(queue_partition_key=tenant or "-"):
                    dbos.enqueue_workflow(queue, workflow, *args)
        except SQLAlchemyError as error:
            raise _unavailable(f"{self._path.name} cannot be written ({type(error).__name__})") from error

    def _open_queue(self, name: str) -> None:
        assert self._dbos is not None
        if name in self._opened_queues:
            return
        limits = self._queues[name]
        self._dbos.register_queue(
            name,
            global_concurrency=limits.at_once,
            partition_concurrency=min(limits.per_tenant, limits.at_once),
            polling_interval_sec=QUEUE_POLL_S / self._hurry,
            on_conflict="always_update",
        )
        self._opened_queues.add(name)

    def _status(self, workflow_id: str) -> str | None:
        found = self._launch().get_workflow_status(workflow_id)
        return None if found is None else found.status

    def remove_ended(self, age: timedelta) -> int:
        """How many workflows were removed, with their steps; oldest first."""
        removed = 0
        before = (datetime.now(UTC) - age).isoformat()
        while self._dbos is not None and not self._stopping.is_set():
            found = self._dbos.list_workflows(
                status=_ENDED, completed_before=before, limit=REMOVED_AT_ONCE, load_input=False, load_output=False
            )
            if not found:
                break
            self._dbos.delete_workflows([status.workflow_id for status in found])
            removed += len(found)
        return removed


class _Relay(logging.Handler):
    """What the library warns of goes into our log, without tracebacks: they may quote what callers sent."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING and not record.exc_info:
            log.warning("durable work: %s", record.getMessage())


def _unavailable(why: str) -> GatewayError:
    return GatewayError(f"Durable work cannot be taken now: {why}.", status=503, code="work_unavailable", retryable=True, retry_after_s=5)
