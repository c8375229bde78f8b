"""Every refusal before anything is touched: each names the variable, its value and what is allowed, and all come at once."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import zoneinfo
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.fba.stack.plugins.filter.fleet import SERVICES
from ansible_collections.fba.stack.plugins.modules.host_state import listening_ports
from ansible_collections.fba.stack.plugins.plugin_utils import precheck
from ansible_collections.fba.stack.plugins.plugin_utils.hosts import Fleet
from ansible_collections.fba.stack.plugins.plugin_utils.precheck import (
    check,
    check_clock,
    check_type,
    published_ports,
    warn_of_room,
    warn_of_strangers,
)

from conftest import ROOT

POOL = {"name": "io", "pool": "gevent", "queues": ["io"]}

GIB = 2**30
NOW = 1_000_000.0
STATE: dict[str, Any] = {
    "engine": "",
    "bridge": "",
    "clock": NOW,
    "listening": [["0.0.0.0", 22], ["127.0.0.1", 5432]],
    "memory": 8 * GIB,
    "disk_free": 50 * GIB,
    "postgres_versions": {},
    "containers": {},
    "image_sizes": {},
}
GROUPS = {service: ["one"] for service in SERVICES}
# Six hosts, and how a sentence lists them: what others stand on comes first
SIX = "data1, worker1, worker2, app1, app2, web1"
ADDRESSES = {name: f"192.168.7.{number}" for number, name in enumerate(("data1", "app1", "app2", "worker1", "worker2", "web1"), 1)}
FLEET = {
    **{service: ["data1"] for service in ("postgres", "redis", "rabbitmq")},
    "server": ["app1", "app2"],
    "worker": ["worker1", "worker2"],
    "beat": ["app1"],
    "flower": ["app2"],
    "nginx": ["web1"],
}


def interface(address: str) -> dict[str, Any]:
    """What ansible knows of an interface with this address, its prefix behind it."""
    plain, _slash, prefix = address.partition("/")
    return {"ipv4": {"address": plain, "prefix": prefix}}


def facts_of(address: str = "192.168.7.1", **more: str) -> dict[str, Any]:
    """What ansible knows of a host with this address, and with more interfaces by their names as facts have them."""
    return {
        "distribution": "Debian",
        "distribution_major_version": "13",
        "all_ipv4_addresses": [address, "172.17.0.1"],
        "interfaces": ["lo", "eth0", "veth1", *(name.replace("_", "-") for name in more)],
        "lo": interface("127.0.0.1/8"),
        "eth0": interface(f"{address}/24"),
        "veth1": {"device": "veth1"},
        **{name: interface(text) for name, text in more.items()},
    }


FACTS = facts_of()


def roles_file(role: str, *path: str) -> dict[str, Any]:
    """A YAML file of a role."""
    file = ROOT.joinpath("roles", role, *path)
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {} if file.exists() else {}


def default_values() -> dict[str, Any]:
    """The variables as they are without an inventory's; those made from others are left out."""
    values: dict[str, Any] = {"fba_postgres_version": "17"}
    for role in ("common", "host", *SERVICES):
        values |= {name: value for name, value in roles_file(role, "defaults", "main.yml").items() if "{{" not in str(value)}
    return values


def refusals(
    host: str = "one",
    groups: Any = GROUPS,
    facts: Any = FACTS,
    state: Any = None,
    connection: str = "ssh",
    build_host: str | None = "one",
    addresses: Any = None,
    leaving: Any = (),
    asked: Any = (),
    reached: Any = (),
    window: tuple[float, float] = (NOW, NOW),
    homeless: Any = (),
    **values: Any,
) -> list[str]:
    """What is refused with these values in the defaults' place."""
    fleet = Fleet(host, groups, leaving, build_host, addresses or {host: ""}, asked, reached)
    return check(
        {**default_values(), **values},
        fleet,
        facts=facts,
        state={**STATE, **(state or {})},
        connection=connection,
        window=window,
        homeless=homeless,
    )


def fleet_refusals(host: str, **given: Any) -> list[str]:
    """What is refused on one of six hosts, of which all are in the run."""
    moved = given.pop("moved", {})
    addresses = {**ADDRESSES, **moved}
    six: dict[str, Any] = {
        "groups": FLEET,
        "build_host": "app1",
        "addresses": addresses,
        "facts": facts_of(ADDRESSES[host]),
        "asked": list(ADDRESSES),
        "reached": list(ADDRESSES),
        "fba_app_storage": "s3",
    }
    return refusals(host, **{**six, **given})


ZONES = zoneinfo.available_timezones()


