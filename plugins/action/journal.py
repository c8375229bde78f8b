# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Note what happens to a host in this run: the plan, the deploy log and whoever goes back read it."""

from __future__ import annotations

import copy
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

EMPTY: dict[str, list[Any]] = {"steps": [], "containers": []}
# Of a failure with a container's last log lines, what is worth keeping
MESSAGE = 8000


class ActionModule(ActionBase):
    """Implements the action."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Add an entry to the host's fact `fba_journal`."""
        result = super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec(
            {
                "step": {"type": "str"},
                "state": {"type": "str", "choices": ["begun", "done", "failed"], "default": "begun"},
                "task": {"type": "str", "default": ""},
                "message": {"type": "raw", "default": ""},
                "container": {"type": "dict"},
                "leaves_as": {"type": "str", "default": ""},
                "applied": {"type": "bool", "default": True},
            },
            required_one_of=[["step", "container"]],
            mutually_exclusive=[["step", "container"]],
        )
        facts = (task_vars or {}).get("ansible_facts", {})
        journal = copy.deepcopy(facts.get("fba_journal") or EMPTY)
        changed: dict[str, Any] = {"fba_journal": journal}
        if args["step"] and args["state"] == "begun":
            journal["steps"].append({"step": args["step"], "began": round(time.time(), 3), "ended": None})
        elif args["step"]:
            step = next((each for each in reversed(journal["steps"]) if each["step"] == args["step"] and each["ended"] is None), None)
            if step is None:
                raise AnsibleActionFail(f"step {args['step']} has not begun")
            step["ended"] = round(time.time(), 3)
            if args["state"] == "failed":
                step["failure"] = {"task": args["task"], "message": str(args["message"])[-MESSAGE:]}
        else:
            journal["containers"].append(args["container"])
            if args["applied"]:
                # From now on, this is what the host runs
                here = {name: args["container"][name] for name in ("service", "image", "spec")}
                here["state"] = "exited" if args["container"]["what"] == "run" else "running"
                name, known = args["container"]["container"], facts.get("fba_containers", {})
                earlier = {args["leaves_as"]: known.get(name, here)} if args["leaves_as"] else {}
                changed["fba_containers"] = {**known, **earlier, name: here}
        result["ansible_facts"] = changed
        result["changed"] = False
        return result
