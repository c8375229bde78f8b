"""The internal authority: what it issues, when it issues again, and how another takes its place."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.dataloader import DataLoader
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ansible_collections.fba.stack.plugins.action.certificates import ActionModule
from ansible_collections.fba.stack.plugins.plugin_utils.pki import Authorities, days_left, is_good, issue, make_ca
from ansible_collections.fba.stack.plugins.plugin_utils.vault import VaultFile

from conftest import ROOT, Pem, shake_hands

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
MINUTE = datetime.timedelta(minutes=1)
NAME = "fba internal authority"
SUBJECT = "data1/postgres"
SERVER: dict[str, Any] = {"names": ["fba_postgres", "localhost"], "addresses": []}
REGISTRY: dict[str, Any] = {"names": ["localhost"], "addresses": ["10.20.0.1"]}
CLIENT: dict[str, Any] = {"names": [], "addresses": []}


@pytest.fixture(scope="module")
def authority() -> Pem:
    """An authority of ten years."""
    return make_ca(NAME, 3650, NOW)


@pytest.fixture(scope="module")
def leaf(authority: Pem) -> Pem:
    """A certificate of a hundred days."""
    return issue(authority, SUBJECT, SERVER, 100, NOW)


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


def test_the_subject_says_whose_it_is_as_far_as_a_common_name_can(authority: Pem, leaf: Pem) -> None:
    """A name of a host may be longer than a common name."""

    def common_name(pem: Pem) -> str:
        (attribute,) = certificate(pem).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(attribute.value)

    assert common_name(leaf) == SUBJECT
    long = f"{'a' * 80}.example.com/postgres"
    assert common_name(issue(authority, long, SERVER, 100, NOW)) == long[:64]


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
        verify(make_ca(NAME, 3650, NOW), NOW + DAY)
    with pytest.raises(VerificationError):
        verify(authority, NOW + 101 * DAY)


def test_the_leaf_signs_nothing_itself(authority: Pem, leaf: Pem) -> None:
    constraints = certificate(leaf).extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca is False
    assert certificate(authority).extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


# Real handshakes with OpenSSL, as strict as Python 3.13 is by default: it wants key identifiers and critical constraints


@pytest.fixture(scope="module")
def today() -> datetime.datetime:
    """What OpenSSL takes for today."""
    return datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def parties(today: datetime.datetime) -> dict[str, Pem]:
    """An authority, certificates of each kind, and one of a stranger's."""
    ca, other = make_ca(NAME, 10, today), make_ca(NAME, 10, today)
    return {
        "ca": ca,
        "server": issue(ca, SUBJECT, SERVER, 10, today),
        "registry": issue(ca, "app1/registry", REGISTRY, 10, today),
        "client": issue(ca, "work1/worker", CLIENT, 10, today),
        "stranger": issue(other, SUBJECT, SERVER, 10, today),
    }


@pytest.mark.parametrize(
    ("server", "client", "name", "refused"),
    [
        ("server", "client", "fba_postgres", None),
        ("server", "client", "localhost", None),
        # Who serves is a client of others as well
        ("server", "registry", "localhost", None),
        ("server", "client", "fba_redis", "Hostname mismatch"),
        ("registry", "client", "10.20.0.1", None),
        ("registry", "client", "10.20.0.2", "IP address mismatch"),
        ("server", "client", "10.20.0.1", "IP address mismatch"),
        # A mere client serves nobody, whatever it calls itself
        ("client", "client", "work1/worker", "unsuitable certificate purpose"),
        ("server", "stranger", "localhost", "certificate verify failed|certificate signature failure"),
        ("stranger", "client", "localhost", "certificate verify failed|certificate signature failure"),
        ("server", None, "localhost", "peer did not return a certificate"),
    ],
)
def test_both_sides_see_who_the_other_is(
    tmp_path: Path, parties: dict[str, Pem], server: str, client: str | None, name: str, refused: str | None
) -> None:
    trusts = parties["ca"]["certificate"]

    def meet() -> None:
        shake_hands(tmp_path, (parties[server], trusts), (parties[client] if client else None, trusts), name)

    if refused is None:
        meet()
    else:
        with pytest.raises(ssl.SSLError, match=refused):
            meet()


# When it is issued again


