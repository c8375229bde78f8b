# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Refuse what cannot work, all of it in one message, before anything is touched."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.fba.stack.plugins.filter.fleet import SERVICES, members, stack_hosts
from ansible_collections.fba.stack.plugins.plugin_utils.hosts import Fleet
from ansible_collections.fba.stack.plugins.plugin_utils.precheck import (
    HIDDEN,
    SECRETS,
    VAULT_FILES,
    check,
    check_type,
    warn_of_room,
    warn_of_strangers,
)

ROLES = Path(__file__).resolve().parents[2] / "roles"
EVERYWHERE = ("common", "host", "secrets", "certificates", "images", "release", "backup")
# Where the options are that concern every run, of roles that have them in another place than most
ENTRIES = {"common": "shared", "release": "check"}


def private_address(variables: Mapping[str, Any]) -> str | None:
    """Return a host's address as its own variables have it, or None where they cannot be evaluated."""
    try:
        return str(variables.get("fba_private_address") or "")
    except AnsibleError:
        return None


class ActionModule(ActionBase):
    """Implements the action."""

    def _load(self, role: str, *path: str) -> dict[str, Any]:
        file = ROLES.joinpath(role, *path)
        return self._loader.load_from_file(str(file), cache="none", unsafe=True, trusted_as_template=True) or {} if file.exists() else {}

    def _shared(self, name: str, given: dict[str, Any], otherwise: Any, **option: Any) -> Any:
        """Return a shared variable that is needed before all are looked at. What is wrong with it is told with the others."""
        variables = self._load("common", "defaults", "main.yml") | given
        templar = self._templar.copy_with_new_env(available_variables=variables)
        try:
            value = templar.template(variables[name])
        except AnsibleError:
            return otherwise
        value, wrong = check_type(name, option, value)
        return otherwise if wrong else value

    def _images(self, variables: dict[str, Any]) -> list[str]:
        """Return the images that this host needs; none where a variable is wrong, which is told with the others."""
        try:
            return list(self._templar.copy_with_new_env(available_variables=variables).template(variables["__images_wanted"]))
        except AnsibleError:
            return []

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check every variable of every role that this host will see."""
        result = super().run(tmp, task_vars)
        self.validate_argument_spec({})
        given = dict(task_vars or {})
        host = given["inventory_hostname"]
        groups, leaving = given["groups"], self._shared("fba_leaving", given, [], type="list", elements="str")
        name = self._shared("fba_name", given, "fba", type="str")
        network = self._shared("fba_network", given, f"{name}_network", type="str")
        # Its services' variables are of no concern any more if it leaves
        roles = [*EVERYWHERE, *(service for service in SERVICES if host in members(groups, service, leaving))]

        defaults: dict[str, Any] = {}
        for role in roles:
            defaults |= self._load(role, "defaults", "main.yml") | self._load(role, "vars", "main.yml")
        # What comes later looks at no more than this, where all is as it should be
        paths = [self._shared("__fba_backup_schedule", given, "", type="str")]
        images = self._images(defaults | given)
        before = time.time()
        wanted = {"stack": name, "network": network, "volumes": [f"{name}_postgres"], "paths": paths, "images": images}
        state = self._execute_module("fba.stack.host_state", wanted, task_vars=task_vars)
        after = time.time()
        if state.get("failed"):
            return state
        # What variables are made of besides what was gathered before
        given["ansible_facts"] = {**given["ansible_facts"], **state["ansible_facts"]}

        variables = defaults | given
        # Of a list of hosts ansible gives the word None: they would be in a folder of that name
        nowhere = given.get("inventory_dir") in (None, "None")
        homeless = [name for name in VAULT_FILES if nowhere and variables[name] == defaults[name]]
        templar = self._templar.copy_with_new_env(available_variables=variables)

        problems: list[str] = []
        values: dict[str, Any] = {}
        options: dict[str, Any] = {}
        for role in roles:
            entries = self._load(role, "meta", "argument_specs.yml")["argument_specs"]
            options |= entries[ENTRIES.get(role, "main")].get("options", {})
        for name in dict.fromkeys([*options, *SECRETS]):
            if name not in variables or name in homeless:
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

        fleet = Fleet(
            host=host,
            groups=groups,
            leaving=leaving,
            build_host=values.get("fba_build_host"),
            addresses={each: private_address(given["hostvars"][each]) for each in stack_hosts(groups, leaving)}
            # The roles' defaults count for this host alone
            | {host: values.get("fba_private_address")},
            asked=given["ansible_play_hosts_all"],
            reached=given["ansible_play_hosts"],
        )
        problems += check(
            values,
            fleet,
            facts=given["ansible_facts"],
            state=state,
            connection=self._connection.transport,
            window=(before, after),
            homeless=homeless,
        )
        if problems:
            result["failed"] = True
            result["problems"] = problems
            result["msg"] = f"Nothing was touched on {host}, because:\n" + "\n".join(f"- {problem}" for problem in problems)
        result["warnings"] = [f"{host}: {warning}" for warning in (*warn_of_room(state), *warn_of_strangers(values, fleet))]
        result["ansible_facts"] = state["ansible_facts"]
        result["changed"] = False
        return result
