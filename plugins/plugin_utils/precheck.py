# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to hold before anything is touched, beyond each variable's own type.

Every check takes the effective values of the variables and returns sentences, each naming the variable, its value and what is allowed.
"""

from __future__ import annotations

import ipaddress
import re
import zoneinfo
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.text.formatters import human_to_bytes
from ansible.module_utils.errors import UnsupportedError

from ansible_collections.fba.stack.plugins.filter.application import process_names
from ansible_collections.fba.stack.plugins.filter.backup import backup_place
from ansible_collections.fba.stack.plugins.filter.fleet import SERVICES
from ansible_collections.fba.stack.plugins.filter.network import FIRST_REPLICA, gateway
from ansible_collections.fba.stack.plugins.plugin_utils.hosts import ANY, LOOPBACK, Fleet, interfaces, listed, overlap, usable
from ansible_collections.fba.stack.plugins.plugin_utils.upgrade import is_kept

DATA = ("postgres", "redis", "rabbitmq")
SINGLE = ("postgres", "redis", "rabbitmq", "flower")
# What is made from the application's image
APPLICATION = ("server", "worker", "beat")
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
    "fba_backup_passphrase": 32,
}
# What Debian 13 packages
DISTRO_VERSIONS = {"postgres": "17", "redis": "8.0", "rabbitmq": "4.0", "nginx": "1.26", "registry": "2.8", "python": "3.13"}
# Variables whose value, or a part of it, may be a secret: no sentence has it
HIDDEN = re.compile(r"_(password|passphrase|secret|key|env|settings)$")
# Each must be smaller than the next: what is inside ends by itself before what is around it kills it
TIMEOUT_CHAINS = (
    ("server", ("server_workers_kill_timeout", "server_stop_wait", "server_stop_timeout")),
    ("worker", ("fba_task_time_limit", "worker_stop_wait", "worker_stop_timeout")),
    ("rabbitmq", ("fba_task_time_limit", "rabbitmq_consumer_timeout")),
    ("beat", ("beat_stop_wait", "beat_stop_timeout")),
    ("flower", ("flower_stop_wait", "flower_stop_timeout")),
)
# Variable to the smallest number that works
LEAST = {
    "fba_server_replicas": 1,
    "worker_replicas": 1,
    # To nginx, zero is for ever
    "nginx_drain_timeout": 1,
    # Two serve while one takes over from the other
    "nginx_static_releases": 2,
    "nginx_maintenance_retry_after": 1,
    "fba_backup_keep_number": 1,
    "fba_backup_keep_days": 0,
    "backup_full_days": 1,
    "backup_max_age": 1,
    "postgres_backup_processes": 1,
    "postgres_archive_timeout": 1,
}
# Where 0 publishes none
PORTS = {
    "postgres": ("postgres_publish_port",),
    "redis": ("redis_publish_port",),
    "rabbitmq": ("rabbitmq_publish_port", "rabbitmq_publish_management_port"),
    "server": ("server_publish_port",),
    "flower": ("flower_publish_port",),
    "nginx": ("nginx_http_port", "nginx_https_port"),
}
# On the private address, for clients on other hosts
PEER_PORTS = {"server": "fba_server_peer_port", "flower": "fba_flower_port"}
FIXED_PORTS = {"postgres": 5432, "redis": 6379, "rabbitmq": 5671}
REGISTRY_PORT = "fba_registry_port"
REQUIRED_PORTS = ("nginx_http_port", *PEER_PORTS.values(), REGISTRY_PORT)
# One for each replica, counted up
REPLICA_PORTS = ("server_publish_port", "fba_server_peer_port")
# Seconds that a host's clock may be away from the controller's
CLOCK_TOLERANCE = 5
# Beside the inventory, unless they are told to be elsewhere
VAULT_FILES = ("fba_secrets_file", "certificates_file")
ADDRESS = "an IPv4 address at which the other hosts reach it, and none that is loopback, multicast or unspecified"


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


def check_groups(fleet: Fleet) -> Iterator[str]:
    """Refuse a group without a host, and a second host where only one can be."""
    for service in SERVICES:
        hosts, gone = fleet.members(service), [host for host in fleet.groups.get(service, []) if host in fleet.leaving]
        if not hosts and gone:
            yield f"group {service} has no host but {listed(gone)}, which fba_leaving takes out: put another one into it"
        elif not hosts:
            yield f"group {service} has no host: put one into it"
        elif service in SINGLE and len(hosts) > 1:
            yield f"group {service} has {len(hosts)} hosts ({', '.join(hosts)}): exactly one is allowed"


def check_inventory(homeless: Sequence[str]) -> Iterator[str]:
    """Refuse an inventory that is no file and no folder, because what is made for it would have no place."""
    if homeless:
        yield (
            f"inventory_dir is not set, so {listed(homeless)} would have no place beside the inventory: use an inventory that is a file or"
            f" a folder and no list of hosts, or set {listed(homeless)}"
        )


def check_build_host(fleet: Fleet) -> Iterator[str]:
    """Refuse to build the images on a host that is not the stack's."""
    if fleet.build_host is not None and fleet.hosts and fleet.build_host not in fleet.hosts:
        yield f"fba_build_host is {fleet.build_host!r}: allowed are the stack's hosts: {', '.join(fleet.hosts)}"


