"""What the control plane's routes are given to work with, and how a route asks for it.

Shapes only: the keeper fills them with its stores (keeper/app.py), tests with whatever they like. Routes reach nothing else.
"""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import Depends, Request

from aigate import config
from aigate.core.account import Account, Cap, Page, ProviderKey, Standing, StoredResponse, SubAccount, Tenant, Whose
from aigate.core.batch import Batch, NewBatch
from aigate.core.budget import Owner
from aigate.core.call import Principal
from aigate.core.client_key import ClientKey
from aigate.core.evals import Eval, Item, Result
from aigate.core.file import FileFields, Listing, StoredFile
from aigate.core.job_links import LinkKey
from aigate.core.job_state import Job, NewJob, StoredResult
from aigate.core.replay import Replay, Shadow
from aigate.core.webhook import Delivery, Endpoint
from aigate.journal.records import CallEnd


class KeyStore(Protocol):
    async def revoke(self, key_id: str, now_ms: int) -> ClientKey | None:
        """The key, revoked now or before; None where there is none of this id."""

    async def get(self, key_id: str) -> ClientKey | None: ...
    async def list(self, limit: int, before_id: str | None) -> list[ClientKey]:
        """Newest first, from the one before `before_id` on."""

    async def find(self, digests: Sequence[bytes]) -> dict[bytes, Principal]: ...


class Accounts(Protocol):
    """Accounts, their sub-accounts, keys and limits. A change is committed and pushed to the workers before it answers; its bool says whether
    it is in force on all of them. Raises ClientError (409) for a name or external_ref that is in use. None: no such sub-account there."""

    async def add_sub_account(self, new: SubAccount, cap: Cap, key: ClientKey) -> bool:
        """With its first key, in one transaction."""

    async def change_sub_account(
        self, account_id: str, sub_account_id: str, changes: Mapping[str, object], cap: Cap | None
    ) -> tuple[SubAccount, bool] | None:
        """`changes`: new values of SubAccount's fields. `cap` None: as it was."""

    async def delete_sub_account(self, account_id: str, sub_account_id: str, now_ms: int) -> tuple[SubAccount, bool] | None:
        """Its keys are revoked with it; its ledger stays. Deleting it again changes nothing."""

    async def get_sub_account(self, account_id: str, sub_account_id: str) -> SubAccount | None: ...
    async def list_sub_accounts(self, account_id: str, limit: int, before_id: str | None) -> list[SubAccount]:
        """Newest first, without the deleted ones."""

    async def add_key(self, key: ClientKey, cap: Cap) -> bool:
        """ClientError 404 where its sub-account is not there."""

    async def change_key(
        self, account_id: str, key_id: str, changes: Mapping[str, object], cap: Cap | None
    ) -> tuple[ClientKey, bool] | None:
        """`changes`: new values of ClientKey's fields. `cap` None: as it was. None: no such key in force or expired there."""

    async def rotate_key(self, key_id: str, next_digest: bytes, next_hint: str) -> ClientKey | None:
        """The key gets a second digest, in force from now on; the first dies when the second is first looked up. Writes key.rotated."""

    async def get_account(self, account_id: str) -> Account: ...
    async def change_account(self, account_id: str, changes: Mapping[str, object]) -> tuple[Account, bool]:
        """`changes`: new rate limits."""

    async def set_cap(self, owner: Owner, cap: Cap) -> bool: ...
    async def add_credit(self, account_id: str, amount_nanousd: int) -> bool:
        """Raises the limit of the account's balance by so much, in one transaction (from 0 where there was none)."""

    async def standings(self, owners: Sequence[Owner]) -> dict[Owner, Standing]: ...
    async def names(self, scope: str, account_id: str, ids: Sequence[str]) -> dict[str, str]:
        """What those sub-accounts or keys are called, deleted ones included."""

    async def limited(self, account_id: str, scope: str, page: Page) -> list[Standing]:
        """Owners of that scope that have a limit, by id."""


class ProviderKeys(Protocol):
    """Callers' own keys for providers. None: there is none of this id in the account."""

    async def add(self, new: ProviderKey, key: str) -> None: ...
    async def revoke(self, account_id: str, key_id: str, now_ms: int) -> ProviderKey | None: ...
    async def get(self, account_id: str, key_id: str) -> ProviderKey | None: ...
    async def list(self, account_id: str) -> list[ProviderKey]: ...
    async def rotate(self) -> int:
        """Seals all of them anew; how many there are."""


