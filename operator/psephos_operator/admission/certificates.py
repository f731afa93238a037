"""The webhook's certificates: made here, renewed in time, trusted before they are used. Pure but for randomness.

Each certificate has its own authority, whose key is thrown away at once, so no key exists that could sign another
one. Authorities that have not expired are kept next to the new one: while replicas change over one after the
other, the API server trusts both.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(days=90)
RENEWED_BEFORE = timedelta(days=30)
SKEW = timedelta(minutes=10)  # clocks of nodes differ
KEPT_AUTHORITIES = 3


@dataclass(frozen=True)
class Bundle:
    """`certificate` and `key` as the server uses them, `authorities` as clients trust them; all PEM."""

    certificate: bytes
    key: bytes
    authorities: bytes

    @property
    def expires(self) -> datetime:
        """When the certificate expires. Raises ValueError if it can't be read."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc

    @property
    def hosts(self) -> frozenset[str]:
        """DNS names and addresses for which it is valid. Raises ValueError if it can't be read."""
        certificate = x509.load_pem_x509_certificate(self.certificate)
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return frozenset()
        dns = names.get_values_for_type(x509.DNSName)
        return frozenset([*dns, *map(str, names.get_values_for_type(x509.IPAddress))])


def is_due(bundle: Bundle | None, hosts: Iterable[str], now: datetime) -> bool:
    """Returns whether a new one is needed: it is missing or can't be read, expires soon, or lacks a host."""
    try:
        return bundle is None or now > bundle.expires - RENEWED_BEFORE or not bundle.hosts >= set(hosts)
    except ValueError:
        return True


def renewed(before: Bundle | None, hosts: Sequence[str], now: datetime) -> Bundle:
    """Returns a new certificate for these DNS names and addresses; previous authorities stay trusted next to its
    own."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    server_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _name(f"psephos webhook {now:%Y-%m-%d %H:%M:%S}")
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _builder(_name(hosts[0][:64]), authority_name, server_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    old = [] if before is None else _unexpired(before.authorities, now)
    return Bundle(
        certificate.public_bytes(serialization.Encoding.PEM),
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        b"".join(each.public_bytes(serialization.Encoding.PEM) for each in [authority, *old][:KEPT_AUTHORITIES]),
    )


def _unexpired(authorities: bytes, now: datetime) -> list[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(authorities)
    except ValueError:
        return []
    return [certificate for certificate in certificates if certificate.not_valid_after_utc > now]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - SKEW)
        .not_valid_after(now.astimezone(UTC) + LIFE)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