@pytest.fixture(autouse=True)
def known_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read them once, and not in each of a hundred tests."""
    monkeypatch.setattr(precheck.zoneinfo, "available_timezones", lambda: ZONES)


def test_the_defaults_are_allowed_on_one_host_without_a_private_address() -> None:
    assert refusals() == []


@pytest.mark.parametrize("host", ADDRESSES)
def test_six_hosts_are_allowed(host: str) -> None:
    assert fleet_refusals(host) == []


@pytest.mark.parametrize("host", ADDRESSES)
def test_a_run_on_one_of_six_is_allowed(host: str) -> None:
    assert fleet_refusals(host, asked=[host], reached=[host]) == []


# Each row: what is given, and the one sentence that must come, in which dots stand for themselves


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        # Names
        ({"fba_name": "My-Stack"}, "fba_name is 'My-Stack': allowed are 1 to 31 lower-case letters"),
        ({"fba_name": "1fba"}, "fba_name is '1fba': allowed"),
        ({"fba_name": "a" * 32}, f"fba_name is '{'a' * 32}': allowed"),
        ({"fba_name": "fba\n"}, r"fba_name is 'fba\n': allowed"),
        # Time zone
        ({"fba_timezone": "Mars/Olympus"}, "fba_timezone is 'Mars/Olympus': allowed are names of the IANA database"),
        # Subnet
        ({"fba_subnet": "172.10.10.0/24"}, "fba_subnet is 172.10.10.0/24: allowed are subnets of 10.0.0.0/8, 172.16.0.0/12"),
        ({"fba_subnet": "172.30.10.0/27"}, "fba_subnet is 172.30.10.0/27: it must have room for 64 addresses"),
        ({"fba_subnet": "172.30.10.0/32"}, "fba_subnet is 172.30.10.0/32: it must have room for 64 addresses"),
        ({"fba_subnet": "172.30.10.1/24"}, "fba_subnet is '172.30.10.1/24': it must be an IPv4 subnet"),
        ({"fba_subnet": "fd00::/64"}, "fba_subnet is 'fd00::/64': it must be an IPv4 subnet"),
        ({"fba_subnet": "nonsense"}, "fba_subnet is 'nonsense': it must be an IPv4 subnet"),
        ({"fba_subnet": "10.0.0.0/26", "fba_server_replicas": 21}, "fba_server_replicas is 21: allowed are 1 to 20"),
        # Images
        ({"fba_redis_version": "7.4"}, "fba_redis_version is 7.4: images built from Debian 13 packages have 8.0"),
        # Numbers
        ({"fba_server_replicas": 0}, "fba_server_replicas is 0: allowed are 1 or more"),
        ({"worker_replicas": -1}, "worker_replicas is -1: allowed are 1 or more"),
        ({"nginx_drain_timeout": 0}, "nginx_drain_timeout is 0: allowed are 1 or more"),
        ({"nginx_static_releases": 1}, "nginx_static_releases is 1: allowed are 2 or more"),
        ({"nginx_maintenance_retry_after": 0}, "nginx_maintenance_retry_after is 0: allowed are 1 or more"),
        # Pools and routes
        ({"worker_pools": []}, "worker_pools is empty: at least one pool"),
        (
            {"worker_pools": [{"name": "io", "pool": "gevent", "queues": ["a"]}, {"name": "io", "pool": "prefork", "queues": ["b"]}]},
            "worker_pools has the name 'io' 2 times: names must differ",
        ),
        (
            {"worker_pools": [{**POOL, "processes": 2}, {**POOL, "name": "io-2"}]},
            "worker_pools has the name 'io-2' 2 times: names must differ",
        ),
        ({"worker_pools": [{**POOL, "processes": 0}]}, "worker_pools has 0 processes for 'io': allowed are 1 or more"),
        ({"worker_pools": [{**POOL, "nice": -5}]}, "worker_pools has nice -5 for 'io': allowed are 0 to 19"),
        ({"worker_pools": [{**POOL, "nice": 20}]}, "worker_pools has nice 20 for 'io': allowed are 0 to 19"),
        ({"worker_pools": [{"name": "a/b", "pool": "gevent", "queues": ["a"]}]}, "worker_pools has the name 'a/b': allowed are letters"),
        ({"beat_programs": [{"name": "beat", "command": ["x"]}]}, "beat_programs has the name 'beat': names must differ"),
        ({"beat_programs": [{"name": "a b", "command": ["x"]}]}, "beat_programs has the name 'a b': allowed are 1 to 40"),
        ({"fba_app_routes": [{"path": "/", "to": "server"}, {"path": "/", "to": "deny"}]}, "fba_app_routes has the path '/' 2 times"),
        ({"fba_app_routes": [{"path": "api", "to": "server"}]}, "fba_app_routes has the path 'api': a path begins with /"),
        ({"fba_app_routes": [{"path": '/a"; b', "to": "server"}]}, "fba_app_routes has the path '/a\"; b': a path begins with /"),
        ({"fba_app_routes": [{"path": "/media", "to": "upload"}]}, "fba_app_routes has the path '/media' to upload: the path of a folder"),
        ({"fba_app_routes": [{"path": "/files", "to": "static"}]}, "fba_app_routes has the path '/files' to static: the path of a folder"),
        (
            {"fba_app_routes": [{"path": "/x/", "to": "server", "internal": True}]},
            "fba_app_routes has the path '/x/' to server with internal: only a path to upload can be internal",
        ),
        (
            {"fba_app_routes": [{"path": "/x/", "to": "static", "buffering": False}]},
            "fba_app_routes has the path '/x/' to static without buffering: that is for paths to server and flower",
        ),
        # Maintenance
        ({"nginx_maintenance_paths": ["health"]}, "nginx_maintenance_paths has 'health': a path begins with /"),
        ({"nginx_maintenance_paths": ['/"; deny all; "']}, "nginx_maintenance_paths has '/\"; deny all; \"': a path begins with /"),
        ({"nginx_maintenance_paths": ["/a\\"]}, r"nginx_maintenance_paths has '/a\\': a path begins with /"),
        ({"nginx_maintenance_allow": ["office"]}, "nginx_maintenance_allow has 'office': allowed are addresses and networks such as"),
        ({"nginx_maintenance_allow": ["10.0.0.1/8"]}, "nginx_maintenance_allow has '10.0.0.1/8': allowed are addresses and networks"),
        ({"nginx_maintenance_page": " \n"}, "nginx_maintenance_page is empty: browsers need something to show"),
        # The source
        ({"fba_app_mount_source": True}, "fba_app_mount_source is True: the source is on the controller, and this host is reached by ssh"),
        # HTTPS
        ({"nginx_https_port": 8443}, "nginx_https_port is 8443: it needs nginx_certificate and nginx_certificate_key"),
        ({"nginx_https_port": 8443, "nginx_certificate": "PEM"}, "nginx_https_port is 8443: it needs nginx_certificate and"),
        # Ports
        ({"nginx_http_port": 0}, "nginx_http_port is 0: the stack needs its public door"),
        ({"nginx_http_port": 65536}, "nginx_http_port is 65536: allowed are 1 to 65535"),
        ({"redis_publish_port": -1}, "redis_publish_port is -1: allowed are 1 to 65535"),
        ({"nginx_http_port": 22}, "nginx_http_port is 22: something else on the host listens there"),
        ({"nginx_http_port": 5432, "nginx_publish_address": ""}, "nginx_http_port is 5432: something else on the host listens there"),
        ({"nginx_http_port": 5432}, "nginx_http_port is 5432: something else on the host listens there; stop it, or choose another port"),
        ({"postgres_publish_port": 5432}, "postgres_publish_port is 5432: something else on the host listens there"),
        ({"redis_publish_port": 8000}, "nginx_http_port is 8000, and so is redis_publish_port: two services cannot share a port"),
        (
            {"server_publish_port": 7999, "fba_server_replicas": 2},
            "nginx_http_port is 8000, and so is server_publish_port: two services cannot share a port",
        ),
        ({"server_publish_port": 21, "fba_server_replicas": 2}, "server_publish_port is 22: something else on the host listens there"),
        # Timeouts
        (
            {"server_workers_kill_timeout": 130},
            "server_workers_kill_timeout is 130 and server_stop_wait is 130: server_workers_kill_timeout must be the smaller one",
        ),
        ({"server_stop_wait": 140}, "server_stop_wait is 140 and server_stop_timeout is 140: server_stop_wait must be the smaller one"),
        ({"fba_task_time_limit": 620}, "fba_task_time_limit is 620 and worker_stop_wait is 620: fba_task_time_limit must be the smaller"),
        ({"worker_stop_wait": 641}, "worker_stop_wait is 641 and worker_stop_timeout is 640: worker_stop_wait must be the smaller one"),
        ({"rabbitmq_consumer_timeout": 600}, "fba_task_time_limit is 600 and rabbitmq_consumer_timeout is 600: fba_task_time_limit must"),
        ({"beat_stop_timeout": 20}, "beat_stop_wait is 20 and beat_stop_timeout is 20: beat_stop_wait must be the smaller one"),
        ({"flower_stop_wait": 30}, "flower_stop_wait is 30 and flower_stop_timeout is 30: flower_stop_wait must be the smaller one"),
        # The host
        ({"host_minimum_memory": "9g"}, "host_minimum_memory is 9g: the host has 8.0 GiB of memory"),
        ({"host_minimum_disk": "51g"}, "host_minimum_disk is 51g: the host has 50.0 GiB of free disk space for Docker"),
        ({"host_minimum_disk": "much"}, "host_minimum_disk is 'much': allowed are a number and a unit"),
        ({"postgres_memory": "9g"}, "postgres_memory is 9g: the host has only 8.0 GiB of memory"),
        ({"redis_memory": "lots"}, "redis_memory is 'lots': allowed are a number and a unit"),
        ({"state": {"memory": GIB}}, "host_minimum_memory is 2g: the host has 1.0 GiB of memory"),
        ({"state": {"disk_free": GIB}}, "host_minimum_disk is 8g: the host has 1.0 GiB of free disk space"),
        ({"facts": {"distribution": "Debian", "distribution_major_version": "11"}}, "the host runs Debian 11: allowed are Debian 12"),
        ({"facts": {"distribution": "Ubuntu", "distribution_major_version": "20"}}, "the host runs Ubuntu 20: allowed are Debian 12"),
        ({"facts": {"distribution": "Fedora", "distribution_major_version": "43"}}, "the host runs Fedora 43: allowed are Debian 12"),
        ({"facts": {}}, "the host runs ? 0: allowed are Debian 12 or newer and Ubuntu 22.04 or newer"),
        # The data
        (
            {"state": {"postgres_versions": {"fba_postgres": "16"}}},
            "fba_postgres_version is 17: the volume fba_postgres was written by PostgreSQL 16",
        ),
        # Put aside by an upgrade, and never removed or put back
        (
            {"state": {"postgres_versions": {"fba_postgres": "17"}, "containers": {"fba_postgres": {}, "fba_postgres_16": {}}}},
            "the container fba_postgres_16 is there: an upgrade of PostgreSQL was interrupted",
        ),
        # The inventory
        ({"groups": {**GROUPS, "postgres": ["one", "two"]}}, "group postgres has 2 hosts (one, two): exactly one is allowed"),
        ({"groups": {**GROUPS, "rabbitmq": ["one", "two"]}}, "group rabbitmq has 2 hosts (one, two): exactly one is allowed"),
        ({"groups": {**GROUPS, "flower": ["one", "two"]}}, "group flower has 2 hosts (one, two): exactly one is allowed"),
        ({"groups": {**GROUPS, "beat": []}}, "group beat has no host: put one into it"),
        (
            {"groups": {**GROUPS, "beat": ["two"]}, "leaving": ["two"]},
            "group beat has no host but two, which fba_leaving takes out: put another one into it",
        ),
        (
            {"homeless": ["fba_secrets_file", "certificates_file"]},
            "inventory_dir is not set, so fba_secrets_file and certificates_file would have no place beside the inventory: use an inventory"
            " that is a file or a folder and no list of hosts, or set fba_secrets_file and certificates_file",
        ),
        ({"homeless": ["certificates_file"]}, "inventory_dir is not set, so certificates_file would have no place"),
        ({"build_host": "two"}, "fba_build_host is 'two': allowed are the stack's hosts: one"),
        # Networks: what is given is the host's own
        (
            {"fba_subnet": "192.168.0.0/16"},
            "fba_subnet is 192.168.0.0/16: eth0 of the host is in 192.168.7.0/24, which overlaps; take another one",
        ),
        ({"fba_subnet": "192.168.7.128/26"}, "fba_subnet is 192.168.7.128/26: eth0 of the host is in 192.168.7.0/24, which overlaps"),
        (
            {"facts": facts_of(br_0123="172.30.10.1/25")},
            "fba_subnet is 172.30.10.0/24: br-0123 of the host is in 172.30.10.0/25, which overlaps",
        ),
        # Another stack's, as the engine knows
        (
            {"facts": facts_of(br_0123="172.30.10.1/24"), "state": {"engine": "26.1.5", "bridge": "br-4567"}},
            "fba_subnet is 172.30.10.0/24: br-0123 of the host is in 172.30.10.0/24, which overlaps",
        ),
        (
            {"facts": {**FACTS, "eth0": {"ipv4_secondaries": [{"address": "172.30.10.7", "netmask": "255.255.255.0"}]}}},
            "fba_subnet is 172.30.10.0/24: eth0 of the host is in 172.30.10.0/24, which overlaps",
        ),
        # An address that one host does not need, and has
        ({"addresses": {"one": "127.0.0.1"}}, "fba_private_address is '127.0.0.1': allowed is an IPv4 address at which the other hosts"),
        # The clock
        (
            {"state": {"clock": NOW + 42}},
            "the clock of the host is 42 s ahead of the controller's: more than 5 s apart, certificates and schedules go wrong; set up time"
            " synchronisation (for instance systemd-timesyncd) on both",
        ),
        ({"window": (NOW + 70, NOW + 80)}, "the clock of the host is 70 s behind the controller's: more than 5 s apart"),
    ],
)
def test_what_is_refused(given: dict[str, Any], sentence: str) -> None:
    assert [problem for problem in refusals(**given) if problem.startswith(sentence)], refusals(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"facts": {"distribution": "Debian", "distribution_major_version": "12"}},
        {"facts": {"distribution": "Ubuntu", "distribution_major_version": "22"}},
        {"fba_timezone": "Europe/Berlin"},
        {"fba_subnet": "10.0.0.0/26", "fba_server_replicas": 20},
        {"redis_publish_port": 16379, "postgres_publish_port": 15432, "server_publish_port": 18001, "fba_server_replicas": 3},
        {"nginx_https_port": 8443, "nginx_certificate": "PEM", "nginx_certificate_key": "PEM"},
        {"nginx_maintenance_paths": ["/", "/health/ready?full=1", "/a{2}$;'#"], "nginx_maintenance_page": "<p>$5 {{"},
        {"nginx_maintenance_allow": ["203.0.113.7", "10.0.0.0/8", "2001:db8::/32"]},
        {"fba_app_mount_source": True, "connection": "local"},
        {"fba_app_routes": [{"path": "/media/", "to": "upload"}, {"path": "/api", "to": "server", "buffering": False}]},
        {"state": {"postgres_versions": {"fba_postgres": "17"}}},
        # It goes on with the image that it has
        {
            "state": {
                "postgres_versions": {"fba_postgres": "16"},
                "containers": {"fba_postgres": {"image": "postgres:16", "state": "exited"}},
            }
        },
        # The data of a stack with another name
        {"state": {"containers": {"fba_two_postgres_16": {}}}},
        {"fba_image_source": "registry", "fba_postgres_version": "17.6-trixie", "state": {"postgres_versions": {"fba_postgres": "17"}}},
        # Another address of the host
        {"nginx_publish_address": "192.168.7.1", "nginx_http_port": 5432},
        {"nginx_publish_address": "192.168.7.1", "redis_publish_port": 8000},
        # Its own network's, where no engine answers, and where one does
        {"facts": facts_of(br_0123="172.30.10.1/24")},
        {"facts": facts_of(br_0123="172.30.10.1/25"), "state": {"engine": "26.1.5", "bridge": "br-0123"}},
        # The host's clock was read in between, whenever that was
        {"window": (NOW - 60, NOW + 60)},
        {"window": (NOW + 5, NOW + 6)},
        # Ports that nobody outside needs
        {"state": {"listening": [["0.0.0.0", port] for port in (5000, 5432, 5671, 6379, 8001, 8555)]}},
        {"groups": {**GROUPS, "worker": ["one", "two"]}, "leaving": ["two"]},
    ],
)
def test_what_is_allowed(given: dict[str, Any]) -> None:
    assert refusals(**given) == []


# Each row: on which of the six hosts, what is given, and the one sentence that must come


@pytest.mark.parametrize(
    ("host", "given", "sentence"),
    [
        # The private address
        (
            "web1",
            {"moved": {"web1": ""}},
            f"fba_private_address is not set: the stack is on 6 hosts ({SIX}), which reach each other by it;"
            " the host has 192.168.7.6 and 172.17.0.1",
        ),
        (
            "web1",
            {"moved": {"web1": "192.168.7.9"}},
            "fba_private_address is 192.168.7.9: the host has 192.168.7.6 and 172.17.0.1; allowed is one of these",
        ),
        ("app1", {"moved": {"app2": "192.168.7.2"}}, "fba_private_address is 192.168.7.2, and so is that of app2: each host has its own"),
        *[
            (
                "web1",
                {"moved": {"web1": text}},
                f"fba_private_address is {text!r}: allowed is an IPv4 address at which the other hosts reach",
            )
            for text in ("web1.example", "fd00::1", "127.0.0.1", "0.0.0.0", "224.0.0.1", "192.168.7.6/24")
        ],
        # Those of others, in a run without them
        (
            "worker2",
            {"moved": {"data1": ""}, "reached": ["worker2"]},
            "fba_private_address of data1 is not set: worker2 needs it to reach postgres, redis and rabbitmq",
        ),
        (
            "app2",
            {"moved": {"app1": ""}, "reached": ["app2"]},
            "fba_private_address of app1 is not set: app2 needs it to reach the registry",
        ),
        (
            "web1",
            {"moved": {"app2": ""}, "reached": ["web1"]},
            "fba_private_address of app2 is not set: web1 needs it to reach server and flower",
        ),
        (
            "web1",
            {"moved": {"app1": "app1.example"}, "reached": ["web1"]},
            "fba_private_address of app1 is 'app1.example': web1 needs it to reach server and the registry; allowed is an IPv4 address",
        ),
        (
            "web1",
            {"moved": {"data1": None}, "reached": ["web1"]},
            "fba_private_address of data1 cannot be evaluated: data1 is not in this run; give it as an address, or run on data1 too",
        ),
        # Hosts
        (
            "web1",
            {"build_host": "web2"},
            f"fba_build_host is 'web2': allowed are the stack's hosts: {SIX}",
        ),
        ("web1", {"build_host": "app1", "leaving": ["app1"]}, "fba_build_host is 'app1': allowed are the stack's hosts: data1, worker1"),
        ("web1", {"groups": {**FLEET, "redis": ["data1", "app1"]}}, "group redis has 2 hosts (data1, app1): exactly one is allowed"),
        ("web1", {"leaving": ["app1"]}, "group beat has no host but app1, which fba_leaving takes out"),
        *[
            (
                host,
                {"reached": [name for name in ADDRESSES if name != "data1"]},
                f"data1, the host of {what}, was not reached or was refused itself: what depends on it stops here",
            )
            for host, what in (("worker1", "postgres, redis and rabbitmq"), ("app1", "postgres, redis and rabbitmq"))
        ],
        (
            "web1",
            {
                "groups": {**FLEET, "postgres": ["data1"], "redis": ["app1"], "flower": ["web1"]},
                "reached": [name for name in ADDRESSES if name != "data1"],
            },
            "data1, the host of rabbitmq, was not reached",
        ),
        # The subnet
        (
            "web1",
            {"fba_subnet": "10.0.0.0/16", "moved": {"app1": "10.0.0.5", "app2": "10.0.1.5"}},
            "fba_subnet is 10.0.0.0/16: inside is fba_private_address of app1 (10.0.0.5) and app2 (10.0.1.5); take another one",
        ),
        # Images
        (
            "data1",
            {"fba_redis_image": "redis@sha256:0123"},
            "fba_redis_image is redis@sha256:0123: on several hosts it needs a tag and no digest; the stack records its digest by itself",
        ),
        # Files
        (
            "data1",
            {"fba_app_storage": "volume"},
            "fba_app_storage is volume: server, worker and nginx are on 5 hosts (app1, app2, worker1, worker2, web1), which share"
            " no folder; allowed are postgres and s3, where the files are for all, and none where the application keeps no files",
        ),
        (
            "app1",
            {"fba_app_mount_source": True, "connection": "local"},
            f"fba_app_mount_source is True: the stack is on 6 hosts ({SIX}); it is for a stack on one host",
        ),
        # Ports
        *[
            (
                "data1",
                {"state": {"listening": [[address, port]]}},
                f"port {port} of {service} on fba_private_address, 192.168.7.1: something else on the host listens there;"
                " stop it, or choose another address",
            )
            for service, port in precheck.FIXED_PORTS.items()
            for address in ("0.0.0.0", "192.168.7.1")
        ],
        (
            "data1",
            {"moved": {"data1": ""}, "state": {"listening": [["0.0.0.0", 5432]]}},
            "port 5432 of postgres on fba_private_address: something else on the host listens there",
        ),
        (
            "app2",
            {"fba_server_replicas": 2, "state": {"listening": [["0.0.0.0", 8002]]}},
            "fba_server_peer_port is 8002: something else on the host listens there",
        ),
        ("app2", {"fba_server_peer_port": 0}, "fba_server_peer_port is 0: allowed are 1 to 65535"),
        ("app2", {"fba_server_peer_port": 65536}, "fba_server_peer_port is 65536: allowed are 1 to 65535"),
        (
            "app2",
            {"fba_server_peer_port": 8555},
            "fba_flower_port is 8555, and so is fba_server_peer_port: two services cannot share a port",
        ),
        ("app2", {"state": {"listening": [["192.168.7.3", 8555]]}}, "fba_flower_port is 8555: something else on the host listens there"),
        (
            "app1",
            {"fba_registry_port": 8001},
            "fba_registry_port is 8001, and so is fba_server_peer_port: two services cannot share a port",
        ),
        ("app1", {"state": {"listening": [["0.0.0.0", 5000]]}}, "fba_registry_port is 5000: something else on the host listens there"),
        (
            "data1",
            {"groups": {**FLEET, "nginx": ["data1"]}, "nginx_http_port": 5432},
            "nginx_http_port is 5432, and so is the port of postgres on fba_private_address: two services cannot share a port",
        ),
    ],
)
def test_what_is_refused_on_several_hosts(host: str, given: dict[str, Any], sentence: str) -> None:
    found = fleet_refusals(host, **given)
    assert len([problem for problem in found if problem.startswith(sentence)]) == 1, found


@pytest.mark.parametrize(
    ("host", "given"),
    [
        # A host that is in the run speaks for itself
        ("worker2", {"moved": {"data1": ""}}),
        ("worker2", {"moved": {"data1": None}}),
        # What it does not need is not its concern
        ("worker2", {"moved": {"app2": ""}, "asked": ["worker2"], "reached": ["worker2"]}),
        ("web1", {"reached": [name for name in ADDRESSES if name != "data1"]}),
        ("worker1", {"reached": [name for name in ADDRESSES if name != "app1"]}),
        ("worker2", {"nginx_http_port": 0, "fba_server_peer_port": 0, "beat_stop_wait": 100, "postgres_memory": "1t"}),
        # It was not asked for, so it is as it was
        ("worker2", {"asked": ["worker2"], "reached": ["worker2"]}),
        # Nobody else needs it on the private address
        ("data1", {"state": {"listening": [["127.0.0.1", 5432], ["192.168.7.9", 6379], ["0.0.0.0", 8001]]}}),
        ("app1", {"state": {"listening": [["0.0.0.0", 8555]]}}),
        ("app2", {"state": {"listening": [["0.0.0.0", 5000]]}}),
        # The same port on another address
        ("app1", {"server_publish_port": 8001}),
        # Others need not be those that leave
        ("worker2", {"leaving": ["worker1"], "moved": {"worker1": "192.168.7.5"}}),
        ("app1", {"groups": {**FLEET, "redis": ["data1", "worker1"]}, "leaving": ["worker1"]}),
        # One host for all that has files
        (
            "app1",
            {
                "groups": {**FLEET, **{service: ["app1"] for service in ("server", "worker", "nginx")}},
                "fba_app_storage": "volume",
            },
        ),
        ("app1", {"fba_app_storage": "none"}),
        ("app1", {"fba_app_storage": "postgres"}),
        # A value of the wrong type has its sentence already
        ("app1", {"moved": {"app1": None}}),
        ("app1", {"build_host": None}),
        # On a host that leaves nothing is started
        ("worker2", {"leaving": ["worker2"], "moved": {"worker2": ""}, "facts": {}, "state": {"memory": 0, "clock": 0}}),
    ],
)
def test_what_is_allowed_on_several_hosts(host: str, given: dict[str, Any]) -> None:
    assert fleet_refusals(host, **given) == []


def test_the_published_ports_and_their_addresses() -> None:
    values = {**default_values(), "redis_publish_port": 16379, "fba_server_replicas": 2, "nginx_publish_address": "203.0.113.1"}
    alone = published_ports(values, Fleet("one", GROUPS, build_host="one"))
    assert [port[:3] for port in alone] == [("redis_publish_port", "127.0.0.1", 16379), ("nginx_http_port", "203.0.113.1", 8000)]
    # A second host with everything that may be twice
    groups = {**GROUPS, **{service: ["one", "two"] for service in ("server", "worker", "beat", "nginx")}}
    ports = published_ports(values, Fleet("one", groups, build_host="one", addresses={"one": "10.1.1.1", "two": "10.1.1.2"}))
    assert sorted(port[:3] for port in ports) == [
        ("", "10.1.1.1", 5432),
        ("", "10.1.1.1", 5671),
        ("", "10.1.1.1", 6379),
        ("fba_flower_port", "10.1.1.1", 8555),
        ("fba_registry_port", "10.1.1.1", 5000),
        ("fba_server_peer_port", "10.1.1.1", 8001),
        ("fba_server_peer_port", "10.1.1.1", 8002),
        # The spare's, while they are replaced
        ("fba_server_peer_port", "10.1.1.1", 8003),
        ("nginx_http_port", "203.0.113.1", 8000),
        ("redis_publish_port", "127.0.0.1", 16379),
    ]


@pytest.mark.parametrize(
    ("service", "free", "warned"),
    [("server", 1.9, True), ("worker", 1.9, True), ("beat", 2.0, False), ("redis", 0.1, False), (None, 0.1, False)],
)
def test_too_little_room_for_another_release_is_told_of(service: str | None, free: float, warned: bool) -> None:
    containers = {"fba_one": {"service": service, "image": "fba/one:1"}} if service else {}
    warnings = list(warn_of_room(STATE | {"containers": containers, "image_sizes": {"fba/one:1": GIB}, "disk_free": int(free * GIB)}))
    assert len(warnings) == warned
    assert all(
        "may need 2.0 GiB where Docker keeps its data, twice the size" in warning and "release_keep" in warning for warning in warnings
    )


@pytest.mark.parametrize(
    ("host", "filters", "named"),
    [
        ("data1", False, "(postgres, redis, rabbitmq)"),
        ("app1", False, "(server, registry)"),
        ("worker1", False, ""),
        ("data1", True, ""),
        # Refused elsewhere
        ("data1", "no", ""),
    ],
)
def test_ports_that_strangers_reach_are_told_of(host: str, filters: Any, named: str) -> None:
    warnings = list(warn_of_strangers({"host_firewall": filters}, Fleet(host, FLEET, build_host="app1", addresses=ADDRESSES)))
    assert len(warnings) == bool(named)
    assert all(f"anybody who reaches {ADDRESSES[host]} can knock" in warning and named in warning for warning in warnings)


@pytest.mark.parametrize(
    ("clock", "sentence"),
    [
        (94, "the clock of the host is 6 s behind the controller's"),
        (95, ""),
        (100, ""),
        (117, ""),
        (125, ""),
        (126, "the clock of the host is 6 s ahead of the controller's"),
    ],
)
def test_a_clock_is_right_within_the_time_of_the_question(clock: float, sentence: str) -> None:
    assert "".join(check_clock(clock, 100, 120)).startswith(sentence)
    assert bool(list(check_clock(clock, 100, 120))) == bool(sentence)


def test_all_refusals_come_at_once() -> None:
    found = refusals(
        fba_name="A", fba_timezone="B", fba_subnet="C", nginx_http_port=22, worker_pools=[], beat_stop_wait=99, redis_memory="D"
    )
    assert len(found) == 7
    assert len({problem.split(" ", 1)[0] for problem in found}) == 7


@pytest.mark.parametrize("name", precheck.SECRETS)
def test_a_short_secret_is_refused_and_not_printed(name: str) -> None:
    (problem,) = refusals(**{name: "hunter2"})
    least = 12 if name.endswith("_password") else 32
    assert problem.startswith(f"{name} has 7 characters: allowed are {least} or more")
    assert "hunter2" not in problem
    assert refusals(**{name: "x" * least}) == []


def test_every_generated_secret_is_checked_and_long_enough() -> None:
    lengths = {entry["name"]: entry.get("length", 32) for entry in roles_file("secrets", "vars", "main.yml")["__secrets_wanted"]}
    assert lengths.keys() == precheck.SECRETS.keys()
    assert refusals(**{name: "x" * length for name, length in lengths.items()}) == []


def test_a_port_that_something_else_uses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (problem,) = refusals(nginx_http_port=port, state={"listening": sorted(listening_ports())})
        assert problem.startswith(f"nginx_http_port is {port}: something else on the host listens there")
    assert refusals(nginx_http_port=port, state={"listening": sorted(listening_ports())}) == []


# Types


def spec_of(name: str) -> dict[str, Any]:
    """A variable's argument spec."""
    for role in ("common", "host", *SERVICES):
        for entry in roles_file(role, "meta", "argument_specs.yml")["argument_specs"].values():
            if name in entry.get("options", {}):
                return dict(entry["options"][name])
    raise KeyError(name)


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("nginx_http_port", "eighty", ["nginx_http_port is 'eighty'", "int"]),
        ("nginx_http_port", None, ["nginx_http_port is None", "int"]),
        ("nginx_http_port", [80], ["nginx_http_port is [80]", "int"]),
        # The roles add to it
        ("server_wait_timeout", "300", ["server_wait_timeout is '300'", "text", "int", """-e '{"server_wait_timeout": …}'"""]),
        ("server_cpus", "much", ["server_cpus is 'much'", "float"]),
        ("fba_timezone", ["UTC"], ["fba_timezone is ['UTC']", "str"]),
        ("fba_app_system_packages", "git,curl", ["fba_app_system_packages is 'git,curl'", "list"]),
        ("fba_image_source", "hub", ["fba_image_source is 'hub'", "distro, registry"]),
        ("worker_pools", "io", ["worker_pools is 'io'", "dict"]),
        ("worker_pools", ["io"], ["worker_pools is ['io']", "dict"]),
        (
            "worker_pools",
            [{**POOL, "size": 5}],
            ["unknown key worker_pools.size", "concurrency, max_memory, name, nice, pool, processes, queues"],
        ),
        ("worker_pools", [{**POOL, "pool": "greenlets"}], ["greenlets", "gevent, prefork"]),
        ("worker_pools", [{"name": "io", "pool": "gevent"}], ["missing required arguments: queues"]),
        ("worker_pools", [{**POOL, "concurrency": "many"}], ["concurrency", "many", "int"]),
        (
            "fba_app_routes",
            [{"path": "/", "to": "server", "rety": False}],
            ["unknown key fba_app_routes.rety", "buffering, internal, path, retry"],
        ),
        ("fba_app_routes", [{"path": "/", "to": "nowhere"}], ["nowhere", "server, static"]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(name: str, value: Any, parts: list[str]) -> None:
    _value, problems = check_type(name, spec_of(name), value)
    text = "\n".join(problems)
    assert text.startswith(f"{name} is {value!r}: ")
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("name", "value", "converted"),
    [
        ("nginx_http_port", 8080, 8080),
        ("server_cpus", 1, 1.0),
        ("fba_image_epoch", 2, "2"),
        ("fba_app_system_packages", ["git"], ["git"]),
        ("redis_settings", {"maxclients": 5}, {"maxclients": 5}),
    ],
)
def test_a_value_of_the_right_type_is_taken(name: str, value: Any, converted: Any) -> None:
    assert check_type(name, spec_of(name), value) == (converted, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nginx_certificate_key", ["hunter2"]),
        ("nginx_certificate_key", {"hunter2": 1}),
        ("fba_app_env", "TOKEN=hunter2"),
        ("fba_app_env", "hunter2"),
        ("fba_app_env", ["hunter2"]),
        ("redis_settings", "requirepass hunter2"),
        ("fba_redis_password", ["hunter2hunter2"]),
        ("fba_spec_key", {"hunter2": "hunter2"}),
    ],
)
def test_a_secret_of_the_wrong_type_is_refused_and_not_printed(name: str, value: Any) -> None:
    _value, problems = check_type(name, spec_of(name), value)
    assert len(problems) == 1
    assert problems[0].startswith(f"{name} is (not shown): it must be of the type {spec_of(name)['type']}")
    assert "hunter2" not in problems[0]


