#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Wait until a container is healthy, and no longer than it can still become so."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_wait
short_description: Wait until a container is healthy
version_added: 1.1.0
author: The fba.stack authors
description:
  - Asks the engine until the container's health check succeeds. A container without a check is taken to be healthy.
  - Fails at once where waiting is of no use, because the container has ended or, if it is a new one, because the engine has had to start it
    again. M(community.docker.docker_container) waits for its whole time then.
options:
  name:
    description: Name of the container.
    type: str
    required: true
  seconds:
    description: How long to wait.
    type: int
    required: true
  new:
    description: Whether the container is a new one, so that its end is no accident.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Wait for the web server
  fba.stack.container_wait:
    name: fba_server_1
    seconds: 420
"""

RETURN = r"""
waited:
  description: Seconds that it took.
  type: float
  returned: always
"""

import time
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fba.stack.plugins.module_utils.engine import ask_engine

INTERVAL = 0.5
ENDED = ("exited", "dead", "removing")


def fault(about, restarts, new):
    """Return why waiting is of no use, or an empty text. `restarts` is how often the engine had started it again at the beginning."""
    if about is None:
        # An engine that is too busy to answer says nothing about the container
        return "is not there any more" if ask_engine("/version") else ""
    state = about["State"]
    if state["Status"] in ENDED:
        return f"has ended with code {state['ExitCode']}"
    if new and about["RestartCount"] > restarts:
        return "does not stay up: it has ended, and the engine has started it again"
    return ""


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "seconds": {"type": "int", "required": True},
            "new": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    path = f"/containers/{quote(module.params['name'])}/json"
    start = time.monotonic()
    restarts = 0 if module.params["new"] else (ask_engine(path) or {}).get("RestartCount", 0)
    while True:
        about = ask_engine(path)
        waited = round(time.monotonic() - start, 1)
        why = fault(about, restarts, module.params["new"])
        if why:
            module.fail_json(msg=why, waited=waited)
        if about and about["State"]["Running"] and (about["State"].get("Health") or {}).get("Status", "healthy") == "healthy":
            module.exit_json(changed=False, waited=waited)
        if waited > module.params["seconds"]:
            module.fail_json(msg=f"is not healthy after {module.params['seconds']} s", waited=waited)
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main()
