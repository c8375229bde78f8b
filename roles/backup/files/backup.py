#!/usr/bin/env python3
"""Back up what this host has of the stack, check its backups, and bring files back.

    backup.py run [--full]                          what the timer runs
    backup.py check [--at TIME] [--wanted KIND …]   read all that a restore would take, which has to have what is of these kinds
    backup.py restore --at TIME --aside WORD KIND   bring back what is of one kind: volumes, redis or definitions
    backup.py show --at TIME NAME                   write to standard output what was saved of redis, rabbitmq or postgres-dump
    backup.py fetch FOLDER USER                     copy PostgreSQL's backups to a folder, for that user

plan.json beside this file says what the host has and where it goes. PostgreSQL is backed up by pgBackRest in its own container; the rest by
restic, a snapshot for each source. What came of it is kept as JSON, for the table of the playbook `status`.

Needs Python's standard library alone. Ends with 0 only if everything has succeeded.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

DAY = 86400
KINDS = ("volumes", "redis", "definitions")
# What the table has besides the parts, where they could not be removed
OLD_SNAPSHOTS = "old snapshots"
# Of what a program says on standard error, how much is kept as the reason
TAIL = 2000
# What restic says where the place can be reached and nothing was ever backed up to it. It asks the question whatever the reason is
NO_REPOSITORY = "Is there a repository at the following location?"
ABSENT = ("no such file or directory", "does not exist")


class BackupError(Exception):
    """Something has failed, and this is why."""


def run(command: list[str], *, environment: dict[str, str] | None = None, **options: Any) -> str:
    """Run a program and return its standard output. Raises BackupError with what it said when it fails."""
    try:
        done = subprocess.run(
            command, env=os.environ | (environment or {}), stderr=subprocess.PIPE, check=False, **{"stdout": subprocess.PIPE, **options}
        )
    except OSError as error:
        raise BackupError(f"{command[0]}: {error}") from error
    said = done.stderr.decode("utf-8", "replace").strip()[-TAIL:]
    output = (done.stdout or b"").decode("utf-8", "replace")
    if done.returncode != 0:
        # pgBackRest says on standard output what is wrong
        raise BackupError(f"{' '.join(command[:4])} … ended with {done.returncode}: {said or output.strip()[-TAIL:] or 'it said nothing'}")
    return output


def say(text: str) -> None:
    """Tell whoever watches, or the journal."""
    print(text, flush=True)


# PostgreSQL


def is_due(backups: list[dict[str, Any]], now: float, days: float) -> bool:
    """Return whether a full backup has to be made: there is none, or the last one is so many days old. An hour less counts as whole."""
    full = [backup["timestamp"]["start"] for backup in backups if backup["type"] == "full" and not backup.get("error")]
    return not full or now - max(full) >= days * DAY - 3600


def number_to_keep(backups: list[dict[str, Any]], now: float, number: int, days: float) -> int:
    """Return how many full backups have to stay: at least `number`, and so many that each moment of the last days can be restored.

    For that, the last one from before those days has to stay too.
    """
    full = [backup["timestamp"]["stop"] for backup in backups if backup["type"] == "full" and not backup.get("error")]
    young = sum(1 for stop in full if stop > now - days * DAY)
    return max(number, young + 1, 1)


class PgBackRest:
    """PostgreSQL's backups: what pgBackRest is asked for, in PostgreSQL's container."""

    def __init__(self, settings: dict[str, Any], keep: dict[str, int]) -> None:
        self.settings, self.keep = settings, keep

    def ask(self, *arguments: str) -> str:
        """Run pgBackRest and return what it prints."""
        return run(["docker", "exec", self.settings["container"], "pgbackrest", f"--stanza={self.settings['stanza']}", *arguments])

    def backups(self) -> list[dict[str, Any]]:
        """Return the backups that there are."""
        found = json.loads(self.ask("--output=json", "info"))
        return [backup for stanza in found for backup in stanza["backup"]]

    def back_up(self, full: bool) -> tuple[str, int]:
        """Make a backup, remove those that are no longer kept, and return what it is, and its bytes in the place for backups."""
        # Nothing where it is there already; refused where it is another database's
        self.ask("stanza-create")
        kind = "full" if full or is_due(self.backups(), time.time(), self.settings["full_days"]) else "incr"
        self.ask(f"--type={kind}", "--no-expire-auto", "backup")
        backups = self.backups()
        last = backups[-1]
        if last.get("error"):
            # pgBackRest keeps it, and says so no louder than that. Earlier ones may be the last that are whole
            raise BackupError(
                f"{last['label']}: PostgreSQL has damaged pages, and so has this backup; none was removed. "
                f"`pgbackrest --stanza={self.settings['stanza']} --set={last['label']} info` in {self.settings['container']} names them"
            )
        number = number_to_keep(backups, time.time(), self.keep["number"], self.keep["days"])
        self.ask(f"--repo1-retention-full={number}", "expire")
        repository = last["info"]["repository"]
        return f"{kind} {last['label']}", repository.get("delta") or repository.get("size") or 0


# Everything else


def mountpoint(volume: str) -> Path:
    """Return where a volume's files are on the host; one that is not there is made."""
    run(["docker", "volume", "create", volume])
    return Path(run(["docker", "volume", "inspect", "--format", "{{ .Mountpoint }}", volume]).strip())


