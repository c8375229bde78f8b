# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Say how a host's data services are upgraded, or refuse all of it in one message."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.fba.stack.plugins.plugin_utils.upgrade import kept_volume, rebuilds_data, refusals, shown, version_in


class ActionModule(ActionBase):
    """Implements the action."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compare the versions, and ask the host for what else it takes."""
        result = super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec(
            {
                "stack": {"type": "str", "required": True},
                "upgrades": {"type": "list", "elements": "dict", "required": True},
                "running": {"type": "list", "elements": "str", "required": True},
                "wanted": {"type": "list", "elements": "str", "required": True},
                "backup_dir": {"type": "path", "required": True},
            }
        )
        stack, folder = args["stack"], args["backup_dir"]
        result["changed"] = False
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        versions: dict[str, dict[str, Any]] = {}
        plans: dict[str, dict[str, Any]] = {}
        for about, running, wanted in zip(args["upgrades"], args["running"], args["wanted"], strict=True):
            service = about["service"]
            start, end = version_in(service, running), version_in(service, wanted)
            # Images are not brought in check mode
            if self._task.check_mode and end is None:
                end = start
            versions[service] = {"start": start, "end": end}
            if start and end:
                plans[service] = {
                    "from": shown(start),
                    "to": shown(end),
                    "rebuilds": rebuilds_data(service, start, end),
                    "kept": kept_volume(stack, start) if service == "postgres" else "",
                    "backup": f"{folder}/{service}-{shown(start)}-{stamp}",
                }
        result["ansible_facts"] = {"fba_upgrades": plans}
        if not versions:
            return result

        names = [name for service, plan in plans.items() for name in (f"{stack}_{service}", plan["kept"]) if name]
        usage = self._execute_module("fba.stack.volume_usage", {"names": names, "folder": folder}, task_vars=task_vars)
        if usage.get("failed"):
            return usage
        problems = refusals(stack, versions, usage, folder)
        if problems:
            host = (task_vars or {})["inventory_hostname"]
            result["failed"] = True
            result["problems"] = problems
            result["msg"] = f"Nothing was touched on {host}, because:\n" + "\n".join(f"- {problem}" for problem in problems)
        for service, plan in plans.items():
            plan["path"] = usage["volumes"].get(f"{stack}_{service}", {}).get("path", "")
        return result
