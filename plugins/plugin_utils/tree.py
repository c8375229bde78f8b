# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders as build inputs: which files belong to one, and the hash that names what is built from them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

# The roles' own recipes: the Dockerfiles, entrypoints and locks that the images role builds from
RECIPES = Path(__file__).resolve().parents[2] / "roles" / "images" / "files"

ALWAYS_IGNORED = (".git", "**/__pycache__", "**/*.pyc")


class TreeError(ValueError):
    """A folder cannot be used as a build input."""


def _pattern(line: str) -> re.Pattern[str]:
    """Translate one .dockerignore line: `**` crosses folders, `*` and `?` do not."""
    out = ""
    rest = line.strip("/")
    while rest:
        if rest.startswith("**/"):
            out, rest = out + r"(?:.*/)?", rest[3:]
        elif rest.startswith("**"):
            out, rest = out + ".*", rest[2:]
        elif rest[0] == "*":
            out, rest = out + "[^/]*", rest[1:]
        elif rest[0] == "?":
            out, rest = out + "[^/]", rest[1:]
        else:
            out, rest = out + re.escape(rest[0]), rest[1:]
    return re.compile(out)


def ignore_patterns(root: Path) -> list[re.Pattern[str]]:
    """Return what `root/.dockerignore` leaves out, besides what no image ever needs.

    Raises TreeError for an exception (`!pattern`), which is not supported: leaving it out silently would build another image.
    """
    lines = list(ALWAYS_IGNORED)
    ignore_file = root / ".dockerignore"
    if ignore_file.is_file():
        for number, raw in enumerate(ignore_file.read_text(encoding="utf-8").splitlines(), 1):
            line = raw.strip()
            if line.startswith("!"):
                raise TreeError(f"{ignore_file}:{number}: exceptions ({line}) are not supported")
            if line and not line.startswith("#"):
                lines.append(line)
    return [_pattern(line) for line in lines]


def tree_files(root: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield (path relative to root, path) of every file and symbolic link that is not ignored, in a stable order."""
    if not root.is_dir():
        raise TreeError(f"{root} is not a folder")
    ignored = ignore_patterns(root)

    def wanted(relative: str) -> bool:
        return not any(pattern.fullmatch(relative) for pattern in ignored)

    for folder, folders, files in os.walk(root):
        base = Path(folder).relative_to(root)
        # A link to a folder is an entry of its own: os.walk does not descend into it
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in links and wanted((base / name).as_posix()))
        for name in sorted(files + links):
            relative = (base / name).as_posix()
            if wanted(relative):
                yield PurePosixPath(relative), Path(folder) / name


def tree_hash(trees: dict[str, Path], salt: Any = None) -> str:
    """Return 12 hexadecimal digits that change with any file's path, content or executable bit, and with `salt`.

    `trees` maps the place in the build context to the folder that goes there. `salt` is anything JSON can hold.
    """
    digest = hashlib.sha256(json.dumps(salt, sort_keys=True).encode())
    for place, root in sorted(trees.items()):
        for relative, path in tree_files(root):
            if path.is_symlink():
                kind, content = "link", str(path.readlink()).encode()
            else:
                kind = "exec" if os.access(path, os.X_OK) else "file"
                content = path.read_bytes()
            header = json.dumps([place, relative.as_posix(), kind, len(content)])
            digest.update(header.encode() + content)
    return digest.hexdigest()[:12]


def build_trees(build: dict[str, Any]) -> dict[str, Path]:
    """Return place → folder of a build: `recipe:<name>` stands for one of the roles' recipes, anything else is a path."""
    trees = {
        place: RECIPES / source.removeprefix("recipe:") if source.startswith("recipe:") else Path(source).expanduser()
        for place, source in build["trees"].items()
    }
    trees["."] = RECIPES / build["dockerfile"]
    return trees
