#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell how much is in Docker's volumes, and how much room there is for a copy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_usage
short_description: Tell how much is in Docker's volumes, and how much room there is for a copy
version_added: 1.0.0
author: The fba.stack authors
description:
  - Counts what the files of the volumes take on the disk, and changes nothing.
options:
  names:
    description: Volumes to look at. Those that do not exist are left out of the answer.
    type: list
    elements: str
    required: true
  folder:
    description: Folder that is about to be written to. It need not be there.
    type: path
    required: true
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Measure the volumes
  fba.stack.volume_usage:
    names: [fba_postgres]
    folder: /var/backups/fba
"""

RETURN = r"""
volumes:
  description: Volume to its C(path) on the host and the C(bytes) that its files take.
  type: dict
  returned: always
free:
  description: Free space in bytes where O(folder) is, or will be.
  type: int
  returned: always
docker_free:
  description: Free space in bytes where the volumes are; that of O(folder) where there are none.
  type: int
  returned: always
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fba.stack.plugins.module_utils.disk import free_bytes

BLOCK = 512


def used_bytes(path):
    """Return what all below a folder takes on the disk. What vanishes meanwhile does not count."""
    total = 0
    for folder, _folders, files in os.walk(path):
        for name in [".", *files]:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * BLOCK
            except FileNotFoundError:
                continue
    return total


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "folder": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    _code, listed, _error = module.run_command(["docker", "volume", "ls", "--format", "{{ .Name }}"], check_rc=True)
    names = [name for name in module.params["names"] if name in listed.split()]
    volumes = {}
    if names:
        _code, answer, _error = module.run_command(["docker", "volume", "inspect", *names], check_rc=True)
        for about in json.loads(answer):
            volumes[about["Name"]] = {"path": about["Mountpoint"], "bytes": used_bytes(about["Mountpoint"])}
    free = free_bytes(module.params["folder"])
    module.exit_json(
        changed=False,
        volumes=volumes,
        free=free,
        docker_free=min([free_bytes(about["path"]) for about in volumes.values()], default=free),
    )


if __name__ == "__main__":
    main()
