"""How a URL that a caller gave is read: one spelling of everything, or not at all."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.core.caller_url import CallerUrl, read_caller_url

ODD_IPV4 = ["2130706433", "017700000001", "0x7f000001", "127.1", "127.0.1", "0177.0.0.1", "0x7f.0.0.1", "127.0.0.01", "127.0.0.1.", "1.2.3.4.5", "0x", "08.8.8.8"]
REFUSED = [
    *(f"https://{host}/" for host in ODD_IPV4),
    "https://8.8.8.8@127.0.0.1/", "https://user:pass@example.com/", "https://@example.com/", "https://example.com\\@127.0.0.1/", "https://example.com#@127.0.0.1\\/",
    "https://localhost./", "https://example.com./", "https://exa mple.com/", "https://exa\tmple.com/", "https://ex%61mple.com/", "https://127.0.0.1%2f.example.com/",
    "https://①②⑦.⓪.⓪.①/", "https://exämple.com/", "https://[fe80::1%25eth0]/", "https://[::1/", "https://[127.0.0.1]/", "https://[::ffff:127.0.0.1.]/",
    "https:///path", "https://", "https:example.com", "//example.com", "example.com", "", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/",
    "javascript:alert(1)", "https://example.com:0/", "https://example.com:22/", "https://example.com:25/", "https://example.com:99999/", "https://example.com:-1/",
    "https://example.com:443x/", "https://-example.com/", "https://exa..mple.com/", "https://.example.com/", "https://" + "a" * 300 + ".com/", "https://example.com/" + "a" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
def test_what_could_be_read_in_two_ways_is_not_read(url):
    with pytest.raises(ValueError, match="^(must|has|cannot)"):
        read_caller_url(url, 2048)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("https://example.com", CallerUrl("https", "example.com", 443, "/")),
        ("HTTPS://Example.COM:8443/Hook?a=1&b=%20#part", CallerUrl("https", "example.com", 8443, "/Hook?a=1&b=%20")),
        ("http://under_score.example.com:80?x", CallerUrl("http", "under_score.example.com", 80, "/?x")),
        ("https://8.8.8.8/", CallerUrl("https", "8.8.8.8", 443, "/")),
        ("https://[2606:4700:0:0::1111]:4444/", CallerUrl("https", "2606:4700::1111", 4444, "/")),
        ("https://xn--exmple-cua.com/", CallerUrl("https", "xn--exmple-cua.com", 443, "/")),
        ("https://3com.com/", CallerUrl("https", "3com.com", 443, "/")),
    ],
)
def test_plain_urls_are_read(url, read):
    assert read_caller_url(url, 2048) == read


@pytest.mark.parametrize(("url", "authority"), [("https://a.com:443/", "a.com"), ("https://a.com:4444/", "a.com:4444"), ("http://[::1]:80/", "[::1]")])
def test_the_host_field_names_a_port_only_where_it_is_not_the_usual_one(url, authority):
    assert read_caller_url(url, 2048).authority == authority


@given(st.text("0123456789abcdefx.-", min_size=1, max_size=20))
def test_no_host_passes_that_the_system_reads_as_another_address(host):
    """inet_aton takes decimal, octal, hex and short forms, as resolvers do."""
    try:
        read = read_caller_url(f"https://{host}/", 2048)
    except ValueError:
        return
    try:
        packed = socket.inet_aton(read.host)
    except OSError:
        return
    assert socket.inet_ntoa(packed) == read.host == host
