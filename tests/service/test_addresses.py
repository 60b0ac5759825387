"""Addresses: every network that is not public, every spelling of one, and what may stand in a URL."""

from ipaddress import ip_address, ip_network

import pytest

from service.addresses import is_public
from service.egress import check_url

# Each network with an address right before it and one right after, where these are public.
NOT_PUBLIC = [
    ("0.0.0.0/8", None, "1.0.0.0"),
    ("10.0.0.0/8", "9.255.255.255", "11.0.0.0"),
    ("100.64.0.0/10", "100.63.255.255", "100.128.0.0"),
    ("127.0.0.0/8", "126.255.255.255", "128.0.0.0"),
    ("168.63.129.16/32", "168.63.129.15", "168.63.129.17"),
    ("169.254.0.0/16", "169.253.255.255", "169.255.0.0"),
    ("172.16.0.0/12", "172.15.255.255", "172.32.0.0"),
    ("192.0.0.0/24", "191.255.255.255", "192.0.1.0"),
    ("192.0.2.0/24", "192.0.1.255", "192.0.3.0"),
    ("192.88.99.0/24", "192.88.98.255", "192.88.100.0"),
    ("192.168.0.0/16", "192.167.255.255", "192.169.0.0"),
    ("198.18.0.0/15", "198.17.255.255", "198.20.0.0"),
    ("198.51.100.0/24", "198.51.99.255", "198.51.101.0"),
    ("203.0.113.0/24", "203.0.112.255", "203.0.114.0"),
    ("224.0.0.0/4", "223.255.255.255", None),
    ("240.0.0.0/4", None, None),
    ("::/3", None, "2000::"),
    ("2001::/23", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"),
    ("2001:db8::/32", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"),
    ("2002::/16", "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"),
    ("3fff::/20", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"),
    ("4000::/2", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    ("8000::/1", None, None),
]
STANDING_FOR_ANOTHER = {
    "mapped": "::ffff:127.0.0.1",
    "mapped, public": "::ffff:8.8.8.8",
    "translated (SIIT)": "::ffff:0:127.0.0.1",
    "compatible": "::127.0.0.1",
    "NAT64": "64:ff9b::7f00:1",
    "NAT64 of this network": "64:ff9b:1::7f00:1",
    "6to4": "2002:7f00:1::",
    "Teredo": "2001:0:4136:e378:8000:63bf:80ff:fffe",
}
SPECIAL = {
    "this machine": "::1",
    "none": "::",
    "unique local": "fd00:ec2::254",
    "link-local": "fe80::1",
    "link-local with a zone": "fe80::1%eth0",
    "site-local": "fec0::1",
    "to many": "ff02::1",
    "to many, IPv4": "224.0.0.1",
    "discarded": "100::1",
    "for examples": "3fff::1",
    "segment routing": "5f00::1",
    "to all": "255.255.255.255",
    "metadata": "169.254.169.254",
    "a carrier's metadata": "100.100.100.200",
}
# Of 127.0.0.1 and the like, as one resolver or another would take them.
SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127",
    "0",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0X7F000001",
    "0x7f.1",
    "0x7f.0.0.0x1",
    "0177.0.0.1",
    "127.0.0.01",
    "127.0.0.0x1",
    "127.0.0.0x",
    "127.0.0.08",
    "00000000127.0.0.1",
    "4294967297",
    "340282366920938463463374607431768211455",
    "127.0.0.256",
    "1.2.3.4.5",
    "127.0.0.1.",
    "2130706433.",
    "10.0.0.1",
    "169.254.169.254",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::FFFF:7F00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "[127.0.0.1]",
    "[8.8.8.8]",
    "[v1.a:b]",
    "[::1",
    "::1",
    "[]",
    "[:]",
    "[::1]x",
    "x[::1]",
    "１２７.０.０.１",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "127%2e0%2e0%2e1",
    "%31%32%37.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "x.localhost",
    "x.localhost.",
    "printer.local",
    "PRINTER.LOCAL",
    "printer.local.",
    "metadata.google.internal",
    "metadata.google.internal.",
    "intranet",
    "ｌocalhost.example",
    "bücher.example",
    "",
    ".",
    "..",
    ".example.com",
    "a..example.com",
    "example.com.",
    "example.com..",
    "-a.example.com",
    "a-.example.com",
    f"{'a' * 64}.example.com",
    f"{'a.' * 126}com",
    "exa mple.com",
    "exa\tmple.com",
    "exa\nmple.com",
    "example.com\\@127.0.0.1",
    "example.com\\.127.0.0.1",
    "example.com@127.0.0.1",
    "user:password@example.com",
    "@example.com",
    "example.com:443@127.0.0.1",
    "example.com:443:80",
    "example.com\x00.127.0.0.1",
    "example.com\x7f",
    "127.0.0.1#@example.com",
    "127.0.0.1?@example.com",
    "127.0.0.1/@example.com",
    "a,b.example.com",
    "*.example.com",
]
PUBLIC = [
    "https://example.com",
    "https://example.com/",
    "HTTPS://EXAMPLE.COM/Hook",
    "https://example.com:443/hook",
    "https://example.com:8443/hook",
    "https://hooks.example.com/a/b;c=d/%C3%A9?x=y&z=[1]&to=http://127.0.0.1/@",
    "https://example.com?only=query",
    "https://xn--bcher-kva.example/hook",
    "https://under_score.example.com/hook",
    "https://1-2.example.com/hook",
    "https://127.0.0.1.example.com/hook",
    "https://0x7f.example/hook",
    "https://localhost.example/hook",
    "https://internal.example/hook",
    f"https://{'a' * 63}.example.com/hook",
    "https://8.8.8.8/hook",
    "https://[2606:4700::1111]/hook",
    "https://[2606:4700:0:0:0:0:0:1111]:8443/hook",
]


@pytest.mark.parametrize(("network", "before", "after"), NOT_PUBLIC)
def test_no_address_of_a_network_that_is_not_public_is_and_its_neighbours_are(network, before, after):
    first, last = ip_network(network)[0], ip_network(network)[-1]

    assert not is_public(str(first)) and not is_public(str(last))
    assert before is None or (ip_address(before) + 1 == first and is_public(before))
    assert after is None or (last + 1 == ip_address(after) and is_public(after))


@pytest.mark.parametrize("address", STANDING_FOR_ANOTHER.values(), ids=STANDING_FOR_ANOTHER)
def test_an_address_that_stands_for_another_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", SPECIAL.values(), ids=SPECIAL)
def test_a_special_address_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::1"])
def test_an_address_of_the_internet_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "text", ["", "example.com", "8.8.8", "134744072", "0x8.8.8.8", "08.8.8.8", "[2606:4700::1111]"]
)
def test_what_is_no_address_in_its_usual_spelling_is_not_public(text):
    assert not is_public(text)


# URLs


@pytest.mark.parametrize("url", PUBLIC)
def test_a_public_url_may_be_called(url):
    assert check_url(url) is None


@pytest.mark.parametrize("host", SPELLINGS)
def test_a_host_that_is_not_public_may_not_be_called_however_it_is_spelt(host):
    refusal = check_url(f"https://{host}/hook")

    assert refusal and refusal.endswith(".")
    assert check_url(f"https://{host}") and check_url(f"https://{host}:8443/")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://example.com/hook", "https"),
        ("ftp://example.com/hook", "https"),
        ("file:///etc/passwd", "https"),
        ("gopher://example.com/_", "https"),
        ("//example.com/hook", "https"),
        ("example.com/hook", "https"),
        ("https:/example.com", "https"),
        ("https:example.com", "https"),
        ("https:///example.com", "https"),
        ("", "https"),
        ("https://example.com:80/", "443 or 8443"),
        ("https://example.com:22/", "443 or 8443"),
        ("https://example.com:9200/", "443 or 8443"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "port"),
        ("https://example.com:65979/", "port"),
        ("https://example.com:-443/", "https"),
        ("https://example.com:/", "https"),
        ("https://example.com:443a/", "https"),
        ("https://example.com:４４３/", "characters"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com#", "fragment"),
        ("https://ada:secret@example.com/", "user"),
        ("https://example.com\\/", "characters"),
        ("https://example.com/a b", "characters"),
        ("https://example.com/a\r\nHost: x", "characters"),
        (" https://example.com/", "characters"),
        ("https://example.com/\n", "characters"),
        ("https://example.com/é", "characters"),
        ("https://bücher.example/", "xn--"),
        ("https://example.com/\ud800", "characters"),
        ("https://example.com/<script>", "characters"),
        (f"https://example.com/{'x' * 2029}", "2048"),
        ("https://127.0.0.1/", "public address"),
        ("https://localhost/", "public"),
    ],
)
def test_a_url_that_may_not_be_called_says_why(url, says):
    assert says in check_url(url)


def test_a_url_may_have_2048_characters():
    url = f"https://example.com/{'x' * 2028}"

    assert len(url) == 2048 and check_url(url) is None


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("http://localhost:8080/hook", "localhost"),
        ("http://localhost:8080/hook", "localhost:8080"),
        ("http://LocalHost:8080/hook", "LOCALhost:8080"),
        ("http://localhost/hook", "localhost:80"),
        ("https://localhost/hook", "localhost:443"),
        ("http://127.0.0.1:5000", "127.0.0.1"),
        ("http://[::1]:5000/", "[::1]"),
        ("http://[::1]:5000/", "[::1]:5000"),
        ("http://receiver:80/", "receiver"),
        ("http://metadata.google.internal/", "metadata.google.internal"),
    ],
)
def test_a_host_that_is_allowed_by_name_may_be_called_anyhow(url, entry):
    assert check_url(url) is not None

    assert check_url(url, allowed_hosts=["other.example", entry]) is None


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("http://localhost:8080/hook", "localhost:8081"),
        ("http://localhost:8080/hook", "ocalhost"),
        ("http://localhost:8080/hook", ""),
        ("http://localhost:8080/hook", "*"),
        ("http://x.localhost:8080/hook", "localhost"),
        ("http://127.0.0.1:8080/hook", "localhost"),
        ("http://127.1:8080/hook", "127.0.0.1"),
        ("http://localhost:70000/", "localhost"),
        ("http://localhost:0/", "localhost"),
        ("http://ada@localhost/", "localhost"),
        ("http://localhost/#x", "localhost"),
        ("http://localhost\\@x/", "localhost"),
        ("ftp://localhost/", "localhost"),
    ],
)
def test_what_is_allowed_is_that_host_and_no_more(url, entry):
    assert check_url(url, allowed_hosts=[entry]) is not None