@pytest.mark.parametrize(
    ("names", "renew_days", "after", "good"),
    [
        (SERVER["names"], 60, 0, True),
        (SERVER["names"][::-1], 60, 0, True),
        (SERVER["names"], 60, 39, True),
        (SERVER["names"], 60, 40, False),
        (SERVER["names"], 60, 200, False),
        (["fba_postgres"], 60, 0, False),
        ([*SERVER["names"], "other"], 60, 0, False),
        ([], 60, 0, False),
    ],
    ids=["new", "other order", "a day before the window", "in the window", "ended", "a name less", "a name more", "a mere client"],
)
def test_when_a_certificate_is_kept(authority: Pem, leaf: Pem, names: list[str], renew_days: int, after: int, good: bool) -> None:
    assert is_good(leaf, authority, {"names": names, "addresses": []}, renew_days, NOW + after * DAY) is good


@pytest.mark.parametrize(
    ("made_for", "wanted", "good"),
    [
        (REGISTRY, REGISTRY, True),
        (REGISTRY, {**REGISTRY, "addresses": ["10.20.0.2"]}, False),
        (REGISTRY, {**REGISTRY, "addresses": []}, False),
        # Text that looks like an address is another thing than the address
        (REGISTRY, {"names": ["localhost", "10.20.0.1"], "addresses": []}, False),
        (CLIENT, CLIENT, True),
        (CLIENT, SERVER, False),
    ],
)
def test_addresses_count_and_a_client_has_none(authority: Pem, made_for: dict[str, Any], wanted: dict[str, Any], good: bool) -> None:
    assert is_good(issue(authority, SUBJECT, made_for, 100, NOW), authority, wanted, 60, NOW) is good


def test_none_and_another_authoritys_are_issued_again(leaf: Pem, authority: Pem) -> None:
    assert is_good(None, authority, SERVER, 60, NOW) is False
    assert is_good({}, authority, SERVER, 60, NOW) is False
    # Even one of the same name
    assert is_good(leaf, make_ca(NAME, 3650, NOW), SERVER, 60, NOW) is False


@pytest.mark.parametrize(("later", "left"), [(0 * DAY, 3650), (DAY, 3649), (3650 * DAY - MINUTE, 0), (3651 * DAY, -1)])
def test_days_left(authority: Pem, later: datetime.timedelta, left: int) -> None:
    assert days_left(authority["certificate"], NOW + later) == left


# Another authority in its place. Each step is a run of its own, a minute after the one before, on what the last one has written


HOSTS = ("one", "two", "three")
WANTED = {f"{host}/postgres": SERVER for host in HOSTS}


class Vault:
    """The vault file over some runs, and the time."""

    def __init__(self, stored: dict[str, Any] | None = None) -> None:
        self.stored = stored or {}
        self.now = NOW
        self.last = self.run()

    def run(self, step: str = "", wanted: dict[str, dict[str, Any]] | None = None) -> Authorities:
        """Do what the action does, a minute later."""
        self.now += MINUTE
        self.last = Authorities(self.stored, self.now)
        self.last.begin(NAME, 3650)
        if step:
            self.last.step(step, NAME, 3650)
        self.last.issue(WANTED if wanted is None else wanted, 825, 60)
        self.stored = self.last.stored()
        return self.last

    def certificates(self) -> list[str]:
        """The authorities."""
        return [each["certificate"] for each in self.stored["authorities"]]

    def installed(self, host: str) -> tuple[Pem, str]:
        """What `host` would get now: its certificate, and whom it trusts."""
        return self.last.issued[f"{host}/postgres"], self.last.trusted


def accepts(trusted: str, pem: Pem, when: datetime.datetime) -> bool:
    """Whether who trusts these takes the certificate for a server's and for a client's."""
    builder = PolicyBuilder().store(Store(x509.load_pem_x509_certificates(trusted.encode()))).time(when)
    try:
        builder.build_server_verifier(x509.DNSName("localhost")).verify(certificate(pem), [])
        builder.build_client_verifier().verify(certificate(pem), [])
    except VerificationError:
        return False
    return True


def test_three_steps_put_another_authority_in_its_place() -> None:
    vault = Vault()
    (old,) = vault.certificates()
    first = vault.last.issued

    vault.run("trust")
    assert len(vault.certificates()) == 2
    # The old one goes on to sign, until everybody trusts the new one
    assert vault.certificates()[0] == old
    assert vault.last.issued == first
    new = vault.certificates()[1]

    vault.run("issue")
    assert vault.certificates() == [new, old]
    assert sorted(vault.last.news) == sorted(WANTED)
    for pem in vault.last.issued.values():
        certificate(pem).verify_directly_issued_by(x509.load_pem_x509_certificate(new.encode()))
    second = vault.last.issued

    vault.run("retire")
    assert vault.certificates() == [new]
    assert vault.last.issued == second
    assert vault.last.trusted == new
    assert not accepts(vault.last.trusted, first["one/postgres"], vault.now)


