"""`aigate keys`, `sub-accounts` and `provider-keys`: each command is one request to the control plane of a running server."""

import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from aigate.cli.connection import CommandError, Server
from aigate.cli.lists import given, show_list
from aigate.cli.options import on_server, with_limits
from aigate.cli.output import show_line, show_note

keys = typer.Typer(help="Client keys.", no_args_is_help=True)
sub_accounts = typer.Typer(help="Customers, each with a key and a cap of its own.", no_args_is_help=True)
provider_keys = typer.Typer(help="Callers' own keys for providers, kept sealed.", no_args_is_help=True)

_NOT_YET = "; not yet in force on every worker"

Id = Annotated[str, typer.Argument(metavar="ID", help="As 'list' shows it.")]


# --- keys ---------------------------------------------------------------------------------------------------------------------


@keys.command("create")
@on_server
@with_limits
def create_key(
    server: Server,
    limits: dict[str, Any],
    name: Annotated[str, typer.Argument(help="What it is for.")] = "default",
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601, such as 2027-01-31.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="It may manage keys and see all usage.")] = False,
    sub_account: Annotated[str | None, typer.Option(metavar="ID", help="Whose it is.")] = None,
) -> None:
    """Make a key. It is printed once and kept nowhere."""
    body = {"name": name, "is_admin": admin, "expires_at": expires, "sub_account_id": sub_account}
    _show_new_key(server.request("POST", "/v1/keys", limits | given(body)))


@keys.command("list")
@on_server
def list_keys(server: Server) -> None:
    """Show all keys, newest first."""
    fields = ("id", "name", "status", "hint", "created_at", "expires_at", "default_tag", "is_admin", "spend_cap_cents", "sub_account_id")
    show_list(server, "/v1/keys", fields)


@keys.command("revoke")
@on_server
def revoke_key(server: Server, key_id: Id) -> None:
    """Revoke a key. It is refused everywhere once this has answered."""
    revoked = server.request("DELETE", f"/v1/keys/{quote(key_id, safe='')}")
    show_line(f"{revoked['id']} revoked" + ("" if revoked["effective"] else _NOT_YET))


@keys.command("rotate")
@on_server
def rotate_key(server: Server, key_id: Id) -> None:
    """Make a new key in the place of one. The old one works until the new one is first used."""
    _show_new_key(server.request("POST", f"/v1/keys/{quote(key_id, safe='')}/rotate"))


# --- sub-accounts -------------------------------------------------------------------------------------------------------------


@sub_accounts.command("create")
@on_server
@with_limits
def create_sub_account(
    server: Server,
    limits: dict[str, Any],
    name: Annotated[str, typer.Argument(help="Of the customer.")],
    ref: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is called in your own records.")] = None,
    hard: Annotated[bool, typer.Option("--hard", help="Refuse at the cap rather than shorten answers.")] = False,
) -> None:
    """Make a sub-account and its first key, which is printed once and kept nowhere."""
    body = {"name": name, "external_ref": ref, "budget_mode": "hard" if hard else "clamp"}
    _show_new_key(server.request("POST", "/v1/sub-accounts", limits | given(body)))


@sub_accounts.command("list")
@on_server
def list_sub_accounts(server: Server) -> None:
    """Show all sub-accounts and what they have spent this month, newest first."""
    fields = ("id", "name", "external_ref", "spend_cap_cents", "spent_cents", "remaining_cents", "rate_limit_rpm", "created_at")
    show_list(server, "/v1/sub-accounts", fields)


@sub_accounts.command("cap")
@on_server
def cap_sub_account(server: Server, sub_account_id: Id, cents: Annotated[str, typer.Argument(help="A month; 'none' takes the cap away.")]) -> None:
    """Change a sub-account's monthly cap."""
    cap = None if cents == "none" else cents
    changed = server.request("PATCH", f"/v1/sub-accounts/{quote(sub_account_id, safe='')}", {"spend_cap_cents": cap})
    words = "no cap" if cap is None else f"{changed['spend_cap_cents']} cents a month"
    show_line(f"{changed['id']} {words}, {changed['spent_cents']} spent" + ("" if changed["effective"] else _NOT_YET))


@sub_accounts.command("delete")
@on_server
def delete_sub_account(server: Server, sub_account_id: Id) -> None:
    """Delete a sub-account: its keys are refused, its usage stays."""
    deleted = server.request("DELETE", f"/v1/sub-accounts/{quote(sub_account_id, safe='')}")
    show_line(f"{deleted['id']} deleted" + ("" if deleted["effective"] else _NOT_YET))


# --- provider keys ------------------------------------------------------------------------------------------------------------


@provider_keys.command("add")
@on_server
def add_provider_key(
    server: Server,
    provider: Annotated[str, typer.Argument(help="Such as openai.")],
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    sub_account: Annotated[str | None, typer.Option(metavar="ID", help="Whose it is; anybody's of the account when left out.")] = None,
) -> None:
    """Store a provider key, read from stdin."""
    key = sys.stdin.readline().strip()
    if not key:
        raise CommandError("no key came on stdin")
    body = {"provider": provider, "key": key, "name": name, "sub_account_id": sub_account}
    show_line(server.request("POST", "/v1/provider-keys", given(body))["id"])


@provider_keys.command("list")
@on_server
def list_provider_keys(server: Server) -> None:
    """Show all stored provider keys, newest first."""
    show_list(server, "/v1/provider-keys", ("id", "provider", "name", "status", "hint", "sub_account_id", "created_at"))


@provider_keys.command("delete")
@on_server
def delete_provider_key(server: Server, key_id: Id) -> None:
    """Erase a stored provider key."""
    deleted = server.request("DELETE", f"/v1/provider-keys/{quote(key_id, safe='')}")
    show_line(f"{deleted['id']} deleted")


@provider_keys.command("rotate")
@on_server
def rotate_provider_keys(server: Server) -> None:
    """Seal all stored provider keys under a new key of the gateway's."""
    show_line(f"{server.request('POST', '/v1/provider-keys/rotate')['rotated']} sealed anew")


# --- shared -------------------------------------------------------------------------------------------------------------------


def _show_new_key(made: dict[str, Any]) -> None:
    show_line(made["key"])
    show_note(f"{made['id']}: shown this once" + ("" if made["effective"] else _NOT_YET))
