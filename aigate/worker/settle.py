"""settle: an ended attempt → its cost and its settled record in the journal. Steps 10 and 11 of the data path.

Plain functions without `await`: nothing can come between the price and the record. Called exactly once per attempt, before the last
byte goes to the client, so headers, `usage.cost` and ledger never disagree.
"""

from __future__ import annotations

import msgspec

from aigate.core.bounds import hold_nanousd
from aigate.core.budget import Lease
from aigate.core.call import Attempt, Call, Outcome
from aigate.core.price import every_price, price_usage, service_price, variant_price
from aigate.core.target import Price
from aigate.core.usage import Usage
from aigate.journal.records import CallEnd, Intent, Settled, encode_record
from aigate.journal.writer import JournalWriter, Refuse
from aigate.worker.run import Run

_decode_string = msgspec.json.Decoder(str).decode


def write_intent(journal: JournalWriter, run: Run, attempt: Attempt, unix_offset_s: float, refuse: Refuse | None) -> None:
    """The promise to send, directly before the first byte. GatewayError 503 where the journal cannot take it, raised now or told by
    `refuse` at the end of the turn: then nothing is sent."""
    principal, target = run.principal, run.target
    journal.intent(
        encode_record(
            Intent(
                attempt.id,
                attempt.call_id,
                attempt.number,
                int((attempt.started_at + unix_offset_s) * 1000),
                target.provider.name,
                target.slug,
                attempt.hold_nanousd,
                attempt.price_id,
                principal.account_id,
                principal.key_id,
                principal.sub_account_id,
                run.tag,
                attempt.window,
                () if attempt.hold is None else attempt.hold.leases,
                run.call.is_stream,
            )
        ),
        refuse,
    )


def hold_price(call: Call, price: Price) -> Price:
    """The price an attempt is held at: of the service tier asked for, the dearest of all where the provider may choose (`auto`)."""
    if price.services and "service_tier" in call.pairs:
        try:
            asked = _decode_string(call.pairs["service_tier"])
        except msgspec.DecodeError:
            asked = ""  # no name at all: for the provider to refuse
        if asked == "auto":
            price = max((price, *price.services.values()), key=lambda each: hold_nanousd(each, 1000, 1000))
        elif asked:
            price = service_price(price, asked)
    return variant_price(price, call.price_variant)


def set_price(run: Run, attempt: Attempt, service_tier: str, usage: Usage) -> int:
    """What the attempt costs, in nano-dollars: nothing where the operator allows the model unpriced. `service_tier` as the provider
    says it served; where it says nothing the price of the hold stands."""
    price = run.target.model.price
    if price is None:
        return 0
    if price.services or price.variants:
        if service_tier:
            price = variant_price(service_price(price, service_tier), run.call.price_variant)
        elif attempt.price_id != price.id:
            price = next((each for each in every_price(price) if each.id == attempt.price_id), price)
        attempt.price_id = price.id
    return price_usage(price, usage)


def write_settled(
    journal: JournalWriter, attempt: Attempt, outcome: Outcome, latency_ms: int, call: CallEnd | None, charges: tuple[Lease, ...] = ()
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
                outcome.cost_nanousd,
                attempt.price_id,
                outcome.status,
                outcome.error_kind,
                latency_ms,
                attempt.first_byte_ms,
                outcome.raw_usage,
                call,
                charges,
            )
        )
    )