class Responses(Protocol):
    """Kept responses of one tenant (core/account.py). None: it is not kept here, or not theirs."""

    async def get(self, account_id: str, owner_id: str, response_id: str) -> StoredResponse | None: ...
    async def cancel(self, account_id: str, owner_id: str, response_id: str) -> StoredResponse | None: ...
    async def input_items(self, account_id: str, owner_id: str, response_id: str) -> list[dict[str, Any]] | None:
        """Everything said before it that is still kept, oldest first."""

    async def delete(self, account_id: str, owner_id: str, response_id: str) -> bool: ...


class Evals(Protocol):
    """Owners as in core/evals.py Eval. None: there is none of this id, or not theirs."""

    settings: config.Evals

    async def create(self, new: Eval, items: list[Item], owners: Sequence[Owner]) -> Eval:
        """With an id, kept, its money set aside on the owners' budgets, and running. Raises ClientError 402."""

    async def results(self, eval_id: str, limit: int, after: tuple[int, int]) -> list[Result]: ...
    async def wait(self, which: Eval, limit_s: float) -> Eval: ...
    async def get(self, account_id: str, owner_id: str | None, eval_id: str) -> Eval | None: ...
    async def list(self, account_id: str, owner_id: str | None, limit: int, before_id: str | None) -> list[Eval]: ...


class Files(Protocol):
    """Uploaded files of a tenant (core/account.py). None: there is none of this id, or it is not theirs."""

    async def add(self, tenant: Tenant, pieces: AsyncIterable[bytes], describe: Callable[[], FileFields]) -> StoredFile:
        """`describe` is asked once the pieces have ended. ClientError 413 where it takes more than it may."""

    async def get(self, tenant: Tenant, file_id: str) -> StoredFile | None: ...
    async def list(self, tenant: Tenant, page: Listing, purpose: str | None) -> list[StoredFile]: ...
    async def read(self, file_id: str, start: int, end: int) -> AsyncIterator[bytes]: ...
    async def delete(self, tenant: Tenant, file_id: str) -> bool: ...


class Replays(Protocol):
    """Owners as in core/replay.py. None: there is none of this id, or not theirs."""

    async def source(self, account_id: str, call_id: str) -> CallEnd | None: ...
    async def create(self, new: Replay, source: CallEnd) -> Replay:
        """With an id, and running. Raises ClientError 409 where the source's bodies are not there."""

    async def wait(self, which: Replay, limit_s: float) -> Replay: ...
    async def get(self, account_id: str, owner_id: str | None, replay_id: str) -> Replay | None: ...
    async def add_shadow(self, new: Shadow) -> Shadow: ...
    async def shadows(self, account_id: str, owner_id: str | None, limit: int) -> Sequence[Shadow]: ...
    async def stop_shadow(self, account_id: str, owner_id: str | None, shadow_id: str) -> Shadow | None: ...
    async def list(
        self, account_id: str, owner_id: str | None, limit: int, before_id: str | None, shadow_id: str | None
    ) -> list[Replay]: ...


class Batches(Protocol):
    """Batches of a tenant, as Files. None: there is none of this id, or it is not theirs."""

    async def add(self, tenant: Tenant, key_id: str, asked: NewBatch) -> Batch | None:
        """None: there is no such input file. ClientError for one that no batch can be made of."""

    async def get(self, tenant: Tenant, batch_id: str) -> Batch | None: ...
    async def list(self, tenant: Tenant, page: Listing) -> list[Batch]: ...
    async def cancel(self, tenant: Tenant, batch_id: str) -> Batch | None:
        """One that has ended stays as it is."""


class Jobs(Protocol):
    """Videos, music and 3D models. None: there is no such job of those whose it is."""

    async def submit(self, new: NewJob, principal: Principal) -> tuple[Job, bool]:
        """(the job, whether it was there before under its idempotency key). Raises ClientError for what cannot be made, or paid."""

    async def get(self, whose: Whose, job_id: str) -> Job | None: ...
    async def list(self, whose: Whose, limit: int, before_id: str | None, stages: Collection[str] = ()) -> list[Job]:
        """Newest first, from the one before `before_id` on."""

    async def cancel(self, whose: Whose, job_id: str) -> Job | None:
        """Over for its caller when this returns. One that is over stays as it is."""

    async def poke(self, job_id: str, token: str) -> bool:
        """Its provider has news of it; False where there is no such job."""

    async def file_of(self, job_id: str, filename: str, whose: Whose | None) -> tuple[Job, StoredResult] | None:
        """`whose` None: of whoever has a good link."""

    async def read(self, file: StoredResult, start: int, end: int) -> AsyncIterator[bytes]: ...
    async def link_key(self, key_id: str | None = None) -> LinkKey | None:
        """That signs links now; with an id: that one, while it is in force."""

    async def rotate_link_key(self, overlap_s: int) -> str:
        """Links of older keys are refused so much later. The new key's id."""


