"""Who is where: what one host has to know of the others, the servers that nginx reaches, and whose certificates there are."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from ansible_collections.fba.stack.plugins.filter.application import server_replicas
from ansible_collections.fba.stack.plugins.filter.fleet import (
    CLIENTS,
    PEER_PORT,
    REPLICAS,
    SERVER_PORT,
    SERVICES,
    SUBNET,
    crosses,
    fleet,
    identities,
    members,
    removal_refusals,
    server_upstreams,
    spare_upstream,
    stack_hosts,
)
from ansible_collections.fba.stack.plugins.filter.network import replica_addresses
from ansible_collections.fba.stack.plugins.plugin_utils.hosts import Fleet

from conftest import ROOT

Groups = dict[str, list[str]]
SIX: Groups = {
    **{service: ["data1"] for service in ("postgres", "redis", "rabbitmq")},
    "server": ["app1", "app2"],
    "worker": ["work1", "work2"],
    "beat": ["app1", "work2"],
    "flower": ["app2"],
    "nginx": ["edge1"],
    # What ansible and the inventory have besides
    "all": ["data1", "app1", "app2", "work1", "work2", "edge1", "other1"],
    "ungrouped": ["other1"],
}
ADDRESSES = {host: f"10.20.0.{number}" for number, host in enumerate(("data1", "app1", "app2", "work1", "work2", "edge1"), 1)}
HOSTVARS: dict[str, dict[str, Any]] = {host: {"fba_private_address": address} for host, address in ADDRESSES.items()}
# Where the data services are for all others
DATA = dict.fromkeys(("postgres", "redis", "rabbitmq"), "10.20.0.1")
ALONE: Groups = {service: ["one"] for service in SERVICES}


def of(host: str, groups: Groups = SIX, build_host: str = "app1", leaving: Any = ()) -> dict[str, Any]:
    """What a host knows."""
    return fleet(groups, HOSTVARS | {"one": {}}, host, build_host, leaving)


@pytest.fixture(scope="module")
def common() -> dict[str, Any]:
    """The defaults of the shared variables."""
    return dict(yaml.safe_load((ROOT / "roles/common/defaults/main.yml").read_text(encoding="utf-8")))


def test_what_counts_for_hosts_that_name_nothing_is_the_roles_default(common: dict[str, Any]) -> None:
    """Another host's variables do not have the roles' defaults."""
    assert (common["fba_server_replicas"], common["fba_server_peer_port"]) == (REPLICAS, PEER_PORT)
    assert (common["fba_server_port"], common["fba_subnet"]) == (SERVER_PORT, SUBNET)


def test_every_group_has_a_role_and_everybody_who_connects_is_one() -> None:
    assert all((ROOT / "roles" / service / "tasks" / "main.yml").exists() for service in SERVICES)
    assert {*CLIENTS, *(client for clients in CLIENTS.values() for client in clients)} <= set(SERVICES)
    # A service starts after what it stands on; nginx may be there before
    for service, clients in CLIENTS.items():
        assert all(SERVICES.index(service) < SERVICES.index(client) for client in clients)


def test_one_host_alone_needs_no_address_and_publishes_nothing() -> None:
    known = of("one", ALONE, "one")
    assert known["alone"] is True
    assert known["services"] == list(SERVICES)
    assert known["builds"] is True
    assert known["addresses"] == {"one": ""}
    assert [known[name] for name in ("remote", "published", "asked", "tls")] == [{}, [], [], []]


@pytest.mark.parametrize(
    ("host", "services", "remote", "published", "asked"),
    [
        (
            "data1",
            ["postgres", "redis", "rabbitmq"],
            {"flower": "10.20.0.3"},
            ["postgres", "redis", "rabbitmq"],
            {"app1"},
        ),
        (
            "app1",
            ["server", "beat"],
            {**DATA, "flower": "10.20.0.3"},
            ["server", "registry"],
            {"data1"},
        ),
        (
            "app2",
            ["server", "flower"],
            DATA,
            ["server", "flower"],
            {"app1", "data1"},
        ),
        (
            "work2",
            ["worker", "beat"],
            {**DATA, "flower": "10.20.0.3"},
            [],
            {"app1", "data1"},
        ),
        (
            "edge1",
            ["nginx"],
            {**DATA, "flower": "10.20.0.3"},
            [],
            {"app1", "app2"},
        ),
    ],
)
def test_each_of_six_hosts_knows_its_part(
    host: str, services: list[str], remote: dict[str, str], published: list[str], asked: set[str]
) -> None:
    known = of(host)
    assert known["services"] == services
    assert known["remote"] == remote
    assert known["published"] == published
    assert set(known["asked"]) == asked
    assert len(known["asked"]) == len(asked)
    assert known["builds"] is (host == "app1")
    assert known["alone"] is False
    assert known["tls"] == ["server", "flower"]
    # What is in the inventory and in no group of the stack's is a stranger
    assert known["addresses"] == ADDRESSES


def test_servers_and_nginx_on_one_host_need_no_tls_whatever_else_is_elsewhere() -> None:
    groups = {**SIX, "server": ["edge1"], "flower": ["edge1"]}
    known = of("edge1", groups, "edge1")
    assert (known["tls"], known["published"]) == ([], ["registry"])
    # A second server elsewhere, and all speak it
    assert of("edge1", {**groups, "server": ["edge1", "app2"]}, "edge1")["tls"] == ["server"]
    # As with a second nginx
    both = {**groups, "nginx": ["edge1", "app1"]}
    assert of("edge1", both, "edge1")["tls"] == ["server", "flower"]
    assert of("edge1", both, "edge1")["published"] == ["server", "flower", "registry"]


def test_a_host_without_an_address_has_an_empty_text() -> None:
    """The word None would be an address to whoever reads it."""
    hostvars = {**HOSTVARS, "work1": {}, "work2": {"fba_private_address": None}}
    known = fleet(SIX, hostvars, "data1", "app1")
    assert known["addresses"] == {**ADDRESSES, "work1": "", "work2": ""}
    assert set(known["peers"]) == {ADDRESSES[host] for host in ("data1", "app1", "app2", "edge1")}


def test_who_asks_is_let_in_and_who_offers_nothing_lets_nobody_in() -> None:
    for host, address in ADDRESSES.items():
        for other in of(host)["asked"]:
            assert address in of(other)["peers"]
    # So nothing changes there when others join
    for host in ("work1", "work2", "edge1"):
        assert of(host)["peers"] == []


def test_a_leaving_host_counts_as_if_it_were_in_no_group() -> None:
    leaving = ["work2"]
    without = {group: [host for host in hosts if host not in leaving] for group, hosts in SIX.items()}
    for host in ("data1", "app1", "app2", "work1", "edge1"):
        assert of(host, leaving=leaving) == of(host, without)
    gone = of("work2", leaving=leaving)
    assert (gone["services"], gone["published"], gone["builds"]) == ([], [], False)
    assert "work2" not in gone["hosts"]


def test_the_last_of_two_is_alone_when_the_other_leaves() -> None:
    groups = {**ALONE, "worker": ["one", "work1"]}
    assert of("one", groups, "one")["published"] == ["postgres", "redis", "rabbitmq", "registry"]
    known = of("one", groups, "one", leaving=["work1"])
    assert (known["alone"], known["published"], known["addresses"]) == (True, [], {"one": ""})


def test_members_keep_the_inventorys_order() -> None:
    groups = {"server": ["c", "a", "b"], "worker": ["b", "d"]}
    assert members(groups, "server") == ["c", "a", "b"]
    assert members(groups, "server", ["c"]) == ["a", "b"]
    assert members(groups, "nginx") == []
    # In the order in which services start, each once
    assert stack_hosts(groups) == ["b", "d", "c", "a"]


@pytest.mark.parametrize(
    ("groups", "service", "leaving", "answer"),
    [
        (ALONE, "server", [], False),
        (SIX, "server", [], True),
        ({**ALONE, "server": ["one", "two"]}, "server", [], True),
        ({**ALONE, "server": ["one", "two"]}, "server", ["two"], False),
        ({**ALONE, "nginx": ["two"]}, "server", [], True),
        ({**ALONE, "worker": ["two"]}, "server", [], False),
        ({**ALONE, "beat": ["two"]}, "postgres", [], True),
        ({**ALONE, "flower": ["two"]}, "postgres", [], False),
    ],
)
def test_what_crosses_from_host_to_host(groups: Groups, service: str, leaving: list[str], answer: bool) -> None:
    assert crosses(groups, service, leaving) is answer


# Any layout: what one host counts on is what another one does


def layouts() -> list[tuple[Groups, list[str]]]:
    """Sixty ways of spreading the services over up to five hosts, some with a host that leaves; the same ones each time."""
    chance = random.Random(20261121)
    made = []
    for number in range(60):
        hosts = list(ADDRESSES)[: chance.randint(1, 5)]
        leaving = hosts[1:2] if number % 3 == 0 else []
        stay = [host for host in hosts if host not in leaving]
        groups: Groups = {}
        for service in SERVICES:
            single = service in ("postgres", "redis", "rabbitmq", "flower")
            chosen = [chance.choice(stay)] if single else chance.sample(stay, chance.randint(1, len(stay)))
            groups[service] = chosen + (leaving if chance.random() < 0.5 else [])
        made.append((groups, leaving))
    return made


@pytest.mark.parametrize(("groups", "leaving"), layouts(), ids=range(60))
def test_what_one_host_counts_on_another_one_does(groups: Groups, leaving: list[str]) -> None:
    build_host = members(groups, "server", leaving)[0]
    hosts = stack_hosts(groups, leaving)
    known = {host: of(host, groups, build_host, leaving) for host in hosts}
    wanted: dict[str, set[str]] = {host: set() for host in hosts}
    for service, clients in CLIENTS.items():
        owners = members(groups, service, leaving)
        for client in {host for name in clients for host in members(groups, name, leaving)}:
            for owner in owners:
                if owner == client:
                    continue
                wanted[owner].add(service)
                assert owner in known[client]["asked"], (client, service)
                # The packet filter of the one lets the other in
                assert known[owner]["addresses"][client] == ADDRESSES[client]
                if service == "server":
                    assert "server" in known[client]["tls"]
                elif client not in owners:
                    assert known[client]["remote"][service] == ADDRESSES[owner]
    if len(hosts) > 1:
        wanted[build_host].add("registry")
        assert all(build_host in known[host]["asked"] for host in hosts if host != build_host)
    # And nothing is open that nobody needs
    assert {host: set(known[host]["published"]) for host in hosts} == wanted
    # All agree about TLS, or one would speak it and the other not
    assert len({tuple(each["tls"]) for each in known.values()}) == 1


@pytest.mark.parametrize(("groups", "leaving"), layouts(), ids=range(60))
def test_the_check_before_a_run_sees_the_same_as_the_run(groups: Groups, leaving: list[str]) -> None:
    """Else it would refuse what works, or let pass what does not."""
    build_host = members(groups, "server", leaving)[0]
    for host in stack_hosts(groups, leaving):
        known = of(host, groups, build_host, leaving)
        checked = Fleet(host, groups, leaving, build_host, ADDRESSES)
        assert known["hosts"] == checked.hosts
        assert known["services"] == checked.services
        offered = [service for service in CLIENTS if checked.publishes(service)] + ["registry"] * checked.offers_registry
        assert known["published"] == offered
        assert set(known["asked"]) == checked.needed().keys()


# The servers that nginx reaches


def upstreams(
    host: str, groups: Groups = SIX, leaving: Any = (), rolling: dict[str, Any] | None = None, **more: dict[str, Any]
) -> list[str]:
    """The servers as nginx on `host` reaches them."""
    hostvars = {name: {**variables, **more.get(name, {})} for name, variables in HOSTVARS.items()}
    return server_upstreams(groups, hostvars, host, leaving, rolling)


def test_servers_of_the_same_host_are_reached_in_its_network() -> None:
    more: Any = {"edge1": {"fba_server_replicas": 2, "fba_server_port": 9001}}
    assert upstreams("edge1", {**SIX, "server": ["edge1"]}, **more) == ["172.30.10.11:9001", "172.30.10.12:9001"]
    # Another host's subnet, or number of replicas, is not this one's
    more = {"edge1": {"fba_subnet": "10.9.0.0/24"}, "app1": {"fba_subnet": "10.8.0.0/24", "fba_server_replicas": 5}}
    assert upstreams("edge1", {**SIX, "server": ["edge1"]}, **more) == ["10.9.0.11:8001"]


def test_while_replicas_are_replaced_a_spare_serves_and_one_is_away() -> None:
    more: Any = {"app2": {"fba_server_replicas": 2, "fba_server_peer_port": 8101}}
    begin = {"host": "app2", "spare": True, "away": None}
    assert upstreams("edge1", rolling=begin, **more) == ["10.20.0.2:8001", "10.20.0.3:8101", "10.20.0.3:8102", "10.20.0.3:8103"]
    first = {"host": "app2", "spare": True, "away": 0}
    assert upstreams("edge1", rolling=first, **more) == ["10.20.0.2:8001", "10.20.0.3:8102", "10.20.0.3:8103"]
    assert upstreams("edge1", rolling={"host": "app1", "spare": True, "away": 0}) == ["10.20.0.2:8002", "10.20.0.3:8001"]
    # As the same host reaches them
    assert upstreams("app1", rolling={"host": "app1", "spare": True, "away": 0}) == ["172.30.10.12:8001", "10.20.0.3:8001"]
    assert spare_upstream({"app1": {"fba_server_replicas": 3}}, "app1", "app1") == "172.30.10.14:8001"
    assert spare_upstream(HOSTVARS, "edge1", "app2") == "10.20.0.3:8002"


def test_servers_of_other_hosts_are_reached_where_those_publish_them() -> None:
    more: Any = {"app2": {"fba_server_replicas": 2, "fba_server_peer_port": "8101"}}
    assert upstreams("edge1", **more) == ["10.20.0.2:8001", "10.20.0.3:8101", "10.20.0.3:8102"]
    assert upstreams("edge1", leaving=["app1"], **more) == ["10.20.0.3:8101", "10.20.0.3:8102"]
    # Here and there, in the inventory's order
    assert upstreams("app1", {**SIX, "nginx": ["app1"]}) == ["172.30.10.11:8001", "10.20.0.3:8001"]


@pytest.mark.parametrize("variables", [{}, {"fba_server_replicas": 3}, {"fba_server_peer_port": 9500}, {"fba_server_replicas": "2"}])
def test_nginx_and_the_servers_mean_the_same_ports(variables: dict[str, Any], common: dict[str, Any]) -> None:
    theirs = {**common, **variables}
    replicas = server_replicas(
        replica_addresses("172.30.10.0/24", theirs["fba_server_replicas"]), "fba", 8001, 18001, "10.20.0.2", theirs["fba_server_peer_port"]
    )
    published = {port.rpartition(":")[0] for replica in replicas for port in replica["ports"]}
    found = upstreams("edge1", {**SIX, "server": ["app1"]}, app1=variables)
    assert len(found) == len(replicas)
    assert set(found) <= published


# Whose certificates there are


NAMES = {"postgres": "fba_postgres", "server": "fba_server", "flower": "fba_celery_flower"}


def wanted(groups: Groups = SIX, build_host: str = "app1", leaving: Any = ()) -> dict[str, dict[str, Any]]:
    """The identities."""
    return identities(groups, ADDRESSES, build_host, leaving, NAMES)


def test_each_service_on_each_host_is_somebody() -> None:
    found = wanted()
    services = {f"{host}/{service}" for service in SERVICES for host in SIX[service]}
    hosts = {f"{host}/host" for host in ADDRESSES}
    assert found.keys() == services | hosts | {"app1/registry"}
    # Who is connected to is known by one name on all hosts, and by its own checks as localhost
    assert found["app1/server"] == found["app2/server"] == {"names": ["fba_server", "localhost"], "addresses": []}
    # Docker knows the registry by its address, which the name of no other host's certificate is
    assert found["app1/registry"] == {"names": ["localhost"], "addresses": ["10.20.0.2"]}
    # The others serve nobody
    for subject in ("work1/worker", "app1/beat", "edge1/nginx", "app1/host"):
        assert found[subject] == {"names": [], "addresses": []}


def test_one_host_alone_has_no_registry_and_shows_docker_nothing() -> None:
    found = identities(ALONE, {"one": ""}, "one", (), NAMES)
    assert found.keys() == {f"one/{service}" for service in SERVICES}


def test_who_leaves_is_nobody() -> None:
    assert not [subject for subject in wanted(leaving=["work2"]) if subject.startswith("work2/")]
    assert wanted(leaving=["work2"]).keys() < wanted().keys()


def test_who_is_connected_to_has_a_name_in_the_roles() -> None:
    """Without one, a service would be given a certificate that no client takes."""
    names = yaml.safe_load((ROOT / "roles/certificates/vars/main.yml").read_text(encoding="utf-8"))["__certificates_names"]
    assert names.keys() == CLIENTS.keys()


# Taking a host out


@pytest.mark.parametrize(
    ("host", "sentences"),
    [
        ("work1", []),
        ("work2", []),
        ("app1", []),
        ("app2", ["remove_host is app2, the only host of flower: put another into the group first"]),
        ("data1", [f"remove_host is data1, the only host of {service}" for service in ("postgres", "redis", "rabbitmq")]),
        ("other1", ["remove_host is 'other1': allowed are data1, work1, work2, app1, app2, edge1"]),
        ("", ["remove_host is '': allowed are data1"]),
    ],
)
def test_a_host_that_is_needed_is_not_taken_out(host: str, sentences: list[str]) -> None:
    refused = removal_refusals(SIX, host)
    assert len(refused) == len(sentences)
    assert all(one.startswith(start) for one, start in zip(refused, sentences, strict=True)), refused