# The real thing: the first play of site.yml on two hosts that are this machine, with everything wrong at once


BAD_EVERYWHERE = {
    "fba_name": "Not A Name",
    "fba_timezone": "Mars/Olympus",
    "fba_subnet": "172.10.10.0/24",
    "host_minimum_memory": "1024t",
    "host_minimum_disk": "1024t",
    "fba_task_time_limit": 9999,
    "fba_postgres_password": "hunter2",
    "fba_redis_password": ["hunter2-in-a-list"],
    "fba_rabbitmq_password": "{{ hunter2_is_not_defined }}",
    "nginx_certificate_key": {"hunter2": "hunter2"},
    "fba_app_env": "TOKEN=hunter2",
    "nginx_https_port": 8443,
    "fba_build_host": "elsewhere",
}
BAD_ON_ONE = {
    "worker_pools": [{**POOL, "size": 5}],
    "fba_app_routes": [{"path": "/", "to": "server", "rety": False}],
    "worker_memory": "1024t",
    "nginx_proxy_timeout": "{{ not_defined_anywhere }}",
}
# Values on which a check that expects another type would stumble
BAD_ON_TWO = {
    "worker_pools": "io",
    "fba_app_routes": [5],
    "fba_server_replicas": "many",
    "server_publish_port": 18001,
    "fba_name": ["x"],
    "fba_private_address": "127.0.0.1",
}


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an inventory, and nothing else."""
    folder = tmp_path_factory.mktemp("inventory")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    hosts = {"one": {**BAD_ON_ONE, "nginx_http_port": port}, "two": BAD_ON_TWO}
    common = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **BAD_EVERYWHERE}
    both = {"hosts": {"one": None, "two": None}}
    one = {"hosts": {"one": None}}
    groups = {service: one if service in ("redis", "rabbitmq", "flower", "beat") else both for service in SERVICES}
    groups["beat"] = {"hosts": {}}
    text = json.dumps({"all": {"hosts": hosts, "vars": common, "children": groups}})
    (folder / "hosts.yml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def output(inventory: Path, ansible_environment: dict[str, str]) -> str:
    """What the run prints, as one line for each refusal."""
    hosts = json.loads((inventory / "hosts.yml").read_text(encoding="utf-8"))
    with socket.create_server(("127.0.0.1", hosts["all"]["hosts"]["one"]["nginx_http_port"])):
        return failed_play(inventory, ansible_environment, "hosts.yml", str(ROOT / "playbooks" / "site.yml"))


def failed_play(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """What a run prints that has to fail: the inventory, the playbook and ansible's other arguments."""
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=folder,
        env={**environment, "ANSIBLE_CALLBACK_FORMAT_PRETTY": "false"},
    )
    assert done.returncode != 0
    return done.stdout + done.stderr