class Totals(Protocol):
    """Sums over attempts; `requests` counts calls. `label`: the tag, sub-account, model, key or day that they are of ("" = none)."""

    requests: int
    attempts: int
    cost_nanousd: int
    input_tokens: int
    output_tokens: int
    label: str


class UsageStore(Protocol):
    """Every row of what has settled by now, of those whose it is."""

    async def recent(self, *, limit: int, cursor: str | None, whose: Whose) -> tuple[list[CallEnd], str | None]: ...
    async def by(self, dimension: str, month: str, whose: Whose, page: Page | None = None) -> list[Totals]:
        """`dimension`: tag | sub_account | key | model | day | all (one row). Dearest first, days in their order; a page of them by label."""

    async def by_in_days(self, dimension: str, first_day: str, last_day: str, whose: Whose) -> list[Totals]:
        """The same for model | day | all between two days (YYYY-MM-DD, UTC), both inside."""


class Workers(Protocol):
    async def push(self, keys: Sequence[tuple[bytes, Principal | None]], *, provider_keys: Sequence[str] = ()) -> bool:
        """`provider_keys`: ids of stored ones that were revoked. True once all workers act by it."""

    def targets(self) -> list[dict[str, dict[str, object]]]: ...


class CallerUrls(Protocol):
    async def check_url(self, url: str, field: str) -> None:
        """Raises ClientError that names the field, where nothing of ours may follow it."""


class Webhooks(Protocol):
    """Secrets, endpoints and deliveries of webhooks. None: there is none of this id, or it is not theirs."""

    async def secret(self, caller: Principal) -> str:
        """The one that signs what goes to the URLs of this key's requests; made now, where there was none."""

    async def rotate_secret(self, caller: Principal, overlap_s: int) -> str: ...
    async def add_endpoint(self, whose: Whose, fields: Mapping[str, object]) -> tuple[Endpoint, str]:
        """With its secret. Raises ClientError (409) where the account has too many."""

    async def endpoints(self, whose: Whose) -> list[Endpoint]: ...
    async def endpoint(self, whose: Whose, endpoint_id: str) -> Endpoint | None: ...
    async def change_endpoint(self, whose: Whose, endpoint_id: str, changes: Mapping[str, object]) -> Endpoint | None: ...
    async def remove_endpoint(self, whose: Whose, endpoint_id: str) -> bool: ...
    async def rotate_endpoint_secret(self, whose: Whose, endpoint_id: str, overlap_s: int) -> str | None: ...
    async def deliveries(self, whose: Whose, filters: Mapping[str, str], limit: int, before: int | None) -> list[Delivery]:
        """Newest first, from the one before `before` on."""

    async def delivery(self, whose: Whose, delivery_id: str) -> Delivery | None: ...
    async def send_again(self, whose: Whose, delivery_id: str) -> Delivery | None: ...


class Services(msgspec.Struct, frozen=True, kw_only=True):
    keys: KeyStore
    accounts: Accounts
    provider_keys: ProviderKeys
    responses: Responses
    evals: Evals
    replays: Replays
    files: Files
    batches: Batches
    jobs: Jobs
    webhooks: Webhooks
    caller_urls: CallerUrls
    usage: UsageStore
    workers: Workers
    catalog: Any  # catalog.Catalog
    key_secret: bytes
    root_key: str
    public_url: str = ""  # where others reach this gateway, without a trailing slash; "" = as each caller does
    checks: Callable[[], Awaitable[dict[str, str]]]  # part of the gateway → "ok" or what is wrong with it
    metrics: Callable[[], Awaitable[bytes]]  # the Prometheus text
    log: Callable[[str], None]  # one line about a failure of ours


def get_services(request: Request) -> Services:
    return request.app.state.services


Wired = Annotated[Services, Depends(get_services)]
