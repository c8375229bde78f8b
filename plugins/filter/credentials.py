# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Secrets in the forms that the services' files want."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import urllib.parse
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError


def rabbitmq_password_hash(password: str) -> str:
    """Return RabbitMQ's salted SHA-256 hash of a password, base64.

    The salt comes from the password itself: a random one would make every run a change. Two users with the same password therefore
    have the same hash, which generated passwords never meet.
    """
    salt = hmac.new(password.encode(), b"rabbitmq salt", hashlib.sha256).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def dotenv(settings: dict[str, Any]) -> str:
    """Return settings as a dotenv file, sorted by name, for python-dotenv, which pydantic-settings reads such files with.

    Plain values stand unquoted, which every reader of dotenv files and `--env-file` agrees on. Others are put in single quotes, and those
    that have such quotes, backslashes or several lines in double quotes with backslash escapes. None leaves a setting out; booleans are
    written true and false, lists and dictionaries as JSON. Raises AnsibleFilterError for what the reader would change whatever the quoting.
    """
    lines = []
    for name, value in sorted(settings.items()):
        if value is None:
            continue
        text = json.dumps(value) if isinstance(value, (bool, dict, list)) else str(value)
        if "${" in text:
            raise AnsibleFilterError(
                f"The setting {name} has a dollar sign and a brace, which the reader of a dotenv file takes for a variable"
            )
        if re.search(r"[\s\"'#$`]", text):
            if re.search(r"[\\'\r\n]", text):
                if text.endswith("\\"):
                    raise AnsibleFilterError(
                        f"The setting {name} ends with a backslash, which the reader of a dotenv file takes for an escape"
                    )
                escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
                text = f'"{escaped}"'
            else:
                text = f"'{text}'"
        lines.append(f"{name}={text}\n")
    return "".join(lines)


def sql_literal(text: str) -> str:
    """Return text as an SQL string literal, whatever `standard_conforming_strings` says."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f" E'{escaped}'" if "\\" in text else f"'{escaped}'"


def url_part(text: str) -> str:
    """Return text as it stands in one part of a URL: user, password or path segment, with every reserved character escaped."""
    return urllib.parse.quote(str(text), safe="")


class FilterModule:
    """Filters on secrets."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"dotenv": dotenv, "rabbitmq_password_hash": rabbitmq_password_hash, "sql_literal": sql_literal, "url_part": url_part}
