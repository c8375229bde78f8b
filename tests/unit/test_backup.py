"""Backups: where they go, what the programs are told, what may be restored, and what the table says."""

from __future__ import annotations

import configparser
import importlib.util
import json
import shlex
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.fba.stack.plugins.filter.backup import (
    archive_row,
    backup_parts,
    backup_place,
    backup_reasons,
    backup_rows,
    pgbackrest_config,
    pgbackrest_files,
    restic_settings,
    secret_files,
)
from ansible_collections.fba.stack.plugins.filter.restore import (
    backup_history,
    backup_problems,
    backup_set,
    recovery_hint,
    restore_moment,
)

from conftest import ROOT

SPECIFICATION = importlib.util.spec_from_file_location("backup_program", ROOT / "roles" / "backup" / "files" / "backup.py")
assert SPECIFICATION and SPECIFICATION.loader
program = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(program)

OPTIONS = {
    "passphrase": "open sesame",
    "ssh_key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "ssh_known_hosts": "store ssh-ed25519 AAAA",
    "s3_endpoint": "s3.example:9000",
    "s3_region": "eu",
    "s3_access_key": "name",
    "s3_secret_key": "hidden of s3",
    "ca": "",
    "process_max": 2,
    "queue_max": "1GiB",
}
FOLDER = {"kind": "folder", "path": "/backups/fba"}
SFTP = {"kind": "sftp", "host": "store", "port": 2222, "user": "keeper", "path": "/srv/fba"}
S3 = {"kind": "s3", "bucket": "bucket", "path": "/fba"}
DAY = 86400
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", {"kind": "none"}),
        ("/backups/fba/", FOLDER),
        ("sftp://keeper@store:2222/srv/fba", SFTP),
        ("sftp://keeper@store/srv/fba", SFTP | {"port": 22}),
        ("s3://bucket/fba", S3),
        ("s3://bucket", S3 | {"path": ""}),
    ],
)
def test_a_place_is_a_folder_another_host_or_a_bucket(text: str, place: dict[str, Any]) -> None:
    assert backup_place(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "backups",
        "/",
        "/with space",
        "/a/../b",
        "/quo'te",
        "sftp://store/srv",
        "sftp://keeper:secret@store/srv",
        "sftp://keeper@store",
        "sftp://keeper@store:port/srv",
        "s3:///fba",
        "s3://bucket:1/fba",
        "https://store/fba",
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"fba_backup_place is .*allowed are /folder, sftp://"):
        backup_place(text)


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        (FOLDER, {"repo1-path": "/var/lib/pgbackrest"}),
        (SFTP, {"repo1-type": "sftp", "repo1-path": "/srv/fba/postgres", "repo1-sftp-host": "store", "repo1-sftp-host-port": "2222"}),
        (S3, {"repo1-type": "s3", "repo1-path": "/fba/postgres", "repo1-s3-endpoint": "s3.example", "repo1-storage-port": "9000"}),
    ],
)
def test_pgbackrest_is_told_where_and_what(place: dict[str, Any], wanted: dict[str, str]) -> None:
    config = configparser.RawConfigParser()
    config.read_string(pgbackrest_config(place, OPTIONS, "fba", "/data"))
    assert wanted.items() <= dict(config["global"]).items()
    assert config["global"]["repo1-cipher-pass"] == "open sesame"
    assert config["global"]["archive-push-queue-max"] == "1GiB"
    assert config["fba"]["pg1-path"] == "/data"
    assert "repo1-storage-ca-file" not in config["global"]


def test_pgbackrest_gets_the_files_of_its_place_alone() -> None:
    names = {kind["kind"]: [entry["path"] for entry in pgbackrest_files(kind, OPTIONS | {"ca": "CERT"})] for kind in (FOLDER, SFTP, S3)}
    assert names == {
        "folder": [],
        "sftp": ["/run/secrets/pgbackrest/ssh_key", "/run/secrets/pgbackrest/known_hosts"],
        "s3": ["/run/secrets/pgbackrest/ca.pem"],
    }
    assert all(entry["secret"] and entry["content"].endswith("\n") for entry in pgbackrest_files(SFTP, OPTIONS))


