"""Which files are taken, and under which names."""

import unicodedata
from collections.abc import Mapping
from pathlib import PurePosixPath

from fba_app.problems import InvalidError, UnsupportedTypeError

NAME_MAX_LENGTH = 255

ANY_TYPE = "application/octet-stream"
"""What a client declares that does not know better."""

# By the name's ending: the type that the file is given, and what else clients declare for it. Nothing that a browser
# would run.
TYPES: Mapping[str, tuple[str, ...]] = {
    ".csv": ("text/csv", "text/plain", "application/csv", "application/vnd.ms-excel"),
    ".gif": ("image/gif",),
    ".jpeg": ("image/jpeg",),
    ".jpg": ("image/jpeg",),
    ".json": ("application/json", "text/json", "text/plain"),
    ".pdf": ("application/pdf",),
    ".png": ("image/png",),
    ".txt": ("text/plain",),
    ".webp": ("image/webp",),
    ".xlsx": ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",),
    ".zip": ("application/zip", "application/x-zip-compressed"),
}


def clean_name(name: str) -> str:
    """Return the name without a path and without what cannot be seen, shortened if need be.

    Raises:
        InvalidError: nothing is left.
    """
    name = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1])
    # Controls, direction marks that make `exe.txt` of `txt.exe`, halves of surrogate pairs.
    name = "".join(char for char in name if unicodedata.category(char)[0] != "C").strip(" .")
    if not name:
        raise InvalidError("The file has no name.", ("body", "file"))
    if len(name) > NAME_MAX_LENGTH:
        suffix = PurePosixPath(name).suffix[: NAME_MAX_LENGTH // 2]
        name = name[: NAME_MAX_LENGTH - len(suffix)] + suffix
    return name


def content_type_of(name: str, declared: str) -> str:
    """Return the type of a file with this name, in which its ending and the client's word must agree.

    Raises:
        UnsupportedTypeError: they do not, or it is none of `TYPES`.
    """
    suffix = PurePosixPath(name).suffix.lower()
    types = TYPES.get(suffix)
    if types is None:
        raise UnsupportedTypeError(f"A file's name must end in one of {', '.join(TYPES)}.")
    if declared not in (*types, ANY_TYPE, ""):
        raise UnsupportedTypeError(f"A file whose name ends in {suffix} must be {types[0]}.")
    return types[0]