def check_private_address(fleet: Fleet, facts: dict[str, Any]) -> Iterator[str]:
    """Refuse an address of this host at which others would not find it. None has its own sentence already."""
    address = fleet.address
    own = facts.get("all_ipv4_addresses", [])
    has = f"the host has {listed(own) if own else 'none'}"
    twins = [host for host in fleet.hosts if host != fleet.host and fleet.addresses.get(host) == address]
    if address == "":
        if len(fleet.hosts) > 1:
            yield (
                f"fba_private_address is not set: the stack is on {len(fleet.hosts)} hosts ({', '.join(fleet.hosts)}), which reach each"
                f" other by it; {has}"
            )
    elif address is None:
        return
    elif not usable(address):
        yield f"fba_private_address is {address!r}: allowed is {ADDRESS}; {has}"
    elif address not in own:
        yield f"fba_private_address is {address}: {has}; allowed is one of these"
    elif twins:
        yield f"fba_private_address is {address}, and so is that of {listed(twins)}: each host has its own"


def check_neighbours(fleet: Fleet) -> Iterator[str]:
    """Refuse when this host could not find another one. One that is in the run speaks for itself."""
    needed = fleet.needed()
    for other in fleet.hosts:
        if other == fleet.host or other in fleet.reached:
            continue
        name, address = f"fba_private_address of {other}", fleet.addresses.get(other)
        why = f"{fleet.host} needs it to reach {listed(needed[other])}" if other in needed else ""
        if address is None:
            # Every host reads all addresses, needed or not
            yield f"{name} cannot be evaluated: {other} is not in this run; give it as an address, or run on {other} too"
        elif why and not address:
            yield f"{name} is not set: {why}"
        elif why and not usable(address):
            yield f"{name} is {address!r}: {why}; allowed is {ADDRESS}"


def check_reached(fleet: Fleet) -> Iterator[str]:
    """Refuse what depends on a data service whose host fell out of this run."""
    for other, services in fleet.needed().items():
        data = [service for service in services if service in DATA]
        if data and other in fleet.asked and other not in fleet.reached:
            # Who is refused leaves the run as well, and ansible may notice before it asks the next host
            yield f"{other}, the host of {listed(data)}, was not reached or was refused itself: what depends on it stops here"