def test_restic_has_a_repository_of_its_own_on_each_host() -> None:
    places = {each["kind"]: restic_settings(each, OPTIONS, "one", "/etc/fba/backup", "/cache") for each in (FOLDER, SFTP, S3)}
    assert {kind: each["environment"]["RESTIC_REPOSITORY"] for kind, each in places.items()} == {
        "folder": "/backups/fba/files/one",
        "sftp": "sftp:store:/srv/fba/files/one",
        "s3": "s3:https://s3.example:9000/bucket/fba/files/one",
    }
    flag, command = places["sftp"]["options"]
    words = shlex.split(command.removeprefix("sftp.command="))
    assert flag == "-o"
    assert words[0] == "ssh"
    assert words[-3:] == ["store", "-s", "sftp"]
    assert {"StrictHostKeyChecking=yes", "UserKnownHostsFile=/etc/fba/backup/known_hosts"} <= set(words)
    # Secrets are in files and in the environment, never among the arguments, which everybody on the host reads
    assert not any(OPTIONS[name] in str(each["options"]) for name in ("passphrase", "ssh_key", "s3_secret_key") for each in places.values())
    assert places["folder"]["environment"]["RESTIC_PASSWORD_FILE"] == "/etc/fba/backup/passphrase"
    # A restore of PostgreSQL by SFTP is one from a copy
    assert (places["sftp"]["fetch"][0], places["sftp"]["fetch"][-1]) == ("sftp", "store:/srv/fba/postgres")
    assert {"Port=2222", "User=keeper", "StrictHostKeyChecking=yes"} <= set(places["sftp"]["fetch"])
    assert places["folder"]["fetch"] == places["s3"]["fetch"] == []


def test_secret_files_are_roots_alone_and_none_is_empty() -> None:
    (entry,) = secret_files({"passphrase": "x", "ssh_key": ""}, "/etc/fba/backup")
    assert entry == {"path": "/etc/fba/backup/passphrase", "mode": "0400", "secret_content": "x\n"}


def test_a_host_backs_up_what_it_has() -> None:
    containers = {"redis": "fba_redis", "rabbitmq": "fba_rabbitmq", "postgres-dump": "fba_postgres"}
    volumes = {"fba_static_upload": "/app/upload", "fba_app_data": "/data"}
    assert backup_parts(["postgres", "redis"], containers, volumes, "volume") == {
        "postgres": True,
        "streams": {"redis": "fba_redis", "postgres-dump": "fba_postgres"},
        "volumes": [],
    }
    assert backup_parts(["worker"], containers, volumes, "postgres") == {"postgres": False, "streams": {}, "volumes": ["fba_app_data"]}
    assert backup_parts(["server"], containers, volumes, "volume")["volumes"] == ["fba_static_upload", "fba_app_data"]
    assert not any(backup_parts(["nginx", "flower"], containers, volumes, "volume").values())


# What may be restored


