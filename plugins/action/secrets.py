# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make the passwords that nobody has given yet, and keep them in a vault file."""

from __future__ import annotations

import secrets
import string
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.fba.stack.plugins.plugin_utils.vault import VaultFile

# Letters and digits: they survive URLs, shells, dotenv files and every client's idea of quoting
ALPHABET = string.ascii_letters + string.digits


def missing(wanted: list[dict[str, Any]], given: dict[str, Any], stored: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the wanted secrets that neither the inventory nor the vault file has."""
    return [entry for entry in wanted if not given.get(entry["name"]) and not stored.get(entry["name"])]


def refused(names: list[dict[str, Any]], volumes: list[str], path: str) -> list[str]:
    """Return one sentence for each missing secret that an existing data volume already has a value of."""
    return [
        f"{entry['name']} is not known, but the volume {entry['volume']} was made with one, and a new one would not open it:"
        f" bring {path} back, or set {entry['name']}, or remove the volume with its data (destroy with volumes)"
        for entry in names
        if entry.get("volume") in volumes
    ]


class ActionModule(ActionBase):
    """Implements the action."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the secrets of the vault file as facts, after adding those that nobody has given."""
        result = super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec(
            {
                "path": {"type": "path", "required": True},
                "wanted": {
                    "type": "list",
                    "elements": "dict",
                    "required": True,
                    "options": {
                        "name": {"type": "str", "required": True},
                        "length": {"type": "int", "default": 32},
                        "volume": {"type": "str"},
                    },
                },
                "volumes": {"type": "list", "elements": "str"},
            }
        )
        given = task_vars or {}
        vault_file = VaultFile(
            args["path"], self._loader, "Secrets of the stack, made on first use. Read them with: ansible-vault view <this file>"
        )
        stored = vault_file.read()
        new = missing(args["wanted"], given, stored)
        result["ask"] = [entry["volume"] for entry in new if entry.get("volume")] if args["volumes"] is None else []
        result["changed"] = False
        if result["ask"]:
            return result
        problems = refused(new, args["volumes"] or [], args["path"])
        if problems:
            raise AnsibleActionFail("\n".join(problems))
        if new:
            for entry in new:
                stored[entry["name"]] = "".join(secrets.choice(ALPHABET) for _digit in range(entry["length"]))
            if not self._task.check_mode:
                vault_file.write(stored)
        result["changed"] = bool(new)
        # Never over a value of the inventory's: facts would win over it
        result["ansible_facts"] = {entry["name"]: stored[entry["name"]] for entry in args["wanted"] if not given.get(entry["name"])}
        return result
