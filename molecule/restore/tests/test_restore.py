"""Backups, and what they are for: a host that is gone with all it had comes back as it was at a moment of one's choice.

On the host of the scenario `registry`, whose backups go to another one by SFTP. The seconds and bytes are printed.
"""

import hashlib
import json
import os
import random
import re
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
import testinfra

from conftest import playbook_command

FILES = 20
"""Files that are uploaded, of up to a megabyte."""

ROWS = 100_000
"""Rows of about 100 bytes that are there from the start."""

UNFINISHED = 6
"""Tasks that are accepted and not done at the moment that is restored."""


@pytest.fixture(scope="module")
def site(fleet):
    """The stack. It goes by its name, because the host behind it is made anew."""
    return fleet.door


@pytest.fixture(scope="module")
def place():
    """The host that has the backups."""
    return testinfra.get_host("docker://store")


@pytest.fixture(scope="module")
def told(request):
    """told(text): print what people should see of a run, past pytest's capturing."""
    manager = request.config.pluginmanager.getplugin("capturemanager")

    def tell(text):
        with manager.global_and_fixture_disabled():
            print(f"\n{text}")

    return tell


def play(site, playbook, **variables):
    """Run a playbook that has to succeed and return its output and the seconds that it took."""
    began = time.monotonic()
    run = site.play(playbook, "-e", json.dumps(variables))
    assert run.returncode == 0, run.stdout[-6000:]
    return run.stdout, time.monotonic() - began


class Writer:
    """Writes a row after the other, each in a transaction of its own, until it is told to stop."""

    def __init__(self, site):
        self.site = site
        site.sql("CREATE TABLE written (number bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())")
        self.thread = threading.Thread(target=self._write)

    def _write(self):
        # psql repeats it by itself
        statement = "INSERT INTO written DEFAULT VALUES \\watch 0.05"
        self.site.host.run(f"docker exec -i fba_postgres psql -qXU postgres -d fba > /dev/null <<'END'\n{statement}\nEND")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exception):
        self.site.host.run(
            "docker exec fba_postgres psql -qXU postgres -c "
            "\"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO written%'\""
        )
        self.thread.join()

    def rows(self):
        """Return every row: its number and the moment at which it was written."""
        lines = self.site.sql("SELECT number, at FROM written ORDER BY number").splitlines()
        return [(int(number), at) for number, at in (line.split("|") for line in lines)]


def archive(site, wait_until):
    """Have all that was written up to now in the backup."""
    segment = site.sql("SELECT pg_walfile_name(pg_switch_wal())")
    wait_until(
        lambda: site.sql("SELECT last_archived_wal FROM pg_stat_archiver") >= segment, timeout=60, what=f"{segment} is in the backup"
    )


@pytest.fixture(scope="module")
def before(site, log_in_at, told, wait_until):
    """What was there at the moment to restore, backed up: made once, for all tests of this module."""
    client = log_in_at(site)
    site.sql(f"CREATE TABLE bulk AS SELECT number, repeat(md5(number::text), 3) AS text FROM generate_series(1, {ROWS}) AS number")
    random.seed(1)
    files = {}
    for number in range(FILES):
        content = b"name,value\n" + b"".join(b"%d,%d\n" % (line, random.randrange(10**9)) for line in range(random.randrange(1, 60_000)))
        record = client.upload(f"table-{number}.csv", content, "text/csv")
        files[record["id"]] = hashlib.sha256(content).hexdigest()
    with Writer(site) as writer:
        output, seconds = play(site, "backup.yml", backup_full=True)
        told(f"backed up in {seconds:.0f} s\n" + "\n".join(line for line in output.splitlines() if " MB in " in line))
        # They take longer than what follows, so they are not done at the moment
        tasks = [client.submit("sleep", {"duration": 20}) for _task in range(UNFINISHED)]
        wait_until(lambda: client.see(tasks[0])["state"] == "running", timeout=60, what="the first of the tasks runs")
        last = len(writer.rows())
        wait_until(lambda: len(writer.rows()) > last + 40, timeout=60, what="there are rows around the moment")
    rows = writer.rows()
    # Between two writes, some before the end
    (_first, before), (_second, after) = rows[-20], rows[-19]
    moments = [datetime.fromisoformat(f"{text}:00") for text in (before, after)]
    moment = moments[0] + (moments[1] - moments[0]) / 2
    # What comes after the moment is in the log too, and in the backup
    late = client.upload("late.csv", b"a,b\n1,2\n", "text/csv")
    archive(site, wait_until)
    # And a backup that leads nowhere once the moment has been restored
    play(site, "backup.yml")
    return {"moment": moment.isoformat(sep=" "), "rows": rows[:-19], "files": files, "late": late["id"], "tasks": tasks}


