"""Addresses inside the stack's network."""

from __future__ import annotations

import ipaddress

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.fba.stack.plugins.filter.network import dynamic_range, gateway, nginx_address, replica_addresses


def test_addresses_count_up_and_stay_when_replicas_are_added() -> None:
    assert replica_addresses("172.30.10.0/24", 2) == ["172.30.10.11", "172.30.10.12"]
    assert replica_addresses("172.30.10.0/24", 5)[:2] == replica_addresses("172.30.10.0/24", 2)
    assert replica_addresses("172.30.10.0/24", 0) == []


@pytest.mark.parametrize(("subnet", "most"), [("10.1.0.0/26", 21), ("10.1.0.0/24", 117)])
def test_replicas_fill_the_lower_half_and_never_meet_docker(subnet: str, most: int) -> None:
    docker = ipaddress.ip_network(dynamic_range(subnet))
    addresses = [ipaddress.ip_address(address) for address in replica_addresses(subnet, most)]
    assert addresses[-1] + 1 == docker[0]
    assert all(address in ipaddress.ip_network(subnet) for address in addresses)
    with pytest.raises(AnsibleFilterError, match=rf"fba_subnet {subnet} has no room for {most + 1}"):
        replica_addresses(subnet, most + 1)


def test_docker_hands_out_the_upper_half() -> None:
    assert dynamic_range("172.30.10.0/24") == "172.30.10.128/25"


@pytest.mark.parametrize(("subnet", "most"), [("10.1.0.0/26", 21), ("172.30.10.0/24", 117), ("172.30.0.0/16", 3000)])
def test_the_fixed_addresses_are_nobody_elses(subnet: str, most: int) -> None:
    """The packet filter lets strangers in to nginx's alone, so it must not be another container's."""
    network = ipaddress.ip_network(subnet)
    fixed = [gateway(subnet), nginx_address(subnet), *replica_addresses(subnet, most)]
    assert len(set(fixed)) == len(fixed)
    docker = ipaddress.ip_network(dynamic_range(subnet))
    for text in fixed:
        assert ipaddress.ip_address(text) in network
        assert ipaddress.ip_address(text) not in docker
        assert ipaddress.ip_address(text) != network.network_address


def test_the_hosts_own_address_is_the_first() -> None:
    assert gateway("172.30.10.0/24") == "172.30.10.1"
