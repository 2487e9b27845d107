"""Which addresses a caller's URL may lead to."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.core.public_address import is_public

REFUSED = """
127.0.0.1 127.9.9.9 0.0.0.0 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 169.254.170.2 100.64.0.1 100.100.100.200
192.0.0.192 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 168.63.129.16
:: ::1 fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 fec0::1 ff02::1 2001:db8::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:a9fe:a9fe
::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1:: 2002:a9fe:a9fe::1 2001:0:4136:e378:8000:63bf:3fff:fdd2
localhost 2130706433 0x7f.1 127.1
""".split()
PRIVATE = [IPv4Network(block) for block in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4")]


@pytest.mark.parametrize("address", [*REFUSED, ""])
def test_what_is_not_the_public_internet_is_refused(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_hosts_of_the_public_internet_pass(address):
    assert is_public(address)


@given(st.sampled_from(PRIVATE), st.integers(0, 2**32 - 1))
def test_no_spelling_of_a_private_address_passes(block, number):
    address = block[number % block.num_addresses]
    low = int(address)
    for spelt in (str(address), f"::ffff:{address}", f"64:ff9b::{low >> 16:x}:{low & 0xFFFF:x}", f"2002:{low >> 16:x}:{low & 0xFFFF:x}::1", f"::{low >> 16:x}:{low & 0xFFFF:x}"):
        assert not is_public(spelt)
    assert IPv4Address(low) in block
