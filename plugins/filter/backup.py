# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where backups go, what the programs that make them are told, and what the table says of those that were made."""

from __future__ import annotations

import configparser
import io
import json
import re
import shlex
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ansible.errors import AnsibleFilterError

ALLOWED = "/folder, sftp://user@host:port/folder, s3://bucket/folder, or nothing for no backups"
# Where PostgreSQL's container sees a place that is a folder of its host, and the files of one that is elsewhere
FOLDER = "/var/lib/pgbackrest"
SECRETS = "/run/secrets/pgbackrest"
# Seconds in which PostgreSQL's log has to arrive, beyond what was asked for
LATE = 300


def backup_place(text: str) -> dict[str, Any]:
    """Return where backups go: `kind`, one of none, folder, sftp and s3, and what belongs to it.

    Raises AnsibleFilterError, which says what is allowed, for what is none of these.
    """
    if not text:
        return {"kind": "none"}
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise AnsibleFilterError(f"fba_backup_place is {text!r}: {error}; allowed are {ALLOWED}") from error
    path = parts.path.rstrip("/")
    # What needs quotes somewhere between a shell and two configuration files is refused
    plain = re.fullmatch(r"[A-Za-z0-9._/@:+-]+", text) and "/../" not in f"{path}/"
    if plain and not parts.scheme and not parts.netloc and path.startswith("/"):
        return {"kind": "folder", "path": path}
    if plain and parts.scheme == "sftp" and parts.hostname and parts.username and not parts.password and path:
        return {"kind": "sftp", "host": parts.hostname, "port": port or 22, "user": parts.username, "path": path}
    if plain and parts.scheme == "s3" and parts.hostname and not parts.username and port is None:
        return {"kind": "s3", "bucket": parts.hostname, "path": path}
    raise AnsibleFilterError(f"fba_backup_place is {text!r}: allowed are {ALLOWED}")


def pgbackrest_config(place: dict[str, Any], options: Mapping[str, Any], stanza: str, data: str) -> str:
    """Return pgBackRest's configuration, secrets included, for PostgreSQL's container.

    `options` are the values of the variables `fba_backup_*` without that prefix, and `process_max` and `queue_max`; `data` is PostgreSQL's
    data folder.
    """
    settings: dict[str, Any] = {
        "repo1-cipher-type": "aes-256-cbc",
        "repo1-cipher-pass": options["passphrase"],
        # Small files together, and of large ones the blocks that have changed
        "repo1-bundle": "y",
        "repo1-block": "y",
        "compress-type": "zst",
        # A connection that waits for another one's work is not taken for dead on the way
        "tcp-keep-alive-idle": 30,
        "tcp-keep-alive-interval": 10,
        "tcp-keep-alive-count": 3,
        "start-fast": "y",
        # To PostgreSQL's own log, and to whoever asks
        "log-level-file": "off",
        "log-level-console": "warn",
        "lock-path": "/tmp/pgbackrest",
        "process-max": options["process_max"],
        "archive-push-queue-max": options["queue_max"],
    }
    if place["kind"] == "folder":
        settings |= {"repo1-path": FOLDER}
    elif place["kind"] == "sftp":
        settings |= {
            "repo1-type": "sftp",
            "repo1-path": f"{place['path']}/postgres",
            "repo1-sftp-host": place["host"],
            "repo1-sftp-host-port": place["port"],
            "repo1-sftp-host-user": place["user"],
            "repo1-sftp-host-key-check-type": "strict",
            "repo1-sftp-host-key-hash-type": "sha256",
            "repo1-sftp-known-host": f"{SECRETS}/known_hosts",
            "repo1-sftp-private-key-file": f"{SECRETS}/ssh_key",
        }
    elif place["kind"] == "s3":
        host, _colon, port = options["s3_endpoint"].partition(":")
        settings |= {
            "repo1-type": "s3",
            "repo1-path": f"{place['path']}/postgres",
            "repo1-s3-bucket": place["bucket"],
            "repo1-s3-endpoint": host,
            "repo1-s3-region": options["s3_region"],
            "repo1-s3-uri-style": "path",
            "repo1-s3-key": options["s3_access_key"],
            "repo1-s3-key-secret": options["s3_secret_key"],
            "repo1-storage-port": port or 443,
        }
        if options["ca"]:
            settings["repo1-storage-ca-file"] = f"{SECRETS}/ca.pem"
    config = configparser.RawConfigParser()
    config.optionxform = str  # type: ignore[method-assign,assignment]
    config.read_dict({"global": settings, stanza: {"pg1-path": data, "pg1-socket-path": "/var/run/postgresql", "pg1-user": "postgres"}})
    text = io.StringIO()
    config.write(text, space_around_delimiters=False)
    return text.getvalue()


