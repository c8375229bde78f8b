"""Newer images for the data services, as an operator asks for them. The tests run in the order in which they are written."""

import json
import subprocess
import time

BACKUPS = "/var/backups/fba"
WANTED = {"fba_postgres_version": "17", "fba_redis_version": "8.0"}
REBUILT = {**WANTED, "fba_rabbitmq_version": "4.0-management-rebuilt"}


def play(stack, playbook, variables, **more):
    """Run a playbook with these images wanted."""
    return stack.play(playbook, "-e", json.dumps({**variables, **more}))


def started(stack):
    """When each container was last started."""
    return {name: each["State"]["StartedAt"] for name, each in stack.containers().items()}


def image(stack, name):
    """The image that a container was made from."""
    return stack.containers()[name]["Config"]["Image"].rpartition("/")[2]


def restarted(stack, before):
    """What was started since then, or is new."""
    return {name for name, when in started(stack).items() if before.get(name) != when}


def backup(stack, service):
    """The newest backup of a service: its folder, and its files with their permissions."""
    assert stack.host.check_output(f"stat -c '%a %U' {BACKUPS}") == "700 root"
    folder = stack.host.check_output(f"ls -d {BACKUPS}/{service}-* | sort | tail -n 1")
    assert stack.host.check_output(f"stat -c '%a %U' {folder}") == "700 root"
    return folder, dict(line.split() for line in stack.host.check_output(f"cd {folder} && stat -c '%n %a' *").splitlines())


def unchanged(stack, run):
    """Whether a run has changed nothing."""
    return "changed=0 " in next(line for line in run.stdout.splitlines() if line.startswith(f"{stack.name} ") and "changed=" in line)


def test_another_wanted_image_replaces_no_data_service_and_is_named(stack):
    before = started(stack)
    run = play(stack, "site.yml", WANTED)
    assert run.returncode == 0, run.stdout
    assert restarted(stack, before) == set()
    for text in (
        f"PostgreSQL on {stack.name}: ",
        "postgres:15 runs",
        "postgres:17 is wanted: make upgrade",
        "redis:7.0 runs",
        "redis:8.0 is wanted",
    ):
        assert text in run.stdout
    assert "RabbitMQ on" not in run.stdout


def test_what_cannot_be_is_refused_for_all_before_anything_is_touched(stack):
    before = started(stack)
    run = play(stack, "upgrade.yml", WANTED, fba_rabbitmq_version="3.10-management")
    assert run.returncode != 0
    assert "RabbitMQ 4.0.5 runs, and 3.10.8 is wanted: no older version opens its data" in run.stdout
    assert restarted(stack, before) == set()
    assert not stack.host.file(BACKUPS).exists


def test_a_disk_without_room_for_the_backup_is_refused(stack):
    stack.host.check_output("mkdir -p /mnt/small && mount -t tmpfs -o size=50m tmpfs /mnt/small")
    before = started(stack)
    run = play(stack, "upgrade.yml", WANTED, upgrade_service="redis", upgrade_backup_dir="/mnt/small/fba")
    stack.host.check_output("umount /mnt/small")
    assert run.returncode != 0
    assert "of data, and /mnt/small/fba has 0.1 GB of free space: allowed are 1.0 GB or more" in run.stdout
    assert restarted(stack, before) == set()


def test_redis_gets_the_wanted_image_alone_and_keeps_its_keys(stack):
    password = stack.secrets["fba_redis_password"]
    stack.redis("SET kept over-the-upgrade", "--no-auth-warning", password)
    before = started(stack)
    run = play(stack, "upgrade.yml", WANTED, upgrade_service="redis")
    assert run.returncode == 0, run.stdout
    assert image(stack, "fba_redis") == "redis:8.0"
    assert restarted(stack, before) == {"fba_redis"}
    assert stack.redis("GET kept", "--no-auth-warning", password) == "over-the-upgrade"
    assert stack.healthy() == stack.services
    folder, files = backup(stack, "redis")
    assert files == {"dump.rdb": "600"}
    row = next(line.split() for line in run.stdout.splitlines() if line.startswith("redis "))
    assert row[1:3] == [stack.name, "7.0.15"]
    assert row[4] == folder


def test_a_second_run_has_nothing_to_do(stack):
    before = started(stack)
    run = play(stack, "upgrade.yml", WANTED, upgrade_service="redis")
    assert run.returncode == 0, run.stdout
    assert "Nothing to upgrade: redis runs the wanted image." in run.stdout
    assert unchanged(stack, run), run.stdout
    assert restarted(stack, before) == set()


def test_rabbitmq_keeps_the_messages_that_wait(stack, log_in):
    """The workers are stopped, so that the tasks are still in the queue when they are counted."""
    stack.host.check_output("docker stop fba_celery_worker")
    client = log_in()
    tasks = [client.submit("sleep", {"duration": 0}) for _ in range(20)]
    run = play(stack, "upgrade.yml", REBUILT, upgrade_service="rabbitmq")
    stack.host.check_output("docker start fba_celery_worker")
    assert run.returncode == 0, run.stdout
    assert image(stack, "fba_rabbitmq") == "rabbitmq:4.0-management-rebuilt"
    assert {client.watch(task)[-1]["state"] for task in tasks} == {"succeeded"}
    _folder, files = backup(stack, "rabbitmq")
    assert files["definitions.json"] == "600"
    assert stack.host.run(f"ls {BACKUPS}/rabbitmq-*/data/mnesia").rc == 0