def chosen(snapshots: list[dict[str, Any]], at: float | None) -> dict[str, str]:
    """Return of each source the last snapshot that is not later than a moment: tag to id."""
    last: dict[str, tuple[float, str]] = {}
    for snapshot in snapshots:
        made = parse_time(snapshot["time"])
        for tag in snapshot.get("tags") or []:
            if (at is None or made <= at) and made >= last.get(tag, (0.0, ""))[0]:
                last[tag] = (made, snapshot["id"])
    return {tag: identity for tag, (_made, identity) in last.items()}


def parse_time(text: str) -> float:
    """Return the seconds since 1970 of a time with its offset from UTC. Its fraction may be longer than Python's."""
    head, _dot, rest = text.strip().replace(" ", "T").partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    whole = datetime.fromisoformat((head + rest[digits:]).replace("Z", "+00:00"))
    if whole.tzinfo is None:
        raise BackupError(f"{text}: a time needs its offset from UTC, as in 2026-11-22 03:15:00+00:00")
    return whole.timestamp() + float(f"0.{rest[:digits] or 0}")


class Restic:
    """The backups of files: a snapshot for each source, with its name as tag."""

    def __init__(self, settings: dict[str, Any], keep: dict[str, int]) -> None:
        self.settings, self.keep = settings, keep

    def ask(self, *arguments: str, **options: Any) -> str:
        """Run restic and return what it prints."""
        return run(["restic", *self.settings["options"], *arguments], environment=self.settings["environment"], **options)

    @property
    def place(self) -> str:
        """Where the repository is."""
        return str(self.settings["environment"]["RESTIC_REPOSITORY"])

    def prepare(self, known: bool) -> None:
        """Make the repository where there is none, and remove the locks of runs that were killed. One that is `known` was there before."""
        try:
            self.ask("cat", "config", "--no-lock")
        except BackupError as first:
            if known:
                # A folder whose file system is not mounted is an empty one, on the host's own disk
                raise BackupError(
                    f"{first}\nBackups were made to this place before, so it is not begun anew: is it mounted? "
                    "Where it was emptied on purpose, remove the record of backups, backup.json, on this host"
                ) from first
            try:
                self.ask("init")
            except BackupError as second:
                raise BackupError(f"{first}\n{second}") from second
        # One that somebody holds stays
        self.ask("unlock")

    def save(self, name: str, folder: Path) -> tuple[str, int]:
        """Make a snapshot of a folder, by its own name without what is above it, and return what it is and the bytes that were added."""
        answer = self.ask("backup", "--json", "--quiet", "--host", self.settings["host"], "--tag", name, folder.name, cwd=folder.parent)
        summary = json.loads(answer.splitlines()[-1])
        return f"snapshot {summary['snapshot_id'][:8]}", summary.get("data_added_packed") or summary["data_added"]

    def clear(self) -> None:
        """Remove the snapshots that are no longer kept."""
        keep = ["--keep-last", str(self.keep["number"]), "--keep-within", f"{self.keep['days']}d"]
        self.ask("forget", "--quiet", "--host", self.settings["host"], "--group-by", "host,tags", *keep, "--prune")

    def chosen(self, at: float | None) -> dict[str, str]:
        """Return of each source the snapshot that a restore to that moment takes, the last one without a moment: name to id."""
        try:
            answer = self.ask("snapshots", "--json", "--no-lock", "--host", self.settings["host"])
        except BackupError as error:
            if NO_REPOSITORY not in str(error) or not any(word in str(error) for word in ABSENT):
                raise
            answer = "[]"
        return chosen(json.loads(answer), at)

    def compare(self) -> None:
        """Compare what is in the place with what should be. Raises BackupError where something is gone, or of another size."""
        self.ask("check", "--no-lock", "--quiet")

    def read(self, snapshot: str) -> None:
        """Read a whole snapshot. Raises BackupError where a part of it is gone or was changed."""
        self.ask("dump", "--no-lock", snapshot, "/", stdout=subprocess.DEVNULL)

    def bring(self, snapshot: str, folder: Path) -> None:
        """Write a snapshot's files below a folder, with their owners."""
        self.ask("restore", "--no-lock", snapshot, "--target", str(folder))


