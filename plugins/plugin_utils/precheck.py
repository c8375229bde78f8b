# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to hold before anything is touched, beyond each variable's own type.

Every check takes the effective values of the variables and returns sentences, each naming the variable, its value and what is allowed.
"""

from __future__ import annotations

import ipaddress
import re
import zoneinfo
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.text.formatters import human_to_bytes
from ansible.module_utils.errors import UnsupportedError

from ansible_collections.fba.stack.plugins.filter.network import FIRST_REPLICA

SERVICES = ("postgres", "redis", "rabbitmq", "server", "worker", "beat", "flower", "nginx")
SINGLE = ("postgres", "redis", "rabbitmq", "flower")
DISTRIBUTIONS = {"Debian": 12, "Ubuntu": 22}
PRIVATE = [ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
# Secret to the number of characters that it must have at least
SECRETS = {
    "fba_postgres_password": 12,
    "fba_database_password": 12,
    "fba_redis_password": 12,
    "fba_rabbitmq_password": 12,
    "fba_flower_password": 12,
    "fba_app_secret_key": 32,
    "fba_app_admin_password": 12,
    "fba_spec_key": 32,
}
# What Debian 13 packages
DISTRO_VERSIONS = {"postgres": "17", "redis": "8.0", "rabbitmq": "4.0", "nginx": "1.26", "python": "3.13"}
# Variables whose value, or a part of it, may be a secret: no sentence has it
HIDDEN = re.compile(r"_(password|secret|key|env|settings)$")
# Each must be smaller than the next: what is inside ends by itself before what is around it kills it
TIMEOUT_CHAINS = (
    ("server", ("server_workers_kill_timeout", "server_stop_wait", "server_stop_timeout")),
    ("worker", ("fba_task_time_limit", "worker_stop_wait", "worker_stop_timeout")),
    ("rabbitmq", ("fba_task_time_limit", "rabbitmq_consumer_timeout")),
    ("beat", ("beat_stop_wait", "beat_stop_timeout")),
    ("flower", ("flower_stop_wait", "flower_stop_timeout")),
)
PORTS = {
    "postgres": ("postgres_publish_port",),
    "redis": ("redis_publish_port",),
    "rabbitmq": ("rabbitmq_publish_port", "rabbitmq_publish_management_port"),
    "server": ("server_publish_port",),
    "flower": ("flower_publish_port",),
    "nginx": ("nginx_http_port", "nginx_https_port"),
}


def shown(name: str, value: Any) -> str:
    """Return a variable's value for people, or that it is not shown."""
    return "(not shown)" if HIDDEN.search(name) else repr(value)


def check_type(name: str, option: dict[str, Any], value: Any) -> tuple[Any, list[str]]:
    """Return a variable's value as its argument spec wants it, and what is wrong with it.

    Ansible would take text for a list, a dictionary or a number; but the roles see the variable as it was given, and calculate with it.
    """
    validated = ArgumentSpecValidator({name: option}).validate({name: value})
    converted = validated.validated_parameters.get(name)
    wanted = option["type"]
    problems = [f"unknown key {error.msg}" if isinstance(error, UnsupportedError) else error.msg for error in validated.errors.errors]
    if not problems and isinstance(value, (dict, list)) != isinstance(converted, (dict, list)):
        problems.append(f"it must be of the type {wanted}")
    if not problems and isinstance(value, str) and isinstance(converted, (int, float)):
        problems.append(
            f"this is text; it must be of the type {wanted}, without quotes, and as JSON on the command line: -e '{{\"{name}\": …}}'"
        )
    if problems and HIDDEN.search(name):
        # Ansible's own sentences repeat values
        problems = [f"it must be of the type {wanted}, as the role's argument specs describe it"]
    return converted, [f"{name} is {shown(name, value)}: {problem}" for problem in problems]


def _bytes(text: Any) -> int | None:
    try:
        return human_to_bytes(str(text))
    except ValueError:
        return None


def check_distribution(facts: dict[str, Any]) -> Iterator[str]:
    """Refuse what is neither Debian 12 or newer nor Ubuntu 22.04 or newer."""
    name, version = facts.get("distribution", "?"), str(facts.get("distribution_major_version", "0"))
    least = DISTRIBUTIONS.get(name)
    if least is None or (version.isdigit() and int(version) < least):
        yield f"the host runs {name} {version}: allowed are Debian 12 or newer and Ubuntu 22.04 or newer"


