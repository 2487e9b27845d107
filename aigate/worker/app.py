"""Wires one worker: the only place of the data plane that reads the configuration and builds objects.

The worker serves the inference routes and /healthz itself and pipes every other path to the keeper. It never opens the database.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from aigate.archive.spool import Spool
from aigate.catalog.live import socket_url
from aigate.catalog.load import load_catalog
from aigate.config import Config
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Dialect
from aigate.errors import GateError
from aigate.guard import Guard
from aigate.inner import inner_secret, slot_of_worker, socket_path
from aigate.journal.writer import JournalWriter
from aigate.messages import Health, Hello
from aigate.process import ChildOptions, child_options, read_config, say_ready, settle_memory, watch_life
from aigate.worker.admit import Admission
from aigate.worker.aliases import Aliases
from aigate.worker.attempt import Attempts, Limits
from aigate.worker.auth import KeyRing
from aigate.worker.background import Background
from aigate.worker.breaker import Breakers
from aigate.worker.client import Pool, tls_context
from aigate.worker.fetch import Fetcher
from aigate.worker.gemini_routes import gemini_routes, is_gemini
from aigate.worker.inner import InnerLane, listen_inner
from aigate.worker.keep import Keeping
from aigate.worker.kept import KeptResponses
from aigate.worker.link import KeeperLink
from aigate.worker.listener import Exchange, FindRoute, Handler, Listener
from aigate.worker.listener import Limits as ListenerLimits
from aigate.worker.origins import Origins
from aigate.worker.own_keys import OwnKeys
from aigate.worker.pipe import Pipe
from aigate.worker.plan import Policy
from aigate.worker.rates import RateGate
from aigate.worker.spine import Enter, Spine
from aigate.worker.tape import Shelf
from aigate.worker.tokens import Tokens
from aigate.worker.turn import Turn

BACKLOG = 4096
TICK_S = 1.0
FORM_BYTES = 1 << 20  # what a form may add to its file


def main(argv: Sequence[str]) -> int:
    options = child_options(argv)
    config = read_config(sys.stdin.buffer)
    uvloop.run(Worker(options, config).serve())
    return 0


class Worker:
    """One data-plane process, from its configuration to its end."""

    def __init__(self, options: ChildOptions, config: Config):
        self.options = options
        self.config = config
        self.run_dir = os.path.join(config.server.data_dir, "run")
        self.journal = JournalWriter(
            os.path.join(config.server.data_dir, "journals"),
            "jrn_" + secrets.token_hex(10),
            segment_bytes=config.ledger.segment_bytes,
        )
        self.inner = InnerLane(inner_secret(config.key_secret), self.journal.journal_id)
        spools = Path(config.server.data_dir) / "archive" / "spool"
        self.spool = Spool(spools, self.journal.journal_id)
        self.shelf = Shelf(spools, max_body_bytes=config.archive.max_body_bytes)
        self.breakers = Breakers(failures=config.routing.breaker_failures, open_s=config.routing.breaker_open_s)
        self.link = KeeperLink(
            os.path.join(self.run_dir, "keeper.sock"),
            Hello(options.name, os.getpid(), self.journal.journal_id),
            health=self._health,
            max_staleness_s=config.auth.max_staleness_s,
        )

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
        watch_life(loop, self.options.life_fd)
        self.turn = Turn(loop, self.journal.flush)
        self.journal.holds = self.turn.holds
        self.kept = KeptResponses(self.link, loop, is_on=self.config.responses.retention_days > 0)
        admission = Admission(
            link=self.link, journal=self.journal, default_max_output_tokens=self.config.ledger.default_max_output_tokens, loop=loop
        )
        spine = self._spine(loop, admission)
        spine.keeping = Keeping(self.spool, self.shelf, days=self.config.archive.retention_days if self.config.archive.bodies == "on" else 0)
        self.background = Background(spine, self.kept, self.link, DIALECTS["openai-responses"], self.journal.journal_id)
        listener, inner = self._listeners(spine)
        inner_path = socket_path(self.run_dir, slot_of_worker(self.options.name))
        inner_server = await listen_inner(inner_path, inner.protocol, loop)
        server = await loop.create_server(listener.protocol, sock=self._socket(), backlog=BACKLOG)
        tasks = [
            loop.create_task(self.link.run()),
            loop.create_task(self.journal.run_sync(self.config.ledger.sync_ms / 1000)),
            loop.create_task(self._tick(spine, loop)),
            loop.create_task(self.tokens.run()),
            loop.create_task(self._say_ready(admission)),
        ]
        settle_memory()
        await stopping.wait()
        server.close()
        drain_s = self.config.server.drain_s
        self.inner.is_draining = True  # it still says what runs: only a dead worker is silent
        await asyncio.gather(*(each.drain(drain_s) for each in (listener, inner, self.background)))
        inner_server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.spool.close()
        self.journal.close()

    def _spine(self, loop: asyncio.AbstractEventLoop, admission: Admission) -> Spine:
        config = self.config
        catalog = load_catalog(config, sim_base_url=socket_url(os.path.abspath(os.path.join(self.run_dir, "sim.sock"))))
        upstream = config.upstream
        tls = tls_context(upstream.ca_file, verify=upstream.tls_verify)
        pool = Pool(connect_timeout_s=upstream.connect_timeout_s, idle_s=upstream.idle_s, tls=tls, turn=self.turn, loop=loop)
        origins = Origins(catalog.providers.values())
        self.tokens = Tokens(catalog.providers.values(), pool, origins.take_token, loop)
        attempts = Attempts(
            pool=pool,
            journal=self.journal,
            origins=origins,
            limits=Limits(
                max_reply_bytes=config.upstream.max_reply_bytes,
                default_max_output_tokens=config.ledger.default_max_output_tokens,
                force_neutral=config.server.force_neutral,
            ),
            admission=admission,
            fetcher=Fetcher(
                Guard(),
                is_on=upstream.fetch_urls,
                max_bytes=upstream.fetch_max_bytes,
                timeout_s=upstream.fetch_timeout_s,
                tls=tls_context(),  # the public internet's authorities, whatever the operator's providers need
                loop=loop,
            ),
            tokens=self.tokens,
        )
        policy = Policy(config.routing.max_attempts, config.routing.budget_s, config.routing.retry_base_ms)
        return Spine(
            ring=KeyRing(config.key_secret, config.root_key, self.link),
            aliases=Aliases(catalog.resolve, self.link, loop),
            attempts=attempts,
            breakers=self.breakers,
            policy=policy,
            gate=RateGate(self.link, loop),
            own_keys=OwnKeys(catalog, self.link, loop),
        )

    def _listeners(self, spine: Spine) -> tuple[Listener, Listener]:
        """For clients, and for the keeper's own calls: the same routes."""
        routes, find_gemini_route = self._routes(spine)
        server, wrap = self.config.server, self.inner.wrap
        limits = ListenerLimits(
            max_body_bytes=server.max_body_bytes,
            max_upload_bytes=max(server.max_upload_bytes, self.config.files.max_bytes + FORM_BYTES),
            header_timeout_s=server.header_timeout_s,
            body_timeout_s=server.body_timeout_s,
            keep_alive_s=server.keep_alive_s,
            allowed_hosts=frozenset({*server.allowed_hosts, server.host}) if server.allowed_hosts else frozenset(),
        )
        public = Listener(
            routes,
            fallback=Pipe(os.path.join(self.run_dir, "control.sock")),
            limits=limits,
            write_error=_write_error,
            find_route=find_gemini_route,
            turn=self.turn,
        )
        inner = Listener(
            {route: wrap(handler) for route, handler in routes.items()},
            fallback=self.inner.refuse,
            limits=msgspec.structs.replace(limits, allowed_hosts=frozenset()),
            write_error=_write_error,
            find_route=lambda exchange: self.inner.find_route(exchange, find_gemini_route),
            turn=self.turn,
        )
        return public, inner

    def _routes(self, spine: Spine) -> tuple[dict[tuple[str, str], Handler], FindRoute]:
        chat, embeddings, responses = DIALECTS["openai-chat"], DIALECTS["openai-embeddings"], DIALECTS["openai-responses"]
        completions, compaction = DIALECTS["openai-completions"], DIALECTS["openai-compaction"]
        messages, gemini = DIALECTS["anthropic-messages"], DIALECTS["gemini"]

        async def healthz(exchange: Exchange) -> None:
            fields = [(b"content-type", b"application/json"), (b"x-request-id", exchange.request_id.encode())]
            exchange.reply(200, fields, b'{"status":"ok"}')

        async def count_tokens(exchange: Exchange) -> None:
            await spine.count_tokens(exchange, messages, lambda tokens: b'{"input_tokens":%d}' % tokens)

        async def count_input_tokens(exchange: Exchange) -> None:
            said = b'{"object":"response.input_tokens","input_tokens":%d}'
            await spine.count_tokens(exchange, responses, lambda tokens: said % tokens, endpoint="responses", enter=self.kept.enter)

        async def count_gemini_tokens(exchange: Exchange) -> None:
            await spine.count_tokens(exchange, gemini, lambda tokens: b'{"totalTokens":%d}' % tokens)

        def serve(surface: Dialect, endpoint: str, enter: Enter | None = None) -> Handler:
            return lambda exchange: spine.run_call(exchange, surface, endpoint, enter)  # a partial with keywords makes a dict a call

        generate = serve(gemini, "chat")
        routes: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/chat/completions"): serve(chat, "chat"),
            ("POST", "/v1/responses"): self.background.respond,
            ("POST", "/v1/responses/compact"): serve(compaction, "compact", self.kept.enter),
            ("POST", "/v1/responses/input_tokens"): count_input_tokens,
            ("POST", "/v1/completions"): serve(completions, "chat"),
            ("POST", "/v1/messages"): serve(messages, "chat"),
            ("POST", "/anthropic/v1/messages"): serve(messages, "chat"),
            ("POST", "/v1/messages/count_tokens"): count_tokens,
            ("POST", "/anthropic/v1/messages/count_tokens"): count_tokens,
            ("POST", "/v1/embeddings"): serve(embeddings, "embeddings"),
            ("GET", "/healthz"): healthz,
        }
        return routes, gemini_routes({"generateContent": generate, "streamGenerateContent": generate, "countTokens": count_gemini_tokens})

    def _socket(self) -> socket.socket:
        if self.options.listen_fd is None:
            return socket.create_server((self.config.server.host, self.config.server.port), backlog=BACKLOG)
        return socket.socket(fileno=self.options.listen_fd)

    async def _tick(self, spine: Spine, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            spine.tick(loop.time(), self.config.server.sse_keep_alive_s)
            self.kept.tick(loop.time())
            self.spool.tick(loop.time())

    async def _say_ready(self, admission: Admission) -> None:
        """Until the keeper has told the limits once, calls wait for it; from then on they go on without it."""
        await admission.told()
        say_ready(self.options.ready_fd)

    def _health(self) -> Health:
        now = asyncio.get_running_loop().time()
        counters = {
            "lost_records": float(self.journal.lost_records),
            "journal_healthy": float(self.journal.healthy),
            "responses_not_kept_total": float(self.kept.lost),
            "bodies_not_archived_total": float(self.spool.lost + self.shelf.lost),
        }
        return Health(self.options.name, counters, self.breakers.states(now))


def _write_error(error: GateError, request_id: str, path: str) -> bytes:
    """Errors the listener makes before a surface is known: the envelope of the surface that the path names, else OpenAI's."""
    if is_gemini(path):
        surface = "gemini"
    else:
        surface = "anthropic-messages" if path.startswith(("/v1/messages", "/anthropic/")) else "openai-chat"
    return DIALECTS[surface].write_error(error, request_id)