@pytest.mark.parametrize(
    ("text", "iso", "postgres"),
    [
        ("", "", ""),
        ("2026-11-22 03:15:00+00:00", "2026-11-22 03:15:00+00:00", "2026-11-22 03:15:00.000000+00"),
        ("2026-01-22T05:15:00.25+02:00", "2026-01-22 03:15:00.250000+00:00", "2026-01-22 03:15:00.250000+00"),
        ("2026-01-22T03:15:00Z", "2026-01-22 03:15:00+00:00", "2026-01-22 03:15:00.000000+00"),
    ],
)
def test_a_moment_is_the_same_for_all(text: str, iso: str, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.fba.stack.plugins.filter.restore.datetime", Later)
    assert restore_moment(text) == {"iso": iso, "postgres": postgres, "problem": ""}


class Later(datetime):
    """A clock that is ahead of whatever the tests name."""

    @classmethod
    def now(cls, tz: Any = None) -> Later:
        """Return the year 2030."""
        return cls(2030, 1, 1, tzinfo=tz)


@pytest.mark.parametrize("text", ["yesterday", "2026-11-22 03:15:00", "03:15", "22.11.2026"])
def test_a_moment_without_an_offset_is_refused(text: str) -> None:
    assert "allowed is a time with its offset from UTC, such as 2026-" in restore_moment(text)["problem"]


def test_a_moment_to_come_is_refused() -> None:
    assert "allowed are times up to now" in restore_moment((datetime.now(UTC) + timedelta(minutes=1)).isoformat())["problem"]


def backup(label: str, stop: float, file: int = 2, kind: str = "full", timeline: int = 1) -> dict[str, Any]:
    """A backup, as pgBackRest tells of it; it begins and ends in one file of the log."""
    name = segment(file, timeline)
    return {
        "label": label,
        "type": kind,
        "error": False,
        "timestamp": {"start": stop - 10, "stop": stop},
        "database": {"id": 1, "repo-key": 1},
        "archive": {"start": name, "stop": name},
        "lsn": {"start": place(file, 0x28), "stop": place(file, 0x120)},
        "info": {"size": 30_000_000, "delta": 30_000_000, "repository": {"delta": 3_000_000}},
    }


def segment(file: int, timeline: int = 1) -> str:
    """The name of a file of the log, of which 256 have 4 GB."""
    return f"{timeline:08X}{file // 256:08X}{file % 256:08X}"


def place(file: int, offset: int = 0) -> str:
    """A place in a file of the log, as PostgreSQL writes it."""
    return f"{file // 256:X}/{file % 256:02X}{offset:06X}"


def info(*backups: dict[str, Any], code: int = 0, message: str = "ok") -> str:
    """What `pgbackrest info` answers about a stack that has had another major version of PostgreSQL before."""
    databases = {0: "16", 1: "17"}
    stanza = {
        "archive": [{"database": {"id": key, "repo-key": 1}, "id": f"{version}-{key}"} for key, version in databases.items()],
        "backup": list(backups),
        "db": [{"id": key, "repo-key": 1, "system-id": 7, "version": version} for key, version in databases.items()],
        "name": "fba",
        "status": {"code": code, "message": message},
    }
    return json.dumps([stanza])


def listing(*files: int, others: dict[int, Iterable[int]] | None = None, archive: str = "17-1") -> str:
    """What `repo-ls --recurse` says of an archive that has these files of the first timeline, and of others."""
    found = {archive: {"type": "path"}}
    for timeline, numbers in {1: files, **(others or {})}.items():
        folders = {f"{archive}/{segment(number, timeline)[:16]}": {"type": "path"} for number in numbers}
        found |= folders | {
            f"{archive}/{segment(number, timeline)[:16]}/{segment(number, timeline)}-{'a' * 40}.zst": {"type": "file"} for number in numbers
        }
        # As it is where a restore has left it: with less than all of a file
        found[f"{archive}/{segment(99, timeline)[:16]}/{segment(99, timeline)}.partial-{'a' * 40}.zst"] = {"type": "file"}
        if timeline > 1:
            found[f"{archive}/{timeline:08X}.history"] = {"type": "file"}
    return json.dumps(found)


def history(*left: tuple[int, str]) -> str:
    """What PostgreSQL writes when it begins a timeline: those that it comes from, and where they were left."""
    return "\n".join(f"{timeline}\t{where}\tbefore 2027-01-15 08:30:00.5+00\n" for timeline, where in left)


POSTGRES = "postgres (PostgreSQL) 17.6 (Debian 17.6-1)"
FIRST, SECOND = backup("A", NOW, 2), backup("B", NOW + 3600, 5, "incr")
BETWEEN, AFTER = (datetime.fromtimestamp(NOW + seconds, UTC).isoformat() for seconds in (1800, 5400))


def test_a_restore_begins_with_the_last_backup_before_the_moment() -> None:
    latest = backup_set(info(FIRST, SECOND), listing(*range(1, 10)), POSTGRES)
    assert latest == {"label": "B", "bytes": 30_000_000, "log": 5, "gone": [], "problem": ""}
    assert backup_set(info(SECOND, FIRST), listing(*range(1, 10)), POSTGRES) == latest
    # What comes after the moment may be missing
    between = backup_set(info(FIRST, SECOND), listing(2, 3, 4, 5), POSTGRES, moment=BETWEEN)
    assert (between["label"], between["log"], between["gone"]) == ("A", 4, [])


@pytest.mark.parametrize(
    ("text", "moment", "version", "sentence"),
    [
        ("[]", "", POSTGRES, "there is no backup of PostgreSQL (missing stanza path)"),
        (info(code=2, message="no valid backups"), "", POSTGRES, "there is no backup of PostgreSQL (no valid backups)"),
        (info(FIRST, code=99, message="other"), "", POSTGRES, "cannot be read (other): is fba_backup_passphrase theirs?"),
        (info(FIRST), "2020-01-01 00:00:00+00:00", POSTGRES, "the first backup of PostgreSQL is of 2027-01-15 08:00:00+00:00"),
        (info(FIRST), "", "postgres (PostgreSQL) 16.4", "the backup is of PostgreSQL 17, and the image has 16: take an image of 17"),
    ],
)
def test_what_cannot_be_restored_is_said(text: str, moment: str, version: str, sentence: str) -> None:
    assert sentence in backup_set(text, "{}", version, moment=moment)["problem"]
    assert backup_history(text, "{}", moment) == ""


def test_a_file_of_the_log_that_is_gone_is_missed() -> None:
    chosen = backup_set(info(FIRST), listing(1, 2, 3, 6, 7, 8, 9), POSTGRES)
    (problem,) = backup_problems(chosen, WHOLE)
    assert problem.startswith("2 of 8 files of PostgreSQL's log are not in the backup; the first ends with 0000000000000004")
    # Also where none is there at all: those of the backup itself are needed
    assert backup_set(info(FIRST), "{}", POSTGRES)["gone"] == ["0000000000000002"]
    # Another major version's are none of it
    assert backup_set(info(FIRST), listing(*range(10), archive="16-0"), POSTGRES)["gone"] == ["0000000000000002"]


def test_numbers_of_the_log_count_on_over_its_folders() -> None:
    text = info(backup("A", NOW, 254))
    assert backup_set(text, listing(254, 255, 256, 257), POSTGRES)["gone"] == []
    assert backup_set(text, listing(254, 255, 257), POSTGRES)["gone"] == ["0000000100000000"]
    left = history((1, place(257, 0x8000)))
    assert backup_set(text, listing(254, 255, 256, others={2: [257]}), POSTGRES, left)["gone"] == []


# A restore to file 4 has begun the second timeline; the first had gone on to file 7
LEFT = listing(*range(1, 8), others={2: range(4, 9)})
SECOND_TIMELINE = history((1, place(4, 0x8000)))


def test_the_backup_is_one_that_leads_to_the_timeline() -> None:
    behind, afterwards = SECOND, backup("C", NOW + 7200, 6, timeline=2)
    # Until there is one from after the restore, the one before the moment that was restored
    latest = backup_set(info(FIRST, behind), LEFT, POSTGRES, SECOND_TIMELINE)
    assert (latest["label"], latest["log"], latest["gone"]) == ("A", 7, [])
    latest = backup_set(info(FIRST, behind, afterwards), LEFT, POSTGRES, SECOND_TIMELINE)
    assert (latest["label"], latest["log"], latest["gone"]) == ("C", 3, [])
    # What was left behind is there for whoever names it
    first = backup_set(info(FIRST, behind, afterwards), LEFT, POSTGRES, timeline="1")
    assert (first["label"], first["log"], first["gone"]) == ("B", 3, [])
    moment = backup_set(info(FIRST, behind, afterwards), LEFT, POSTGRES, SECOND_TIMELINE, moment=AFTER)
    assert moment["label"] == "A"
    # Nor does one that was left behind say how much of the log a moment before it needs
    assert backup_set(info(FIRST, behind, afterwards), LEFT, POSTGRES, SECOND_TIMELINE, moment=BETWEEN)["log"] == 5


def test_a_backup_that_ends_where_its_timeline_was_left_leads_on() -> None:
    assert backup_set(info(FIRST, SECOND), LEFT, POSTGRES, history((1, SECOND["lsn"]["stop"])))["label"] == "B"
    assert backup_set(info(FIRST, SECOND), LEFT, POSTGRES, history((1, place(5, 0x11F))))["label"] == "A"


def test_where_no_backup_leads_to_the_timeline_it_is_said() -> None:
    old = backup("Z", NOW - 3600, 1) | {"database": {"id": 0, "repo-key": 1}}
    assert backup_set(info(old, SECOND), LEFT, POSTGRES, SECOND_TIMELINE) == {
        "problem": "no backup of PostgreSQL leads to timeline 2: restore_timeline may be another one of 1, 2"
    }
    assert backup_set(info(old, SECOND), LEFT, POSTGRES, SECOND_TIMELINE, moment=AFTER) == {
        "problem": "no backup of PostgreSQL from before restore_time leads to timeline 2: restore_timeline may be another one of 1, 2"
    }


def test_a_file_of_the_log_counts_only_on_its_timeline() -> None:
    """What the first timeline wrote after it was left does not stand for what the second one has."""
    text = info(FIRST)
    gone = backup_set(text, listing(*range(1, 8), others={2: [4, 6, 7, 8]}), POSTGRES, SECOND_TIMELINE)
    assert gone["gone"] == ["0000000000000005"]
    # The file in which the second one begins has what the first had written to it
    assert backup_set(text, listing(2, 3, others={2: [4, 5]}), POSTGRES, SECOND_TIMELINE)["gone"] == []
    # Three of them, of which the second was left at the very end of a file
    third = history((1, place(4, 0x8000)), (2, place(6)))
    files = {2: [4, 5, 6, 7], 3: [6, 7]}
    assert backup_set(text, listing(2, 3, 4, 5, others=files), POSTGRES, third)["gone"] == []
    assert backup_set(text, listing(2, 3, 4, 5, others=files | {3: [7]}), POSTGRES, third)["gone"] == ["0000000000000006"]


def test_the_file_of_a_timeline_is_found() -> None:
    three = listing(*range(1, 10), others={2: [4], 11: [6]})
    assert [backup_history(info(FIRST), three, timeline=name) for name in ("latest", "2", "11", "1", "3", "x")] == [
        "17-1/0000000B.history",
        "17-1/00000002.history",
        "17-1/0000000B.history",
        "",
        "",
        "",
    ]
    assert backup_history(info(FIRST), listing(1, 2)) == ""
    # One of another major version is not meant
    assert backup_history(info(FIRST), listing(1, others={2: [4]}, archive="16-0")) == ""


@pytest.mark.parametrize("timeline", ["3", "0", "-1", "first"])
def test_a_timeline_that_there_is_not_is_refused_with_those_that_there_are(timeline: str) -> None:
    files = listing(*range(1, 10), others={2: [4], 11: [6]})
    chosen = backup_set(info(FIRST), files, POSTGRES, timeline=timeline)
    assert chosen == {"problem": f"restore_timeline is '{timeline}': allowed are latest, 1, 2, 11"}


WHOLE = "stanza: fba\nstatus: ok\n  archiveId: 17-1, total WAL checked: 9, total valid WAL: 9\n"


def test_a_whole_backup_has_no_problems() -> None:
    assert backup_problems(backup_set(info(FIRST), listing(*range(1, 10)), POSTGRES), WHOLE) == []


@pytest.mark.parametrize("verified", ["stanza: fba\nstatus: error\n  backup: A, status: invalid", "", "ERROR: [055]: unable to open"])
def test_what_pgbackrest_does_not_call_well_is_not(verified: str) -> None:
    (problem,) = backup_problems(backup_set(info(FIRST), listing(*range(1, 10)), POSTGRES), verified)
    assert problem.startswith("pgBackRest finds faults in the backup A")


def test_a_moment_that_the_log_does_not_reach_is_explained() -> None:
    log = "LOG:  redo done at 0/5000060\nFATAL:  recovery ended before configured recovery target was reached\nLOG:  startup process exited"
    assert recovery_hint(log).startswith("restore_time is later than the last thing that the log has")
    assert recovery_hint("FATAL:  could not locate required checkpoint record") == ""


# What the table says


def known(state: Any, archiver: str | None = None) -> dict[str, Any]:
    """What roles/backup/tasks/status.yml has registered on a host."""
    return {
        "__backup_state": {"skipped": True} if state is None else {"stdout": json.dumps(state) if state else ""},
        "__backup_archiver": {"skipped": True} if archiver is None else {"stdout": archiver},
    }


def test_the_table_tells_what_failed_and_what_is_old() -> None:
    part = {"what": "snapshot 1234", "bytes": 1_500_000, "reason": "", "succeeded": NOW - 3600, "tried": NOW - 3600}
    hostvars = {
        "one": known({"postgres": part, "redis": part | {"succeeded": NOW - 31 * 3600}}, f"0000000100000000000000A5|{NOW - 30}||0|"),
        "two": known({"uploads": part | {"reason": "no room"}, "other": {"reason": "no", "succeeded": 0, "tried": NOW}}),
        "three": known({}),
        "four": known(None),
    }
    assert backup_rows(hostvars, hostvars, 30, NOW) == [
        ["postgres", "one", "2027-01-15 07:00 UTC", "snapshot 1234", "1.5 MB", "healthy"],
        ["redis", "one", "2027-01-14 01:00 UTC", "snapshot 1234", "1.5 MB", "stale"],
        ["postgres log", "one", "2027-01-15 07:59 UTC", "0000000100000000000000A5", "0 waiting", "healthy"],
        ["uploads", "two", "2027-01-15 07:00 UTC", "snapshot 1234", "1.5 MB", "failed"],
        ["other", "two", "-", "-", "-", "failed"],
        ["(all)", "three", "-", "-", "-", "never made"],
    ]
    assert backup_reasons(hostvars, hostvars) == "uploads on two: no room\nother on two: no"


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (f"A|{NOW - 30}|{NOW - 60}|1|{NOW - 10}", "healthy"),
        (f"A|{NOW - 60}|{NOW - 30}|1|{NOW - 10}", "failed"),
        (f"||{NOW - 30}|3|{NOW - 100}", "failed"),
        # Nobody failed, and yet nothing goes
        (f"A|{NOW - 9000}||2|{NOW - 600}", "failed"),
        # Nothing was written, so nothing had to be archived
        (f"A|{NOW - 9000}||0|", "healthy"),
        ("", "unreachable"),
    ],
)
def test_the_log_is_well_while_it_goes_somewhere(answer: str, health: str) -> None:
    assert archive_row(answer, NOW)[-1] == health


