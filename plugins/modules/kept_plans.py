#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a service's containers were made before a run changed them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kept_plans
short_description: Read how containers were made before this run
version_added: 1.1.0
author: The fba.stack authors
description:
  - Reads the plans that M(fba.stack.container_files) keeps. They hold secrets, so register the answer with C(no_log).
options:
  path:
    description: Folder of the plans.
    type: path
    required: true
  service:
    description: Role whose containers are meant.
    type: str
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Read how the workers were made
  fba.stack.kept_plans:
    path: /var/lib/fba/plans
    service: worker
  register: kept
  no_log: true
"""

RETURN = r"""
plans:
  description:
    - The plans of all containers of the service as of the last run that reached its end, by name. Empty where this run has changed none.
  type: list
  elements: dict
  returned: always
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}, "service": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    folder, plans, changed = module.params["path"], [], False
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if not name.endswith(".json"):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as handle:
            plan = json.load(handle)
        if plan["service"] == module.params["service"]:
            plans.append(plan)
            changed = changed or os.path.exists(os.path.join(folder, f"{name}.next"))
    module.exit_json(changed=False, plans=plans if changed else [])


if __name__ == "__main__":
    main()
