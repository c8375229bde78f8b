"""The API of the deployed application, as a program meets it."""

import csv
import io
import json
import random
import secrets
import shutil
import statistics
import subprocess
import sys

import pytest
import requests


@pytest.fixture
def admin(log_in):
    """The administrator."""
    return log_in()


def test_a_task_shows_its_progress_while_it_runs(admin):
    result, progress = admin.result("sleep", {"duration": 4})
    assert result == {"message": "Task completed in 4 seconds!"}
    assert progress == sorted(progress)
    assert any(0 < percent < 100 for percent in progress)


@pytest.fixture
def somebody(admin, log_in):
    """Somebody who may submit tasks and upload files, and no more."""
    username, password = f"user-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
    admin.expect(201, "POST", "/users", json={"username": username, "password": password, "roles": ["user"]})
    return log_in(username, password)


def test_a_report_is_built_and_served_to_its_owner_alone(admin, somebody, stack):
    result, _ = admin.result("report", {"title": "The tests", "days": 7, "format": "both"})
    kinds = {}
    for file in result["files"]:
        answer = admin.http.get(stack.url + file["url"], timeout=30)
        assert answer.status_code == 200
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert len(answer.content) == file["size"]
        kinds[file["name"].rpartition(".")[2]] = answer.content[:4]
        assert requests.get(stack.url + file["url"], timeout=30).status_code == 401
        assert somebody.http.get(stack.url + file["url"], timeout=30).status_code == 404
    assert kinds == {"pdf": b"%PDF", "xlsx": b"PK\x03\x04"}


def test_digits_are_recognised(admin, stack):
    samples = json.loads((stack.project / "app/fba_app/kinds/model/digits.json").read_text())["samples"]
    result, _ = admin.result("inference", {"images": [sample["image"] for sample in samples]})
    right = [prediction["digit"] == sample["label"] for prediction, sample in zip(result["predictions"], samples, strict=True)]
    assert sum(right) / len(right) > 0.95


def test_a_mail_is_sent(admin, mailbox):
    result, _ = admin.result("email", {"to": ["ada@example.org"], "subject": "Grüße", "text": "It works."})
    [(recipients, message)] = mailbox
    assert recipients == result["sent"] == ["ada@example.org"]
    assert (message["Subject"], message.get_content().strip()) == ("Grüße", "It works.")


def test_a_large_file_is_computed_by_many_tasks(admin):
    """Over 100 MB through nginx, streamed, split into parts and joined; the numbers are the ones counted here."""
    generator = random.Random(1)
    cities = ["Ulm", "Köln", 'the "old" town', "a\nb"]
    groups = {city: [] for city in cities}
    lines = io.StringIO(newline="")
    writer = csv.writer(lines)
    writer.writerow(["city", "price", "note"])
    for _ in range(20_000):
        city, price = generator.choice(cities), generator.randrange(10_000)
        groups[city].append(price)
        writer.writerow([city, price, "x" * 230])
    block = lines.getvalue().encode()
    head, _, body = block.partition(b"\r\n")
    times = 105 * 2**20 // len(body) + 1
    file = admin.upload("large.csv", head + b"\r\n" + body * times, "text/csv")
    assert file["size"] > 100 * 2**20
    result, _ = admin.result("pipeline", {"file_id": file["id"], "group_by": "city", "value": "price"})
    prices = [price for group in groups.values() for price in group]
    assert result["rows"] == times * len(prices)
    assert result["parts"] > 10
    price = next(column for column in result["columns"] if column["name"] == "price")
    assert (price["count"], price["min"], price["max"]) == (times * len(prices), min(prices), max(prices))
    assert price["mean"] == pytest.approx(statistics.fmean(prices), rel=1e-9)
    found = {row["group"]: row["sum"] for row in result["groups"]["rows"]}
    assert found == pytest.approx({city: times * sum(group) for city, group in groups.items()}, rel=1e-9)
    admin.expect(204, "DELETE", f"/files/{file['id']}")


def test_a_running_task_is_cancelled(admin, wait_until):
    task = admin.submit("sleep", {"duration": 20})
    wait_until(lambda: admin.see(task)["state"] == "running", timeout=15, what="the task runs")
    admin.expect(202, "POST", f"/tasks/{task['id']}/cancel")
    wait_until(lambda: admin.see(task)["state"] == "cancelled", timeout=10, what="the task is cancelled")
    admin.expect(409, "GET", f"/tasks/{task['id']}/result")


