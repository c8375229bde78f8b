# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A YAML file of variables, encrypted as a whole with ansible-vault, beside the inventory."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader


class VaultFile:
    """Reads and rewrites one vault file with the vault passwords that ansible was started with."""

    def __init__(self, path: str, loader: DataLoader, purpose: str) -> None:
        """Stand for the file at `path`; `purpose` becomes its first line, for whoever opens it."""
        self.path = Path(path)
        self.loader = loader
        self.purpose = purpose

    def read(self) -> dict[str, Any]:
        """Return the variables in the file, none where there is no file. Raises AnsibleError if it cannot be decrypted."""
        if not self.path.exists():
            return {}
        content = self.loader.load_from_file(str(self.path), cache="none", unsafe=False, trusted_as_template=False)
        return dict(content or {})

    def write(self, variables: dict[str, Any]) -> None:
        """Replace the file by a rename, encrypted with the first configured vault password and readable by its owner only.

        Raises AnsibleError where none is configured: nothing is ever written in clear.
        """
        vault = self.loader._vault
        if not vault.secrets:
            raise AnsibleError(
                f"{self.path} cannot be written, because no vault password is configured. Make one and name it, for example:"
                " openssl rand -base64 36 > ~/.fba-vault-password && export ANSIBLE_VAULT_PASSWORD_FILE=~/.fba-vault-password"
            )
        # Through JSON to plain types: ansible puts tags on what it loads, which YAML cannot write
        plain = json.loads(json.dumps(variables))
        text = f"---\n# {self.purpose}\n" + yaml.safe_dump(plain, sort_keys=True, default_flow_style=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(vault.encrypt(text))
            Path(temporary).rename(self.path)
        except BaseException:
            Path(temporary).unlink()
            raise
