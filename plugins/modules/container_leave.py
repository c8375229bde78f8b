#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have a container finish what it does beside its successor."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_leave
short_description: Have a container finish what it does beside its successor
version_added: 1.1.0
author: The fba.stack authors
description:
  - Gives the container another name, so that its successor can have this one, and asks it to end, without waiting for it. It is not started
    again, whatever it ends with.
  - Does nothing where the successor could not start beside it, because the container does its work no longer, an earlier one has not
    finished yet, or the host lacks the memory. It is then for its successor to stop it first.
options:
  name:
    description: Name of the container.
    type: str
    required: true
  leaves_as:
    description: The name that it has from then on. One of this name that has ended is removed.
    type: str
    required: true
  memory:
    description: What the successor may need, in bytes with a unit, such as C(512m). So much has to be available on the host.
    type: str
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Let the workers finish
  fba.stack.container_leave:
    name: fba_celery_worker
    leaves_as: fba_celery_worker_leaving
    memory: 1152m
"""

RETURN = r"""
leaves_as:
  description: The name that it has now; an empty string where nothing was done.
  type: str
  returned: always
why:
  description: Why nothing was done.
  type: str
  returned: where nothing was done
"""

from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.formatters import human_to_bytes

from ansible_collections.fba.stack.plugins.module_utils.engine import EngineAway, look_up, tell

MEMORY = "/proc/meminfo"
# What Docker sends where neither the image nor the container says anything else
STOP_SIGNAL = "SIGTERM"
ENDED = ("created", "exited", "dead")


def available_memory():
    """Return the bytes that programs could have without anything being swapped out, as the kernel estimates them."""
    with open(MEMORY, encoding="ascii") as handle:
        kilobytes = next(line.split()[1] for line in handle if line.startswith("MemAvailable:"))
    return 1024 * int(kilobytes)


def obstacle(about, earlier, needed, available):
    """Return why a container's successor cannot start beside it, or an empty text. `earlier` is one that had to finish before."""
    if about is None:
        return "it is not there"
    state = about["State"]
    health = (state.get("Health") or {}).get("Status", "healthy")
    if state["Status"] != "running" or health != "healthy":
        return f"it is {state['Status'] if state['Status'] != 'running' else health}"
    if earlier and earlier["State"]["Status"] not in ENDED:
        return "an earlier one has not finished yet"
    if available < needed:
        return f"{available >> 20} MiB of memory are available, and its successor may need {needed >> 20}"
    return ""


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "leaves_as": {"type": "str", "required": True},
            "memory": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    name, leaves_as = module.params["name"], module.params["leaves_as"]
    try:
        needed = human_to_bytes(module.params["memory"])
    except ValueError as error:
        module.fail_json(msg=f"memory is {module.params['memory']!r}: {error}")
    try:
        about = look_up(f"/containers/{quote(name)}/json")
        earlier = look_up(f"/containers/{quote(leaves_as)}/json")
        why = obstacle(about, earlier, needed, available_memory())
        if why:
            module.exit_json(changed=False, leaves_as="", why=why)
        if not module.check_mode:
            container = f"/containers/{about['Id']}"
            if earlier:
                tell("DELETE", f"/containers/{earlier['Id']}")
            # It has been asked to end last: until then it is the one that it was, but for its name
            tell("POST", f"{container}/update", {"RestartPolicy": {"Name": "no"}})
            tell("POST", f"{container}/rename?name={quote(leaves_as)}")
            tell("POST", f"{container}/kill?signal={about['Config'].get('StopSignal') or STOP_SIGNAL}")
    except EngineAway as error:
        module.fail_json(msg=f"{name} cannot be replaced: the Docker engine does not do what it is asked: {error}")
    module.exit_json(changed=True, leaves_as=leaves_as)


if __name__ == "__main__":
    main()
