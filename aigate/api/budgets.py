"""Budgets of tags: a monthly cap on whatever carries a tag. (Caps of sub-accounts and keys are fields of those.)"""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response
from msgspec.structs import replace

from aigate.api.access import Admin
from aigate.api.boundary import json_reply
from aigate.api.inputs import MAX_PAGE, AskedPage, Cents, Input, Tag, next_cursor, to_nanousd
from aigate.api.replies import Row, standing_fields, whole_cents
from aigate.api.services import Services, Wired
from aigate.core.account import CLAMP, Cap, Page, Standing
from aigate.core.budget import TAG, Owner
from aigate.errors import ClientError

router = APIRouter(prefix="/v1/budgets", tags=["budgets"])

TagInPath = Annotated[str, Path(max_length=64)]


class NewBudget(Input):
    tag: Tag
    monthly_cap_cents: Cents
    budget_mode: Literal["clamp", "hard"] = CLAMP


@router.post("", status_code=201)
async def set_budget(new: NewBudget, admin: Admin, services: Wired) -> Response:
    """Caps a tag; 200 where it had a cap, which is replaced. What the tag has spent this month counts."""
    owner: Owner = (TAG, admin.account_id, new.tag)
    before = (await services.accounts.standings([owner]))[owner]
    effective = await services.accounts.set_cap(owner, Cap(to_nanousd(new.monthly_cap_cents), new.budget_mode))
    after = (await services.accounts.standings([owner]))[owner]
    return json_reply({**_record(after), "effective": effective}, 201 if before.limit_nanousd is None else 200)


@router.get("")
async def list_budgets(admin: Admin, services: Wired, page: AskedPage) -> Response:
    """In the order of their tags; `next_cursor` where there are more."""
    page = page or Page(MAX_PAGE)
    found = await services.accounts.limited(admin.account_id, TAG, replace(page, limit=page.limit + 1))
    more = next_cursor(page, [each.owner[2] for each in found])
    return json_reply({"object": "list", "data": [_record(each) for each in found[: page.limit]], "next_cursor": more})


# A tag may have a slash in it, so these take the rest of the path.
@router.get("/{tag:path}")
async def get_budget(tag: TagInPath, admin: Admin, services: Wired) -> Response:
    return json_reply(_record(await _find((TAG, admin.account_id, tag), services)))


@router.delete("/{tag:path}")
async def delete_budget(tag: TagInPath, admin: Admin, services: Wired) -> Response:
    """Takes the cap away; what the tag has spent stays known."""
    owner: Owner = (TAG, admin.account_id, tag)
    await _find(owner, services)
    effective = await services.accounts.set_cap(owner, Cap(None))
    return json_reply({"status": "ok", "id": tag, "object": "budget", "tag": tag, "deleted": True, "effective": effective})


async def _find(owner: Owner, services: Services) -> Standing:
    standing = (await services.accounts.standings([owner]))[owner]
    if standing.limit_nanousd is None:
        raise ClientError(f"The tag {owner[2]!r} has no budget; GET /v1/budgets lists them.", status=404, code="not_found", param="tag")
    return standing


def _record(standing: Standing) -> Row:
    tag = standing.owner[2]
    return {
        "id": tag,
        "object": "budget",
        "tag": tag,
        "label": tag,
        "monthly_cap_cents": whole_cents(standing.limit_nanousd),
        **standing_fields(standing),
        "month": standing.window,
        "created_at": standing.created_ms // 1000,
    }
