#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a command in a container, from a file of the host or to one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_stream
short_description: Run a command in a container, from a file of the host or to one
version_added: 1.0.0
author: The fba.stack authors
description:
  - Nothing of what goes through is kept in memory or shown, so it may be a dump of any size and hold secrets.
  - The file that it makes is root's alone, and has its name only once the command has succeeded and everything is on the disk.
options:
  container:
    description: Name of the running container.
    type: str
    required: true
  argv:
    description: Program and its arguments. Anyone on the host can read them.
    type: list
    elements: str
    required: true
  source:
    description: File that the command reads as its standard input.
    type: path
  dest:
    description: File that gets the command's standard output. Without it, the output is dropped. One that is there is replaced.
    type: path
attributes:
  check_mode:
    support: full
    description: The command does not run, and the answer is what a run would most likely have been.
"""

EXAMPLES = r"""
- name: Dump a database
  fba.stack.container_stream:
    container: fba_postgres
    argv: [pg_dump, --username=postgres, --format=custom, fba]
    dest: /var/backups/fba.dump

- name: See whether the dump can be read
  fba.stack.container_stream:
    container: fba_postgres
    argv: [pg_restore, --list]
    source: /var/backups/fba.dump
  changed_when: false
"""

RETURN = r"""
size:
  description: Bytes in O(dest).
  type: int
  returned: when a file was made
"""

import os
import subprocess

from ansible.module_utils.basic import AnsibleModule

# Of what the command says on standard error
TAIL = 3000


def run(command, source, dest):
    """Run a command between two files, or none, and return its code and the end of its standard error."""
    with open(source or os.devnull, "rb") as given, open(dest or os.devnull, "wb") as taken:
        done = subprocess.run(command, stdin=given, stdout=taken, stderr=subprocess.PIPE, check=False)
        if dest:
            taken.flush()
            os.fsync(taken.fileno())
    return done.returncode, done.stderr.decode("utf-8", "replace").strip()[-TAIL:]


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "argv": {"type": "list", "elements": "str", "required": True},
            "source": {"type": "path"},
            "dest": {"type": "path"},
        },
        supports_check_mode=True,
    )
    container, argv, source, dest = (module.params[name] for name in ("container", "argv", "source", "dest"))
    if module.check_mode:
        module.exit_json(changed=True)
    part = dest + ".part" if dest else None
    if part:
        if os.path.lexists(part):
            os.remove(part)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        code, said = run(["docker", "exec", "--interactive", container, *argv], source, part)
    except OSError as error:
        code, said = 1, str(error)
    if code != 0:
        if part:
            os.remove(part)
        module.fail_json(msg=f"{argv[0]} in {container} failed with {code}: {said or 'it said nothing'}")
    if not part:
        module.exit_json(changed=True)
    os.replace(part, dest)
    module.exit_json(changed=True, size=os.path.getsize(dest))


if __name__ == "__main__":
    main()
