# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Record in a plan of upgrades how far one of them is."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Implements the action."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Change the plan."""
        result = super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec(
            {
                "service": {"type": "str", "required": True},
                "step": {"type": "str", "choices": ["begin", "end", "fail"], "required": True},
                "reason": {"type": "str", "default": ""},
            }
        )
        plans: dict[str, Any] = dict((task_vars or {})["ansible_facts"]["fba_upgrades"])
        plan = dict(plans[args["service"]])
        if args["step"] == "begin":
            plan["begun"] = time.time()
        elif args["step"] == "end":
            plan["seconds"] = round(time.time() - plan["begun"])
        else:
            plan["failed"] = args["reason"]
        result["ansible_facts"] = {"fba_upgrades": {**plans, args["service"]: plan}}
        result["changed"] = False
        return result