def test_the_same_key_runs_once(admin):
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first, again = (admin.submit("sleep", {"duration": 0}, headers=key) for _ in range(2))
    assert first["id"] == again["id"]
    admin.expect(409, "POST", "/tasks", json={"kind": "sleep", "arguments": {"duration": 1}}, headers=key)


def test_a_task_waits_for_a_worker_that_is_not_there(admin, stack, wait_until):
    """All processes of the pool are killed in the middle of a task; another attempt begins when its claim has run out."""
    task = admin.submit("sleep", {"duration": 15})
    wait_until(lambda: admin.see(task)["state"] == "running", timeout=15, what="the task runs")
    for pid in stack.pool_pids("io"):
        stack.kill_program("fba_celery_worker", pid)
    wait_until(lambda: admin.see(task)["state"] == "succeeded", timeout=90, what="the task is done all the same")
    assert admin.see(task)["attempt"] == 2


def test_a_schedule_begins_and_ends_without_a_restart(admin, stack, wait_until):
    started = stack.started_at("fba_celery_beat")
    name = f"every ten seconds {secrets.token_hex(4)}"
    body = {"name": name, "task": {"kind": "sleep", "arguments": {"duration": 0}}, "every": 10}
    schedule = admin.expect(201, "POST", "/schedules", json=body).json()
    done = f"SELECT count(*) FROM tasks WHERE idempotency_key LIKE 'schedule:{schedule['id']}:%' AND state = 'succeeded'"

    def runs():
        return int(stack.sql(done))

    wait_until(lambda: runs() >= 2, timeout=40, what="the schedule has run twice")
    admin.expect(200, "PATCH", f"/schedules/{schedule['id']}", json={"enabled": False})
    ran = runs()
    run = admin.expect(202, "POST", f"/schedules/{schedule['id']}/run").json()
    assert admin.watch({"id": run["task_id"]})[-1]["state"] == "succeeded"
    assert stack.sql(f"SELECT next_run_at IS NULL FROM schedules WHERE id = '{schedule['id']}'") == "t"
    assert runs() == ran
    admin.expect(204, "DELETE", f"/schedules/{schedule['id']}")
    assert stack.started_at("fba_celery_beat") == started


def test_logging_out_and_disabling_a_user_take_effect_at_once(admin, log_in):
    username, password = f"user-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
    user = admin.expect(201, "POST", "/users", json={"username": username, "password": password, "roles": ["user"]}).json()
    first, second = log_in(username, password), log_in(username, password)
    first.expect(204, "POST", "/auth/logout")
    first.expect(401, "GET", "/auth/me")
    second.expect(200, "GET", "/auth/me")
    second.expect(403, "GET", "/users")
    admin.expect(200, "PATCH", f"/users/{user['id']}", json={"disabled": True})
    second.expect(401, "GET", "/auth/me")
    entries = admin.expect(200, "GET", "/audit", params={"username": "admin", "action": "user.change"}).json()["items"]
    assert user["id"] in [entry["object_id"] for entry in entries]


def test_an_emptied_redis_loses_no_task(admin, log_in, stack, wait_until):
    task = admin.submit("sleep", {"duration": 8})
    stack.redis("FLUSHALL", password=stack.secrets["fba_redis_password"])
    admin.expect(401, "GET", "/auth/me")
    again = log_in()
    wait_until(lambda: again.see(task)["state"] == "succeeded", timeout=60, what="the task is done")


