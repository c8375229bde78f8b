# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Addresses inside the stack's network."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

# The upper half of the subnet is Docker's to hand out; these are counted up from the gateway in the lower half
NGINX = 10
FIRST_REPLICA = 11


def replica_addresses(subnet: str, count: int) -> list[str]:
    """Return the fixed IPv4 addresses of `count` server replicas, the first replica's first."""
    network = ipaddress.ip_network(subnet)
    if FIRST_REPLICA + int(count) > network.num_addresses // 2:
        raise AnsibleFilterError(f"fba_subnet {subnet} has no room for {count} server replicas: take a larger one")
    return [str(network[FIRST_REPLICA + index]) for index in range(int(count))]


def gateway(subnet: str) -> str:
    """Return the host's own address in the network: the first of the lower half, where Docker hands out none."""
    return str(ipaddress.ip_network(subnet)[1])


def nginx_address(subnet: str) -> str:
    """Return nginx's fixed address in the network: the one that the packet filter lets everybody in to."""
    return str(ipaddress.ip_network(subnet)[NGINX])


def dynamic_range(subnet: str) -> str:
    """Return the half of the subnet that Docker hands out to containers without a fixed address."""
    return str(list(ipaddress.ip_network(subnet).subnets(prefixlen_diff=1))[1])


class FilterModule:
    """Filters on the network."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "dynamic_range": dynamic_range,
            "gateway": gateway,
            "nginx_address": nginx_address,
            "replica_addresses": replica_addresses,
        }
