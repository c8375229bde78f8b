# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of the same name: it runs on the controller alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secrets
short_description: Make the secrets that nobody has given yet
version_added: 1.0.0
author: The fba.stack authors
description:
  - Generates each wanted secret that is neither a variable of the play nor in the vault file, adds it to the vault file, and returns the
    vault file's secrets as facts. A variable that the inventory sets always wins.
  - Runs on the controller. The file is encrypted with the vault password that ansible was started with.
options:
  path:
    description: Vault file on the controller.
    type: path
    required: true
  wanted:
    description: The secrets, each the name of a variable.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the variable.
        type: str
        required: true
      length:
        description: Number of letters and digits.
        type: int
        default: 32
      volume:
        description: Data volume that keeps a value of the secret. Where it exists already, nothing is generated and the task fails.
        type: str
  volumes:
    description:
      - Data volumes that exist on the hosts. Where it is left out and a missing secret has a volume, nothing is made, and RV(ask) says
        which volumes to look for. So the hosts are only asked when it matters.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Make the missing secrets
  fba.stack.secrets:
    path: "{{ inventory_dir }}/group_vars/all/fba_secrets.yml"
    wanted:
      - name: fba_postgres_password
        volume: fba_postgres
    volumes: []
  no_log: true
"""

RETURN = r"""
ask:
  description: Volumes to look for before the secrets can be made; empty when all is done.
  type: list
  elements: str
  returned: always
ansible_facts:
  description: The secrets that the inventory does not set itself, by name.
  type: dict
  returned: always
"""
