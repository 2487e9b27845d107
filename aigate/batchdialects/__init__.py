"""Providers' own batch endpoints, one pure module a family. `BATCH_DIALECTS`: by the name that a provider's row has."""

from collections.abc import Mapping

from aigate.batchdialects.anthropic_batches import ANTHROPIC_BATCHES
from aigate.batchdialects.dialect import BatchDialect
from aigate.batchdialects.openai_batches import OPENAI_BATCHES

BATCH_DIALECTS: Mapping[str, BatchDialect] = {each.name: each for each in (OPENAI_BATCHES, ANTHROPIC_BATCHES)}

__all__ = ["BATCH_DIALECTS", "BatchDialect"]
