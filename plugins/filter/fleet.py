# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is where: the inventory's groups, as one host of the stack sees them.

Everything comes from the inventory and nothing from the other hosts, so a run that is limited to one host knows as much as a run on all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.fba.stack.plugins.filter.network import replica_addresses
from ansible_collections.fba.stack.plugins.plugin_utils.once import once_for_each_task

# The groups of the inventory, in the order in which services start: what stands on what
SERVICES = ("postgres", "redis", "rabbitmq", "worker", "server", "beat", "flower", "nginx")
# Whose containers connect to each service; the server's are the application's migrations too
CLIENTS = {
    "postgres": ("server", "worker", "beat"),
    "redis": ("server", "worker", "beat", "flower"),
    "rabbitmq": ("server", "worker", "beat", "flower"),
    "server": ("nginx",),
    "flower": ("nginx",),
}
# The defaults of roles/common, which other hosts' variables do not have
REPLICAS = 1
PEER_PORT = 8001
SUBNET = "172.30.10.0/24"
SERVER_PORT = 8001


def members(groups: Mapping[str, list[str]], service: str, leaving: Iterable[str] = ()) -> list[str]:
    """Return the hosts of a service, in the inventory's order, without those that are leaving."""
    return [host for host in groups.get(service, []) if host not in leaving]


def stack_hosts(groups: Mapping[str, list[str]], leaving: Iterable[str] = ()) -> list[str]:
    """Return every host that has a service, each once."""
    return list(dict.fromkeys(host for service in SERVICES for host in members(groups, service, leaving)))


def crosses(groups: Mapping[str, list[str]], service: str, leaving: Iterable[str] = ()) -> bool:
    """Return whether some client of a service is on another host than some host of the service."""
    everyone = {host for name in (service, *CLIENTS[service]) for host in members(groups, name, leaving)}
    return len(everyone) > 1


def fleet(
    groups: Mapping[str, list[str]], hostvars: Mapping[str, Any], host: str, build_host: str, leaving: Iterable[str] = ()
) -> dict[str, Any]:
    """Return what `host` has to know of the stack's hosts.

    - `hosts`: the hosts of the stack; `alone`: whether there is only one
    - `services`: those of this host; `builds`: whether it is the build host
    - `addresses`: host to its private address, an empty text where it has none
    - `remote`: service to the private address of its host, for the services of one host that are not here
    - `published`: the services that this host offers on its private address, because a client is on another host
    - `peers`: the addresses that may reach what this host offers: those of all hosts, of none where it offers nothing
    - `asked`: the other hosts that offer something that this one needs: data services, the registry, for nginx the servers and Flower
    - `tls`: of `server` and `flower`, those that speak TLS, because nginx is on another host than one of them
    """
    leaving = list(leaving)
    key = ("fleet", host, build_host, *leaving)
    return once_for_each_task(key, lambda: _fleet(groups, hostvars, host, build_host, leaving))


def _fleet(groups: Mapping[str, list[str]], hostvars: Mapping[str, Any], host: str, build_host: str, leaving: list[str]) -> dict[str, Any]:
    hosts = stack_hosts(groups, leaving)
    addresses = {each: str(hostvars[each].get("fba_private_address") or "") for each in hosts}
    remote, published, asked = {}, [], [build_host]
    for service, clients in CLIENTS.items():
        owners = members(groups, service, leaving)
        if service != "server" and owners and host not in owners:
            remote[service] = addresses[owners[0]]
        if host in owners and any(members(groups, client, [*leaving, host]) for client in clients):
            published.append(service)
        if any(host in members(groups, client, leaving) for client in clients):
            asked += owners
    if host == build_host and len(hosts) > 1:
        published.append("registry")
    return {
        "hosts": hosts,
        "alone": len(hosts) == 1,
        "services": [service for service in SERVICES if host in members(groups, service, leaving)],
        "builds": host == build_host,
        "addresses": addresses,
        "remote": remote,
        "published": published,
        "peers": [address for address in addresses.values() if address] if published else [],
        "asked": [each for each in dict.fromkeys(asked) if each != host],
        "tls": [service for service in ("server", "flower") if crosses(groups, service, leaving)],
    }


