"""Identities of members: the names in certificates, and the name of each address.

A member's identity is one name: the one in `server_names` for its address, or else the
host of the address. A certificate proves it with a subject alternative name; common
names and wildcards do not count. `txraft.transport.tls` checks the chain to the
cluster's authority.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.(?!-)[A-Za-z0-9_-]{1,63})*\Z")
_MAX_PORT = 65535
_SHOWN_NAMES = 4
_SHOWN_CHARACTERS = 80
_BOTH_USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_ANY_USE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


class NoIdentity(Exception):
    """A certificate that no member may use; the message says why."""


class Identity:
    """The names in the *certificate* of a peer.

    Raises: NoIdentity for a certificate that no member of a cluster may use.
    """

    def __init__(self, certificate: x509.Certificate) -> None:
        self._certificate = certificate
        self.names = _names_in(certificate)
        _check_uses(certificate)

    def __str__(self) -> str:
        shown = ", ".join(self.names[:_SHOWN_NAMES])
        return shown if len(self.names) <= _SHOWN_NAMES else f"{shown}, ..."

    def is_named(self, name: str) -> bool:
        """Tell whether the certificate proves *name*, a host name or IP address."""
        return proves(self._certificate, name)


class PeerNames:
    """Maps addresses to identities; *server_names* overrides the host of an address."""

    def __init__(self, server_names: Mapping[str, str] | None = None) -> None:
        self._names = dict(server_names or {})

    def name_of(self, address: str) -> str:
        """Return the identity of the member at *address*.

        Raises: ValueError for what is no address.
        """
        name = self._names.get(address)
        return _host_in(address) if name is None else name

    def shared(self, addresses: Iterable[str]) -> list[tuple[str, str, str]]:
        """List (name, address, other address) for each name of two addresses."""
        owners: dict[str, str] = {}
        shared = []
        for address in addresses:
            name = self.name_of(address).lower().rstrip(".")
            first = owners.setdefault(name, address)
            if first != address:
                shared.append((name, first, address))
        return shared


def proves(certificate: x509.Certificate, name: str) -> bool:
    """Tell whether *certificate* is for *name*; False for what is no name of a host."""
    if not is_name(name):
        return False  # the verifiers would raise ValueError
    try:
        if is_ip_address(name):
            verify_certificate_ip_address(certificate, name)
        else:
            verify_certificate_hostname(certificate, name)
    except (VerificationError, CertificateError):
        return False
    return True


def is_for(certificate: x509.Certificate, *uses: x509.ObjectIdentifier) -> bool:
    """Tell whether *certificate* may be used for all of *uses*."""
    try:
        found = certificate.extensions.get_extension_for_class(
            x509.ExtendedKeyUsage
        ).value
    except x509.ExtensionNotFound:
        return True  # RFC 5280: without the extension every use is allowed
    return _ANY_USE in found or all(use in found for use in uses)


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether *certificate* may sign other certificates."""
    try:
        basic = certificate.extensions.get_extension_for_class(
            x509.BasicConstraints
        ).value
    except x509.ExtensionNotFound:
        return False
    return basic.ca


def names_of(certificate: crypto.X509) -> tuple[str, ...]:
    """List the names in a client's certificate; none if they are malformed."""
    try:
        return _names_in(certificate.to_cryptography())
    except (NoIdentity, ValueError):
        return ()


def is_name(name: str) -> bool:
    """Tell whether *name* is a host name or IP address, as a certificate can prove."""
    return is_ip_address(name) or _HOST_NAME.match(name) is not None


def is_ip_address(name: str) -> bool:
    """Tell whether *name* is an address rather than a host name."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _host_in(address: str) -> str:
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ip_address(host[1:-1]))
    elif not _HOST_NAME.match(host):
        raise ValueError(f"{host!r} is no host name")
    if not (port.isascii() and port.isdigit() and int(port) <= _MAX_PORT):
        raise ValueError(f"{port!r} is no port")
    return host


def _names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except x509.ExtensionNotFound:
        raise NoIdentity(
            "its certificate has no subject alternative name, and a common name "
            "does not count"
        ) from None
    except ValueError as error:
        raise NoIdentity("its certificate holds names that are malformed") from error
    hosts = found.get_values_for_type(x509.DNSName)
    for host in hosts:
        if "*" in host:
            raise NoIdentity(f"its certificate is for a wildcard, {_shown(host)}")
        if not _HOST_NAME.match(host):
            raise NoIdentity(f"its certificate holds an odd name, {_shown(host)}")
    names = (*hosts, *map(str, found.get_values_for_type(x509.IPAddress)))
    if not names:
        raise NoIdentity("its certificate names no host and no IP address")
    return names


def _check_uses(certificate: x509.Certificate) -> None:
    """Refuse a certificate that is not for both ends: a peer listens and dials."""
    if not is_for(certificate, *_BOTH_USES):
        raise NoIdentity(
            "its certificate is not for a peer, which needs both clientAuth and "
            "serverAuth"
        )
    if is_authority(certificate):
        raise NoIdentity("its certificate is that of an authority, not of a peer")


def _shown(name: str) -> str:
    return repr(name[:_SHOWN_CHARACTERS])
