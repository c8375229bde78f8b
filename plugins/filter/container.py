# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a container's spec to what Docker is asked for."""

from __future__ import annotations

import configparser
import hashlib
import hmac
import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.fba.stack.plugins.filter.fleet import SERVICES

# Where the probe that ends a hanging program is mounted
PROBE = "/opt/fba/probe.sh"

# What the collection brings to every container with supervised programs
TOOLS = "/opt/fba"
SUPERVISOR_CONFIG = "/etc/supervisor/supervisord.conf"
SUPERVISORD = ["/opt/supervisor/bin/python", f"{TOOLS}/supervisord.py", "-c", SUPERVISOR_CONFIG]
# Of all programs of a container: to supervisorctl each is `programs:<name>`
GROUP = "programs"
# How a running container takes over changed files
RELOAD = f"{TOOLS}/reload"
# What writes to its standard output whatever a backup of the container keeps
BACKUP = f"{TOOLS}/backup"
# Commands that come to a running container: another one is no reason for another container
COMMANDS = {"reload": RELOAD, "backup": BACKUP}
# Where a container sees its certificate, what it elects its leader with, and the seconds that a leader needs to hand over
TLS = "/run/fba/tls"
HANDOVER = 5
LOCK_SERVICE = "/run/fba/lock/pg_service.conf"
# Behind the name of a container that finishes what it does beside its successor
LEAVING = "_leaving"
# What says how a container is replaced, and not what it is
MANNERS = (*COMMANDS, "start_first")
# Files that count for the hash only by the folder that is mounted for them: one more is no reason for another container
UNCOUNTED = ("nothing", "keep")


