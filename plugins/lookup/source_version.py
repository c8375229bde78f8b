# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known of the application's source: for the record of releases."""

from __future__ import annotations

import functools
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.fba.stack.plugins.plugin_utils.once import once_for_each_task

DOCUMENTATION = r"""
name: source_version
short_description: Tell an application's version and commit, and which of its migrations cannot be taken back
version_added: 1.1.0
author: The fba.stack authors
description:
  - Returns a dictionary with C(version), of the source's C(pyproject.toml), C(commit), as C(git describe) has it, and C(incompatible), the
    migrations that are marked, file name to reason. What is not known is empty.
  - A migration is marked by a line with C(fba), a colon, C(not compatible), a colon and the reason, commented out as its language wants it.
options:
  _terms:
    description: Folder of the source; an empty text where there is none.
    type: list
    elements: str
    required: true
  migrations:
    description: Folder of the migrations, below the source.
    type: str
    default: ""
"""

EXAMPLES = r"""
- ansible.builtin.debug:
    msg: "{{ lookup('fba.stack.source_version', fba_app_source, migrations='migrations/versions') }}"
"""

RETURN = r"""
_raw:
  description: A dictionary for each source.
  type: list
  elements: dict
"""

MARK = re.compile(r"\bfba:\s*not compatible:\s*(?P<reason>.*\S)", re.IGNORECASE)


def version(source: Path) -> str:
    """Return the version of a Python project, empty where there is none."""
    try:
        project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return ""
    return str(project.get("version", ""))


def commit(source: Path) -> str:
    """Return the commit of a work tree, with `-dirty` where it has been changed since; empty where there is none."""
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12", "--tags"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def incompatible(folder: Path) -> dict[str, str]:
    """Return the file names of the migrations that are marked, each with the reason."""
    marked = {}
    for path in sorted(folder.glob("**/*")):
        if path.is_file() and (match := MARK.search(path.read_text(encoding="utf-8", errors="replace"))):
            marked[path.name] = match["reason"]
    return marked


def known(source: Path | None, migrations: str) -> dict[str, Any]:
    """Return what is known of a source."""
    if source is None or not source.is_dir():
        return {"version": "", "commit": "", "incompatible": {}}
    marks = incompatible(source / migrations) if migrations else {}
    return {"version": version(source), "commit": commit(source), "incompatible": marks}


class LookupModule(LookupBase):
    """Implements the lookup."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        """Return what is known of each source."""
        self.set_options(var_options=variables, direct=kwargs)
        below = str(self.get_option("migrations") or "")
        sources = [Path(term) if term else None for term in terms]
        return [once_for_each_task(("source_version", source, below), functools.partial(known, source, below)) for source in sources]
