# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keep the internal authority and the services' certificates in a vault file."""

from __future__ import annotations

import datetime
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.fba.stack.plugins.plugin_utils.pki import Authorities, days_left
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
                "authority_warn_days": {"type": "int", "required": True},
                "wanted": {"type": "dict", "required": True},
                "whole": {"type": "bool", "required": True},
                "days": {"type": "int", "required": True},
                "renew_days": {"type": "int", "required": True},
                "step": {"type": "str", "choices": ["", *Authorities.STEPS], "default": ""},
            }
        )
        now = datetime.datetime.now(datetime.UTC)
        vault_file = VaultFile(args["path"], self._loader, "Internal certificate authority and what it issued, made on first use")
        before: dict[str, Any] = vault_file.read().get("fba_pki") or {}
        authorities = Authorities(before, now)
        if not authorities.authorities and not args["whole"]:
            raise AnsibleActionFail(
                f"There is no authority in {args['path']}, and a new one would not be known to the hosts that this run leaves out:"
                " bring the file back, or run without --limit"
            )
        if args["step"] and not args["whole"]:
            raise AnsibleActionFail(
                "Another authority is for all hosts at once: those left out would trust the wrong one. Run without --limit"
            )
        authorities.begin(args["authority"], args["authority_days"])
        if args["step"]:
            authorities.step(args["step"], args["authority"], args["authority_days"])
        authorities.issue(args["wanted"], args["days"], args["renew_days"])
        result["changed"] = authorities.stored() != before
        if result["changed"] and not self._task.check_mode:
            vault_file.write({"fba_pki": authorities.stored()})
        left = min(days_left(authority["certificate"], now) for authority in authorities.authorities)
        if left < args["authority_warn_days"] and not args["step"]:
            result["warnings"] = [
                f"The internal authority is valid for {left} more days: put another in its place by fba.stack.rotate_authority"
            ]
        result["issued"] = authorities.news
        result["ansible_facts"] = {
            "fba_ca_certificate": authorities.trusted,
            "fba_certificates": authorities.issued,
        }
        return result
