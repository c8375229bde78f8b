# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From issued certificates to a host's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any


def certificate_files(issued: dict[str, dict[str, str]], host: str, trusted: str, root: str, users: dict[str, int]) -> list[dict[str, Any]]:
    """Return the files of a host's certificates as the module fba.stack.container_files wants them.

    `issued` is `host/service` to certificate and key, `trusted` the PEM text of the authorities, `users` service to the number that its
    containers run as; what is not among them is root's.
    """
    files = []
    for subject, pair in issued.items():
        owner, _, service = subject.rpartition("/")
        if owner != host:
            continue
        user = int(users.get(service, 0))
        folder = f"{root}/{service}"
        files += [
            {"path": f"{folder}/ca.pem", "mode": "0444", "owner": user, "content": trusted},
            {"path": f"{folder}/certificate.pem", "mode": "0444", "owner": user, "content": pair["certificate"]},
            {"path": f"{folder}/private_key.pem", "mode": "0400", "owner": user, "secret_content": pair["private_key"]},
        ]
    return files


def changed_identities(paths: list[str], root: str) -> list[str]:
    """Return the services whose files are among the changed ones."""
    return sorted({PurePosixPath(path).relative_to(root).parts[0] for path in paths if path != root})


class FilterModule:
    """Filters on certificates."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"certificate_files": certificate_files, "changed_identities": changed_identities}
