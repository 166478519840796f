"""Which network addresses belong to the public internet.

Python's ``is_global`` and ``is_private`` are not enough: they let wrappers of IPv4 in IPv6 pass and
changed between releases. The tables follow the special-purpose registries of IANA (RFC 6890 and its
updates).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

_INSIDE_4 = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' NAT; one cloud's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # one cloud's metadata
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved; broadcast
    )
]

# Mapped and compatible IPv4, NAT64, unique local, link-local and multicast all lie outside of it.
_UNICAST_6 = IPv6Network("2000::/3")
_INSIDE_6 = [
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments; Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
]
# RFC 5214, 6.1: the upper half of an ISATAP interface identifier; an IPv4 address follows.
_ISATAP = {0x0000_5EFE, 0x0200_5EFE}


def is_public(text: str) -> bool:
    """Whether an address in text form leads to the public internet and nowhere else.

    IPv6 addresses that carry an IPv4 address are refused whatever they carry.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _INSIDE_4)
    return (
        address.scope_id is None
        and address in _UNICAST_6
        and not any(address in network for network in _INSIDE_6)
        and (int(address) >> 32) & 0xFFFF_FFFF not in _ISATAP
    )
