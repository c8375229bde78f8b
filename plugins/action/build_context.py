# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Send the folders that an image is built from to the build host, as one archive."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.fba.stack.plugins.plugin_utils.tree import TreeError, build_trees, tree_files


def write_archive(path: str, trees: dict[str, Path], files: dict[str, str]) -> None:
    """Write a tar archive of the trees, each at its place, and of the files, place to text.

    Times and owners are all the same: Docker's build cache then sees a change only where there is one.
    """
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for place, root in sorted(trees.items()):
            for relative, source in tree_files(root):
                info = archive.gettarinfo(str(source), os.path.normpath(f"{place}/{relative}"))
                info.uid = info.gid = info.mtime = 0
                info.uname = info.gname = "root"
                info.mode = 0o755 if os.access(source, os.X_OK) else 0o644
                if info.isreg():
                    with source.open("rb") as handle:
                        archive.addfile(info, handle)
                else:
                    archive.addfile(info)
        for place, text in sorted(files.items()):
            content = text.encode()
            info = tarfile.TarInfo(place)
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content))


class ActionModule(ActionBase):
    """Implements the action."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make the archive here and unpack it there."""
        result = super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec(
            {
                "build": {"type": "dict", "required": True},
                "files": {"type": "dict", "default": {}},
                "dest": {"type": "path", "required": True},
            }
        )
        with tempfile.NamedTemporaryFile(suffix=".tar.gz") as local:
            try:
                write_archive(local.name, build_trees(args["build"]), args["files"])
            except TreeError as error:
                raise AnsibleActionFail(f"fba_app_source: {error}") from error
            remote = self._transfer_file(
                local.name, self._connection._shell.join_path(self._connection._shell.tmpdir or self._make_tmp_path(), "context.tar.gz")
            )
            result.update(
                self._execute_module(
                    "ansible.builtin.unarchive",
                    {"src": remote, "dest": args["dest"], "remote_src": True, "owner": "root", "group": "root"},
                    task_vars=task_vars,
                )
            )
        return result