def test_backups_are_made_and_shown(site, before, place):
    output, _seconds = play(site, "status.yml")
    rows = {line.split("  ")[0]: line for line in output.splitlines() if f" {site.name} " in line and "UTC" in line}
    assert set(rows) == {"postgres", "redis", "rabbitmq", "fba_static_upload", "postgres log"}
    assert all(line.endswith("healthy") for line in rows.values()), rows
    # Whoever has the place has nothing without the passphrase
    everything = place.check_output("find /srv/keeper/fba -type f")
    assert everything
    assert place.run("grep -rlF 'table-1.csv' /srv/keeper/fba").stdout == ""
    assert place.run("grep -rl 'name,value' /srv/keeper/fba").stdout == ""


def test_a_database_that_is_not_empty_wants_its_name(site, before):
    started = {name: site.started_at(name) for name in site.services}
    run = site.play("restore.yml", "-e", json.dumps({"restore_time": before["moment"], "restore_database": "yes"}))
    assert run.returncode != 0
    assert "is not empty" in run.stdout
    assert "restore_database is 'yes': allowed is 'fba'" in run.stdout.replace("\n", " ").replace("        ", " ")
    assert {name: site.started_at(name) for name in site.services} == started


def largest(place, folder):
    """Return the largest file below a folder, or below the last of those that a pattern names."""
    return place.check_output(f"find $(ls -d {folder} | sort | tail -1) -type f -printf '%s %p\\n' | sort -n | tail -1").split()[1]


# It changes the byte whatever it is: what is encrypted can have each of the 256 there
INVERT = """python3 - {} <<'END'
import sys
with open(sys.argv[1], "r+b") as file:
    middle = file.seek(0, 2) // 2
    file.seek(middle)
    (byte,) = file.read(1)
    file.seek(middle)
    file.write(bytes([byte ^ 0xFF]))
END"""


@pytest.mark.parametrize(
    ("folder", "harm", "sentence"),
    [
        ("postgres/backup/fba/*F", INVERT, "pgBackRest finds faults"),
        ("files/debian12/data", "truncate -s -100 {}", "restic"),
    ],
    ids=["corrupted", "truncated"],
)
def test_a_backup_that_is_not_whole_is_refused_before_anything_stops(site, before, place, folder, harm, sentence):
    started = {name: site.started_at(name) for name in site.services}
    victim = largest(place, f"/srv/keeper/fba/{folder}")
    place.check_output(f"cp -a {victim} /root/whole && chmod u+w {victim}")
    place.check_output(harm.format(victim))
    assert place.run(f"cmp --silent /root/whole {victim}").rc == 1
    try:
        run = site.play("restore.yml", "-e", json.dumps({"restore_time": before["moment"], "restore_database": "fba"}))
    finally:
        place.check_output(f"cp -a /root/whole {victim}")
    assert run.returncode != 0
    assert sentence in run.stdout
    assert {name: site.started_at(name) for name in site.services} == started
    assert site.healthy() == site.services


@pytest.fixture(scope="module")
def restored(site, before, told):
    """The host, gone with its disk and made anew, after a restore to the moment."""
    folder = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "molecule" / "shared"
    subprocess.run(["docker", "rm", "--force", "--volumes", site.name], check=True, capture_output=True)
    _command, environment = playbook_command("status.yml")
    subprocess.run(["ansible-playbook", "-i", site.inventory, str(folder / "create.yml")], check=True, capture_output=True, env=environment)
    output, seconds = play(site, "restore.yml", restore_time=before["moment"])
    size = site.sql("SELECT pg_database_size('fba')")
    told(
        f"an empty host restored in {seconds:.0f} s, with a database of {int(size) / 1e6:.1f} MB\n"
        + "\n".join(line for line in output.splitlines() if re.search(r"snapshot \w+ (is|was|were) |the backup \S+ of PostgreSQL", line))
    )
    return output


def test_every_row_up_to_the_moment_is_there_and_none_after_it(site, before, restored):
    lines = site.sql("SELECT number, at FROM written ORDER BY number").splitlines()
    assert [(int(number), at) for number, at in (line.split("|") for line in lines)] == before["rows"]
    assert site.sql("SELECT count(*), sum(length(text)) FROM bulk") == f"{ROWS}|{ROWS * 96}"


def test_uploaded_files_are_what_they_were(site, before, restored, log_in_at):
    client = log_in_at(site)
    found = {record["id"] for record in client.expect(200, "GET", "/files?purpose=upload&limit=200").json()["items"]}
    assert found >= before["files"].keys()
    assert before["late"] not in found
    for identity, checksum in before["files"].items():
        content = client.expect(200, "GET", f"/files/{identity}/content").content
        assert hashlib.sha256(content).hexdigest() == checksum


