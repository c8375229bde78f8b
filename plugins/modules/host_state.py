#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell what a host has that a stack may collide with, whether or not Docker is there already."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_state
short_description: Tell what a host has that a stack may collide with
version_added: 1.0.0
author: The fba.stack authors
description:
  - Reads listening ports, the clock, memory, free disk space, and, where a Docker engine answers, the stack's own ports, network and data
    volumes.
  - Needs nothing but Python on the host, and changes nothing.
options:
  stack:
    description: Name of the stack, whose containers to look for and whose own published ports are told apart. Empty looks for none.
    type: str
    default: ""
  network:
    description: Docker network whose bridge to look for.
    type: str
    default: ""
  volumes:
    description: Data volumes to look for.
    type: list
    elements: str
    default: []
  paths:
    description: Files and folders to look for, for who comes later in the run and needs no call of its own then.
    type: list
    elements: path
    default: []
  images:
    description: Names of images to look for, with a tag or a digest.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Look at the host
  fba.stack.host_state:
    stack: fba
    network: fba_network
    volumes: [fba_postgres]
"""

RETURN = r"""
ansible_facts:
  description:
    - C(fba_engine), the same as RV(engine).
    - C(processor_nproc), the number of processors that a process may use. M(ansible.builtin.setup) has it among the facts about hardware,
      which take longer.
    - With O(stack), C(fba_containers), the same as RV(containers), which a run keeps current; and C(fba_containers_before), the same,
      which stays as it is, for what a run replaces and why.
    - With O(paths), C(fba_paths), those of them that there are.
    - C(fba_images), those of O(images) that there are, name to C(RepoTags) and C(RepoDigests), as C(docker image inspect) shows them.
  type: dict
  returned: always
engine:
  description: Version of the Docker engine that answers, or an empty string.
  type: str
  returned: always
bridge:
  description: Name of the interface that the network has on the host, or an empty string where there is no such network.
  type: str
  returned: always
clock:
  description: The host's time in seconds since 1970.
  type: float
  returned: always
listening:
  description:
    - IPv4 address and TCP port of everything that listens, other than the stack's own containers. C(0.0.0.0) is any address.
    - The any, loopback and mapped addresses of IPv6 are given as those of IPv4. Other addresses of IPv6 are left out.
  type: list
  elements: list
  returned: always
  sample: [["0.0.0.0", 22], ["127.0.0.1", 5432]]
volumes:
  description: Those of the asked volumes that exist.
  type: list
  elements: str
  returned: always
containers:
  description: The stack's containers, name to what is known of each, those that ran to their end among them.
  type: dict
  returned: always
  contains:
    service:
      description: Role that it belongs to.
      type: str
    image:
      description: Name of the image that it was made from.
      type: str
    spec:
      description: Hash of the spec that it was made from.
      type: str
    state:
      description: Docker's word for its state, such as C(running).
      type: str
    test:
      description: Command of its health check with its arguments; empty where it has none, or the engine did not say.
      type: list
      elements: str
image_sizes:
  description: Name of each image that these containers were made from, to its size in bytes. Those that are gone are left out.
  type: dict
  returned: always
postgres_versions:
  description: Volume to the major version of PostgreSQL that wrote it, for those that hold a database.
  type: dict
  returned: always
memory:
  description: Memory of the host in bytes.
  type: int
  returned: always
disk_free:
  description: Free space in bytes where Docker keeps its data.
  type: int
  returned: always
"""

import ipaddress
import json
import os
import struct
import time
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fba.stack.plugins.module_utils.disk import free_bytes
from ansible_collections.fba.stack.plugins.module_utils.engine import ask_engine

LISTEN = "0A"
ANY = "0.0.0.0"


def as_ipv4(text):
    """Return the IPv4 address that means the same, or None where none does. Docker gives an empty text for any."""
    address = ipaddress.ip_address(text or ANY)
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    if address.is_unspecified:
        return ANY
    return "127.0.0.1" if address.is_loopback else None


def parse_address(text):
    """Return an address of the kernel's tables as text. They have it as numbers of 32 bits in the machine's own order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return str(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))


