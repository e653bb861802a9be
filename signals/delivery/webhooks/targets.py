"""Where webhooks may go: no address inside, unless a setting lists its network.

Asked when a subscription is made, and again at every connect, for a name may lead somewhere else by then. Invariants:
of a name every address is checked, and one bad one refuses it; plain HTTP goes to listed networks only; a text that is
no clear https URL is an error that says what to write.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from signals.delivery.webhooks.words import URL_CHARACTERS_MAX

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Azure's wire server answers every machine there with its secrets, at an address that is not marked as private.
METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})


class TargetError(Exception):
    """A webhook may not go there; the message says why and what to do."""


class NetworksError(Exception):
    """`webhook_private_targets` can't be read."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks of the setting `webhook_private_targets`: CIDR, with commas between.

    Raises:
        NetworksError: one is none.
    """
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise NetworksError(
            f"webhook_private_targets: {error}. Write networks as 10.1.0.0/16 or fd00:1::/64, with commas between"
        ) from error


class TargetPolicy:
    """Says of URLs and addresses whether webhooks may go there."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        """Take the networks that are allowed though they are inside."""
        self._allowed = tuple(allowed)

    def check_url(self, url: str) -> str:
        """Return the host name of a URL whose form is right.

        Raises:
            TargetError: it is no URL that events could be posted to.
        """
        if len(url) > URL_CHARACTERS_MAX or not url.isascii() or any(ord(sign) <= 32 for sign in url):
            raise TargetError(f"a URL has at most {URL_CHARACTERS_MAX} characters, all ASCII, without spaces")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise TargetError(f"{url[:100]!r} is no URL: {error}") from error
        if parts.scheme not in ("https", "http") or not host or port == 0 or "\\" in url:
            raise TargetError(f"{url[:100]!r}: write https://HOST/PATH")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise TargetError("a webhook's URL carries no user, password or fragment: events are signed instead")
        if parts.scheme == "http" and not self._allowed:
            raise TargetError("http is for networks in the setting webhook_private_targets only: use https")
        return host

    def check_addresses(self, host: str, addresses: Iterable[str], *, tls: bool) -> None:
        """Return if every address of a host may be connected to.

        Raises:
            TargetError: one may not, or there is none.
        """
        found = list(addresses)
        if not found:
            raise TargetError(f"{host} has no address")
        for address in found:
            self.check_address(host, address, tls=tls)

    def check_address(self, host: str, text: str, *, tls: bool) -> None:
        """Return if this address may be connected to.

        Raises:
            TargetError: it may not.
        """
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError as error:
            raise TargetError(f"{host}: {text[:64]!r} is no address") from error
        inner = _inner(address)
        if any(one in network for network in self._allowed for one in (address, inner)):
            return
        if not tls:
            raise TargetError(
                f"{host} is {text}, and http is for networks in the setting webhook_private_targets only: use https"
            )
        if not _outside(inner):
            raise TargetError(
                f"{host} is {text}, an address inside (private, loopback, link-local, multicast or metadata). To allow "
                f"its network, list it in the setting webhook_private_targets"
            )


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        teredo = address.teredo
        return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address
    return address


def _outside(address: Address) -> bool:
    inside = (
        not address.is_global
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
        or (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
    )
    return not inside and address not in METADATA