def test_a_message_from_a_stranger_harms_no_worker(admin, stack, wait_until):
    """Of a task that nobody knows, with arguments that nobody takes, with an id that is none."""
    code = (
        "from fba_app.celery import app; "
        "app.send_task('fba_app.nobody', queue='io'); "
        "app.send_task('fba_app.sleep', args=[1, 2, 3], queue='io'); "
        "app.send_task('fba_app.sleep', task_id='no-id', queue='io')"
    )
    before = stack.pool_pids("io")
    stack.host.check_output(f'docker exec fba_server_1 python3 -c "{code}"')
    count = "docker exec fba_rabbitmq rabbitmqctl --silent -p fba list_queues name messages"
    wait_until(lambda: "dead-letter\t1" in stack.host.check_output(count), timeout=30, what="the unknown task is kept aside")
    admin.result("sleep", {"duration": 0})
    assert before
    assert stack.pool_pids("io") == before

    def letters(*arguments):
        run = stack.play("dead_letters.yml", *arguments)
        assert run.returncode == 0, run.stdout
        rows = [line.split(maxsplit=5) for line in run.stdout.splitlines() if line.startswith("fba_app.nobody ")]
        return [(row[2], row[3], row[5]) for row in rows], "changed=1 " in run.stdout

    # However often somebody looks: RabbitMQ would drop what was handed out twenty times
    script = "docker exec fba_celery_worker python3 /opt/worker/dead_letters.py -A fba_app.celery list"
    stack.host.check_output(f"for time in $(seq 25); do {script}; done")
    assert letters() == ([("io", "rejected", "kept")], False)
    assert letters("--check", "-e", "dead_letters_replay=true") == ([("io", "rejected", "kept")], False)
    assert letters("-e", "dead_letters_replay=true") == ([("io", "rejected", "sent to io")], True)
    wait_until(lambda: "dead-letter\t1" in stack.host.check_output(count), timeout=30, what="still nobody knows it")
    refused = stack.play("dead_letters.yml", "-e", "dead_letters_empty=another")
    assert refused.returncode != 0
    assert "dead_letters_empty is 'another', allowed is fba" in " ".join(refused.stdout.split())
    assert letters("-e", "dead_letters_empty=fba") == ([("io", "rejected", "removed")], True)
    assert "There are no dead letters." in stack.play("dead_letters.yml").stdout


def test_a_broker_that_is_away_is_said_before_anything_is_written(admin, stack, wait_until):
    stack.signal("STOP", *stack.pids("fba_rabbitmq", "beam.smp"))
    try:
        body = {"kind": "sleep", "arguments": {"duration": 0}}
        answers = []

        def refused():
            answers.append(admin.ask("POST", "/tasks", json=body))
            return answers[-1].status_code == 503

        wait_until(refused, timeout=30, what="a task is refused")
        assert int(answers[-1].headers["Retry-After"]) > 0
        assert {answer.status_code for answer in answers} <= {202, 503}
    finally:
        stack.signal("CONT", *stack.pids("fba_rabbitmq", "beam.smp"))
    wait_until(lambda: admin.ask("POST", "/tasks", json=body).status_code == 202, timeout=60, what="tasks are taken again")
    for answer in answers[:-1]:
        assert admin.watch(answer.json())[-1]["state"] == "succeeded"


def schemathesis(stack, client, *arguments):
    """Send requests of all sorts to the operations of the OpenAPI document."""
    command = [
        shutil.which("st", path=f"{sys.prefix}/bin"),
        "run",
        f"{stack.url}/openapi.json",
        f"--header=Authorization: Bearer {client.tokens['access_token']}",
        "--phases=examples,coverage,fuzzing",
        # That a file exists and a password is hard to guess, no schema can say.
        "--exclude-checks=positive_data_acceptance",
        "--request-timeout=30",
        "--seed=1",
        "--workers=2",
        "--no-color",
        *arguments,
    ]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert run.returncode == 0, run.stdout[-8000:]
    assert "passed" in run.stdout


# These end the session that asks.
ENDS_THE_SESSION = "--{}-path-regex=/api/v1/auth/(logout|me/(password|sessions))"


def test_no_request_finds_a_fault(log_in, stack, mailbox, wait_until):
    """Every operation of the document, with requests that fit it and requests that do not: no 500, and answers as documented.

    The mailbox is there for the mails that the requests send.
    """
    schemathesis(stack, log_in(), "--max-examples=20", ENDS_THE_SESSION.format("exclude"))
    schemathesis(stack, log_in(), "--max-examples=5", ENDS_THE_SESSION.format("include"))
    log = stack.host.check_output("docker logs fba_server_1 2>&1")
    assert "Traceback" not in log
    admin = log_in()
    # What the requests have begun is not left to the tests after this one.
    for schedule in admin.expect(200, "GET", "/schedules", params={"limit": 200}).json()["items"]:
        admin.expect(204, "DELETE", f"/schedules/{schedule['id']}")
    busy = "SELECT count(*) FROM tasks WHERE state NOT IN ('succeeded', 'failed', 'cancelled')"
    wait_until(lambda: stack.sql(busy) == "0", timeout=120, what="all tasks have ended")
