"""The internal authority: what it issues, and when it issues again."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ansible_collections.fba.stack.plugins.action.certificates import ActionModule
from ansible_collections.fba.stack.plugins.plugin_utils.pki import is_good, issue, make_ca
from ansible_collections.fba.stack.plugins.plugin_utils.vault import VaultFile

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
Pem = dict[str, str]


@pytest.fixture(scope="module")
def authority() -> Pem:
    """An authority of ten years."""
    return make_ca("fba internal authority", 3650, NOW)


@pytest.fixture(scope="module")
def leaf(authority: Pem) -> Pem:
    """A certificate of a hundred days."""
    return issue(authority, ["fba_postgres", "localhost"], 100, NOW)


def certificate(pem: Pem) -> x509.Certificate:
    """The certificate as an object."""
    return x509.load_pem_x509_certificate(pem["certificate"].encode())


def test_names_and_validity(authority: Pem, leaf: Pem) -> None:
    names = certificate(leaf).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fba_postgres", "localhost"]
    assert certificate(leaf).not_valid_after_utc == NOW + 100 * DAY
    assert certificate(authority).not_valid_after_utc == NOW + 3650 * DAY
    # A peer's clock may be behind
    assert certificate(leaf).not_valid_before_utc < NOW


def test_each_key_belongs_to_its_certificate(authority: Pem, leaf: Pem) -> None:
    for pem in (authority, leaf):
        key = serialization.load_pem_private_key(pem["private_key"].encode(), None)
        assert key.public_key() == certificate(pem).public_key()


@pytest.mark.parametrize("side", ["server", "client"])
def test_the_leaf_verifies_against_its_authority_alone(authority: Pem, leaf: Pem, side: str) -> None:
    """By cryptography's own verification, which follows the profile of the Web PKI."""

    def verify(ca: Pem, when: datetime.datetime) -> None:
        builder = PolicyBuilder().store(Store([certificate(ca)])).time(when)
        if side == "server":
            builder.build_server_verifier(x509.DNSName("localhost")).verify(certificate(leaf), [])
        else:
            builder.build_client_verifier().verify(certificate(leaf), [])

    verify(authority, NOW + DAY)
    with pytest.raises(VerificationError):
        verify(make_ca("fba internal authority", 3650, NOW), NOW + DAY)
    with pytest.raises(VerificationError):
        verify(authority, NOW + 101 * DAY)


@pytest.mark.parametrize(("name", "accepted"), [("fba_postgres", True), ("fba_redis", False)])
def test_a_strict_client_accepts_it_for_its_names(tmp_path: Path, name: str, accepted: bool) -> None:
    """A real handshake with OpenSSL, which Python 3.13 makes strict by default: it wants key identifiers and critical constraints."""
    ca = make_ca("fba internal authority", 10, datetime.datetime.now(datetime.UTC))
    pem = issue(ca, ["fba_postgres", "localhost"], 10, datetime.datetime.now(datetime.UTC))
    (tmp_path / "chain.pem").write_text(pem["private_key"] + pem["certificate"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "chain.pem")
    client = ssl.create_default_context(cadata=ca["certificate"])
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        if accepted:
            client.wrap_socket(ours, server_hostname=name).close()
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                client.wrap_socket(ours, server_hostname=name)
    finally:
        ours.close()
        thread.join()


def test_the_leaf_signs_nothing_itself(authority: Pem, leaf: Pem) -> None:
    constraints = certificate(leaf).extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca is False
    assert certificate(authority).extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


NAMES = ["fba_postgres", "localhost"]


@pytest.mark.parametrize(
    ("names", "renew_days", "after", "good"),
    [
        (NAMES, 60, 0, True),
        (NAMES[::-1], 60, 0, True),
        (NAMES, 60, 39, True),
        (NAMES, 60, 40, False),
        (NAMES, 60, 200, False),
        (["fba_postgres"], 60, 0, False),
        ([*NAMES, "other"], 60, 0, False),
    ],
    ids=["new", "other order", "a day before the window", "in the window", "ended", "a name less", "a name more"],
)
def test_when_a_certificate_is_kept(authority: Pem, leaf: Pem, names: list[str], renew_days: int, after: int, good: bool) -> None:
    assert is_good(leaf, authority, names, renew_days, NOW + after * DAY) is good


def test_none_and_another_authoritys_are_issued_again(leaf: Pem, authority: Pem) -> None:
    assert is_good(None, authority, NAMES, 60, NOW) is False
    # Even one of the same name
    assert is_good(leaf, make_ca("fba internal authority", 3650, NOW), NAMES, 60, NOW) is False


# The action


ARGS = {
    "authority": "fba internal authority",
    "authority_days": 3650,
    "names": {"postgres": ["fba_postgres"], "redis": ["fba_redis"]},
    "days": 825,
    "renew_days": 60,
}


def test_the_action_keeps_what_is_good(tmp_path: Path, run_action: Callable[..., dict[str, Any]], loader: DataLoader) -> None:
    args = {**ARGS, "path": str(tmp_path / "certificates.yml")}
    first = run_action(ActionModule, args)
    assert first["changed"] is True
    assert first["issued"] == ["fba internal authority", "postgres", "redis"]
    again = run_action(ActionModule, args)
    assert (again["changed"], again["issued"]) == (False, [])
    assert again["ansible_facts"] == first["ansible_facts"]

    # One service more: the authority and the others stay
    more = run_action(ActionModule, {**args, "names": {**ARGS["names"], "rabbitmq": ["fba_rabbitmq"]}})  # type: ignore[dict-item]
    assert more["issued"] == ["rabbitmq"]
    assert more["ansible_facts"]["fba_ca_certificate"] == first["ansible_facts"]["fba_ca_certificate"]
    assert more["ansible_facts"]["fba_certificates"]["postgres"] == first["ansible_facts"]["fba_certificates"]["postgres"]

    # The authority's key stays in the file
    facts = str(first["ansible_facts"])
    assert VaultFile(args["path"], loader, "").read()["fba_pki"]["authority"]["private_key"] not in facts


def test_the_action_writes_nothing_in_check_mode(tmp_path: Path, run_action: Callable[..., dict[str, Any]]) -> None:
    result = run_action(ActionModule, {**ARGS, "path": str(tmp_path / "certificates.yml")}, check_mode=True)
    assert result["changed"] is True
    assert list(tmp_path.iterdir()) == []