# The program on the hosts


def test_a_full_backup_is_due_by_the_age_of_the_last() -> None:
    week = [backup("A", NOW - 7 * DAY), backup("B", NOW - DAY, kind="incr")]
    assert program.is_due([], NOW, 7)
    assert program.is_due(week, NOW, 7)
    # A run may be a little earlier than the one a week ago
    assert program.is_due(week, NOW - 600, 7)
    assert not program.is_due(week, NOW - 2 * 3600, 7)
    assert program.is_due([*week, backup("C", NOW - 60) | {"error": True}], NOW, 7)


def test_backups_stay_by_number_and_by_age() -> None:
    weekly = [backup(str(week), NOW - week * 7 * DAY - 60) for week in range(6)] + [backup("B", NOW, kind="incr")]
    # Those of the last 14 days are two, and the one before them is what the first of these days begins with
    assert program.number_to_keep(weekly, NOW, 2, 14) == 3
    assert program.number_to_keep(weekly, NOW, 5, 14) == 5
    assert program.number_to_keep(weekly, NOW, 1, 0) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T08:00:00.250000000Z", NOW + 0.25),
        ("2027-01-15T10:00:00.123456789+02:00", NOW + 0.123456789),
        ("2027-01-15 08:00:00+00:00", NOW),
    ],
)
def test_times_are_read_as_restic_and_the_playbook_write_them(text: str, seconds: float) -> None:
    assert program.parse_time(text) == pytest.approx(seconds)


