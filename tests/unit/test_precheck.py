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

from ansible_collections.fba.stack.plugins.modules.host_state import listening_ports
from ansible_collections.fba.stack.plugins.plugin_utils import precheck
from ansible_collections.fba.stack.plugins.plugin_utils.precheck import SERVICES, check, check_type

from conftest import ROOT

GIB = 2**30
FACTS = {"distribution": "Debian", "distribution_major_version": "13"}
STATE: dict[str, Any] = {"listening": [22], "memory": 8 * GIB, "disk_free": 50 * GIB, "postgres_versions": {}}
GROUPS = {service: ["one"] for service in SERVICES}


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
    services: tuple[str, ...] = SERVICES,
    facts: Any = FACTS,
    groups: Any = GROUPS,
    state: Any = None,
    connection: str = "ssh",
    **values: Any,
) -> list[str]:
    """What is refused with these values in the defaults' place."""
    return check({**default_values(), **values}, list(services), facts, {**STATE, **(state or {})}, groups, connection)


ZONES = zoneinfo.available_timezones()


@pytest.fixture(autouse=True)
def known_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read them once, and not in each of a hundred tests."""
    monkeypatch.setattr(precheck.zoneinfo, "available_timezones", lambda: ZONES)


def test_the_defaults_are_allowed() -> None:
    assert refusals() == []


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
        ({"fba_subnet": "172.30.10.1/24"}, "fba_subnet is '172.30.10.1/24': it must be an IPv4 subnet"),
        ({"fba_subnet": "fd00::/64"}, "fba_subnet is 'fd00::/64': it must be an IPv4 subnet"),
        ({"fba_subnet": "nonsense"}, "fba_subnet is 'nonsense': it must be an IPv4 subnet"),
        ({"fba_subnet": "10.0.0.0/26", "fba_server_replicas": 22}, "fba_server_replicas is 22: allowed are 1 to 21"),
        # Images
        ({"fba_redis_version": "7.4"}, "fba_redis_version is 7.4: images built from Debian 13 packages have 8.0"),
        # Numbers
        ({"fba_server_replicas": 0}, "fba_server_replicas is 0: allowed are 1 or more"),
        ({"worker_replicas": -1}, "worker_replicas is -1: allowed are 1 or more"),
        # Pools and routes
        ({"worker_pools": []}, "worker_pools is empty: at least one pool"),
        (
            {"worker_pools": [{"name": "io", "pool": "gevent", "queues": ["a"]}, {"name": "io", "pool": "prefork", "queues": ["b"]}]},
            "worker_pools has the name 'io' 2 times: names must differ",
        ),
        ({"worker_pools": [{"name": "a/b", "pool": "gevent", "queues": ["a"]}]}, "worker_pools has the name 'a/b': allowed are letters"),
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
        # The inventory
        ({"groups": {**GROUPS, "postgres": ["one", "two"]}}, "group postgres has 2 hosts (one, two): exactly one is allowed"),
        ({"groups": {**GROUPS, "rabbitmq": ["one", "two"]}}, "group rabbitmq has 2 hosts (one, two): exactly one is allowed"),
        ({"groups": {**GROUPS, "worker": ["two"]}}, "the services are on 2 hosts (one, two): this version serves one host"),
        ({"groups": {**GROUPS, "beat": []}}, "group beat has no host: put one into it"),
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
        {"fba_subnet": "10.0.0.0/26", "fba_server_replicas": 21},
        {"redis_publish_port": 16379, "postgres_publish_port": 15432, "server_publish_port": 18001, "fba_server_replicas": 3},
        {"nginx_https_port": 8443, "nginx_certificate": "PEM", "nginx_certificate_key": "PEM"},
        {"fba_app_mount_source": True, "connection": "local"},
        {"fba_app_routes": [{"path": "/media/", "to": "upload"}, {"path": "/api", "to": "server", "buffering": False}]},
        {"state": {"postgres_versions": {"fba_postgres": "17"}}},
        {"fba_image_source": "registry", "fba_postgres_version": "17.6-trixie", "state": {"postgres_versions": {"fba_postgres": "17"}}},
        # What a host does not run is not its concern
        {"services": ("redis",), "nginx_http_port": 22, "worker_pools": [], "beat_stop_wait": 100, "postgres_memory": "1t"},
    ],
)
def test_what_is_allowed(given: dict[str, Any]) -> None:
    assert refusals(**given) == []


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


POOL = {"name": "io", "pool": "gevent", "queues": ["io"]}


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
        ("worker_pools", [{**POOL, "size": 5}], ["unknown key worker_pools.size", "concurrency, max_memory, name, pool, queues"]),
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
}
BAD_ON_ONE = {
    "worker_pools": [{**POOL, "size": 5}],
    "fba_app_routes": [{"path": "/", "to": "server", "rety": False}],
    "worker_memory": "1024t",
    "nginx_proxy_timeout": "{{ not_defined_anywhere }}",
}
# Values on which a check that expects another type would stumble
BAD_ON_TWO = {"worker_pools": "io", "fba_app_routes": [5], "fba_server_replicas": "many", "server_publish_port": 18001, "fba_name": ["x"]}


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
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.yml", str(ROOT / "playbooks" / "site.yml")],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=inventory,
            env={**ansible_environment, "ANSIBLE_CALLBACK_FORMAT_PRETTY": "false"},
        )
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def problems(output: str) -> dict[str, list[str]]:
    """Host to what was refused on it."""
    results = re.findall(r"^fatal: \[(one|two)\]: FAILED! => (\{.*\})$", output, re.M)
    found = {host: json.loads(result)["problems"] for host, result in results}
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
    assert re.findall(r"^PLAY \[(.*)\]", output, re.M) == ["Check everything before anything is touched"]
    assert not re.search(r"changed=[1-9]", output)
    assert [path.name for path in inventory.iterdir()] == ["hosts.yml"]
    assert not Path("/etc/Not A Name").exists()
