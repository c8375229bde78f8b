# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A folder of files that is kept exactly as it is wanted, for the module that keeps it and the one that sees whether it is so."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.common.text.converters import to_bytes

DIRECTORY_MODE = 0o755

# How a module is given them
FILES: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "required": True,
    "options": {
        "path": {"type": "path", "required": True},
        "mode": {"type": "str", "required": True},
        "owner": {"type": "int"},
        "content": {"type": "str"},
        "secret_content": {"type": "str", "no_log": True},
        "keep": {"type": "bool", "default": False},
    },
    "required_one_of": [("content", "secret_content")],
    "mutually_exclusive": [("content", "secret_content")],
}


def read(path: str) -> bytes | None:
    """Return the content of a file, or None where there is none."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None


def is_right(path: str, mode: int, owner: int) -> bool:
    """Return whether a path's permissions, user and group are as wanted."""
    status = os.lstat(path)
    return (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, owner, owner)


def is_right_directory(path: str, owner: int) -> bool:
    """Return whether there is a folder, with this owner and what all folders here have as permissions."""
    return Path(path).is_dir() and is_right(path, DIRECTORY_MODE, owner)


def stale(root: str, wanted: Iterable[str]) -> Iterator[str]:
    """Yield what lies below root and is not wanted: files, then the folders that are empty without them."""
    kept = set(wanted)
    for folder, folders, names in os.walk(root, topdown=False):
        here = Path(folder)
        # A link to a folder goes like a file
        for name in [*names, *(name for name in folders if (here / name).is_symlink())]:
            if (path := str(here / name)) not in kept:
                yield path
        if folder != root and not any(path.startswith(folder + os.sep) for path in kept):
            yield folder


class WantedFile:
    """One of the files: what it shall be, beside what it is."""

    def __init__(self, entry: dict[str, Any], owner: int) -> None:
        """Look at it. `entry` is one of FILES, `owner` the number of who owns what names nobody."""
        self.path: str = entry["path"]
        self.secret: bool = entry["secret_content"] is not None
        self.mode = int(entry["mode"], 8)
        self.owner: int = owner if entry["owner"] is None else entry["owner"]
        self.before = read(self.path)
        self.content: bytes = to_bytes(entry["secret_content"] if self.secret else entry["content"])
        if entry["keep"] and self.before is not None:
            self.content = self.before

    @property
    def differs(self) -> bool:
        """Whether it is not there, or not so."""
        return self.before != self.content or not is_right(self.path, self.mode, self.owner)


def differs(root: str, owner: int, files: list[dict[str, Any]]) -> bool:
    """Return whether a folder is not there, or has anything else in it than these files, or not so."""
    paths = {entry["path"] for entry in files}
    return (
        not all(is_right_directory(path, 0) for path in {root, *(str(Path(path).parent) for path in paths)})
        or any(True for _ in stale(root, paths))
        or any(WantedFile(entry, owner).differs for entry in files)
    )