def test_of_each_source_the_last_snapshot_before_the_moment_is_taken() -> None:
    snapshots = [
        {"id": "a1", "time": "2027-01-15T07:00:00Z", "tags": ["redis"]},
        {"id": "a2", "time": "2027-01-15T08:00:00Z", "tags": ["redis"]},
        {"id": "b1", "time": "2027-01-15T09:00:00Z", "tags": ["uploads"]},
        {"id": "c1", "time": "2027-01-15T06:00:00Z"},
    ]
    assert program.chosen(snapshots, None) == {"redis": "a2", "uploads": "b1"}
    assert program.chosen(snapshots, NOW) == {"redis": "a2"}
    assert program.chosen(snapshots, NOW - 1) == {"redis": "a1"}


def test_bindings_of_queues_that_were_a_connections_are_not_imported() -> None:
    kept = [
        {"vhost": "fba", "source": "io", "destination": "io", "destination_type": "queue"},
        {"vhost": "fba", "source": "a", "destination": "b", "destination_type": "exchange"},
    ]
    gone = {"vhost": "fba", "source": "pidbox", "destination": "io@host.celery.pidbox", "destination_type": "queue"}
    definitions = {"queues": [{"vhost": "fba", "name": "io"}], "bindings": [*kept, gone], "users": []}
    assert json.loads(program.importable(json.dumps(definitions))) == definitions | {"bindings": kept}