@pytest.mark.parametrize("clock", [MINUTE, 0 * MINUTE, -30 * MINUTE], ids=["later", "in the same second", "by a clock that is behind"])
def test_the_new_one_is_the_newer_one_and_has_a_name_of_its_own(clock: datetime.timedelta) -> None:
    """Some clients look for the issuer by its name alone, and would take the wrong one."""
    vault = Vault()
    (old,) = vault.certificates()
    # A run is a minute later
    vault.now += clock - MINUTE
    for step in Authorities.STEPS:
        vault.run(step)
        if step == "trust":
            subjects = [x509.load_pem_x509_certificate(text.encode()).subject for text in vault.certificates()]
            assert len(set(subjects)) == 2
    assert old not in vault.certificates()
    assert accepts(vault.last.trusted, vault.last.issued["one/postgres"], vault.now)


@pytest.mark.parametrize("taken", [["trust"], ["trust", "issue"], ["trust", "issue", "retire"]])
def test_a_step_that_was_taken_is_not_taken_again(taken: list[str]) -> None:
    vault = Vault()
    for step in taken:
        vault.run(step)
    before = vault.stored
    if taken[-1] != "retire":
        # Whoever begins anew begins with the first
        for step in taken:
            vault.run(step)
            assert (vault.stored, vault.last.news) == (before, [])
    else:
        vault.run("retire")
        assert vault.stored == before
    # Nor does an ordinary run between the steps change anything
    vault.run()
    assert (vault.stored, vault.last.news) == (before, [])


def test_what_issue_changes_is_not_whom_a_host_trusts() -> None:
    """So that step touches certificates alone."""
    vault = Vault()
    vault.run("trust")
    before = vault.last.trusted
    vault.run("issue")
    assert vault.last.trusted == before


def test_a_host_that_comes_between_two_steps_is_trusted_by_all() -> None:
    for done in (["trust"], ["trust", "issue"]):
        vault = Vault()
        for step in done:
            vault.run(step)
        behind = vault.last.trusted
        vault.run(wanted={**WANTED, "four/postgres": SERVER})
        assert accepts(behind, vault.last.issued["four/postgres"], vault.now)


def rotation() -> Iterator[tuple[str, str]]:
    """What happens in a rotation, one after the other: a step is written, then every host has it installed."""
    for step in Authorities.STEPS:
        yield "write", step
        for host in HOSTS:
            yield "install", host


@pytest.mark.parametrize("ordinary", [False, True], ids=["begun anew", "an ordinary run in between"])
@pytest.mark.parametrize("interrupted", range(len(list(rotation())) + 1))
def test_any_two_hosts_accept_each_other_at_any_time(interrupted: int, ordinary: bool) -> None:
    """Also where a rotation is interrupted anywhere, hosts having taken over different steps, and begun anew."""
    vault = Vault()
    first = vault.certificates()
    hosts = {host: vault.installed(host) for host in HOSTS}
    between = [("write", ""), *(("install", host) for host in HOSTS)] if ordinary else []
    for kind, what in [*itertools.islice(rotation(), interrupted), *between, *rotation()]:
        if kind == "write":
            vault.run(what)
        else:
            hosts[what] = vault.installed(what)
        for one, two in itertools.permutations(HOSTS, 2):
            assert accepts(hosts[one][1], hosts[two][0], vault.now), (kind, what, one, two)
    # And in the end it has been done: one authority, not the first one, and nothing of that left
    (last,) = vault.certificates()
    assert [last] != first
    for pem, trusted in hosts.values():
        assert trusted == last
        assert accepts(last, pem, vault.now)


def test_two_steps_at_once_would_part_the_hosts() -> None:
    """What the test above would see: it is not that anything verifies."""
    vault = Vault()
    old, old_trust = vault.installed("one")
    vault.run("trust")
    vault.run("issue")
    new, _both = vault.installed("two")
    assert not accepts(old_trust, new, vault.now)
    vault.run("retire")
    assert not accepts(vault.last.trusted, old, vault.now)


