# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The hosts of the stack and of this run, as one of them sees them before anything is touched."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fba.stack.plugins.filter.fleet import CLIENTS, SERVICES, members, stack_hosts

ANY = "0.0.0.0"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Fleet:
    """Who is where, and who is in this run.

    `addresses` is host to its `fba_private_address`: an empty text where it is not set, None where it has no value that is one. `asked` are
    the hosts that this run is for, `reached` those of them that are still in it.
    """

    host: str
    groups: Mapping[str, list[str]]
    leaving: Sequence[str] = ()
    build_host: str | None = None
    addresses: Mapping[str, str | None] = field(default_factory=dict)
    asked: Sequence[str] = ()
    reached: Sequence[str] = ()

    @property
    def hosts(self) -> list[str]:
        """Every host of the stack."""
        return stack_hosts(self.groups, self.leaving)

    @property
    def services(self) -> list[str]:
        """The services of this host."""
        return [service for service in SERVICES if self.host in self.members(service)]

    @property
    def address(self) -> str | None:
        """This host's own private address."""
        return self.addresses.get(self.host)

    @property
    def offers_registry(self) -> bool:
        """Whether the other hosts have their images from this one."""
        return self.host == self.build_host and len(self.hosts) > 1

    def members(self, *services: str) -> list[str]:
        """Return the hosts of the services, each once."""
        return list(dict.fromkeys(host for service in services for host in members(self.groups, service, self.leaving)))

    def publishes(self, service: str) -> bool:
        """Return whether this host offers a service on its private address, because a client is on another host."""
        return service in self.services and any(host != self.host for host in self.members(*CLIENTS.get(service, ())))

    def needed(self) -> dict[str, list[str]]:
        """Return other host to what this host reaches there."""
        found: dict[str, list[str]] = {}
        for service, clients in CLIENTS.items():
            if self.host in self.members(*clients):
                for owner in self.members(service):
                    found.setdefault(owner, []).append(service)
        if self.build_host in self.hosts:
            found.setdefault(str(self.build_host), []).append("the registry")
        found.pop(self.host, None)
        return found


def listed(names: Iterable[str]) -> str:
    """Return names as a sentence has them: `a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def usable(address: str) -> bool:
    """Return whether a text is an IPv4 address at which other hosts could reach one."""
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast)


def overlap(one: str, other: str) -> bool:
    """Return whether two listeners on these addresses could not have the same port."""
    return one == other or ANY in (one, other)


def interfaces(facts: Mapping[str, Any]) -> Iterator[tuple[str, ipaddress.IPv4Interface]]:
    """Return (name, address with its network) of every IPv4 address that ansible's facts know on the host."""
    for name in facts.get("interfaces", []):
        # Facts are variables, so their names have no dashes
        about = facts.get(name.replace("-", "_"), {})
        for entry in [about.get("ipv4"), *about.get("ipv4_secondaries", [])]:
            if entry:
                yield name, ipaddress.IPv4Interface(f"{entry['address']}/{entry.get('prefix') or entry['netmask']}")
