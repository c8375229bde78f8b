# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Show what containers print, and go on showing it."""

from __future__ import annotations

import shlex
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

PAUSE = 1.0


def split_lines(output: str, after: str) -> tuple[list[str], str]:
    """Return the lines of `docker logs --timestamps` that are newer than the timestamp `after`, and the newest timestamp.

    `--since` includes the moment itself, so what was shown already comes again.
    """
    lines = []
    newest = after
    # At line feeds alone: a carriage return inside a line begins no line that has a timestamp
    for line in output.split("\n"):
        stamp, _, text = line.partition(" ")
        if stamp > after:
            lines.append(text)
            newest = max(newest, stamp)
    return lines, newest


class ActionModule(ActionBase):
    """Implements the action."""

    def _read(self, container: str, options: list[str]) -> str:
        command = shlex.join(["docker", "logs", "--timestamps", *options, container]) + " 2>&1"
        answer = self._low_level_execute_command(command)
        if answer["rc"] != 0:
            raise AnsibleActionFail(f"docker logs {container}: {answer['stdout'].strip() or answer['stderr'].strip()}")
        return answer["stdout"]

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Print the lines, each after the name of its host and container."""
        result = super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec(
            {
                "containers": {"type": "list", "elements": "str", "required": True},
                "lines": {"type": "int", "default": 50},
                "follow": {"type": "bool", "default": False},
            }
        )
        host = (task_vars or {})["inventory_hostname"]
        display = Display()
        newest = dict.fromkeys(args["containers"], "")
        while True:
            for container in args["containers"]:
                options = [f"--since={newest[container]}"] if newest[container] else [f"--tail={args['lines']}"]
                lines, newest[container] = split_lines(self._read(container, options), newest[container])
                for line in lines:
                    display.display(f"{host} {container} | {line}")
            if not args["follow"]:
                break
            # Not waiting for a condition: this is the rate at which a follower asks
            time.sleep(PAUSE)
        result["changed"] = False
        return result