@pytest.mark.parametrize("behind", range(3))
def test_openssl_agrees_about_hosts_a_step_apart(tmp_path: Path, today: datetime.datetime, behind: int) -> None:
    """Two authorities in one bundle: OpenSSL looks for the issuer by its name and key identifier."""
    states = []
    stored: dict[str, Any] = {}
    for number, step in enumerate(["", *Authorities.STEPS]):
        run = Authorities(stored, today - 10 * MINUTE + number * MINUTE)
        run.begin(NAME, 30)
        if step:
            run.step(step, NAME, 30)
        run.issue(WANTED, 20, 5)
        stored = run.stored()
        states.append((run.issued["one/postgres"], run.trusted))
    shake_hands(tmp_path, states[behind], states[behind + 1])
    shake_hands(tmp_path, states[behind + 1], states[behind])
    if behind == 0:
        with pytest.raises(ssl.SSLError, match="verify failed"):
            shake_hands(tmp_path, states[0], states[3])


def test_the_authority_of_version_1_0_goes_on() -> None:
    """It was one, and what it had issued was each service's, for all hosts."""
    old = make_ca(NAME, 3650, NOW)
    issued = {"postgres": issue(old, "postgres", SERVER, 825, NOW)}
    before = {"authority": old, "issued": issued}
    vault = Vault(before)
    assert vault.certificates() == [old["certificate"]]
    assert vault.stored.keys() == {"authorities", "issued"}
    assert vault.stored["issued"].keys() == WANTED.keys()
    # Who has not been deployed to since trusts what is new
    assert accepts(old["certificate"], vault.last.issued["one/postgres"], vault.now)
    assert accepts(vault.last.trusted, issued["postgres"], vault.now)
    for step in Authorities.STEPS:
        vault.run(step)
    assert old["certificate"] not in vault.certificates()


def test_what_is_not_wanted_is_forgotten_and_the_others_stay() -> None:
    vault = Vault()
    before = vault.last.issued
    vault.run(wanted={subject: names for subject, names in WANTED.items() if subject != "two/postgres"})
    assert vault.last.issued == {subject: pem for subject, pem in before.items() if subject != "two/postgres"}
    assert vault.last.news == []
    # Who comes back has another one
    assert vault.run().issued["two/postgres"] != before["two/postgres"]


def test_only_what_is_about_to_end_is_issued_again() -> None:
    vault = Vault()
    vault.now += 500 * DAY
    vault.run(wanted={**WANTED, "four/postgres": SERVER})
    before = vault.last.issued
    vault.now += 300 * DAY
    vault.run(wanted={**WANTED, "four/postgres": SERVER})
    assert sorted(vault.last.news) == sorted(WANTED)
    assert vault.last.issued["four/postgres"] == before["four/postgres"]


# The action


ARGS: dict[str, Any] = {
    "authority": NAME,
    "authority_days": 3650,
    "authority_warn_days": 365,
    "wanted": {"data1/postgres": SERVER, "work1/worker": CLIENT},
    "days": 825,
    "renew_days": 60,
    "whole": True,
}
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, run_action: Run) -> Run:
    """Run the action on a vault file, which is not there at first."""

    def run(check_mode: bool = False, **args: Any) -> dict[str, Any]:
        return run_action(ActionModule, {**ARGS, "path": str(tmp_path / "certificates.yml"), **args}, check_mode=check_mode)

    return run


@pytest.fixture
def stored(tmp_path: Path, loader: DataLoader) -> Callable[[], dict[str, Any]]:
    """What the vault file holds now."""
    return lambda: dict(VaultFile(str(tmp_path / "certificates.yml"), loader, "").read()["fba_pki"])


def test_the_action_keeps_what_is_good(run: Run, stored: Callable[[], dict[str, Any]]) -> None:
    first = run()
    assert first["changed"] is True
    assert first["issued"] == [NAME, "data1/postgres", "work1/worker"]
    again = run()
    assert (again["changed"], again["issued"]) == (False, [])
    assert again["ansible_facts"] == first["ansible_facts"]

    # A service more: the authority and the others stay
    more = run(wanted={**ARGS["wanted"], "data1/rabbitmq": SERVER})
    assert more["issued"] == ["data1/rabbitmq"]
    facts = more["ansible_facts"]
    assert facts["fba_ca_certificate"] == first["ansible_facts"]["fba_ca_certificate"]
    assert facts["fba_certificates"]["data1/postgres"] == first["ansible_facts"]["fba_certificates"]["data1/postgres"]

    # The authority's key stays in the file
    (authority,) = stored()["authorities"]
    assert authority["private_key"] not in str(facts)
    assert facts["fba_ca_certificate"] == authority["certificate"]


