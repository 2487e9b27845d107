"""settle: an ended attempt → its cost and its settled record in the journal. Steps 10 and 11 of the data path.

Plain functions without `await`: nothing can come between the price and the record. Called exactly once per attempt, before the last
byte goes to the client, so headers, `usage.cost` and ledger never disagree (design §6, M6).
"""

from __future__ import annotations

from aigate.core.call import Attempt, Outcome
from aigate.core.price import price_usage
from aigate.core.target import Target
from aigate.journal.records import CallEnd, Intent, Settled, encode_record
from aigate.journal.writer import JournalWriter
from aigate.worker.run import Run


def write_intent(journal: JournalWriter, attempt: Attempt, target: Target, run: Run, sent_ms: int) -> None:
    """The promise to send, directly before the first byte. Raises GatewayError 503 when the journal cannot take it: then nothing is sent."""
    principal, call = run.principal, run.call
    assert principal is not None and call is not None
    journal.intent(
        encode_record(
            Intent(
                attempt.id,
                attempt.call_id,
                attempt.number,
                sent_ms,
                target.provider.name,
                target.slug,
                attempt.hold_nanousd,
                attempt.price_id,
                principal.account_id,
                principal.key_id,
                principal.sub_account_id,
                run.tag,
                is_stream=call.is_stream,
            )
        )
    )


def cost_of(target: Target, outcome: Outcome) -> int:
    """What the attempt costs, in nano-dollars: nothing where nothing was used or the operator allows the model unpriced."""
    price = target.model.price
    return 0 if price is None else price_usage(price, outcome.usage)


def write_settled(
    journal: JournalWriter, attempt: Attempt, outcome: Outcome, cost_nanousd: int, latency_ms: int, call: CallEnd | None
) -> None:
    """The end of the attempt, into the room its intent reserved. `call` goes with the last attempt of its call."""
    usage = outcome.usage
    journal.settled(
        encode_record(
            Settled(
                attempt.id,
                outcome.end,
                outcome.usage_source,
                usage.input_tokens,
                usage.output_tokens,
                usage.cached_tokens,
                usage.cache_write_tokens,
                usage.reasoning_tokens,
                usage.audio_input_tokens,
                usage.audio_output_tokens,
                cost_nanousd,
                attempt.price_id,
                outcome.status,
                outcome.error_kind,
                latency_ms,
                attempt.first_byte_ms,
                outcome.raw_usage,
                call,
            )
        )
    )