def problems_of(output: str) -> dict[str, list[str]]:
    """Host to what was refused on it."""
    results = re.findall(r"^fatal: \[([a-z0-9]+)\]: FAILED! => (\{.*\})$", output, re.M)
    return {host: json.loads(result)["problems"] for host, result in results}


@pytest.fixture(scope="module")
def problems(output: str) -> dict[str, list[str]]:
    """Host to what was refused on it."""
    found = problems_of(output)
    assert found.keys() == {"one", "two"}, output
    return found


@pytest.mark.parametrize(
    ("host", "start"),
    [
        *[(host, "fba_timezone is ") for host in ("one", "two")],
        *[(host, "fba_subnet is 172.10.10.0/24") for host in ("one", "two")],
        *[(host, "host_minimum_memory is 1024t") for host in ("one", "two")],
        *[(host, "host_minimum_disk is 1024t") for host in ("one", "two")],
        *[(host, "group postgres has 2 hosts (one, two)") for host in ("one", "two")],
        *[(host, "group beat has no host") for host in ("one", "two")],
        *[(host, "fba_build_host is 'elsewhere': allowed are the stack's hosts: one, two") for host in ("one", "two")],
        *[(host, "fba_app_storage is volume: server, worker and nginx are on 2 hosts (one, two)") for host in ("one", "two")],
        ("one", "fba_private_address is not set: the stack is on 2 hosts (one, two)"),
        ("two", "fba_private_address is '127.0.0.1': allowed is an IPv4 address"),
        *[(host, "fba_postgres_password has 7 characters") for host in ("one", "two")],
        *[(host, "fba_redis_password is (not shown)") for host in ("one", "two")],
        *[(host, "fba_rabbitmq_password cannot be evaluated") for host in ("one", "two")],
        *[(host, "nginx_certificate_key is (not shown)") for host in ("one", "two")],
        *[(host, "fba_app_env is (not shown)") for host in ("one", "two")],
        *[(host, "fba_task_time_limit is 9999 and worker_stop_wait is 620") for host in ("one", "two")],
        *[(host, "nginx_https_port is 8443") for host in ("one", "two")],
        ("one", "fba_name is "),
        ("one", "fba_task_time_limit is 9999 and rabbitmq_consumer_timeout is 1800"),
        ("one", "worker_pools is "),
        ("one", "fba_app_routes is "),
        ("one", "worker_memory is 1024t"),
        ("one", "nginx_http_port is "),
        ("one", "nginx_proxy_timeout cannot be evaluated"),
        ("two", "fba_name is "),
        ("two", "worker_pools is "),
        ("two", "fba_app_routes is "),
        ("two", "fba_server_replicas is "),
    ],
)
def test_one_run_tells_all(problems: dict[str, list[str]], host: str, start: str) -> None:
    assert [problem for problem in problems[host] if problem.startswith(start)], "\n".join(problems[host])


