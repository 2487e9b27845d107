"""Reads a URL that a caller gave, before anybody follows it. Pure: what it resolves to is judged by public_address.py, at connect.

Strict on purpose: libraries differ in how they read odd spellings (127.1, 0x7f.1, user@host, a final dot), so none of them is let through,
and what is checked is what is connected to.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
LOWEST_FREE_PORT = 1024  # below it only the two of the web: the others belong to services that are no web servers

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*\Z")
_ENDS_IN_NUMBER = re.compile(r"(?:\A|\.)(?:[0-9]+|0x[0-9a-f]*)\Z")  # what systems may read as an IPv4 address


class CallerUrl(NamedTuple):
    scheme: str
    host: str  # lower case; an IPv6 address without brackets
    port: int
    target: str  # path and query

    @property
    def authority(self) -> str:
        """What a Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def read_caller_url(url: str, max_chars: int) -> CallerUrl:
    """Raises ValueError, whose words go on from "the URL …"."""
    if not 0 < len(url) <= max_chars or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError(f"must be at most {max_chars} printable ASCII characters, without spaces and backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("cannot be read") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError("must begin with https:// or http:// and a host")
    if "@" in parts.netloc:
        raise ValueError("must be without user and password")
    host = _read_host(parts.netloc, parts.hostname)
    port = DEFAULT_PORTS[parts.scheme] if port is None else port
    if port < LOWEST_FREE_PORT and port not in DEFAULT_PORTS.values():
        raise ValueError(f"has port {port}; allowed are 80, 443, and from {LOWEST_FREE_PORT} on")
    return CallerUrl(parts.scheme, host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def _read_host(netloc: str, host: str) -> str:
    try:
        if netloc.startswith("["):
            return str(IPv6Address(host) if "%" not in host else IPv6Address(""))
        if _ENDS_IN_NUMBER.search(host):
            return str(IPv4Address(host))
    except AddressValueError:
        raise ValueError("has a host that reads like an IP address; write it as four decimal numbers, or [in brackets] for IPv6") from None
    if len(host) > 253 or not _NAME.match(host):
        raise ValueError("has a host that is no plain name (letters, digits, '-', no final dot)")
    return host
