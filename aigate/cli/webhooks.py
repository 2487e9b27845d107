"""`aigate webhooks`: endpoints, what was sent to them, and the secrets that sign it."""

from typing import Annotated
from urllib.parse import quote

import typer

from aigate.cli.connection import Server
from aigate.cli.lists import given, show_list
from aigate.cli.options import on_server
from aigate.cli.output import show_line, show_note

webhooks = typer.Typer(help="Events sent to your own URLs.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="As 'list' shows it.")]
Overlap = Annotated[int, typer.Option(metavar="SECONDS", help="So long the old secret signs beside the new one.")]


@webhooks.command("list")
@on_server
def list_endpoints(server: Server) -> None:
    """Show all endpoints, newest first."""
    show_list(server, "/v1/webhook-endpoints", ("id", "url", "events", "status", "description", "sub_account_id", "created_at"))


@webhooks.command("add")
@on_server
def add_endpoint(
    server: Server,
    target: Annotated[str, typer.Argument(metavar="URL", help="https://…")],
    event: Annotated[list[str] | None, typer.Option(help="Which events, such as job.completed or 'job.*'; may be repeated; all when left out.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
) -> None:
    """Register an endpoint. Its secret is printed once and shown nowhere again."""
    made = server.request("POST", "/v1/webhook-endpoints", given({"url": target, "events": event or None, "description": description}))
    show_line(made["secret"])
    show_note(f"{made['id']}: the secret is shown this once")


@webhooks.command("remove")
@on_server
def remove_endpoint(server: Server, endpoint_id: Id) -> None:
    """Delete an endpoint. What was on its way to it is given up."""
    show_line(f"{server.request('DELETE', _endpoint(endpoint_id))['id']} removed")


@webhooks.command("rotate")
@on_server
def rotate_endpoint(server: Server, endpoint_id: Id, overlap: Overlap = 0) -> None:
    """Make a new secret for an endpoint, printed once. The old one is invalid at once, unless told otherwise."""
    show_line(server.request("POST", _endpoint(endpoint_id) + "/rotate", {"overlap_s": overlap})["secret"])


@webhooks.command("secret")
@on_server
def show_secret(server: Server, rotate: Annotated[bool, typer.Option("--rotate", help="Make a new one first.")] = False, overlap: Overlap = 0) -> None:
    """Print the secret that signs what goes to the webhook_url of this key's requests."""
    path = "/v1/webhook-secret"
    found = server.request("POST", path + "/rotate", {"overlap_s": overlap}) if rotate else server.request("GET", path)
    show_line(found["secret"])


@webhooks.command("deliveries")
@on_server
def list_deliveries(
    server: Server,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="ID", help="Only to this one.")] = None,
    event: Annotated[str | None, typer.Option(help="Only of this type.")] = None,
) -> None:
    """Show what was sent, newest first."""
    fields = ("id", "event_type", "subject", "status", "attempts", "response_status", "error", "url", "created_at", "next_attempt_at")
    show_list(server, "/v1/webhook-deliveries", fields, status=status, endpoint_id=endpoint, event_type=event)


@webhooks.command("resend")
@on_server
def resend(server: Server, delivery_id: Annotated[str, typer.Argument(metavar="ID", help="As 'deliveries' shows it.")]) -> None:
    """Send a delivery again, under the same id."""
    sent = server.request("POST", f"/v1/webhook-deliveries/{quote(delivery_id, safe='')}/resend")
    show_line(f"{sent['id']} {sent['status']}")


def _endpoint(endpoint_id: str) -> str:
    return f"/v1/webhook-endpoints/{quote(endpoint_id, safe='')}"