def server_upstreams(
    groups: Mapping[str, list[str]],
    hostvars: Mapping[str, Any],
    host: str,
    leaving: Iterable[str] = (),
    rolling: Mapping[str, Any] | None = None,
) -> list[str]:
    """Return `address:port` of every replica of the server, as nginx on `host` reaches it.

    Those of the same host have fixed addresses in its network; those of others are published on their hosts' private addresses. `rolling`
    is what is other than usual while replicas are replaced: `host`, whether its `spare` serves, and the number, from 0, of the replica that
    is `away`, None for none.
    """
    rolling = rolling or {}
    found = []
    for owner in members(groups, "server", leaving):
        theirs = hostvars[owner]
        count = int(theirs.get("fba_server_replicas", REPLICAS))
        if owner == host:
            port = theirs.get("fba_server_port", SERVER_PORT)
            every = [f"{address}:{port}" for address in replica_addresses(theirs.get("fba_subnet", SUBNET), count + 1)]
        else:
            first = int(theirs.get("fba_server_peer_port", PEER_PORT))
            every = [f"{theirs['fba_private_address']}:{first + index}" for index in range(count + 1)]
        here = rolling if rolling.get("host") == owner else {}
        # The spare's slot is the one behind the last
        found += [address for index, address in enumerate(every) if (here.get("spare") if index == count else here.get("away") != index)]
    return found


def spare_upstream(hostvars: Mapping[str, Any], host: str, owner: str) -> str:
    """Return `address:port` of the spare replica of `owner`, as nginx on `host` reaches it."""
    return server_upstreams({"server": [owner]}, hostvars, host, (), {"host": owner, "spare": True})[-1]


def identities(
    groups: Mapping[str, list[str]],
    addresses: Mapping[str, str],
    build_host: str,
    leaving: Iterable[str],
    names: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Return `host/service` to what its certificate holds for: `names` (DNS) and `addresses` (IP), both empty for a mere client.

    `names` is service to the name that its clients know it by. On several hosts there are also `host`, which Docker shows to the registry,
    and `registry`.
    """
    leaving = list(leaving)
    hosts = stack_hosts(groups, leaving)
    wanted: dict[str, dict[str, Any]] = {}
    for host in hosts:
        for service in SERVICES:
            if host in members(groups, service, leaving):
                dns = [names[service], "localhost"] if service in names else []
                wanted[f"{host}/{service}"] = {"names": dns, "addresses": []}
        if len(hosts) > 1:
            wanted[f"{host}/host"] = {"names": [], "addresses": []}
            if host == build_host:
                wanted[f"{host}/registry"] = {"names": ["localhost"], "addresses": [addresses[host]]}
    return wanted


def removal_refusals(groups: Mapping[str, list[str]], host: str, build_host: str = "") -> list[str]:
    """Return why a host cannot be taken out of the stack, a sentence each.

    `build_host` is the one that the inventory names, if it does; where it does not, the first server that stays takes its place.
    """
    hosts = stack_hosts(groups)
    if host not in hosts:
        return [f"remove_host is {host!r}: allowed are {', '.join(hosts)}"]
    alone = [service for service in SERVICES if members(groups, service) == [host]]
    refusals = [f"remove_host is {host}, the only host of {service}: put another into the group first" for service in alone]
    if host == build_host:
        refusals.append(f"remove_host is {host}, and so is fba_build_host: name another one in the inventory first, and run site.yml")
    return refusals


class FilterModule:
    """Filters on the fleet."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "fleet": fleet,
            "identities": identities,
            "removal_refusals": removal_refusals,
            "server_upstreams": server_upstreams,
            "spare_upstream": spare_upstream,
        }