def test_a_restore_that_fails_is_taken_back_and_the_application_runs_again(stack, log_in):
    stack.sql("CREATE TABLE kept AS SELECT 'over the upgrade' AS what")
    # A dump cannot tell that the check needs another table: it is restored before that one has its rows, under no search path
    stack.sql("CREATE FUNCTION broken(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT count(*) > 0 FROM kept'")
    stack.sql("CREATE TABLE refused (one int CHECK (broken(one)))")
    stack.sql("INSERT INTO refused VALUES (1)")
    before = started(stack)
    run = play(stack, "upgrade.yml", REBUILT)
    assert run.returncode != 0
    assert "PostgreSQL was not upgraded, and 15." in run.stdout
    assert 'relation "kept" does not exist' in run.stdout
    assert "The last log lines of fba_postgres" in run.stdout
    assert image(stack, "fba_postgres") == "postgres:15"
    assert stack.healthy() == stack.services
    assert {"fba_postgres", "fba_server_1", "fba_celery_worker", "fba_celery_beat"} == restarted(stack, before)
    assert stack.sql("SELECT what FROM kept") == "over the upgrade"
    assert stack.host.check_output("docker volume ls --quiet --filter name=postgres_15") == ""
    assert not stack.host.file("/etc/fba/fba_postgres_15").exists
    # Over the network, as before
    assert stack.sql("SELECT current_user", as_application=True) == "fba"
    stack.sql("DROP TABLE refused")
    stack.sql("DROP FUNCTION broken")
    log_in().result("sleep", {"duration": 0})


def test_an_upgrade_that_was_interrupted_is_put_back_by_the_next(stack, wait_until):
    inventory = ["-i", stack.inventory, str(stack.project / "playbooks" / "upgrade.yml"), "-e", json.dumps(REBUILT)]
    running = subprocess.Popen(
        ["ansible-playbook", *inventory], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(lambda: "fba_postgres_15" in stack.containers(), timeout=300, what="the old container is aside")
    finally:
        subprocess.run(["kill", "-KILL", "--", f"-{running.pid}"], check=True)
        running.wait()
    refused = play(stack, "site.yml", REBUILT)
    assert refused.returncode != 0
    assert "the container fba_postgres_15 is there: an upgrade of PostgreSQL was interrupted" in refused.stdout


def test_another_major_version_has_all_the_data(stack, log_in):
    began = time.monotonic()
    run = play(stack, "upgrade.yml", REBUILT)
    assert run.returncode == 0, run.stdout
    print(run.stdout[run.stdout.rindex("SERVICE") :], f"{time.monotonic() - began:.0f} s in all")
    assert image(stack, "fba_postgres") == "postgres:17"
    assert stack.healthy() == stack.services
    assert stack.sql("SHOW server_version").startswith("17.")
    assert stack.sql("SELECT what FROM kept") == "over the upgrade"
    assert stack.sql("SHOW data_checksums") == "on"
    # The application's role, its password and its rights
    assert stack.sql("SELECT current_user", as_application=True) == "fba"
    assert stack.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'fba'") == "fba"
    assert stack.sql("SELECT count(*) FROM pg_stats WHERE tablename = 'kept'") != "0"
    log_in().result("sleep", {"duration": 0})
    _folder, files = backup(stack, "postgres")
    assert files == {"globals.sql": "600", "fba.dump": "600", "postgres.dump": "600"}


def test_the_old_data_is_kept_whole(stack):
    assert "fba_postgres_15" not in stack.containers()
    path = stack.host.check_output("docker volume inspect --format '{{ .Mountpoint }}' fba_postgres_15")
    assert stack.host.check_output(f"cat {path}/PG_VERSION") == "15"


def test_a_deploy_afterwards_changes_nothing(stack):
    before = started(stack)
    run = play(stack, "site.yml", REBUILT)
    assert run.returncode == 0, run.stdout
    assert restarted(stack, before) == set()
    assert "is wanted: make upgrade" not in run.stdout
    assert "Nothing to upgrade" in play(stack, "upgrade.yml", REBUILT).stdout


def test_a_rebuilt_image_of_the_same_version_is_put_in_place(stack):
    before = started(stack)
    run = play(stack, "upgrade.yml", REBUILT, fba_postgres_version="17-rebuilt")
    assert run.returncode == 0, run.stdout
    assert image(stack, "fba_postgres") == "postgres:17-rebuilt"
    assert restarted(stack, before) == {"fba_postgres"}
    assert stack.sql("SELECT what FROM kept") == "over the upgrade"
    assert stack.healthy() == stack.services


def test_a_jump_that_rabbitmq_does_not_support_is_refused(stack):
    """A broker of the release before, which is not compatible with the stack's settings in everything: it only has to run."""
    stack.host.check_output("docker rm --force fba_rabbitmq && docker volume rm fba_rabbitmq")
    old = play(stack, "site.yml", {**REBUILT, "fba_postgres_version": "17-rebuilt"}, fba_rabbitmq_version="3.10-management")
    assert image(stack, "fba_rabbitmq") == "rabbitmq:3.10-management", old.stdout
    before = started(stack)
    run = play(stack, "upgrade.yml", {**REBUILT, "fba_postgres_version": "17-rebuilt"})
    assert run.returncode != 0
    assert "RabbitMQ 3.10.8 runs, and 4.0.5 is wanted: allowed from here are 3.10, 3.11; go there first" in run.stdout
    assert restarted(stack, before) == set()