class FakeRestic:
    """Takes what it is given, or fails."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.saved = fails, []  # type: ignore[var-annotated]
        self.place, self.known, self.settings = "/backups", False, {"host": "host"}

    def prepare(self, known: bool) -> None:
        """Fail where that is wanted."""
        self.known = known
        if self.fails == "prepare":
            raise program.BackupError("no such place")

    def save(self, name: str, _folder: Path) -> tuple[str, int]:
        """Note it."""
        if self.fails == name:
            raise program.BackupError("no room")
        self.saved.append(name)
        return "snapshot 1234", 5

    def clear(self) -> None:
        """Fail where that is wanted."""
        if self.fails == "clear":
            raise program.BackupError("the place says no")

    def chosen(self, at: float | None) -> dict[str, str]:
        """There is a snapshot of each volume; of the second one, only since NOW."""
        return {"one": "1" * 8} | ({} if at and at < NOW else {"two": "2" * 8})

    def compare(self) -> None:
        """All is well."""

    def read(self, snapshot: str) -> None:
        """Note it."""
        self.saved.append(snapshot)

    def bring(self, snapshot: str, folder: Path) -> None:
        """Write a file below the folder, and fail after it where that is wanted."""
        (folder / snapshot[0]).mkdir(parents=True, mode=0o750)
        (folder / snapshot[0] / "file").write_text(f"of {snapshot}")
        if self.fails == snapshot:
            raise program.BackupError("the place is away")


def plan(folder: Path, restic: FakeRestic, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A plan of two volumes."""
    text = {
        "state": str(folder / "backup.json"),
        "stage": str(folder / "stage"),
        "lock": str(folder / "lock"),
        "keep": {"number": 2, "days": 14},
        "postgres": {},
        "streams": {},
        "volumes": ["one", "two"],
        "redis": {},
        "restic": {"environment": {}, "options": [], "host": "host"},
    }
    made = program.Plan(json.dumps(text))
    made.restic = restic
    monkeypatch.setattr(program, "mountpoint", lambda volume: folder / volume)
    return made