def test_no_run_shows_a_secret(output: str) -> None:
    assert "hunter2" not in output


def test_the_run_stops_before_it_touches_anything(output: str, inventory: Path) -> None:
    assert re.findall(r"^PLAY \[(.*)\]", output, re.M)[-1] == "Check everything before anything is touched"
    assert not re.search(r"changed=[1-9]", output)
    assert [path.name for path in inventory.iterdir()] == ["hosts.yml"]
    assert not Path("/etc/Not A Name").exists()


# What only ansible can say of a run: who fell out of it, what others' variables are, and that an inventory has no folder


GATHER_AND_CHECK = """\
- hosts: all
  gather_facts: true
- hosts: all
  gather_facts: false
  any_errors_fatal: true
  roles: [fba.stack.precheck]
"""


@pytest.fixture
def three_hosts(tmp_path: Path) -> Path:
    """A folder with a playbook and an inventory: a data host that nothing reaches, a host that is this machine, and one that leaves."""
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {
        "data1": {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": 1,
            "fba_private_address": "{{ ansible_facts.default_ipv4.address }}",
        },
        "app1": here,
        "old1": here,
    }
    groups: dict[str, Any] = {service: {"hosts": {"app1": None, "old1": None}} for service in SERVICES}
    groups |= {service: {"hosts": {"data1": None}} for service in ("postgres", "redis")} | {"flower": {"hosts": {"app1": None}}}
    values = {"fba_app_storage": "none", "fba_leaving": ["old1"], "worker_memory": "1024t"}
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts, "vars": values, "children": groups}}), encoding="utf-8")
    (tmp_path / "check.yml").write_text(GATHER_AND_CHECK, encoding="utf-8")
    return tmp_path