def is_timezone(name: str) -> bool:
    """Return whether this is the name of a time zone. A list of them all takes a twentieth of a second, for each host."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def check_values(values: dict[str, Any], services: list[str]) -> Iterator[str]:
    """Refuse values that have the right type and yet cannot work. Those that have not are not among `values`."""
    name = values.get("fba_name", "fba")
    # What Docker takes for the name of an image too
    if not re.fullmatch(r"(?=.{1,31}$)[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        yield f"fba_name is {name!r}: allowed are 1 to 31 lower-case letters and digits, single underscores between them, a letter first"
    if values.get("fba_app_user", 1) < 1:
        yield f"fba_app_user is {values['fba_app_user']}: allowed are 1 or more, because no container runs as root"
    timezone = values.get("fba_timezone", "UTC")
    if not is_timezone(timezone):
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
        # Of each process, which are numbered from the second one on
        pools = [name for pool in values["worker_pools"] for name in process_names(pool)]
        if not pools:
            yield "worker_pools is empty: at least one pool is needed, or nothing consumes"
        for pool in sorted(set(pools)):
            if pools.count(pool) > 1:
                yield f"worker_pools has the name {pool!r} {pools.count(pool)} times: names must differ"
            if not re.fullmatch(r"[A-Za-z0-9_-]+", pool):
                yield f"worker_pools has the name {pool!r}: allowed are letters, digits, underscores and dashes"
        for pool in values["worker_pools"]:
            if pool.get("processes", 1) < 1:
                yield f"worker_pools has {pool['processes']} processes for {pool['name']!r}: allowed are 1 or more"
            if not 0 <= pool.get("nice", 0) <= 19:
                yield f"worker_pools has nice {pool['nice']} for {pool['name']!r}: allowed are 0 to 19"
    if "beat" in services:
        programs = ["beat", *(program["name"] for program in values.get("beat_programs", []))]
        for program in sorted(set(programs)):
            if programs.count(program) > 1:
                yield f"beat_programs has the name {program!r}: names must differ, from each other and from beat"
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", program):
                yield f"beat_programs has the name {program!r}: allowed are 1 to 40 letters, digits, underscores and dashes"
    for name, least in LEAST.items():
        if values.get(name, least) < least:
            yield f"{name} is {values[name]}: allowed are {least} or more"
    if "nginx" in services:
        yield from _check_routes(values.get("fba_app_routes", []))
        if values.get("nginx_https_port") and not (values.get("nginx_certificate") and values.get("nginx_certificate_key")):
            yield f"nginx_https_port is {values['nginx_https_port']}: it needs nginx_certificate and nginx_certificate_key, which are empty"
        yield from _check_maintenance(values)


def check_backups(values: dict[str, Any]) -> Iterator[str]:
    """Refuse a place for backups that is none, or that lacks what it takes to get there, and times that are none."""
    for text in values.get("backup_times", []):
        if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text):
            yield f"backup_times has {text!r}: allowed are times of the day such as 03:30, in quotes"
    if not values.get("backup_times", ["03:30"]):
        yield "backup_times is empty: at least one time is needed; leave it out for 03:30"
    if "fba_backup_place" not in values:
        return
    try:
        place = backup_place(values["fba_backup_place"])
    except AnsibleFilterError as error:
        yield str(error)
        return
    needed = {"sftp": ("fba_backup_ssh_key", "fba_backup_ssh_known_hosts"), "s3": ("fba_backup_s3_access_key", "fba_backup_s3_secret_key")}
    for name in needed.get(place["kind"], ()):
        if not values.get(name, "-"):
            yield f"fba_backup_place is {values['fba_backup_place']!r}: it needs {name}, which is empty"
    if not re.fullmatch(r"[0-9]+(B|[KMGTP](iB|B)?)?", values.get("postgres_archive_queue_max", "1GiB")):
        yield f"postgres_archive_queue_max is {values['postgres_archive_queue_max']!r}: allowed are sizes such as 4GiB"


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


def _check_maintenance(values: dict[str, Any]) -> Iterator[str]:
    """Refuse exceptions from maintenance that nginx would not take, or would take for something else."""
    for path in values.get("nginx_maintenance_paths", []):
        if not re.fullmatch(r'/[^\s"\\\x00-\x1f]*', path):
            yield f"nginx_maintenance_paths has {path!r}: a path begins with / and has no spaces, double quotes or backslashes"
    for text in values.get("nginx_maintenance_allow", []):
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            yield f"nginx_maintenance_allow has {text!r}: allowed are addresses and networks such as 203.0.113.0/24 ({error})"
    if not values.get("nginx_maintenance_page", "-").strip():
        yield "nginx_maintenance_page is empty: browsers need something to show; leave it out to have the page that is there"


def _check_subnet(subnet: str, replicas: int) -> Iterator[str]:
    """Refuse a subnet that is no private one, or too small for what gets an address in it."""
    try:
        network = ipaddress.IPv4Network(subnet)
    except ValueError as error:
        yield f"fba_subnet is {subnet!r}: it must be an IPv4 subnet such as 172.30.10.0/24 ({error})"
        return
    # One is for the spare that serves while they are replaced
    room = network.num_addresses // 2 - FIRST_REPLICA - 1
    if not any(network.subnet_of(private) for private in PRIVATE):
        yield f"fba_subnet is {subnet}: allowed are subnets of 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16"
    elif network.prefixlen > 26:
        yield f"fba_subnet is {subnet}: it must have room for 64 addresses, so its prefix is /26 or shorter"
    elif replicas > room:
        yield f"fba_server_replicas is {replicas}: allowed are 1 to {room}, which fba_subnet, {subnet}, has addresses for"


def check_networks(subnet: str, fleet: Fleet, facts: dict[str, Any], state: dict[str, Any]) -> Iterator[str]:
    """Refuse a subnet in which hosts already are: what is meant for them would go to containers."""
    try:
        network = ipaddress.IPv4Network(subnet)
        bridge = ipaddress.IPv4Interface(f"{gateway(subnet)}/{network.prefixlen}")
    except (ValueError, IndexError):
        # No subnet, or none with two addresses: refused already
        return
    # By name where the engine tells it, because the stack's network may be about to get another subnet
    others = (
        (name, interface.network)
        for name, interface in interfaces(facts)
        if (name != state["bridge"] if state["engine"] else interface != bridge)
    )
    for name, other in dict.fromkeys(others):
        if other.overlaps(network):
            yield f"fba_subnet is {subnet}: {name} of the host is in {other}, which overlaps; take another one"
    addresses = {host: fleet.addresses.get(host) or "" for host in fleet.hosts}
    inside = [f"{host} ({text})" for host, text in addresses.items() if usable(text) and ipaddress.IPv4Address(text) in network]
    if inside:
        yield f"fba_subnet is {subnet}: inside is fba_private_address of {listed(inside)}; take another one"


def check_storage(values: dict[str, Any], fleet: Fleet) -> Iterator[str]:
    """Refuse to keep files in a folder that not all who need it have."""
    hosts = fleet.members("server", "worker", "nginx")
    if values.get("fba_app_storage") == "volume" and len(hosts) > 1:
        yield (
            f"fba_app_storage is volume: server, worker and nginx are on {len(hosts)} hosts ({', '.join(hosts)}), which share no folder;"
            " allowed are postgres and s3, where the files are for all, and none where the application keeps no files"
        )


def check_images(values: dict[str, Any], fleet: Fleet) -> Iterator[str]:
    """Refuse images by digest where they go through the stack's registry: Docker gives no image a name with a digest."""
    if len(fleet.hosts) < 2:
        return
    for name in ("postgres", "redis", "rabbitmq", "nginx", "app", "flower"):
        image = values.get(f"fba_{name}_image", "")
        if "@" in image:
            yield f"fba_{name}_image is {image}: on several hosts it needs a tag and no digest; the stack records its digest by itself"