def test_one_part_that_fails_keeps_no_other_from_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(tmp_path, FakeRestic(), monkeypatch).back_up(False)
    before = json.loads((tmp_path / "backup.json").read_text())
    restic = FakeRestic("one")
    assert not plan(tmp_path, restic, monkeypatch).back_up(False)
    after = json.loads((tmp_path / "backup.json").read_text())
    assert restic.saved == ["two"]
    assert after["one"]["reason"] == "no room"
    # The table goes on telling of the last good one
    assert after["one"]["succeeded"] == before["one"]["succeeded"] > 0
    assert (after["two"]["reason"], after["two"]["bytes"]) == ("", 5)


def test_old_snapshots_that_cannot_be_removed_are_in_the_table_until_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not plan(tmp_path, FakeRestic("clear"), monkeypatch).back_up(False)
    state = json.loads((tmp_path / "backup.json").read_text())
    assert {name: part["reason"] for name, part in state.items()} == {
        "one": "",
        "two": "",
        "old snapshots": "not removed: the place says no",
    }
    hostvars = {"host": known(state)}
    assert [row[0] for row in backup_rows(hostvars, hostvars, 30) if row[-1] != "healthy"] == ["old snapshots"]
    assert backup_reasons(hostvars, hostvars) == "old snapshots on host: not removed: the place says no"
    assert plan(tmp_path, FakeRestic(), monkeypatch).back_up(False)
    assert json.loads((tmp_path / "backup.json").read_text()).keys() == {"one", "two"}


def test_a_restore_of_which_something_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restic = FakeRestic()
    made = plan(tmp_path, restic, monkeypatch)
    made.check(None, ["volumes", "redis", "definitions"])
    assert restic.saved == ["1" * 8, "2" * 8]
    with pytest.raises(program.BackupError, match="there is no snapshot of two of the host host from before then: backup_host is"):
        made.check(NOW - 1, ["volumes"])
    # What is not wanted may be missing, and what the host does not have
    made.check(NOW - 1, ["redis", "definitions"])
    made.check(NOW - 1, [])
    made.streams = {"redis": "fba_redis", "rabbitmq": "fba_rabbitmq", "postgres-dump": "fba_postgres"}
    with pytest.raises(program.BackupError, match="no snapshot of two, rabbitmq of the host"):
        made.check(NOW - 1, ["volumes", "definitions"])
    # A dump is for people; no restore takes it
    made.streams = {"postgres-dump": "fba_postgres"}
    made.check(None, ["volumes", "redis", "definitions"])


def test_a_place_that_cannot_be_reached_is_said_of_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not plan(tmp_path, FakeRestic("prepare"), monkeypatch).back_up(False)
    state = json.loads((tmp_path / "backup.json").read_text())
    assert {name: part["reason"] for name, part in state.items()} == {"one": "no such place", "two": "no such place"}


def test_a_place_that_had_backups_is_not_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restic = FakeRestic()
    assert plan(tmp_path, restic, monkeypatch).back_up(False)
    assert not restic.known
    assert plan(tmp_path, restic, monkeypatch).back_up(False)
    assert restic.known
    # Another place is another matter
    restic.place = "/elsewhere"
    assert plan(tmp_path, restic, monkeypatch).back_up(False)
    assert not restic.known