def parse_listening(text):
    """Return (IPv4 address, port) of each socket in state LISTEN of a /proc/net/tcp table."""
    found = set()
    for line in text.splitlines()[1:]:
        columns = line.split()
        if columns[3] == LISTEN:
            address, _colon, port = columns[1].rpartition(":")
            found.add((as_ipv4(parse_address(address)), int(port, 16)))
    return {(address, port) for address, port in found if address}


def listening_ports():
    """Return (IPv4 address, port) of everything on the host that listens for TCP."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as handle:
                found |= parse_listening(handle.read())
        except FileNotFoundError:
            continue
    return found


def list_containers(stack):
    """Return the stack's containers, as the engine lists them."""
    if not stack:
        return []
    filters = quote(json.dumps({"label": [f"fba.stack={stack}"]}))
    return ask_engine(f"/containers/json?all=1&filters={filters}") or []


def health_test(identifier):
    """Return the command of a container's health check. Docker has a word before it, which says how it is run."""
    about = ask_engine(f"/containers/{identifier}/json")
    return ((about or {}).get("Config", {}).get("Healthcheck") or {}).get("Test", [])[1:]


def known_containers(containers):
    """Return name to what is known of each container."""
    return {
        container["Names"][0].lstrip("/"): {
            "service": container["Labels"].get("fba.service", ""),
            "image": container["Image"],
            "spec": container["Labels"].get("fba.spec", ""),
            "state": container["State"],
            "test": health_test(container["Id"]),
        }
        for container in containers
    }


def sizes_of_images(containers):
    """Return name to size in bytes of the images that the containers were made from, as far as they are there."""
    names = sorted({container["Image"] for container in containers})
    about = {name: ask_engine(f"/images/{quote(name)}/json") for name in names}
    return {name: image["Size"] for name, image in about.items() if image}


def known_images(names):
    """Return those of the images that are there, name to what they are called."""
    about = {name: ask_engine(f"/images/{quote(name)}/json") for name in names}
    return {name: {key: image.get(key) or [] for key in ("RepoTags", "RepoDigests")} for name, image in about.items() if image}


def own_ports(containers):
    """Return (IPv4 address, port) of what these containers publish."""
    return {
        (as_ipv4(port.get("IP")), port["PublicPort"]) for container in containers for port in container["Ports"] if "PublicPort" in port
    }


def bridge_of(network):
    """Return the name of the interface that a Docker network has on the host."""
    about = ask_engine(f"/networks/{quote(network)}") if network else None
    if not about:
        return ""
    return (about.get("Options") or {}).get("com.docker.network.bridge.name") or f"br-{about['Id'][:12]}"


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "str", "default": ""},
            "network": {"type": "str", "default": ""},
            "volumes": {"type": "list", "elements": "str", "default": []},
            "paths": {"type": "list", "elements": "path", "default": []},
            "images": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    info = ask_engine("/info") or {}
    containers = list_containers(module.params["stack"])
    volumes, versions = [], {}
    for name in module.params["volumes"]:
        volume = ask_engine(f"/volumes/{quote(name)}")
        if volume is None:
            continue
        volumes.append(name)
        version_file = os.path.join(volume["Mountpoint"], "PG_VERSION")
        if os.path.exists(version_file):
            with open(version_file, encoding="ascii") as handle:
                versions[name] = handle.read().strip()
    known = known_containers(containers)
    facts = {
        "fba_engine": info.get("ServerVersion", ""),
        "fba_images": known_images(module.params["images"]),
        "processor_nproc": len(os.sched_getaffinity(0)),
    }
    if module.params["stack"]:
        facts.update(fba_containers=known, fba_containers_before=known)
    if module.params["paths"]:
        facts["fba_paths"] = [path for path in module.params["paths"] if os.path.exists(path)]
    module.exit_json(
        changed=False,
        ansible_facts=facts,
        engine=info.get("ServerVersion", ""),
        bridge=bridge_of(module.params["network"]),
        clock=time.time(),
        listening=sorted(listening_ports() - own_ports(containers)),
        volumes=volumes,
        containers=known,
        image_sizes=sizes_of_images(containers),
        postgres_versions=versions,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        disk_free=free_bytes(info.get("DockerRootDir", "/var/lib/docker")),
    )


if __name__ == "__main__":
    main()
