#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell what a host lacks of what a stack stands on, so that only that is done."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_lacks
short_description: Tell what a host lacks of what a stack stands on
version_added: 1.0.0
author: The fba.stack authors
description:
  - Looks at packages, the engine's configuration, services, files, links, a folder, the packet filter and the stack's network in one call,
    because the number of calls is what a run's time is made of. The modules that would change them are asked only where something is to be
    changed.
  - Needs nothing but Python on the host, and changes nothing. Fails where the engine's configuration is no JSON object.
options:
  packages:
    description: Debian packages that shall be installed.
    type: list
    elements: str
    default: []
  engine_options:
    description: Options that the engine's configuration shall have; others that it has may stay. Not looked at where this is not given.
    type: dict
  engine_config:
    description: The file that holds them.
    type: path
    default: /etc/docker/daemon.json
  services:
    description: Services that shall run, and start at boot.
    type: list
    elements: str
    default: []
  files:
    description: Files that shall be there.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path on the host.
        type: path
        required: true
      content:
        description: Its whole text.
        type: str
        required: true
      mode:
        description: Permissions, octal digits.
        type: str
        required: true
  links:
    description: Symbolic links that shall be there, path to what each points to.
    type: dict
    default: {}
  firewall:
    description: The packet filter that shall be there, as M(fba.stack.firewall) keeps it. Not looked at where this is not given.
    type: dict
    suboptions:
      name:
        description: Name of the stack.
        type: str
        required: true
      path:
        description: File that has the rules for the next boot.
        type: path
        required: true
      subnet:
        description: IPv4 network of the stack on this host.
        type: str
        required: true
      public:
        description: IPv4 addresses in the stack's network whose published TCP ports everybody may reach.
        type: list
        elements: str
        required: true
      peers:
        description: IPv4 addresses that may reach every published port.
        type: list
        elements: str
        required: true
      state:
        description: Whether there shall be a filter.
        type: str
        choices: [present, absent]
        default: present
  folder:
    description: A folder that shall have these files and nothing else, as M(fba.stack.container_files) keeps it.
    type: dict
    suboptions:
      root:
        description: Path on the host.
        type: path
        required: true
      owner:
        description: Numeric user and group of the files that name none.
        type: int
        required: true
      files:
        description: The files.
        type: list
        elements: dict
        required: true
        suboptions:
          path:
            description: Path on the host, below O(folder.root).
            type: path
            required: true
          mode:
            description: Permissions, octal digits.
            type: str
            required: true
          owner:
            description: Numeric user and group of this file.
            type: int
          content:
            description: Its whole text.
            type: str
          secret_content:
            description: Its whole text, which is kept out of every output.
            type: str
          keep:
            description: Whether any content will do.
            type: bool
            default: false
  network:
    description: The Docker network that shall be there.
    type: dict
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      subnet:
        description: IPv4 network.
        type: str
        required: true
      gateway:
        description: The host's address in it.
        type: str
        required: true
      iprange:
        description: The part that Docker hands out.
        type: str
        required: true
      labels:
        description: Labels that it must have. Others do not matter.
        type: dict
        default: {}
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: See what the host lacks
  fba.stack.host_lacks:
    packages: [docker.io, python3-requests]
    engine_options: {live-restore: true}
    services: [docker]
    network:
      name: fba_network
      subnet: 172.30.10.0/24
      gateway: 172.30.10.1
      iprange: 172.30.10.128/25
  register: found
"""

RETURN = r"""
lacking:
  description: Whether it lacks anything.
  type: bool
  returned: always
packages:
  description: Those of the packages that are not installed.
  type: list
  elements: str
  returned: always
engine_options:
  description: The whole content that the engine's configuration shall have, or nothing where it is as it should be.
  type: dict
  returned: always
services:
  description: Those of the services that do not run, or do not start at boot. All of them where systemd is not there to be asked.
  type: list
  elements: str
  returned: always
files:
  description: Paths of those of the files that are not there, or not so.
  type: list
  elements: str
  returned: always
links:
  description: Paths of those of the links that are not there, or point elsewhere.
  type: list
  elements: str
  returned: always
firewall:
  description: Whether the packet filter is another one.
  type: bool
  returned: always
folder:
  description: Whether the folder is not there, or has anything else in it.
  type: bool
  returned: always
network:
  description: Whether the network is not there, or another one.
  type: bool
  returned: always
