#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Move all that is in a folder to another one, at once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: move_folder
short_description: Move all that is in a folder to another one, at once
version_added: 1.0.0
author: The fba.stack authors
description:
  - Renames the folder itself, so it is either here or there, whatever happens, and however much is in it. An empty folder of the same owner
    and permissions takes its place.
  - Both have to be on one file system.
options:
  source:
    description: Folder whose content goes. Where it is not there, or empty, nothing happens.
    type: path
    required: true
  dest:
    description: Folder that gets it. It has to be empty or missing.
    type: path
    required: true
  replace:
    description: Whether what is in O(dest) is removed first.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Put the data aside
  fba.stack.move_folder:
    source: /var/lib/docker/volumes/fba_postgres/_data
    dest: /var/lib/docker/volumes/fba_postgres_16/_data
"""

RETURN = r""" # """

import os
import shutil
import stat

from ansible.module_utils.basic import AnsibleModule


def is_filled(path):
    """Return whether there is something in a folder. One that is missing has nothing."""
    return os.path.isdir(path) and bool(os.listdir(path))


def move(source, dest):
    """Rename a folder over an empty one, and leave an empty one behind."""
    status = os.stat(source)
    os.rename(source, dest)
    os.mkdir(source, 0o700)
    os.chown(source, status.st_uid, status.st_gid)
    os.chmod(source, stat.S_IMODE(status.st_mode))


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "replace": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    source, dest = module.params["source"], module.params["dest"]
    if not is_filled(source):
        module.exit_json(changed=False)
    if is_filled(dest) and not module.params["replace"]:
        module.fail_json(msg=f"{dest} is not empty, and what is in it would be lost: nothing was moved there")
    if module.check_mode:
        module.exit_json(changed=True)
    try:
        if is_filled(dest):
            shutil.rmtree(dest)
        move(source, dest)
    except OSError as error:
        module.fail_json(msg=f"{source} cannot be moved to {dest}: {error}")
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
