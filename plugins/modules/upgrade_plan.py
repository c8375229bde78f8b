# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of the same name: most of it runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: upgrade_plan
short_description: Say how a host's data services are upgraded, or refuse it
version_added: 1.0.0
author: The fba.stack authors
description:
  - Compares the versions of all services, and looks at the volumes and at the disk. All that is wrong comes in one message.
  - Leaves the plan in the fact C(fba_upgrades), service to C(from), C(to), C(rebuilds), C(kept) and C(backup). In check mode the wanted
    version may be unknown.
options:
  stack:
    description: Name of the stack.
    type: str
    required: true
  upgrades:
    description: What the filter fba.stack.upgradable has returned.
    type: list
    elements: dict
    required: true
  running:
    description: What the program of each says of its version in the container that runs.
    type: list
    elements: str
    required: true
  wanted:
    description: What the program of each says of its version in the wanted image.
    type: list
    elements: str
    required: true
  backup_dir:
    description: Folder of the host for backups.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Plan
  fba.stack.upgrade_plan:
    stack: fba
    upgrades:
      - {service: redis, container: fba_redis, runs: "redis:7.0", image: "redis:8.0"}
    running: ["Redis server v=7.0.15 sha=00000000:0"]
    wanted: ["Redis server v=8.0.2 sha=00000000:0"]
    backup_dir: /var/backups/fba
"""

RETURN = r"""
problems:
  description: What is wrong, a sentence each.
  type: list
  elements: str
  returned: on failure
"""