def _with_defaults(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the spec with the defaults of roles/container/meta/argument_specs.yml: role parameters arrive without them."""
    defaults: dict[str, Any] = {
        "command": [],
        "environment": {},
        "files": [],
        "programs": [],
        "volumes": {},
        "binds": {},
        "tmpfs": {},
        "tls": None,
        "reload_by_restart": False,
        "hosts": {},
        "logs": False,
        "address": None,
        "ports": [],
        "health": {},
        "reload": [],
        "backup": [],
        "cpus": 0.0,
        "cpu_shares": 0,
        "shm_size": "64m",
        "stop_signal": None,
        "capabilities": [],
        "read_only": True,
    }
    result = {**defaults, **spec}
    result["hostname"] = spec.get("hostname") or spec["name"]
    if result["programs"]:
        result["command"] = SUPERVISORD
    file_defaults = {"secret": False, "mount": "directory", "on_change": "recreate"}
    result["files"] = [{**file_defaults, **entry} for entry in result["files"]]
    if result["health"]:
        health_defaults = {"liveness": [], "interval": 10, "timeout": 5, "failures": 3, "start_period": 60}
        result["health"] = {**health_defaults, **result["health"]}
    if int(spec["user"]) == 0:
        raise AnsibleFilterError(f"container_spec.user of {spec['name']} is 0: a container never runs as root")
    for entry in result["files"]:
        if entry["mount"] == "file" and entry["on_change"] != "recreate":
            raise AnsibleFilterError(
                f"container_spec.files of {spec['name']}: {entry['path']} is mounted alone, so a change cannot reach a running container"
            )
    return result


def _host_path(root: str, entry: dict[str, Any]) -> str:
    """Return where a file of the spec lies on the host: one folder per folder of the container."""
    path = PurePosixPath(entry["path"])
    kind = "file" if entry["mount"] == "file" else "dir"
    # Two folders of the container never share one on the host, whatever dashes their names have
    folder = "".join("-" + part.replace("%", "%25").replace("-", "%2d") for part in path.parent.parts[1:])
    return f"{root}/{kind}{folder}/{path.name}"


def container_host_path(path: str, root: str) -> str:
    """Return where a file of a container, one whose folder is mounted, lies on the host, below the container's folder `root`."""
    return _host_path(root, {"path": path, "mount": "directory"})


def _supervisor_command(program: dict[str, Any]) -> str:
    """Return a program's command line as supervisord reads it: words quoted for its shlex, percent signs doubled."""
    command = [str(word) for word in program["command"]]
    if program.get("singleton"):
        # It gives the program less than supervisord gives it, so that it lives to hand over
        stop_wait = max(1, int(program["stop_wait"]) - HANDOVER)
        election = [f"--name={program['name']}", f"--service-file={LOCK_SERVICE}", f"--stop-wait={stop_wait}"]
        command = ["/opt/supervisor/bin/python", f"{TOOLS}/singleton.py", *election, "--", *command]
    if program.get("prelude"):
        command = [str(word) for word in program["prelude"]] + command
    if program.get("watch"):
        watches = [f"--watch={path}" for path in program["watch"]]
        command = ["/opt/supervisor/bin/python", f"{TOOLS}/watch.py", *watches, f"--stop-wait={program['stop_wait']}", "--", *command]
    if program.get("wait_for"):
        waits = [f"--wait={address}" for address in program["wait_for"]]
        command = ["python3", f"{TOOLS}/launch.py", *waits, f"--timeout={program.get('wait_timeout', 300)}", "--", *command]
    # Supervisor's parser takes a semicolon or hash after white space for a comment, even in quotes; an empty string in between helps
    return re.sub(r"(\s)([;#])", r"\1''\2", shlex.join(command)).replace("%", "%%")


def supervisor_config(programs: list[dict[str, Any]]) -> str:
    """Return supervisord's configuration for the programs of a container."""
    log = {"stdout_logfile_maxbytes": "5MB", "stdout_logfile_backups": "5"}
    config = configparser.RawConfigParser()
    config.read_dict(
        {
            "supervisord": {
                "nodaemon": "true",
                "logfile": "/var/log/fba/supervisord.log",
                "logfile_maxbytes": "5MB",
                "logfile_backups": "5",
                "pidfile": "/tmp/supervisord.pid",
                # A thousand greenlets each hold a connection
                "minfds": "4096",
            },
            "unix_http_server": {"file": "/tmp/supervisor.sock", "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface",
            },
            "supervisorctl": {"serverurl": "unix:///tmp/supervisor.sock"},
            # Its standard output belongs to supervisor's protocol, so what the container shall print goes to its standard error
            "eventlistener:supervise": {
                "command": f"/opt/supervisor/bin/python {TOOLS}/supervise.py",
                "events": "PROCESS_LOG,PROCESS_STATE_EXITED,PROCESS_STATE_FATAL,SUPERVISOR_STATE_CHANGE_STOPPING",
                "buffer_size": "10000",
                "stderr_logfile": "/dev/stderr",
                "stderr_logfile_maxbytes": "0",
            },
        }
    )
    if programs:
        # Supervisor stops one group after the other, and all of a group at once: while a worker's first pool finished its tasks, the
        # others would take new ones, and all of them together would need longer than Docker waits
        config[f"group:{GROUP}"] = {"programs": ",".join(program["name"] for program in programs)}
    for program in programs:
        config[f"program:{program['name']}"] = {
            "command": _supervisor_command(program),
            "autostart": "true",
            "autorestart": "true",
            "startsecs": "3",
            "startretries": "5",
            "stopwaitsecs": str(program["stop_wait"]),
            # The signal goes to the parent alone, which drains its children; what is left when it is killed goes with it
            "stopasgroup": "false",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": f"/var/log/fba/{program['name']}.log",
            "stdout_events_enabled": "true",
            **log,
        }
    text = io.StringIO()
    config.write(text)
    return text.getvalue()


def container_files(spec: dict[str, Any], root: str, tools: dict[str, str]) -> list[dict[str, Any]]:
    """Return the files of a container as the module fba.stack.container_files wants them.

    `root` is the container's folder on the host, `tools` the texts of the collection's own scripts by file name: the probe for every
    container with a health check, the others for those with supervised programs.
    """
    spec = _with_defaults(spec)
    added = {}
    if spec["health"]:
        added[PROBE] = tools["probe.sh"]
    if spec["programs"]:
        added |= {f"{TOOLS}/{name}": text for name, text in tools.items() if name.endswith(".py")}
        added[SUPERVISOR_CONFIG] = supervisor_config(spec["programs"])
    for name, path in COMMANDS.items():
        if spec[name]:
            added[path] = shlex.join(str(word) for word in spec[name]) + "\n"
    files = [
        {
            "path": _host_path(root, entry),
            "mode": "0400" if entry["secret"] else "0444",
            "secret_content" if entry["secret"] else "content": entry["content"],
            **({"keep": True} if entry["on_change"] == "keep" else {}),
        }
        for entry in spec["files"]
    ]
    for path, content in added.items():
        files.append({"path": _host_path(root, {"path": path, "mount": "directory"}), "mode": "0444", "content": content})
    return files


def container_reload_files(spec: dict[str, Any], root: str) -> list[str]:
    """Return the host paths of the files whose change is taken over by a reload."""
    return [_host_path(root, entry) for entry in _with_defaults(spec)["files"] if entry["on_change"] == "reload"]


def container_hash(spec: dict[str, Any], key: str, context: Any = None) -> str:
    """Return 16 hexadecimal digits that change when a running container no longer is what the spec says.

    The content of files that a reload takes over does not count, and neither does what the role adds by itself, defaults among it: a newer
    collection with the same spec replaces no container. A file that asks for nothing, or is kept, counts only by the folder that is mounted
    for it, so where another file brings that folder it does not count at all. Keyed, because the label it goes into is public and files
    hold secrets. `context` is what else the container is made from, such as the time zone.
    """
    explicit = {name: value for name, value in spec.items() if name not in MANNERS}
    files = _with_defaults(spec)["files"]
    counted = [entry for entry in files if entry["on_change"] not in UNCOUNTED]
    folders = {str(PurePosixPath(entry["path"]).parent) for entry in files if entry["on_change"] in UNCOUNTED}
    folders -= {str(PurePosixPath(entry["path"]).parent) for entry in counted if entry["mount"] == "directory"}
    explicit["files"] = sorted(
        [
            *([entry["path"], entry["mount"], entry["content"] if entry["on_change"] == "recreate" else ""] for entry in counted),
            *([folder, "directory", ""] for folder in folders),
        ]
    )
    text = json.dumps([explicit, context], sort_keys=True, default=str)
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()[:16]


def container_options(spec: dict[str, Any], root: str, log_root: str, tls_root: str) -> dict[str, Any]:
    """Return the options of community.docker.docker_container that depend on the spec.

    `root` and `log_root` are the container's folders for files and logs on the host, `tls_root` the one with a folder for each certificate.
    """
    full = _with_defaults(spec)
    user = int(full["user"])
    owner = f"uid={user},gid={user},mode=0755,nosuid,nodev"
    mounts: list[dict[str, Any]] = []
    folders: set[str] = set()
    entries = [*full["files"]]
    if full["health"] or full["programs"]:
        entries.append({"path": PROBE, "mount": "directory"})
    if full["programs"]:
        entries.append({"path": SUPERVISOR_CONFIG, "mount": "directory"})
    for entry in entries:
        host_path = PurePosixPath(_host_path(root, entry))
        if entry["mount"] == "file":
            mounts.append({"type": "bind", "source": str(host_path), "target": entry["path"], "read_only": True})
        elif str(host_path.parent) not in folders:
            folders.add(str(host_path.parent))
            target = str(PurePosixPath(entry["path"]).parent)
            mounts.append({"type": "bind", "source": str(host_path.parent), "target": target, "read_only": True})
    for volume, target in sorted(full["volumes"].items()):
        path, _colon, mode = target.partition(":")
        mounts.append({"type": "volume", "source": volume, "target": path, "read_only": mode == "ro"})
    for host, target in sorted(full["binds"].items()):
        path, _colon, mode = target.partition(":")
        mounts.append({"type": "bind", "source": host, "target": path, "read_only": mode != "rw"})
    if full["tls"]:
        mounts.append({"type": "bind", "source": f"{tls_root}/{full['tls']}", "target": TLS, "read_only": True})
    if full["logs"]:
        mounts.append({"type": "bind", "source": log_root, "target": "/var/log/fba", "read_only": False})
    tmpfs = {"/tmp": "64m", **full["tmpfs"]}
    options: dict[str, Any] = {
        "command": [str(argument) for argument in full["command"]],
        "env": {name: str(value) for name, value in full["environment"].items()},
        "hostname": full["hostname"],
        "user": f"{user}:{user}",
        "mounts": mounts,
        "tmpfs": [f"{path}:size={size},{owner}" for path, size in sorted(tmpfs.items())],
        "ports": full["ports"],
        "shm_size": full["shm_size"],
        "memory": full["memory"],
        "cpus": float(full["cpus"]),
        "cpu_shares": int(full["cpu_shares"]),
        "stop_signal": full["stop_signal"],
        "stop_timeout": int(full["stop_timeout"]),
        "capabilities": full["capabilities"],
        "read_only": full["read_only"],
        "address": full["address"],
        "hosts": full["hosts"],
    }
    if full["health"]:
        health = full["health"]
        settings = [str(health[name]) for name in ("timeout", "failures", "start_period")]
        # The probe gives each of its two commands the timeout; Docker's own is the net below
        options["healthcheck"] = {
            "test": ["CMD", "sh", PROBE, *settings, *health["test"], "--liveness", *health["liveness"]],
            "interval": f"{health['interval']}s",
            "timeout": f"{2 * health['timeout'] + 2}s",
            "retries": health["failures"],
            "start_period": f"{health['start_period']}s",
            "start_interval": f"{max(1, int(health['interval']) // 5)}s",
        }
        # A minute more than a start may take: who gives up sooner never learns how it ended
        options["patience"] = int(health["start_period"]) + 60
    return options


def container_plan(
    spec: dict[str, Any], key: str, context: dict[str, Any], folders: tuple[str, str, str], tools: dict[str, str], once: bool = False
) -> dict[str, Any]:
    """Return all that the role's tasks need to know of a container, worked out once.

    `folders` are the container's for files and for logs on the host, and that of all certificates; `tools` the texts of the collection's
    own scripts by file name; `key` and `context` as for container_hash. With `once`, the container runs its command to the end.
    """
    root, log_root, tls_root = folders
    options = container_options(spec, root, log_root, tls_root)
    return {
        "name": spec["name"],
        "service": spec["service"],
        "image": spec["image"],
        "once": once,
        # Only where it says something: a label more would be another container
        "labels": {"fba.reload": "restart"} if spec.get("reload_by_restart") else {},
        "hash": container_hash(spec, key, context),
        "root": root,
        "owner": int(spec["user"]),
        "log_dir": log_root if spec.get("logs") else None,
        "files": container_files(spec, root, tools),
        "reload": ["sh", RELOAD] if spec.get("reload") else [],
        "reload_files": container_reload_files(spec, root),
        "leaves_as": spec["name"] + LEAVING if spec.get("start_first") else "",
        "options": options,
    }


def container_list(
    containers: list[dict[str, Any]], order: str, once: bool = False, services: list[str] | None = None, running: bool = False
) -> list[dict[str, Any]]:
    """Return `name`, `stop_timeout` (seconds) and `reload` of containers, as docker_host_info lists them, in the order `start` or `stop`.

    With `once`, also those that ran to their end and are kept as a record. With `services` those of these alone, with `running` those alone
    that run. One that finishes what it does beside its successor is none to start: it is only in the order `stop`.
    """

    def rank(container: dict[str, Any]) -> tuple[int, str]:
        service = container["Labels"].get("fba.service")
        return (SERVICES.index(service) if service in SERVICES else len(SERVICES), container["Names"][0])

    wanted = [
        container
        for container in containers
        if (once or container["Labels"].get("fba.once") != "true")
        and (services is None or container["Labels"].get("fba.service") in services)
        and (not running or container["State"] == "running")
        and (order == "stop" or not container["Names"][0].endswith(LEAVING))
    ]
    found = [
        {
            "name": container["Names"][0].lstrip("/"),
            "stop_timeout": int(container["Labels"].get("fba.stop_timeout", 10)),
            "reload": container["Labels"].get("fba.reload", "command"),
        }
        for container in sorted(wanted, key=rank)
    ]
    return found[::-1] if order == "stop" else found


def container_healthcheck(healthcheck: dict[str, Any], engine: str) -> dict[str, Any]:
    """Return what an engine of this version understands of a health check: until the first success, those since 25 ask more often."""
    major = engine.partition(".")[0]
    if major.isdecimal() and int(major) >= 25:
        return healthcheck
    return {name: value for name, value in healthcheck.items() if name != "start_interval"}


class FilterModule:
    """Filters on container specs."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "container_healthcheck": container_healthcheck,
            "container_host_path": container_host_path,
            "container_list": container_list,
            "container_plan": container_plan,
        }