def check_groups(groups: dict[str, list[str]]) -> Iterator[str]:
    """Refuse a group without a host, a second host where only one can be, and a second host at all."""
    for service in SERVICES:
        hosts = groups.get(service, [])
        if not hosts:
            yield f"group {service} has no host: put one into it"
        elif service in SINGLE and len(hosts) > 1:
            yield f"group {service} has {len(hosts)} hosts ({', '.join(hosts)}): exactly one is allowed"
    # The services find each other by names inside one host's network
    everyone = sorted({host for service in SERVICES for host in groups.get(service, [])})
    if len(everyone) > 1:
        yield f"the services are on {len(everyone)} hosts ({', '.join(everyone)}): this version serves one host in all groups"


def check_values(values: dict[str, Any], services: list[str]) -> Iterator[str]:
    """Refuse values that have the right type and yet cannot work. Those that have not are not among `values`."""
    name = values.get("fba_name", "fba")
    # What Docker takes for the name of an image too
    if not re.fullmatch(r"(?=.{1,31}$)[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        yield f"fba_name is {name!r}: allowed are 1 to 31 lower-case letters and digits, single underscores between them, a letter first"
    if values.get("fba_app_user", 1) < 1:
        yield f"fba_app_user is {values['fba_app_user']}: allowed are 1 or more, because no container runs as root"
    timezone = values.get("fba_timezone", "UTC")
    if timezone not in zoneinfo.available_timezones():
        yield f"fba_timezone is {timezone!r}: allowed are names of the IANA database, such as UTC or Europe/Berlin"
    if "fba_subnet" in values:
        yield from _check_subnet(values["fba_subnet"], values.get("fba_server_replicas", 1) if "server" in services else 0)
    for secret, least in SECRETS.items():
        value = values.get(secret)
        if value is not None and len(value) < least:
            yield f"{secret} has {len(value)} characters: allowed are {least} or more; leave it out to have one generated"
    if values.get("fba_image_source") == "distro":
        for service, version in DISTRO_VERSIONS.items():
            variable = f"fba_{service}_version"
            if values.get(variable, version) != version:
                yield (
                    f"{variable} is {values[variable]}: images built from Debian 13 packages have {version};"
                    " leave it out, or set fba_image_source to registry"
                )
    if "worker" in services and "worker_pools" in values:
        pools = [pool["name"] for pool in values["worker_pools"]]
        if not pools:
            yield "worker_pools is empty: at least one pool is needed, or nothing consumes"
        for pool in sorted(set(pools)):
            if pools.count(pool) > 1:
                yield f"worker_pools has the name {pool!r} {pools.count(pool)} times: names must differ"
            if not re.fullmatch(r"[A-Za-z0-9_-]+", pool):
                yield f"worker_pools has the name {pool!r}: allowed are letters, digits, underscores and dashes"
    for name in ("fba_server_replicas", "worker_replicas"):
        if values.get(name, 1) < 1:
            yield f"{name} is {values[name]}: allowed are 1 or more"
    if "nginx" in services:
        yield from _check_routes(values.get("fba_app_routes", []))
        if values.get("nginx_https_port") and not (values.get("nginx_certificate") and values.get("nginx_certificate_key")):
            yield f"nginx_https_port is {values['nginx_https_port']}: it needs nginx_certificate and nginx_certificate_key, which are empty"


def _check_routes(routes: list[dict[str, Any]]) -> Iterator[str]:
    """Refuse routes that nginx would not take, or would take for something else."""
    paths = [route["path"] for route in routes]
    for path in sorted(set(paths)):
        if paths.count(path) > 1:
            yield f"fba_app_routes has the path {path!r} {paths.count(path)} times: paths must differ"
        if not re.fullmatch(r"/[A-Za-z0-9._~/%-]*", path):
            yield f"fba_app_routes has the path {path!r}: a path begins with / and has no spaces or quotes"
    for route in routes:
        path, to = route["path"], route["to"]
        # Else `/media../` would be the folder above
        if to in ("static", "upload") and not path.endswith("/"):
            yield f"fba_app_routes has the path {path!r} to {to}: the path of a folder ends with /"
        if route.get("internal") and to != "upload":
            yield f"fba_app_routes has the path {path!r} to {to} with internal: only a path to upload can be internal"
        if not route.get("buffering", True) and to not in ("server", "flower"):
            yield f"fba_app_routes has the path {path!r} to {to} without buffering: that is for paths to server and flower"


def _check_subnet(subnet: str, replicas: int) -> Iterator[str]:
    """Refuse a subnet that is no private one, or too small for what gets an address in it."""
    try:
        network = ipaddress.IPv4Network(subnet)
    except ValueError as error:
        yield f"fba_subnet is {subnet!r}: it must be an IPv4 subnet such as 172.30.10.0/24 ({error})"
        return
    room = network.num_addresses // 2 - FIRST_REPLICA
    if not any(network.subnet_of(private) for private in PRIVATE):
        yield f"fba_subnet is {subnet}: allowed are subnets of 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16"
    elif network.prefixlen > 26:
        yield f"fba_subnet is {subnet}: it must have room for 64 addresses, so its prefix is /26 or shorter"
    elif replicas > room:
        yield f"fba_server_replicas is {replicas}: allowed are 1 to {room}, which fba_subnet, {subnet}, has addresses for"


def check_source(values: dict[str, Any], connection: str) -> Iterator[str]:
    """Refuse to mount a source that the host does not have."""
    if values.get("fba_app_mount_source") and connection != "local":
        yield (
            f"fba_app_mount_source is True: the source is on the controller, and this host is reached by {connection};"
            " it is for a host whose ansible_connection is local"
        )


def check_timeouts(values: dict[str, Any], services: list[str]) -> Iterator[str]:
    """Refuse a timeout that kills what it should wait for."""
    for service, chain in TIMEOUT_CHAINS:
        if service not in services:
            continue
        for inner, outer in pairwise(chain):
            first, second = values.get(inner), values.get(outer)
            if first is not None and second is not None and first >= second:
                yield f"{inner} is {first} and {outer} is {second}: {inner} must be the smaller one"


def published_ports(values: dict[str, Any], services: list[str]) -> list[tuple[str, int]]:
    """Return (variable, port) of every port that the stack publishes on the host."""
    ports = []
    for service in services:
        for variable in PORTS.get(service, ()):
            port = values.get(variable, 0)
            if port == 0:
                continue
            count = values.get("fba_server_replicas", 1) if variable == "server_publish_port" else 1
            ports += [(variable, port + index) for index in range(count)]
    return ports


def check_ports(values: dict[str, Any], services: list[str], listening: list[int]) -> Iterator[str]:
    """Refuse a port that is impossible, wanted twice, or taken by something that is not the stack's."""
    users: dict[int, str] = {}
    if "nginx" in services and values.get("nginx_http_port") == 0:
        yield "nginx_http_port is 0: the stack needs its public door; allowed are 1 to 65535"
    for variable, port in published_ports(values, services):
        if not 0 < port < 65536:
            yield f"{variable} is {port}: allowed are 1 to 65535, and 0 to publish none"
        elif port in users:
            yield f"{variable} is {port}, and so is {users[port]}: two services cannot share a port"
        elif port in listening:
            yield f"{variable} is {port}: something else on the host listens there; stop it, or choose another port"
        users.setdefault(port, variable)


def check_resources(values: dict[str, Any], services: list[str], state: dict[str, Any]) -> Iterator[str]:
    """Refuse a host that is too small, and limits that are more than it has."""
    for variable, have, what in (
        ("host_minimum_memory", state["memory"], "memory"),
        ("host_minimum_disk", state["disk_free"], "free disk space for Docker"),
    ):
        if variable not in values:
            continue
        least = _bytes(values[variable])
        if least is None:
            yield f"{variable} is {values[variable]!r}: allowed are a number and a unit, such as 2g"
        elif have < least:
            yield f"{variable} is {values[variable]}: the host has {have / 2**30:.1f} GiB of {what}; give it more, or lower the variable"
    for service in services:
        variable = f"{service}_memory"
        if variable not in values:
            continue
        limit = _bytes(values[variable])
        if limit is None:
            yield f"{variable} is {values[variable]!r}: allowed are a number and a unit, such as 512m"
        elif limit > state["memory"]:
            yield f"{variable} is {values[variable]}: the host has only {state['memory'] / 2**30:.1f} GiB of memory"


def check_volumes(values: dict[str, Any], services: list[str], state: dict[str, Any]) -> Iterator[str]:
    """Refuse a data volume that another major version of PostgreSQL has written."""
    if "postgres" not in services or "fba_postgres_version" not in values:
        return
    wanted = values["fba_postgres_version"].partition(".")[0].partition("-")[0]
    for volume, version in state["postgres_versions"].items():
        if version != wanted:
            yield (
                f"fba_postgres_version is {values['fba_postgres_version']}: the volume {volume} was written by PostgreSQL {version}, which"
                f" only {version} opens; take an image of PostgreSQL {version}, or bring the data over with a dump"
            )


def check(
    values: dict[str, Any],
    services: list[str],
    facts: dict[str, Any],
    state: dict[str, Any],
    groups: dict[str, list[str]],
    connection: str,
) -> list[str]:
    """Return every reason for which this host cannot be deployed to.

    `values` are the effective variables that have the right type, `services` the groups that the host is in, `facts` ansible's, `state`
    what the module fba.stack.host_state has returned, `groups` the inventory's, `connection` how ansible reaches the host.
    """
    return [
        *check_distribution(facts),
        *check_groups(groups),
        *check_values(values, services),
        *check_source(values, connection),
        *check_timeouts(values, services),
        *check_ports(values, services, state["listening"]),
        *check_resources(values, services, state),
        *check_volumes(values, services, state),
    ]