"""

import json
import os
import stat
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fba.stack.plugins.module_utils import folder
from ansible_collections.fba.stack.plugins.module_utils.engine import ask_engine
from ansible_collections.fba.stack.plugins.module_utils.folder import FILES
from ansible_collections.fba.stack.plugins.module_utils.packet_filter import Iptables, Wanted, problems

INSTALLED = "installed"


def lacking_packages(module, packages):
    """Return those of the packages that dpkg does not have as installed."""
    if not packages:
        return []
    # It ends with 1 where it does not know one of them; where it cannot be asked at all, it says of none that it is installed
    command = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages]
    _code, output, _error = module.run_command(command)
    states = [line.split() for line in output.splitlines()]
    present = {words[0] for words in states if words[1:] == [INSTALLED]}
    return [package for package in packages if package not in present]


def wanted_options(module, path, options):
    """Return what the engine's configuration has to become, or None where it is so already."""
    try:
        with open(path, encoding="utf-8") as handle:
            # The engine takes an empty file for one without options
            present = json.loads(handle.read().strip() or "{}")
    except FileNotFoundError:
        return options
    except ValueError as error:
        module.fail_json(msg=f"{path} is no JSON, so the engine does not start with it: {error}. Mend it, or remove it")
    if not isinstance(present, dict):
        module.fail_json(msg=f"{path} has {json.dumps(present)}, so the engine does not start with it: allowed is a JSON object")
    wanted = {**present, **options}
    return None if wanted == present else wanted


def lacking_services(module, services):
    """Return those of the services that do not run, or do not start at boot."""

    def stands(service):
        return all(module.run_command(["systemctl", "--quiet", word, service])[0] == 0 for word in ("is-active", "is-enabled"))

    if services and not module.get_bin_path("systemctl"):
        return services
    return [service for service in services if not stands(service)]


def lacks_file(path, content, mode):
    """Return whether a file is not there, or has other content or permissions."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read() != content or stat.S_IMODE(os.fstat(handle.fileno()).st_mode) != int(mode, 8)
    except FileNotFoundError:
        return True


def lacks_link(path, target):
    """Return whether there is no such link, or one to something else."""
    return not os.path.islink(path) or os.readlink(path) != target


def lacks_firewall(module, name, path, subnet, public, peers, state):
    """Return whether the packet filter is another one. Where nothing can be filtered with, there is none."""
    wrong = list(problems(name, subnet, public, peers))
    if wrong:
        module.fail_json(msg="; ".join(wrong))
    return Wanted(Iptables(module), path, name, subnet, public, peers, state).differs


def lacks_network(name, subnet, gateway, iprange, labels):
    """Return whether the engine has no such network, or another one of this name. Also where no engine answers."""
    about = ask_engine(f"/networks/{quote(name)}")
    if about is None or about["Driver"] != "bridge" or not labels.items() <= (about["Labels"] or {}).items():
        return True
    wanted = {"Subnet": subnet, "Gateway": gateway, "IPRange": iprange}
    return not any(wanted.items() <= config.items() for config in about["IPAM"]["Config"] or [])


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "engine_options": {"type": "dict"},
            "engine_config": {"type": "path", "default": "/etc/docker/daemon.json"},
            "services": {"type": "list", "elements": "str", "default": []},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "required": True},
                },
            },
            "links": {"type": "dict", "default": {}},
            "firewall": {
                "type": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "path": {"type": "path", "required": True},
                    "subnet": {"type": "str", "required": True},
                    "public": {"type": "list", "elements": "str", "required": True},
                    "peers": {"type": "list", "elements": "str", "required": True},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                },
            },
            "folder": {
                "type": "dict",
                "options": {
                    "root": {"type": "path", "required": True},
                    "owner": {"type": "int", "required": True},
                    "files": FILES,
                },
            },
            "network": {
                "type": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "subnet": {"type": "str", "required": True},
                    "gateway": {"type": "str", "required": True},
                    "iprange": {"type": "str", "required": True},
                    "labels": {"type": "dict", "default": {}},
                },
            },
        },
        supports_check_mode=True,
    )
    given = module.params
    options = given["engine_options"]
    found = {
        "packages": lacking_packages(module, given["packages"]),
        "engine_options": wanted_options(module, given["engine_config"], options) if options is not None else None,
        "services": lacking_services(module, given["services"]),
        "files": [entry["path"] for entry in given["files"] if lacks_file(**entry)],
        "links": [path for path, target in given["links"].items() if lacks_link(path, target)],
        "firewall": bool(given["firewall"]) and lacks_firewall(module, **given["firewall"]),
        "folder": bool(given["folder"]) and folder.differs(**given["folder"]),
        "network": bool(given["network"]) and lacks_network(**given["network"]),
    }
    module.exit_json(changed=False, lacking=any(found.values()), **found)


if __name__ == "__main__":
    main()
