# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The internal certificate authority: what it issues, and when it issues again."""

from __future__ import annotations

import datetime
import ipaddress
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


def _alternatives(wanted: dict[str, Any]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in wanted["names"]]
    return names + [x509.IPAddress(ipaddress.ip_address(address)) for address in wanted["addresses"]]


def issue(authority: dict[str, str], subject: str, wanted: dict[str, Any], days: int, now: datetime.datetime) -> dict[str, str]:
    """Return a new certificate, signed by the authority, as PEM texts `certificate` and `private_key`.

    It serves as client certificate and, if `wanted` has `names` (DNS) or `addresses` (IP), as server certificate for these.
    """
    ca_certificate = x509.load_pem_x509_certificate(authority["certificate"].encode())
    ca_key: PrivateKeyTypes = serialization.load_pem_private_key(authority["private_key"].encode(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_certificate.public_key())  # type: ignore[arg-type]
    alternatives = _alternatives(wanted)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if alternatives else [])
    # A common name has 64 characters at the most
    builder = (
        _builder(subject[:64], ca_certificate.subject, key, days, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer, critical=False)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(ca_key, hashes.SHA256())  # type: ignore[arg-type]
    return {"certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(), "private_key": _key_pem(key)}


def is_good(
    stored: dict[str, str] | None, authority: dict[str, str], wanted: dict[str, Any], renew_days: int, now: datetime.datetime
) -> bool:
    """Return whether a stored certificate is of this authority, for what is wanted, and not within `renew_days` of its end."""
    if not stored:
        return False
    certificate = x509.load_pem_x509_certificate(stored["certificate"].encode())
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority["certificate"].encode()))
    except Exception:  # any reason for which it does not verify is a reason to issue again
        return False
    try:
        present = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        present = []
    if set(present) != set(_alternatives(wanted)):
        return False
    return certificate.not_valid_after_utc - now > datetime.timedelta(days=renew_days)


def days_left(pem: str, now: datetime.datetime) -> int:
    """Return the whole days that a certificate is valid yet."""
    return (x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc - now).days


def _made(pem: dict[str, str]) -> datetime.datetime:
    """Return when a certificate was made, to the second."""
    return x509.load_pem_x509_certificate(pem["certificate"].encode()).not_valid_before_utc + BACKDATE


class Authorities:
    """The authorities, and what they have issued: the first signs, all are trusted.

    There is one, but for the time in which another takes its place, in three steps: the new one is trusted everywhere (`trust`); it signs,
    and everything is issued again (`issue`); the old one is trusted no longer (`retire`). Between two steps every host has to have taken
    over the one before, so that at no time two sides know different authorities. A step that was taken already is not taken again, so
    whoever was interrupted begins anew with the first.
    """

    STEPS = ("trust", "issue", "retire")

    def __init__(self, stored: dict[str, Any], now: datetime.datetime) -> None:
        """Stand for what the vault file has: nothing, `authorities` and `issued`, or what version 1.0 wrote, one `authority`."""
        self.now = now
        self.authorities: list[dict[str, str]] = list(stored.get("authorities") or [])
        if stored.get("authority"):
            self.authorities = [stored["authority"]]
        self.issued: dict[str, dict[str, str]] = dict(stored.get("issued") or {})
        self.news: list[str] = []

    def _make(self, name: str, days: int) -> dict[str, str]:
        # Later than the others, whatever this controller's clock says: by that the newest is found, and each has a name of its own, because
        # some clients look for the issuer by its name alone
        begin = max([self.now, *(_made(each) + datetime.timedelta(seconds=1) for each in self.authorities)])
        self.news.append(name)
        return make_ca(f"{name} {begin:%Y-%m-%d %H:%M:%S}", days, begin)

    def _newest_first(self) -> list[dict[str, str]]:
        return sorted(self.authorities, key=_made, reverse=True)

    def begin(self, name: str, days: int) -> None:
        """Make the first authority where there is none."""
        if not self.authorities:
            self.authorities = [self._make(name, days)]

    def step(self, step: str, name: str, days: int) -> None:
        """Take one of the steps."""
        if step == "trust" and len(self.authorities) == 1:
            self.authorities.append(self._make(name, days))
        elif step == "issue":
            self.authorities = self._newest_first()
        elif step == "retire":
            self.authorities = self._newest_first()[:1]

    def issue(self, wanted: dict[str, dict[str, Any]], days: int, renew_days: int) -> None:
        """Issue what is missing, of another authority, for other names, or about to end; forget what is not wanted."""
        issued = {}
        for subject, names in wanted.items():
            issued[subject] = self.issued.get(subject) or {}
            if not is_good(issued[subject], self.authorities[0], names, renew_days, self.now):
                issued[subject] = issue(self.authorities[0], subject, names, days, self.now)
                self.news.append(subject)
        self.issued = issued

    @property
    def trusted(self) -> str:
        """The certificates of all authorities, one PEM text, in an order that `issue` does not change."""
        return "".join(sorted(each["certificate"] for each in self.authorities))

    def stored(self) -> dict[str, Any]:
        """What the vault file shall have."""
        return {"authorities": self.authorities, "issued": self.issued}