def asked(answers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have restic fail with these words at these commands, and note the commands."""
    commands: list[str] = []

    def run(command: list[str], **_options: Any) -> str:
        commands.append(command[1])
        if command[1] in answers:
            raise program.BackupError(answers[command[1]])
        return "[]"

    monkeypatch.setattr(program, "run", run)
    return commands


def test_a_repository_is_made_only_where_there_was_none(monkeypatch: pytest.MonkeyPatch) -> None:
    restic = program.Restic({"environment": {"RESTIC_REPOSITORY": "/backups"}, "options": [], "host": "host"}, {})
    commands = asked({"cat": "unable to open config file"}, monkeypatch)
    restic.prepare(known=False)
    assert commands == ["cat", "init", "unlock"]
    with pytest.raises(program.BackupError, match="is it mounted"):
        restic.prepare(known=True)
    assert commands == ["cat", "init", "unlock", "cat"]


@pytest.mark.parametrize(
    ("reason", "absent"),
    [
        ("stat /backups/config: no such file or directory", True),
        ("Lstat: file does not exist", True),
        ("Stat: The specified key does not exist.", True),
        ("Stat: Access Denied.", False),
        ("stat /backups/config: permission denied", False),
    ],
)
def test_a_place_that_cannot_be_read_is_not_an_empty_one(reason: str, absent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    restic = program.Restic({"environment": {"RESTIC_REPOSITORY": "/backups"}, "options": [], "host": "host"}, {})
    asked(
        {"snapshots": f"Fatal: unable to open config file: {reason}\nIs there a repository at the following location?\n/backups"},
        monkeypatch,
    )
    if absent:
        assert restic.chosen(None) == {}
    else:
        with pytest.raises(program.BackupError):
            restic.chosen(None)


def test_a_damaged_record_keeps_no_backup_from_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "[]", '{"one"'):
        (tmp_path / "backup.json").write_text(text)
        assert plan(tmp_path, FakeRestic(), monkeypatch).back_up(False)
        assert json.loads((tmp_path / "backup.json").read_text()).keys() == {"one", "two"}


def test_a_backup_with_damaged_pages_is_a_failure_and_removes_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    postgres = program.PgBackRest({"container": "fba_postgres", "stanza": "fba", "full_days": 7}, {"number": 2, "days": 14})
    asked_for: list[tuple[str, ...]] = []

    def ask(*arguments: str) -> str:
        asked_for.append(arguments)
        return json.dumps([{"backup": [FIRST, SECOND | {"error": True}]}])

    monkeypatch.setattr(postgres, "ask", ask)
    with pytest.raises(program.BackupError, match="B: PostgreSQL has damaged pages"):
        postgres.back_up(full=False)
    assert not any("expire" in arguments for arguments in asked_for)
    # Nor does it count as one of those that are kept
    fulls = [backup("A", NOW - 20 * DAY), *(backup(str(day), NOW - day * DAY) | {"error": True} for day in (9, 2))]
    assert program.number_to_keep(fulls, NOW, 1, 14) == 1


def test_what_was_saved_for_a_while_does_not_stay_where_it_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path, FakeRestic("redis"), monkeypatch)
    made.stage.mkdir()
    monkeypatch.setattr(program, "run", lambda *_arguments, **_options: "")
    with pytest.raises(program.BackupError):
        made.stream("redis", "fba_redis")
    assert list(made.stage.iterdir()) == []


def test_a_volume_is_replaced_only_by_what_has_been_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restic = FakeRestic("2" * 8)
    made = plan(tmp_path, restic, monkeypatch)
    folders = {name: tmp_path / name.strip("_") / name[0] for name in ("1", "2", "1_before", "2_before")}
    for folder in folders.values():
        folder.mkdir(parents=True, mode=0o700)
    volumes = {"one": folders["1"], "two": folders["2"], "one_before": folders["1_before"], "two_before": folders["2_before"]}
    monkeypatch.setattr(program, "mountpoint", volumes.__getitem__)
    for name in ("1", "2"):
        (folders[name] / "old").write_text("of today")
    with pytest.raises(program.BackupError, match="the place is away"):
        made.bring_volumes(None, "before")
    assert [path.name for path in folders["1"].iterdir()] == ["file"]
    assert [path.name for path in folders["1_before"].iterdir()] == ["old"]
    assert folders["1"].stat().st_mode & 0o777 == 0o750
    assert not (folders["1"].parent / "restored").exists()
    # The second could not be brought, and is as it was
    assert [path.name for path in folders["2"].iterdir()] == ["old"]
    restic.fails = ""
    made.bring_volumes(None, "before")
    assert [path.name for path in folders["2"].iterdir()] == ["file"]


def test_a_copy_that_fails_leaves_the_disk_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path, FakeRestic(), monkeypatch)
    made.restic.settings = {"fetch": ["sftp"]}  # type: ignore[attr-defined]

    def run(command: list[str], **_options: Any) -> str:
        (Path(command[-1]) / "part").write_text("x")
        raise program.BackupError("no space left on device")

    monkeypatch.setattr(program, "run", run)
    with pytest.raises(program.BackupError):
        made.fetch(tmp_path / "copy", 999)
    assert not (tmp_path / "copy").exists()


def test_only_one_backup_runs_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = plan(tmp_path, FakeRestic(), monkeypatch), plan(tmp_path, FakeRestic(), monkeypatch)
    order, said = [], threading.Event()
    monkeypatch.setattr(program, "say", lambda _text: said.set())

    def wait() -> None:
        with second.alone():
            order.append("second")

    waiting = threading.Thread(target=wait)
    with first.alone():
        waiting.start()
        assert said.wait(10)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


def test_what_is_in_a_volume_goes_aside_and_the_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    monkeypatch.setattr(program, "mountpoint", lambda _volume: there)
    # Nothing is made where there is nothing to keep
    program.put_aside(here, "there")
    assert not there.exists()
    there.mkdir()
    (here / "a").write_text("1")
    (here / "folder").mkdir()
    (here / "folder" / "b").write_text("2")
    identity = here.stat().st_ino
    program.put_aside(here, "there")
    assert here.stat().st_ino == identity
    assert list(here.iterdir()) == []
    assert sorted(path.relative_to(there).as_posix() for path in there.rglob("*")) == ["a", "folder", "folder/b"]