def test_what_depends_on_a_host_that_was_not_reached_stops(three_hosts: Path, ansible_environment: dict[str, str]) -> None:
    found = problems_of(failed_play(three_hosts, ansible_environment, "hosts.yml", "check.yml"))
    # The host that leaves is the only one that runs nothing, so nothing is wrong with it
    assert found.keys() == {"app1"}
    starts = [
        "fba_private_address is not set: the stack is on 2 hosts (data1, app1)",
        "fba_private_address of data1 cannot be evaluated: data1 is not in this run",
        "data1, the host of postgres and redis, was not reached",
        "worker_memory is 1024t",
    ]
    for start in starts:
        assert len([problem for problem in found["app1"] if problem.startswith(start)]) == 1, found


def test_a_run_without_the_data_host_does_not_miss_it(three_hosts: Path, ansible_environment: dict[str, str]) -> None:
    found = problems_of(failed_play(three_hosts, ansible_environment, "hosts.yml", "check.yml", "--limit", "app1"))
    assert not [problem for problem in found["app1"] if "was not reached" in problem]
    assert [problem for problem in found["app1"] if problem.startswith("fba_private_address of data1 cannot be evaluated")]


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "fba_secrets_file and certificates_file"),
        ({"fba_secrets_file": "/tmp/secrets.yml"}, "certificates_file"),
    ],
)
def test_a_list_of_hosts_is_no_place_for_vault_files(
    tmp_path: Path, ansible_environment: dict[str, str], given: dict[str, str], missing: str
) -> None:
    (tmp_path / "check.yml").write_text(GATHER_AND_CHECK, encoding="utf-8")
    variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **given}
    found = problems_of(failed_play(tmp_path, ansible_environment, "app1,", "check.yml", "-e", json.dumps(variables)))
    assert [problem for problem in found["app1"] if problem.startswith(f"inventory_dir is not set, so {missing} would have no place")]
    assert not [problem for problem in found["app1"] if problem.startswith(("fba_secrets_file", "certificates_file"))]