class Plan:
    """What this host has, and what is done with it."""

    def __init__(self, text: str) -> None:
        plan = json.loads(text)
        self.state, self.stage, self.lock = (Path(plan[name]) for name in ("state", "stage", "lock"))
        self.streams: dict[str, str] = plan["streams"]
        self.volumes: list[str] = plan["volumes"]
        self.redis: dict[str, Any] = plan["redis"]
        self.postgres = PgBackRest(plan["postgres"], plan["keep"]) if plan["postgres"] else None
        self.restic = Restic(plan["restic"], plan["keep"])

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other one of this program runs, and see that none does meanwhile."""
        if not self.lock.parent.exists():
            self.lock.parent.mkdir()
            self.lock.parent.chmod(0o755)
        with self.lock.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("Another backup runs on this host: waiting until it has ended")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    # Making them

    def stream(self, name: str, container: str) -> tuple[str, int]:
        """Save what a container's own backup command gives, as the file of that name."""
        folder = self.stage / name
        folder.mkdir(mode=0o700)
        try:
            with (folder / "content").open("wb") as handle:
                run(["docker", "exec", container, "sh", "/opt/fba/backup"], stdout=handle)
            return self.restic.save(name, folder)
        finally:
            # It may be as large as the database
            shutil.rmtree(folder)

    def parts(self, full: bool) -> Iterator[tuple[str, Callable[[], tuple[str, int]]]]:
        """Return each part of a backup: its name, and what makes it."""
        if self.postgres:
            postgres = self.postgres
            yield "postgres", lambda: postgres.back_up(full)
        for name, container in self.streams.items():
            yield name, lambda name=name, container=container: self.stream(name, container)  # type: ignore[misc]
        for volume in self.volumes:
            yield volume, lambda volume=volume: self.restic.save(volume, mountpoint(volume))  # type: ignore[misc]

    def back_up(self, full: bool) -> bool:
        """Make a backup of everything. One part that fails keeps no other from being made. Return whether all went well."""
        known = self.known()
        shutil.rmtree(self.stage, ignore_errors=True)
        self.stage.mkdir(mode=0o700, parents=True)
        ready = ""
        if self.streams or self.volumes:
            try:
                self.restic.prepare(any(part.get("place") == self.restic.place for part in known.values()))
            except BackupError as error:
                ready = str(error)
        report: dict[str, Any] = {}
        for name, make in self.parts(full):
            began = time.time()
            before = known.get(name, {})
            try:
                if ready and name != "postgres":
                    raise BackupError(ready)
                what, size = make()
                place = {} if name == "postgres" else {"place": self.restic.place}
                report[name] = {"what": what, "bytes": size, "reason": "", "succeeded": began, **place}
                say(f"{name}: {what}, {size / 1e6:.1f} MB in {time.time() - began:.1f} s")
            except (BackupError, OSError, ValueError, LookupError) as error:
                report[name] = {**before, "reason": str(error), "succeeded": before.get("succeeded", 0)}
                say(f"{name}: {error}")
            report[name]["tried"] = began
            self.write(known | report)
        if (self.streams or self.volumes) and not ready:
            try:
                self.restic.clear()
            except BackupError as error:
                # They fill the place until there is room for no more backup
                say(f"{OLD_SNAPSHOTS} were not removed: {error}")
                report[OLD_SNAPSHOTS] = {"reason": f"not removed: {error}", "succeeded": 0, "tried": time.time()}
        # What this host no longer has is not told of any more
        self.write(report)
        return not any(part["reason"] for part in report.values())

    def known(self) -> dict[str, Any]:
        """Return what is known of the parts from the runs before; nothing where the file was damaged, because a backup is worth more."""
        try:
            found = json.loads(self.state.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            say(f"{self.state} cannot be read, and is made anew: {error}")
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, report: dict[str, Any]) -> None:
        """Keep what is known of the parts; a reader sees the old text or the new one, also after a loss of power."""
        part = self.state.with_name(f"{self.state.name}.part")
        with part.open("w", encoding="utf-8") as handle:
            handle.write(json.dumps(report, indent=2) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        part.chmod(0o644)
        part.replace(self.state)

    # Bringing them back

    def fetch(self, folder: Path, user: int) -> None:
        """Copy PostgreSQL's backups to a folder, which is made anew."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        try:
            # Its parent is not for the user; the folder itself is mounted
            run([*self.restic.settings["fetch"], str(folder)])
        except BaseException:
            # On the disk that PostgreSQL writes to, if that is what has filled it
            shutil.rmtree(folder, ignore_errors=True)
            raise
        copy = folder / "postgres"
        for path in (copy, *copy.rglob("*")):
            os.chown(path, user, user)

    def found(self, at: float | None) -> dict[str, str]:
        """Return the snapshots of what this host has: name to id."""
        if not (self.streams or self.volumes):
            return {}
        every = self.restic.chosen(at)
        missing = [name for name in [*self.streams, *self.volumes] if name not in every]
        if missing:
            say(f"There is no snapshot of {', '.join(missing)} of the host {self.restic.settings['host']}: nothing is brought back of that")
        return {name: every[name] for name in [*self.streams, *self.volumes] if name in every}

    def check(self, at: float | None, wanted: list[str]) -> None:
        """Read whatever a restore would take. Raises BackupError where there is no snapshot of what the host has of the wanted kinds."""
        found = self.found(at)
        names = {"volumes": self.volumes, "redis": ["redis"], "definitions": ["rabbitmq"]}
        has = {*self.streams, *self.volumes}
        lacking = [name for kind in wanted for name in names[kind] if name in has and name not in found]
        if lacking:
            host, then = self.restic.settings["host"], " from before then" if at else ""
            raise BackupError(
                f"there is no snapshot of {', '.join(lacking)} of the host {host}{then}: backup_host is the name that it had when they "
                "were made; with restore_incomplete=true, everything else is brought back"
            )
        if found:
            # What is cut short at its end can still be read, and yet is not whole
            self.restic.compare()
        for name, snapshot in found.items():
            began = time.time()
            self.restic.read(snapshot)
            say(f"{name}: snapshot {snapshot[:8]} was read in {time.time() - began:.1f} s")

    def show(self, at: float | None, name: str) -> None:
        """Write what a container's backup command has given to standard output."""
        snapshot = self.restic.chosen(at).get(name)
        if snapshot is None:
            raise BackupError(f"there is no snapshot of {name}")
        self.restic.ask("dump", "--no-lock", snapshot, f"/{name}/content", stdout=None)

    def bring_volumes(self, at: float | None, aside: str) -> None:
        """Replace what is in the volumes by what is in their snapshots; what was there goes to a volume of another name."""
        found = self.found(at)
        for volume in self.volumes:
            if volume in found:
                here = mountpoint(volume)
                # Beside it first: what is there is touched by nothing that may fail half-way
                beside = here.parent / "restored"
                shutil.rmtree(beside, ignore_errors=True)
                self.restic.bring(found[volume], beside)
                put_aside(here, f"{volume}_{aside}")
                take(beside / here.name, here)
                shutil.rmtree(beside)
                say(f"{volume}: snapshot {found[volume][:8]} was restored")

    def bring_redis(self, at: float | None, aside: str) -> None:
        """Have Redis, which is stopped, begin with its snapshot: as what its log of changes starts from."""
        found = self.found(at)
        if "redis" not in found:
            return
        volume, user = self.redis["volume"], int(self.redis["user"])
        here = mountpoint(volume)
        shutil.rmtree(self.stage, ignore_errors=True)
        self.restic.bring(found["redis"], self.stage)
        put_aside(here, f"{volume}_{aside}")
        log = here / "appendonlydir"
        log.mkdir(mode=0o700)
        base = log / "appendonly.aof.1.base.rdb"
        shutil.move(self.stage / "redis" / "content", base)
        manifest = log / "appendonly.aof.manifest"
        manifest.write_text(f"file {base.name} seq 1 type b\n", encoding="ascii")
        for path in (here, log, base, manifest):
            os.chown(path, user, user)
        shutil.rmtree(self.stage)
        say(f"redis: snapshot {found['redis'][:8]} is in the volume {volume}")

    def bring_definitions(self, at: float | None, _aside: str) -> None:
        """Give RabbitMQ, which runs, its definitions back. Where they differ from the stack's own, the stack's own count."""
        found = self.found(at)
        if "rabbitmq" not in found:
            return
        container = self.streams["rabbitmq"]
        shutil.rmtree(self.stage, ignore_errors=True)
        self.restic.bring(found["rabbitmq"], self.stage)
        whole = self.stage / "whole.json"
        whole.write_text(importable((self.stage / "rabbitmq" / "content").read_text(encoding="utf-8")), encoding="utf-8")
        with whole.open("rb") as handle:
            run(["docker", "exec", "--interactive", container, "rabbitmqctl", "-q", "import_definitions", "/dev/stdin"], stdin=handle)
        run(["docker", "exec", container, "sh", "/opt/fba/reload"])
        shutil.rmtree(self.stage)
        say(f"rabbitmq: the definitions of snapshot {found['rabbitmq'][:8]} were imported")


def importable(text: str) -> str:
    """Return RabbitMQ's definitions without the bindings of queues that it does not export, those of a connection; it would refuse them."""
    definitions = json.loads(text)
    queues = {(queue["vhost"], queue["name"]) for queue in definitions["queues"]}
    definitions["bindings"] = [
        binding
        for binding in definitions["bindings"]
        if binding["destination_type"] != "queue" or (binding["vhost"], binding["destination"]) in queues
    ]
    return json.dumps(definitions)


def put_aside(folder: Path, volume: str) -> None:
    """Move what is in a folder to a volume of that name. The folder itself stays: running containers may have it mounted."""
    entries = list(folder.iterdir())
    if entries:
        there = mountpoint(volume)
        for entry in entries:
            entry.rename(there / entry.name)
        say(f"What was there is in the volume {volume}")


def take(source: Path, folder: Path) -> None:
    """Move what is in one folder to another, which is empty, on the same file system; it gets the owner and mode of the first."""
    for entry in list(source.iterdir()):
        entry.rename(folder / entry.name)
    status = source.stat()
    os.chown(folder, status.st_uid, status.st_gid)
    folder.chmod(stat.S_IMODE(status.st_mode))


def main() -> int:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run").add_argument("--full", action="store_true")
    check = verbs.add_parser("check")
    restore = verbs.add_parser("restore")
    show = verbs.add_parser("show")
    show.add_argument("name", choices=["redis", "rabbitmq", "postgres-dump"])
    for verb in (check, restore, show):
        verb.add_argument("--at", type=lambda text: parse_time(text) if text else None, default=None)
    restore.add_argument("--aside", required=True)
    check.add_argument("--wanted", choices=KINDS, action="append", default=[])
    restore.add_argument("kind", choices=KINDS)
    fetch = verbs.add_parser("fetch")
    fetch.add_argument("folder", type=Path)
    fetch.add_argument("user", type=int)
    arguments = parser.parse_args()
    os.umask(0o077)
    try:
        plan = Plan(Path(__file__).with_name("plan.json").read_text(encoding="utf-8"))
        with plan.alone():
            if arguments.verb == "run":
                return 0 if plan.back_up(arguments.full) else 1
            if arguments.verb == "check":
                plan.check(arguments.at, arguments.wanted)
            elif arguments.verb == "show":
                plan.show(arguments.at, arguments.name)
            elif arguments.verb == "fetch":
                plan.fetch(arguments.folder, arguments.user)
            else:
                getattr(plan, f"bring_{arguments.kind}")(arguments.at, arguments.aside)
    except (BackupError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
