# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Refuse what cannot work, all of it in one message, before anything is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.fba.stack.plugins.plugin_utils.precheck import HIDDEN, SECRETS, SERVICES, check, check_type

ROLES = Path(__file__).resolve().parents[2] / "roles"
EVERYWHERE = ("common", "host", "secrets", "certificates", "images")


class ActionModule(ActionBase):
    """Implements the action."""

    def _load(self, role: str, *path: str) -> dict[str, Any]:
        file = ROLES.joinpath(role, *path)
        return self._loader.load_from_file(str(file), trusted_as_template=True) or {} if file.exists() else {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check every variable of every role that this host will see."""
        result = super().run(tmp, task_vars)
        self.validate_argument_spec({})
        given = dict(task_vars or {})
        host = given["inventory_hostname"]
        services = [service for service in SERVICES if host in given["groups"].get(service, [])]
        roles = [*EVERYWHERE, *services]

        variables: dict[str, Any] = {}
        for role in roles:
            variables |= self._load(role, "defaults", "main.yml") | self._load(role, "vars", "main.yml")
        variables |= given
        templar = self._templar.copy_with_new_env(available_variables=variables)

        problems: list[str] = []
        values: dict[str, Any] = {}
        options: dict[str, Any] = {}
        for role in roles:
            entry = "shared" if role == "common" else "main"
            options |= self._load(role, "meta", "argument_specs.yml")["argument_specs"][entry].get("options", {})
        for name in dict.fromkeys([*options, *SECRETS]):
            if name not in variables:
                continue
            try:
                value = templar.template(variables[name])
            except AnsibleError as error:
                problems.append(f"{name} cannot be evaluated: {'see its definition' if HIDDEN.search(name) else error}")
                continue
            # One variable at a time, because a validator stops at its first wrong type
            value, wrong = check_type(name, options[name], value) if name in options else (value, [])
            problems += wrong
            if not wrong:
                values[name] = value

        name = values.get("fba_name", "fba")
        state = self._execute_module("fba.stack.host_state", {"stack": name, "volumes": [f"{name}_postgres"]}, task_vars=task_vars)
        if state.get("failed"):
            return state
        problems += check(values, services, given["ansible_facts"], state, given["groups"], self._connection.transport)
        if problems:
            result["failed"] = True
            result["problems"] = problems
            result["msg"] = f"Nothing was touched on {host}, because:\n" + "\n".join(f"- {problem}" for problem in problems)
        result["changed"] = False
        return result
