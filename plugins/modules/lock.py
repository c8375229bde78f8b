#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lock that keeps two people from changing a stack at once. The action of the same name knows who asks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lock
short_description: Take or give back the lock of a stack
version_added: 1.1.0
author: The fba.stack authors
description:
  - The lock is a file on one host, made in a way that only one can make it. It says who holds it, since when, and why.
  - Whoever holds it takes it again, so that an interrupted run goes on. Not while the earlier run still goes on, which is known where both
    are of the same controller.
options:
  path:
    description: The file.
    type: path
    required: true
  state:
    description:
      - C(held) takes it. C(free) fails if somebody else holds it, and takes nothing. C(released) gives back what this run has taken.
      - C(broken) takes it away from whoever holds it.
    type: str
    choices: [held, free, released, broken]
    default: held
  owner:
    description: Who asks. By default the user and the host name of the controller, C(user@host).
    type: str
    default: ""
  verb:
    description: What is done under it.
    type: str
    default: ""
  reason:
    description: Why, for whoever finds it locked.
    type: str
    default: ""
  wait:
    description: Seconds to wait for somebody else to give it back.
    type: int
    default: 0
  holder:
    description: Set by the action.
    type: dict
  replaces:
    description: Set by the action.
    type: str
    default: ""
  last:
    description: RV(last) of when this run looked with O(state=free), to be told in RV(others) whether anybody else has had the lock since.
    type: str
attributes:
  check_mode:
    support: full
    details: Takes nothing and says who holds it.
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Take the lock
  fba.stack.lock:
    path: /var/lib/fba/lock.json
    verb: site
    reason: the new price list
    wait: 600
"""

RETURN = r"""
holder:
  description: Who holds it now, or held it; empty where nobody does.
  type: dict
  returned: always
  sample: {owner: ann@laptop, verb: release, reason: the new price list, since: "2026-11-21T10:00:00Z", run: 4f1c…}
last:
  description: The run that had it last and has given it back, or that it was taken away from; empty where there was none.
  type: str
  returned: always
others:
  description:
    - Whether anybody else can have had it since this run looked, and what it has seen may be so no more. Always where it goes on with an
      interrupted run, and where O(last) is not given.
  type: bool
  returned: with O(state=held)
ansible_facts:
  description:
    - Where it was taken, C(fba_run), what is known of this run, its C(run) among it, and C(interrupted), what was known of the run that it
      goes on with.
  type: dict
  returned: when taken
"""

import contextlib
import json
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

# Behind the lock's own name
LAST = ".last"


def read(path):
    """Return who holds the lock, or an empty dictionary."""
    try:
        with open(path, encoding="utf-8") as handle:
            return json.load(handle)
    except FileNotFoundError:
        return {}
    except ValueError:
        # Nobody knows whose it is, and nobody else shall go on because of that
        return {"owner": "unknown", "verb": "unknown", "reason": f"{path} cannot be read", "since": "unknown", "run": "unknown"}


def had_last(path):
    """Return the run that has had the lock last, or an empty text."""
    try:
        with open(path + LAST, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return ""


def give_back(path, run):
    """Remove the lock, and leave behind who had it: before it, so that whoever takes it next reads that."""
    with open(path + LAST, "w", encoding="utf-8") as handle:
        handle.write(run)
    os.unlink(path)


def put(path, holder, replaces):
    """Take the lock, from the run `replaces` if that holds it. Return whether that was so: nobody else came in between."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".lock-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            json.dump(holder, handle)
            handle.flush()
            os.fsync(handle.fileno())
            os.fchmod(handle.fileno(), 0o644)
        if replaces:
            # Renamed away by one alone, whoever else wants the same
            aside = f"{path}.{replaces}"
            with contextlib.suppress(FileNotFoundError):
                if read(path).get("run") == replaces:
                    os.rename(path, aside)
                    os.unlink(aside)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True
    finally:
        os.unlink(temporary)


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "default": "held", "choices": ["held", "free", "released", "broken"]},
            "owner": {"type": "str", "default": ""},
            "verb": {"type": "str", "default": ""},
            "reason": {"type": "str", "default": ""},
            "wait": {"type": "int", "default": 0},
            "holder": {"type": "dict", "default": {}},
            "replaces": {"type": "str", "default": ""},
            "last": {"type": "str"},
        },
        supports_check_mode=True,
    )
    path, state, replaces = module.params["path"], module.params["state"], module.params["replaces"]
    present = read(path)
    if state == "held" and not module.check_mode and present.get("run", "") == replaces:
        taken = put(path, module.params["holder"], replaces)
        # Read while it is held, where it was taken: nobody else writes it then
        module.exit_json(changed=False, taken=taken, holder=read(path), last=had_last(path))
    mine = state == "broken" or (state == "released" and present.get("run") == module.params["holder"].get("run"))
    if present and mine:
        if not module.check_mode:
            give_back(path, present.get("run", ""))
        # A run that ends leaves everything as it was; one that is made to end does not
        module.exit_json(changed=state == "broken", taken=False, holder=present, last=had_last(path))
    module.exit_json(changed=False, taken=False, holder=present, last=had_last(path))


if __name__ == "__main__":
    main()
