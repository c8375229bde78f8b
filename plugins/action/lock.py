# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Take the lock of a stack in the name of whoever runs this."""

from __future__ import annotations

import getpass
import os
import socket
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

INTERVAL = 2.0


def operator() -> str:
    """Return who this is, as `user@host`."""
    return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"


def started(pid: int) -> str:
    """Return what tells a process from a later one with the same number; an empty text where it has ended, `?` where no more is known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "?"


def goes_on(holder: dict[str, Any], controller: str) -> bool:
    """Return whether the run of a holder is known to go on: it has a process on this controller."""
    process = holder.get("process") or {}
    return bool(process) and holder.get("controller") == controller and started(int(process["pid"])) == process["started"] != ""


def described(holder: dict[str, Any]) -> str:
    """Return who holds the lock, for a message."""
    reason = f" ({holder['reason']})" if holder.get("reason") else ""
    return f"{holder.get('owner')} has locked the stack since {holder.get('since')} for {holder.get('verb') or 'a change'}{reason}"


class ActionModule(ActionBase):
    """Implements the action."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take it, give it back, or say who holds it."""
        result = super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec(
            {
                "path": {"type": "path", "required": True},
                "state": {"type": "str", "default": "held", "choices": ["held", "free", "released", "broken"]},
                "owner": {"type": "str", "default": ""},
                "verb": {"type": "str", "default": ""},
                "reason": {"type": "str", "default": ""},
                "wait": {"type": "int", "default": 0},
                "last": {"type": "str"},
            }
        )
        run = dict((task_vars or {}).get("ansible_facts", {}).get("fba_run") or {})
        # Of ansible's own processes, the one that lasts as long as the run
        pid = os.getppid()
        me = run or {
            "run": uuid.uuid4().hex,
            "owner": args["owner"] or operator(),
            "verb": args["verb"],
            "reason": args["reason"],
            "since": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "began": round(time.time(), 3),
            "controller": socket.gethostname(),
            "process": {"pid": pid, "started": started(pid)},
        }
        deadline = time.monotonic() + args["wait"]
        interrupted: dict[str, Any] = {}
        told = False
        while True:
            answer = self._execute_module(
                "fba.stack.lock",
                {"path": args["path"], "state": args["state"], "holder": me, "replaces": interrupted.get("run", "")},
                task_vars=task_vars,
            )
            if answer.get("failed") or answer.get("unreachable"):
                return answer
            holder = answer.get("holder") or {}
            result |= {"changed": answer["changed"], "holder": holder, "last": answer["last"]}
            if args["state"] in ("released", "broken"):
                return result
            ours = holder.get("owner") == me["owner"] and not goes_on(holder, me["controller"])
            if answer["taken"] or self._task.check_mode or (args["state"] == "free" and (not holder or ours)):
                if args["state"] == "held":
                    # An interrupted run has the lock until it is gone on with, and is its last one afterwards
                    result["others"] = bool(interrupted) or answer["last"] != args["last"]
                    result["ansible_facts"] = {"fba_run": {**me, "interrupted": interrupted}}
                return result
            if not holder:
                # Given back between two looks
                interrupted = {}
                continue
            if ours and holder.get("run") != interrupted.get("run"):
                interrupted = holder
                continue
            if time.monotonic() >= deadline:
                break
            if not told:
                Display().display(f"{described(holder)}. Waiting for at most {args['wait']} s.")
                told = True
            time.sleep(INTERVAL)
        how = "That run still goes on." if holder.get("owner") == me["owner"] else ""
        advice = "Wait for it with release_wait=<seconds>, or, if that run is dead, take the lock away with unlock.yml (make unlock)."
        return result | {"failed": True, "msg": " ".join(filter(None, [f"{described(holder)}.", how, advice]))}