def check_source(values: dict[str, Any], fleet: Fleet, connection: str) -> Iterator[str]:
    """Refuse to mount a source that the host, or another one, does not have."""
    if not values.get("fba_app_mount_source"):
        return
    if connection != "local":
        yield (
            f"fba_app_mount_source is True: the source is on the controller, and this host is reached by {connection};"
            " it is for a host whose ansible_connection is local"
        )
    if len(fleet.hosts) > 1:
        yield (
            f"fba_app_mount_source is True: the stack is on {len(fleet.hosts)} hosts ({', '.join(fleet.hosts)});"
            " it is for a stack on one host"
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


class Published(NamedTuple):
    """A port that the stack publishes on the host. One that nobody chooses has no variable."""

    variable: str
    address: str
    port: int
    service: str

    @property
    def name(self) -> str:
        """What to call it."""
        return self.variable or f"the port of {self.service} on fba_private_address"

    @property
    def given(self) -> str:
        """What it is, for the beginning of a sentence."""
        if self.variable:
            return f"{self.variable} is {self.port}"
        return f"port {self.port} of {self.service} on fba_private_address" + (f", {self.address}" if self.address else "")


def published_ports(values: dict[str, Any], fleet: Fleet) -> list[Published]:
    """Return every port that the stack publishes on this host, those without a variable first."""
    # A host that lacks the address is told so elsewhere; its ports are still looked at
    private = fleet.address or ""
    wanted = []
    for service in fleet.services:
        address = (values.get("nginx_publish_address") or ANY) if service == "nginx" else LOOPBACK
        wanted += [(variable, address, service) for variable in PORTS.get(service, ()) if values.get(variable, 0) != 0]
        if service in PEER_PORTS and fleet.publishes(service):
            wanted.append((PEER_PORTS[service], private, service))
    if fleet.offers_registry:
        wanted.append((REGISTRY_PORT, private, "registry"))
    ports = [Published("", private, port, service) for service, port in FIXED_PORTS.items() if fleet.publishes(service)]
    for variable, address, service in wanted:
        if variable in values:
            count = values.get("fba_server_replicas", 1) if variable in REPLICA_PORTS else 1
            # And one for the spare that serves while they are replaced
            count += variable == PEER_PORTS["server"]
            ports += [Published(variable, address, values[variable] + index, service) for index in range(count)]
    return ports


def check_ports(values: dict[str, Any], fleet: Fleet, listening: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Refuse a port that is impossible, wanted twice, or taken by something that is not the stack's.

    `listening` are address and port of each listener.
    """
    if "nginx" in fleet.services and values.get("nginx_http_port") == 0:
        yield "nginx_http_port is 0: the stack needs its public door; allowed are 1 to 65535"
    taken = [(address, port) for address, port in listening]
    users: list[Published] = []
    for wanted in published_ports(values, fleet):
        twin = next((user for user in users if user.port == wanted.port and overlap(user.address, wanted.address)), None)
        if not 0 < wanted.port < 65536:
            yield f"{wanted.given}: allowed are 1 to 65535{'' if wanted.variable in REQUIRED_PORTS else ', and 0 to publish none'}"
        elif twin:
            yield f"{wanted.given}, and so is {twin.name}: two services cannot share a port"
        elif any(port == wanted.port and overlap(address, wanted.address) for address, port in taken):
            instead = "choose another port" if wanted.variable else "choose another address"
            yield f"{wanted.given}: something else on the host listens there; stop it, or {instead}"
        users.append(wanted)


def check_clock(clock: float, before: float, after: float) -> Iterator[str]:
    """Refuse a host whose clock is not the controller's, which was read before and after the host's."""
    ahead, behind = clock - after, before - clock
    if max(ahead, behind) > CLOCK_TOLERANCE:
        yield (
            f"the clock of the host is {max(ahead, behind):.0f} s {'ahead of' if ahead > behind else 'behind'} the controller's: more than"
            f" {CLOCK_TOLERANCE} s apart, certificates and schedules go wrong; set up time synchronisation (for instance systemd-timesyncd)"
            " on both"
        )


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


def warn_of_room(state: dict[str, Any]) -> Iterator[str]:
    """Tell of a host that may have no room for another release: for its image, and as much again while it arrives or is built.

    The present image stands for the next one. A first deploy has none: `host_minimum_disk` is for that.
    """
    images = {container["image"] for container in state["containers"].values() if container["service"] in APPLICATION}
    need = 2 * max((state["image_sizes"].get(image, 0) for image in images), default=0)
    if state["disk_free"] < need:
        yield (
            f"a release may need {need / 2**30:.1f} GiB where Docker keeps its data, twice the size of the application's image, and the"
            f" host has {state['disk_free'] / 2**30:.1f} GiB free: give it more, or keep fewer releases (release_keep)"
        )


def warn_of_strangers(values: dict[str, Any], fleet: Fleet) -> Iterator[str]:
    """Tell of a host whose published ports are open to everybody, because its packet filter was turned off."""
    published = [service for service in fleet.services if fleet.publishes(service)] + (["registry"] if fleet.offers_registry else [])
    if published and values.get("host_firewall") is False:
        yield (
            f"host_firewall is false, so anybody who reaches {fleet.address} can knock at what it publishes there ({', '.join(published)})."
            " Without a certificate of the stack nobody gets further"
        )


def check_volumes(values: dict[str, Any], services: list[str], state: dict[str, Any]) -> Iterator[str]:
    """Refuse a data volume that another major version of PostgreSQL has written, and an upgrade of it that was interrupted."""
    if "postgres" not in services or "fba_postgres_version" not in values:
        return
    name = values.get("fba_name", "fba")
    for container in state["containers"]:
        if is_kept(name, container):
            yield (
                f"the container {container} is there: an upgrade of PostgreSQL was interrupted, and the volume {container} has the data;"
                " run upgrade.yml (make upgrade), which puts it back first"
            )
    # What is there goes on with its image, whatever is wanted
    if values.get("fba_postgres_host", f"{name}_postgres") in state["containers"]:
        return
    wanted = values["fba_postgres_version"].partition(".")[0].partition("-")[0]
    for volume, version in state["postgres_versions"].items():
        if version != wanted:
            yield (
                f"fba_postgres_version is {values['fba_postgres_version']}: the volume {volume} was written by PostgreSQL {version}, which"
                f" only {version} opens; take an image of PostgreSQL {version}, and bring the data over with upgrade.yml (make upgrade)"
            )


def check(
    values: dict[str, Any],
    fleet: Fleet,
    *,
    facts: dict[str, Any],
    state: dict[str, Any],
    connection: str,
    window: tuple[float, float],
    homeless: Sequence[str] = (),
) -> list[str]:
    """Return every reason for which this host cannot be deployed to.

    `values` are the effective variables that have the right type, `fleet` the hosts, `facts` ansible's, `state` what the module
    fba.stack.host_state has returned, `connection` how ansible reaches the host, `window` the controller's time before and after it asked
    for the state, `homeless` the vault files that have no folder.
    """
    services = fleet.services
    problems = [*check_groups(fleet), *check_inventory(homeless), *check_build_host(fleet), *check_values(values, services)]
    # Nothing is started on a host that leaves
    if not services:
        return problems
    return [
        *check_distribution(facts),
        *problems,
        *check_private_address(fleet, facts),
        *check_neighbours(fleet),
        *check_reached(fleet),
        *(check_networks(values["fba_subnet"], fleet, facts, state) if "fba_subnet" in values else ()),
        *check_storage(values, fleet),
        *check_images(values, fleet),
        *check_source(values, fleet, connection),
        *check_timeouts(values, services),
        *check_backups(values),
        *check_ports(values, fleet, state["listening"]),
        *check_clock(state["clock"], *window),
        *check_resources(values, services, state),
        *check_volumes(values, services, state),
    ]
