"""Records as a worker writes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aigate.journal.records import CallEnd, Intent, Settled, encode_record

Bodies = tuple[bytes, bytes]


@pytest.fixture
def bodies() -> Callable[..., Bodies]:
    """(intent body, settled body) of the only attempt of call number `n`."""

    def make(n: int, *, raw_usage: bytes = b'{"prompt_tokens":3}', warnings: str = "") -> Bodies:
        call_id, attempt_id = f"req_{n:08d}", f"att_{n:08d}_1"
        call = CallEnd(
            call_id, "openai-chat", "chat", "sim/echo", "sim/echo", 200, 1_700_000_000_000 + n, 12, 5, False, 1, 7 * n,
            "acc_default", "key_1", None, None, None, "", warnings,
        )  # fmt: skip
        intent = Intent(attempt_id, call_id, 1, 1_700_000_000_000 + n, "sim", "sim/echo", 100, "prc_1", "acc_default", "key_1", None, None)
        settled = Settled(attempt_id, "complete", "reported", 3, n, 0, 0, 0, 0, 0, 7 * n, "prc_1", 200, "", 12, 5, raw_usage, call)
        return encode_record(intent), encode_record(settled)

    return make
