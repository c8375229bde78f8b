# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The internal certificate authority: what it issues, and when it issues again."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# A peer's clock may be behind ours
BACKDATE = datetime.timedelta(hours=1)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def _builder(subject: str, issuer: x509.Name | None, key: Any, days: int, now: datetime.datetime) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(**allowed: bool) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
        " encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: allowed.get(name, False) for name in names.split()})


def make_ca(subject: str, days: int, now: datetime.datetime) -> dict[str, str]:
    """Return a new authority as PEM texts `certificate` and `private_key`, valid for `days` from `now`."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(subject, None, key, days, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return {"certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(), "private_key": _key_pem(key)}


def issue(ca: dict[str, str], names: list[str], days: int, now: datetime.datetime) -> dict[str, str]:
    """Return a new certificate for the DNS names, signed by the authority, as PEM texts `certificate` and `private_key`.

    It serves as server and as client certificate.
    """
    ca_certificate = x509.load_pem_x509_certificate(ca["certificate"].encode())
    ca_key: PrivateKeyTypes = serialization.load_pem_private_key(ca["private_key"].encode(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_certificate.public_key())  # type: ignore[arg-type]
    certificate = (
        _builder(names[0], ca_certificate.subject, key, days, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())  # type: ignore[arg-type]
    )
    return {"certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(), "private_key": _key_pem(key)}


def is_good(stored: dict[str, str] | None, ca: dict[str, str], names: list[str], renew_days: int, now: datetime.datetime) -> bool:
    """Return whether a stored certificate is of this authority, for these names, and not within `renew_days` of its end."""
    if not stored:
        return False
    certificate = x509.load_pem_x509_certificate(stored["certificate"].encode())
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca["certificate"].encode()))
    except Exception:  # any reason for which it does not verify is a reason to issue again
        return False
    present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if sorted(present.get_values_for_type(x509.DNSName)) != sorted(names):
        return False
    return certificate.not_valid_after_utc - now > datetime.timedelta(days=renew_days)