def test_tasks_that_were_accepted_and_unfinished_are_done(site, before, restored, log_in_at, wait_until):
    client = log_in_at(site)
    wait_until(
        lambda: {client.see(task)["state"] for task in before["tasks"]} == {"succeeded"}, timeout=240, what="what was accepted is done"
    )
    assert client.result("sleep", {"duration": 1})[0] == {"message": "Task completed in 1 seconds!"}


def test_the_stack_is_whole_and_backups_go_on(site, restored):
    assert site.healthy() == site.services
    play(site, "backup.yml")
    output, _seconds = play(site, "status.yml")
    assert [line for line in output.splitlines() if "postgres log" in line and line.endswith("healthy")]
    assert site.sql("SELECT timeline_id FROM pg_control_checkpoint()") == "2"


def put_aside(site):
    """Return the volumes that hold what restores of PostgreSQL have put aside."""
    return set(site.host.check_output("docker volume ls --quiet --filter name=^fba_postgres_before_").split())


def test_a_timeline_that_there_is_not_is_refused_before_anything_stops(site, restored):
    started = {name: site.started_at(name) for name in site.services}
    run = site.play("restore.yml", "-e", json.dumps({"restore_database": "fba", "restore_timeline": 9, "restore_only": "postgres"}))
    assert run.returncode != 0
    assert "restore_timeline is '9': allowed are latest, 1, 2" in run.stdout
    assert {name: site.started_at(name) for name in site.services} == started


def test_a_restore_that_fails_puts_back_what_was_there(site, restored, wait_until):
    """To a moment after the last thing that was written, which PostgreSQL refuses when it has done again all that the log has."""
    assert put_aside(site) == set()
    untouched = ("fba_redis", "fba_rabbitmq")
    started = {name: site.started_at(name) for name in untouched}
    volumes = site.host.check_output("docker volume ls --quiet")
    site.sql("INSERT INTO written DEFAULT VALUES")
    written = site.sql("SELECT count(*) FROM written")
    # Nobody else writes any more
    site.host.check_output("docker stop fba_server_1 fba_celery_worker fba_celery_beat")
    moment = site.sql("SELECT clock_timestamp() + interval '1 s'")
    wait_until(lambda: site.sql(f"SELECT clock_timestamp() > '{moment}'") == "t", timeout=10, what="the moment is over")
    run = site.play("restore.yml", "-e", json.dumps({"restore_time": f"{moment}:00", "restore_database": "fba"}))
    assert run.returncode != 0
    said = " ".join(run.stdout.split())
    assert "PostgreSQL was not restored, and has the data from before" in said
    assert "recovery ended before configured recovery target was reached" in said
    assert "restore_time is later than the last thing that the log has: without restore_time, all of it is restored" in said
    # The stack goes on with it, and nothing is left of the try; nor has anything else gone back
    assert site.sql("SELECT count(*) FROM written") == written
    assert site.healthy() == site.services
    assert site.host.check_output("docker volume ls --quiet") == volumes
    assert {name: site.started_at(name) for name in untouched} == started


def pgbackrest(site, command):
    """Return what pgBackRest says on the host."""
    return site.host.check_output(f"docker exec fba_postgres pgbackrest --stanza=fba {command}")


def test_what_is_there_is_put_aside_by_a_restore_over_it(site, restored, wait_until):
    """The latest, of PostgreSQL alone, before a backup was made of its timeline: the last backup is of what was left behind."""
    site.sql("INSERT INTO written DEFAULT VALUES")
    written = site.sql("SELECT count(*) FROM written")
    archive(site, wait_until)
    wait_until(lambda: site.host.run("systemctl is-active fba-backup").stdout.strip() == "inactive", timeout=60, what="no backup is made")
    for backup in json.loads(pgbackrest(site, "--output=json info"))[0]["backup"]:
        if backup["archive"]["start"].startswith("00000002"):
            pgbackrest(site, f"--set={backup['label']} expire")
    labels = [backup["label"] for backup in json.loads(pgbackrest(site, "--output=json info"))[0]["backup"]]
    assert len(labels) > 1
    assert labels[-1].endswith("I")
    untouched = ("fba_redis", "fba_rabbitmq", "fba_nginx")
    started = {name: site.started_at(name) for name in untouched}
    output, _seconds = play(site, "restore.yml", restore_database="fba", restore_only="postgres")
    assert f"the backup {labels[-2]} of PostgreSQL" in output
    assert site.sql("SELECT count(*) FROM written") == written
    assert site.healthy() == site.services
    assert {name: site.started_at(name) for name in untouched} == started
    (volume,) = put_aside(site)
    folder = site.host.check_output(f"docker volume inspect --format '{{{{ .Mountpoint }}}}' {volume}")
    assert site.host.file(f"{folder}/PG_VERSION").exists
    # As the operator does who needs it no longer
    site.host.check_output(f"docker volume rm {volume}")