def test_the_action_forgets_who_has_gone(run: Run, stored: Callable[[], dict[str, Any]]) -> None:
    run()
    done = run(wanted={"data1/postgres": SERVER})
    assert (done["changed"], done["issued"]) == (True, [])
    assert done["ansible_facts"]["fba_certificates"].keys() == stored()["issued"].keys() == {"data1/postgres"}


def test_the_action_takes_one_step_at_a_time(run: Run) -> None:
    def trusted(result: dict[str, Any]) -> int:
        return str(result["ansible_facts"]["fba_ca_certificate"]).count("BEGIN CERTIFICATE")

    run()
    results = [run(step=step) for step in Authorities.STEPS]
    assert [trusted(result) for result in results] == [2, 2, 1]
    assert [result["issued"] for result in results] == [[NAME], ["data1/postgres", "work1/worker"], []]
    assert all(result["changed"] for result in results)
    assert run()["changed"] is False
    with pytest.raises(AnsibleActionFail, match="must be one of"):
        run(step="forget")


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({"authority_days": 364}, True),
        ({"authority_days": 400}, False),
        ({"authority_days": 20, "authority_warn_days": 10}, False),
        # Who is about to replace it knows
        ({"authority_days": 364, "step": "trust"}, False),
    ],
)
def test_an_authority_near_its_end_is_told_of(run: Run, given: dict[str, Any], warned: bool) -> None:
    warnings = run(**given).get("warnings", [])
    assert bool(warnings) is warned
    if warned:
        assert "363 more days" in warnings[0]
        # What it names is there
        (playbook,) = re.findall(r"fba\.stack\.(\w+)", warnings[0])
        assert (ROOT / "playbooks" / f"{playbook}.yml").exists()


def test_the_older_of_two_is_told_of_until_it_is_retired(run: Run) -> None:
    run(authority_days=100)
    run(step="trust")
    run(step="issue")
    assert run()["warnings"]
    run(step="retire")
    assert not run().get("warnings")


def test_the_action_goes_on_from_the_file_of_version_1_0(
    tmp_path: Path, run: Run, stored: Callable[[], dict[str, Any]], loader: DataLoader, today: datetime.datetime
) -> None:
    old = make_ca(NAME, 3650, today)
    before = {"authority": old, "issued": {"postgres": issue(old, "postgres", SERVER, 825, today)}}
    VaultFile(str(tmp_path / "certificates.yml"), loader, "").write({"fba_pki": before})
    result = run()
    assert result["issued"] == ["data1/postgres", "work1/worker"]
    assert result["ansible_facts"]["fba_ca_certificate"] == old["certificate"]
    assert stored()["authorities"] == [old]
    assert run()["changed"] is False


def test_the_action_writes_nothing_in_check_mode(tmp_path: Path, run: Run) -> None:
    result = run(check_mode=True)
    assert result["changed"] is True
    # The tasks that follow need certificates to be checked with
    assert result["ansible_facts"]["fba_certificates"].keys() == ARGS["wanted"].keys()
    assert list(tmp_path.iterdir()) == []
    run()
    before = (tmp_path / "certificates.yml").read_bytes()
    assert run(check_mode=True, step="trust")["changed"] is True
    assert (tmp_path / "certificates.yml").read_bytes() == before


def test_an_address_is_an_address(run: Run) -> None:
    pem = run(wanted={"app1/registry": REGISTRY})["ansible_facts"]["fba_certificates"]["app1/registry"]
    names = certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.IPv4Address("10.20.0.1")]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]


def test_a_limited_run_makes_no_first_authority(tmp_path: Path, run_action: Callable[..., dict[str, Any]]) -> None:
    """Or the hosts that it leaves out would trust another one."""
    args = {**ARGS, "path": str(tmp_path / "certificates.yml")}
    with pytest.raises(AnsibleError, match=r"no authority in .*certificates\.yml.*run without --limit"):
        run_action(ActionModule, {**args, "whole": False})
    assert list(tmp_path.iterdir()) == []
    first = run_action(ActionModule, args)
    assert run_action(ActionModule, {**args, "whole": False})["ansible_facts"] == first["ansible_facts"]
    for step in Authorities.STEPS:
        with pytest.raises(AnsibleError, match="for all hosts at once"):
            run_action(ActionModule, {**args, "whole": False, "step": step})
