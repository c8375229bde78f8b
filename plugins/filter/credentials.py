# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Secrets in the forms that the services' files want."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any


def rabbitmq_password_hash(password: str) -> str:
    """Return RabbitMQ's salted SHA-256 hash of a password, base64.

    The salt comes from the password itself: a random one would make every run a change. Two users with the same password therefore
    have the same hash, which generated passwords never meet.
    """
    salt = hmac.new(password.encode(), b"rabbitmq salt", hashlib.sha256).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def dotenv(settings: dict[str, Any]) -> str:
    """Return settings as a dotenv file, sorted by name.

    Plain values stand unquoted, which every reader of dotenv files and `--env-file` agrees on. Others are put in double quotes with
    backslash escapes. None leaves a setting out; booleans are written true and false.
    """
    lines = []
    for name, value in sorted(settings.items()):
        if value is None:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if any(character in text for character in " \t\n\"'#$\\`"):
            escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("$", "\\$").replace("`", "\\`")
            text = f'"{escaped}"'
        lines.append(f"{name}={text}\n")
    return "".join(lines)


class FilterModule:
    """Filters on secrets."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"dotenv": dotenv, "rabbitmq_password_hash": rabbitmq_password_hash}
