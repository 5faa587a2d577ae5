"""Which addresses of a catalogue's items are opened: a catalogue is somebody else's, and must open no other door.

What GDAL can open reaches further than a scene: files of this machine, addresses that only this network sees, and the
cloud's own address that hands out the node's credentials. So an asset is read

- by https, and by http from the catalogue's own host;
- from object storage (`s3://`, `gs://`, `az://`), with the node's own rights;
- from this machine, a path or a loopback address, where the catalogue itself is served from this machine;
- never from link-local addresses, nor from private ones but the catalogue's own.
"""

import ipaddress
import re
import socket
from typing import Final
from urllib.parse import urljoin, urlsplit

from cropray.core.errors import InputError
from cropray.core.redaction import redact

_STORES: Final = frozenset({"s3", "gs", "az"})
_METADATA: Final = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_METADATA_ADDRESSES: Final = frozenset({"100.100.100.200", "fd00:ec2::254", "168.63.129.16"})
_HOST: Final = re.compile(r"[\w.:-]+")
_JP2: Final = re.compile(r"\.(?:jp2|j2k)$", re.IGNORECASE)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def absolute(href: str, page: str | None) -> str:
    """An asset's address; a relative one starts at the item's own page.

    Raises:
        ValueError: it is relative, and the item has no page.
    """
    if urlsplit(href).scheme or href.startswith(("/", "<", "\\")):
        return href
    if page is None:
        raise ValueError(
            f"the address '{redact(href)}' is relative, and the item has no link 'self' where it would start"
        )
    return urljoin(page, href)


def require_door(href: str, catalogue: str) -> None:
    """Refuse the absolute address of an asset that a catalogue, known by its root, must not have opened.

    Raises:
        InputError: it is none of those above; the message says which would be.
    """
    reason = _refusal(href, catalogue)
    if reason is not None:
        raise InputError(f"the address '{redact(href)[:200]}' is not opened: {reason}")


def driver_of(href: str) -> str:
    """GDAL's driver of a scene's file: no other must open it, since a VRT names further addresses."""
    return "JP2OpenJPEG" if _JP2.search(href.partition("?")[0]) else "GTiff"


def _refusal(href: str, catalogue: str) -> str | None:
    home = (urlsplit(catalogue).hostname or "").rstrip(".").lower()
    is_mine = _is_loopback(home)
    if not href.isprintable() or href != href.strip() or re.search(r"[\\<>]", href):
        return "it is no plain address of a file"
    path = href[len("file://") :] if href.lower().startswith("file:///") else href
    if path.startswith("/"):
        is_file = is_mine and not path.startswith(("//", "/vsi"))
        return None if is_file else "a path of this machine is read only for a catalogue that is served from it"
    try:
        parts = urlsplit(href)
        scheme, host = parts.scheme.lower(), (parts.hostname or "").rstrip(".").lower()
    except ValueError:
        return "it is no address"
    if scheme in _STORES:
        return None
    if scheme not in {"http", "https"} or not _HOST.fullmatch(host):
        return "only https, s3, gs and az are read"
    return _refusal_of_host(scheme, host, home, is_mine=is_mine)


def _refusal_of_host(scheme: str, host: str, home: str, *, is_mine: bool) -> str | None:
    address = _address_of(host)
    if host in _METADATA or (address is not None and (address.is_link_local or str(address) in _METADATA_ADDRESSES)):
        return "link-local addresses hand out credentials, and are never read"
    if host == home:
        return None
    if _is_loopback(host):
        return None if is_mine else "it is this machine's, and the catalogue is not"
    if address is not None and (address.version == 6 or not address.is_global):  # IPv6 may wrap any other
        return "it is a private address or one of IPv6, and not the catalogue's own"
    if scheme == "http":
        return "http is read from the catalogue's own host alone; https is needed"
    return None


def _is_loopback(host: str) -> bool:
    address = _address_of(host)
    return host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback)


def _address_of(host: str) -> _Address | None:
    """The IP address that a host is, in any of the spellings that a client understands; None: it is a name."""
    try:
        address: _Address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))  # 2852039166, 0xa9.254.43518
        except OSError:
            return None
    return getattr(address, "ipv4_mapped", None) or address