def pgbackrest_files(place: dict[str, Any], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the files beside its configuration that pgBackRest reads, as a container's spec has them."""
    wanted = {
        "ssh_key": options["ssh_key"] if place["kind"] == "sftp" else "",
        "known_hosts": options["ssh_known_hosts"] if place["kind"] == "sftp" else "",
        "ca.pem": options["ca"] if place["kind"] == "s3" else "",
    }
    return [
        {"path": f"{SECRETS}/{name}", "content": text.rstrip("\n") + "\n", "secret": True, "on_change": "nothing"}
        for name, text in wanted.items()
        if text
    ]


def restic_settings(place: dict[str, Any], options: Mapping[str, Any], host: str, folder: str, cache: str) -> dict[str, Any]:
    """Return how restic is called on a host: its `environment` and `options`, and its name of the `host`.

    With it, as `fetch`, what copies PostgreSQL's backups to a folder that is the next argument: by SFTP, pgBackRest restores from a copy.

    `folder` has its secrets: `passphrase`, `ssh_key`, `known_hosts` and `ca.pem`. Each host has a repository of its own, so that none waits
    for another one's lock.
    """
    environment = {"RESTIC_PASSWORD_FILE": f"{folder}/passphrase", "RESTIC_CACHE_DIR": cache}
    extra: list[str] = []
    fetch: list[str] = []
    path = f"{place.get('path', '')}/files/{host}"
    if place["kind"] == "folder":
        repository = path
    elif place["kind"] == "sftp":
        repository = f"sftp:{place['host']}:{path}"
        login = [
            *("-i", f"{folder}/ssh_key", "-o", f"Port={place['port']}", "-o", f"User={place['user']}"),
            *("-o", f"UserKnownHostsFile={folder}/known_hosts", "-o", "StrictHostKeyChecking=yes"),
            # A place that says nothing any more is noticed
            *("-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ServerAliveInterval=15"),
        ]
        extra = ["-o", f"sftp.command={shlex.join(['ssh', *login, place['host'], '-s', 'sftp'])}"]
        fetch = ["sftp", "-q", "-r", *login, f"{place['host']}:{place['path']}/postgres"]
    else:
        repository = f"s3:https://{options['s3_endpoint']}/{place['bucket']}{path}"
        environment |= {
            "AWS_ACCESS_KEY_ID": options["s3_access_key"],
            "AWS_SECRET_ACCESS_KEY": options["s3_secret_key"],
            "AWS_DEFAULT_REGION": options["s3_region"],
        }
        extra = ["-o", "s3.bucket-lookup=path"] + (["--cacert", f"{folder}/ca.pem"] if options["ca"] else [])
    return {"environment": environment | {"RESTIC_REPOSITORY": repository}, "options": extra, "host": host, "fetch": fetch}


def backup_parts(services: Iterable[str], containers: Mapping[str, str], volumes: Mapping[str, str], storage: str) -> dict[str, Any]:
    """Return what a host has that is backed up: whether `postgres`, `streams` (name to container) and `volumes`.

    `containers` are those of the services that have a backup command, by what it is called; the service is what comes before a dash.
    `volumes` are the application's; the first is that of uploads, which is empty unless they are kept in it.
    """
    services = list(services)
    application = any(service in services for service in ("server", "worker", "beat"))
    names = list(volumes)
    return {
        "postgres": "postgres" in services,
        "streams": {name: container for name, container in containers.items() if name.partition("-")[0] in services},
        "volumes": (names if storage == "volume" else names[1:]) if application else [],
    }


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def backup_rows(hosts: Iterable[str], hostvars: Mapping[str, Any], max_age: float, now: float | None = None) -> list[list[str]]:
    """Return the rows of the table of backups: what is backed up on each host, when it last was, its size, and how it is.

    roles/backup/tasks/status.yml has registered on each host what is known, and how the log is archived; on one that has nothing to back up
    it has skipped that. `max_age` is in hours, `now` in seconds since 1970, the present by default.
    """
    rows = []
    now = time.time() if now is None else now
    for host in hosts:
        known, archiver = hostvars[host]["__backup_state"], hostvars[host]["__backup_archiver"]
        if known.get("skipped"):
            continue
        parts = json.loads(known["stdout"] or "{}")
        if not parts:
            rows.append(["(all)", host, "-", "-", "-", "never made"])
        for name, part in parts.items():
            made = part["succeeded"]
            old = now - made > max_age * 3600
            health = "failed" if part["reason"] else "stale" if old else "healthy"
            rows.append([name, host, _when(made), part.get("what", "-"), _bytes(part["bytes"]) if "bytes" in part else "-", health])
        if not archiver.get("skipped"):
            rows.append(["postgres log", host, *archive_row(archiver.get("stdout") or "", now)])
    return rows


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC") if seconds else "-"


def archive_row(answer: str, now: float) -> list[str]:
    """Return when PostgreSQL's log was last archived, up to where, and how that goes, from the answer to the role's query.

    That is, divided by bars: the last file and when, when it last failed, how many files wait, and since when; seconds since 1970.
    """
    if not answer:
        return ["-", "-", "-", "unreachable"]
    name, archived, failed, waiting, oldest = (answer.strip().split("|") + [""] * 5)[:5]
    late = bool(oldest) and now - float(oldest) > LATE
    broken = bool(failed) and float(failed) > float(archived or 0)
    health = "failed" if broken or late else "healthy"
    return [_when(float(archived or 0)), name or "-", f"{waiting or 0} waiting", health]


def backup_reasons(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> str:
    """Return why what has failed has failed, a line each."""
    lines = []
    for host in hosts:
        state = json.loads(hostvars[host]["__backup_state"].get("stdout") or "{}")
        lines += [f"{name} on {host}: {part['reason']}" for name, part in state.items() if part["reason"]]
    return "\n".join(lines)


def secret_files(texts: Mapping[str, str], root: str) -> list[dict[str, Any]]:
    """Return files as the module fba.stack.container_files wants them, name to text, for root alone; those without a text are left out."""
    return [{"path": f"{root}/{name}", "mode": "0400", "secret_content": text.rstrip("\n") + "\n"} for name, text in texts.items() if text]


class FilterModule:
    """Filters for backups."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "backup_parts": backup_parts,
            "backup_place": backup_place,
            "backup_reasons": backup_reasons,
            "backup_rows": backup_rows,
            "pgbackrest_config": pgbackrest_config,
            "pgbackrest_files": pgbackrest_files,
            "restic_settings": restic_settings,
            "secret_files": secret_files,
        }
