"""Which network addresses a caller's URL may lead to: those of the public internet and nothing else. Pure; who connects asks it first.

A name is judged by what it resolves to, never by its spelling; an address that carries another one is judged by that one too.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_V4_RESERVED = tuple(
    IPv4Network(block)
    for block in (
        "100.64.0.0/10",  # carriers' own, and some clouds' metadata
        "168.63.129.16/32",  # public by number: Azure's own service on every virtual machine (learn.microsoft.com)
        "192.0.0.0/24",  # protocol assignments, one cloud's metadata among them; what Python says of them changed over versions
    )
)
_V6_GLOBAL = IPv6Network("2000::/3")  # all that is routed on the internet
_NAT64 = IPv6Network("64:ff9b::/96")  # the last four bytes are an IPv4 address
_COMPATIBLE = IPv6Network("::/96")  # of before mapped addresses


def is_public(address: str) -> bool:
    """Whether `address` (as a resolver gives it) is one host on the public internet."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv4Address):
        return _is_public(found)
    if found.scope_id is not None:
        return False
    inner = _carried(found)
    return _is_public(found) if inner is None else _is_public(inner)


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets for `address` may end at."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return IPv4Address("127.0.0.1")  # a tunnel to anywhere: never needed, so never followed
    if address in _NAT64 or address in _COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv6Address):
        return address in _V6_GLOBAL
    return not any(address in block for block in _V4_RESERVED)
