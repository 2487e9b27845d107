"""Webhooks of one keeper, put together: what its routes use (`store`), and what sends (`run`, `drain`)."""

from __future__ import annotations

from aigate.keeper.db.engine import Database
from aigate.keeper.guarded import GuardedClient
from aigate.keeper.vault import Vault
from aigate.keeper.webhooks.deliver import Deliverer, Policy
from aigate.keeper.webhooks.secrets import WebhookSecrets
from aigate.keeper.webhooks.store import WebhookStore


class Webhooks:
    def __init__(self, database: Database, vault: Vault, client: GuardedClient, policy: Policy):
        secrets = WebhookSecrets(database, vault)
        self.store = WebhookStore(database, secrets)
        deliverer = Deliverer(database, secrets, client, policy)
        self.run, self.drain = deliverer.run, deliverer.drain
