# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keep the internal authority and the services' certificates in a vault file."""

from __future__ import annotations

import datetime
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.fba.stack.plugins.plugin_utils.pki import is_good, issue, make_ca
from ansible_collections.fba.stack.plugins.plugin_utils.vault import VaultFile


class ActionModule(ActionBase):
    """Implements the action."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `fba_ca_certificate` and `fba_certificates` as facts, after issuing what is missing or about to end."""
        result = super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec(
            {
                "path": {"type": "path", "required": True},
                "authority": {"type": "str", "required": True},
                "authority_days": {"type": "int", "required": True},
                "names": {"type": "dict", "required": True},
                "days": {"type": "int", "required": True},
                "renew_days": {"type": "int", "required": True},
            }
        )
        now = datetime.datetime.now(datetime.UTC)
        vault_file = VaultFile(args["path"], self._loader, "Internal certificate authority and what it issued, made on first use")
        stored: dict[str, Any] = vault_file.read().get("fba_pki") or {}
        issued = []
        if not stored.get("authority"):
            stored = {"authority": make_ca(args["authority"], args["authority_days"], now), "issued": {}}
            issued.append(args["authority"])
        for service, names in args["names"].items():
            if not is_good(stored["issued"].get(service), stored["authority"], names, args["renew_days"], now):
                stored["issued"][service] = issue(stored["authority"], names, args["days"], now)
                issued.append(service)
        if issued and not self._task.check_mode:
            vault_file.write({"fba_pki": stored})
        result["changed"] = bool(issued)
        result["issued"] = issued
        result["ansible_facts"] = {
            "fba_ca_certificate": stored["authority"]["certificate"],
            "fba_certificates": stored["issued"],
        }
        return result