# Backups


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"fba_backup_place": "store:/srv"}, "fba_backup_place is 'store:/srv': allowed are /folder, sftp://"),
        ({"fba_backup_place": "sftp://keeper@store/srv", "fba_backup_ssh_known_hosts": "x"}, "it needs fba_backup_ssh_key, which is empty"),
        ({"fba_backup_place": "sftp://keeper@store/srv", "fba_backup_ssh_key": "x"}, "it needs fba_backup_ssh_known_hosts, which is empty"),
        ({"fba_backup_place": "s3://bucket", "fba_backup_s3_access_key": "x"}, "it needs fba_backup_s3_secret_key, which is empty"),
        ({"backup_times": ["3:30"]}, "backup_times has '3:30': allowed are times of the day such as 03:30, in quotes"),
        ({"backup_times": ["24:00"]}, "backup_times has '24:00'"),
        ({"backup_times": []}, "backup_times is empty"),
        ({"fba_backup_keep_number": 0}, "fba_backup_keep_number is 0: allowed are 1 or more"),
        ({"postgres_archive_timeout": 0}, "postgres_archive_timeout is 0: allowed are 1 or more"),
        ({"postgres_archive_queue_max": "four"}, "postgres_archive_queue_max is 'four': allowed are sizes such as 4GiB"),
    ],
)
def test_backups_that_cannot_be_made_are_refused(values: dict[str, Any], sentence: str) -> None:
    (problem,) = refusals(**values)
    assert sentence in problem


@pytest.mark.parametrize(
    "values",
    [
        {"fba_backup_place": "/mnt/backups"},
        {"fba_backup_place": "sftp://keeper@store:23/srv", "fba_backup_ssh_key": "x", "fba_backup_ssh_known_hosts": "x"},
        {"fba_backup_place": "s3://bucket/fba", "fba_backup_s3_access_key": "x", "fba_backup_s3_secret_key": "x"},
        {"backup_times": ["00:00", "12:30"], "postgres_archive_queue_max": "512MB"},
    ],
)
def test_backups_that_can_be_made_are_not(values: dict[str, Any]) -> None:
    assert refusals(**values) == []
