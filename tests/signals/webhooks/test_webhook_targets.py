"""Where webhooks may go: nothing inside, however it is written, unless a setting lists its network."""

import pytest

from signals.delivery.webhooks.targets import NetworksError, TargetError, TargetPolicy, parse_networks

STRICT = TargetPolicy()
OFFICE = TargetPolicy(parse_networks("10.1.0.0/16, fd00:1::/64"))

INSIDE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.0.1", "168.63.129.16",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1",
]  # fmt: skip
OUTSIDE = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]


@pytest.mark.parametrize("address", INSIDE)
def test_no_address_inside_is_allowed(address: str) -> None:
    with pytest.raises(TargetError, match="inside"):
        STRICT.check_address("receiver.example", address, tls=True)


@pytest.mark.parametrize("address", OUTSIDE)
def test_addresses_outside_are_allowed_by_https_and_not_by_http(address: str) -> None:
    STRICT.check_address("receiver.example", address, tls=True)
    with pytest.raises(TargetError, match="http"):
        STRICT.check_address("receiver.example", address, tls=False)


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5"])
def test_a_listed_network_is_allowed_by_both(address: str) -> None:
    for tls in (True, False):
        OFFICE.check_address("receiver.example", address, tls=tls)


def test_one_bad_address_of_a_name_refuses_it_and_so_does_none() -> None:
    with pytest.raises(TargetError, match=r"10\.2\.0\.1"):
        OFFICE.check_addresses("receiver.example", ["8.8.8.8", "10.1.0.1", "10.2.0.1"], tls=True)
    with pytest.raises(TargetError, match="no address"):
        OFFICE.check_addresses("receiver.example", [], tls=True)


@pytest.mark.parametrize(
    "url",
    [
        "receiver.example/hook", "ftp://receiver.example/", "file:///etc/passwd", "https://", "https:///hook",
        "https://user:word@receiver.example/", "https://receiver.example/#part", "https://receiver.example:0/",
        "https://receiver.example:99999/", "https://receiver.example/a b", "https://receiver.example\\@inside/",
        "https://r\u00e9ceiver.example/", "https://[::1", "http://receiver.example/",
        "https://receiver.example/" + "a" * 2048,
    ],
)  # fmt: skip
def test_what_is_no_clear_https_url_is_refused(url: str) -> None:
    with pytest.raises(TargetError):
        STRICT.check_url(url)


def test_a_clear_url_gives_its_host() -> None:
    assert STRICT.check_url("https://Receiver.example:8443/hook?a=b") == "receiver.example"
    assert OFFICE.check_url("http://[fd00:1::5]:80/hook") == "fd00:1::5"


@pytest.mark.parametrize("text", ["10.1.0.0/33", "10.1.0.1/16", "office", "10.0.0.0/8;fd00::/8"])
def test_a_network_that_is_none_is_an_error_that_says_how_to_write_one(text: str) -> None:
    with pytest.raises(NetworksError, match=r"10\.1\.0\.0/16"):
        parse_networks(text)


def test_no_text_is_no_network() -> None:
    assert parse_networks("") == parse_networks(" , ") == ()
