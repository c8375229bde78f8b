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
  - Reads listening ports, memory, free disk space, and, where a Docker engine answers, the stack's own ports and data volumes.
  - Needs nothing but Python on the host, and changes nothing.
options:
  stack:
    description: Name of the stack, whose own published ports are told apart.
    type: str
    default: fba
  volumes:
    description: Data volumes to look for.
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
    volumes: [fba_postgres]
"""

RETURN = r"""
engine:
  description: Version of the Docker engine that answers, or an empty string.
  type: str
  returned: always
listening:
  description: TCP ports that something listens on, other than the stack's own containers.
  type: list
  elements: int
  returned: always
volumes:
  description: Those of the asked volumes that exist.
  type: list
  elements: str
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

import http.client
import json
import os
import socket
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule

SOCKET = "/var/run/docker.sock"
LISTEN = "0A"


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's Unix socket."""

    def connect(self):
        """Connect to the engine."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(SOCKET)


def ask_engine(path):
    """Return the engine's JSON answer, or None where no engine answers or it knows no such thing."""
    connection = EngineConnection("localhost")
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        content = answer.read()
        return json.loads(content) if answer.status == 200 else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def parse_listening(text):
    """Return the ports in state LISTEN of a /proc/net/tcp table."""
    ports = set()
    for line in text.splitlines()[1:]:
        columns = line.split()
        if columns[3] == LISTEN:
            ports.add(int(columns[1].rpartition(":")[2], 16))
    return ports


def listening_ports():
    """Return every TCP port that something on the host listens on."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as handle:
                ports |= parse_listening(handle.read())
        except FileNotFoundError:
            continue
    return ports


def own_ports(stack):
    """Return the host ports that the stack's containers publish."""
    filters = quote(json.dumps({"label": [f"fba.stack={stack}"]}))
    containers = ask_engine(f"/containers/json?all=1&filters={filters}") or []
    return {port["PublicPort"] for container in containers for port in container["Ports"] if "PublicPort" in port}


def free_bytes(path):
    """Return the free space for root's use of the file system that `path` is, or will be, on."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "str", "default": "fba"},
            "volumes": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    info = ask_engine("/info") or {}
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
    module.exit_json(
        changed=False,
        engine=info.get("ServerVersion", ""),
        listening=sorted(listening_ports() - own_ports(module.params["stack"])),
        volumes=volumes,
        postgres_versions=versions,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        disk_free=free_bytes(info.get("DockerRootDir", "/var/lib/docker")),
    )


if __name__ == "__main__":
    main()
