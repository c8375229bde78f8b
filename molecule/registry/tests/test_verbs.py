"""The operator verbs, as an operator sees them."""

import json
import threading

import requests
from requests.adapters import HTTPAdapter, Retry


def test_status_is_one_table_of_healthy_services(stack):
    run = stack.play("status.yml")
    assert run.returncode == 0, run.stdout
    rows = [line.split() for line in run.stdout.splitlines() if f" {stack.name} " in line and " fba" in line]
    assert {row[2] for row in rows} == stack.services
    assert {row[3] for row in rows} == {"healthy"}


def test_logs_of_one_service_come_with_its_name_and_no_other(stack):
    run = stack.play("logs.yml", "-e", "logs_service=worker")
    assert run.returncode == 0, run.stdout
    lines = [line for line in run.stdout.splitlines() if line.startswith(f"{stack.name} ")]
    assert {line.split()[1] for line in lines if " | " in line} == {"fba_celery_worker"}
    assert any("fba_app.heartbeat" in line for line in lines)


def test_restart_restarts_one_service_and_waits_until_it_is_healthy(stack):
    before = {name: stack.started_at(name) for name in stack.services}
    run = stack.play("restart.yml", "-e", "restart_service=flower")
    assert run.returncode == 0, run.stdout
    assert stack.healthy() == stack.services
    assert {name for name in stack.services if stack.started_at(name) != before[name]} == {"fba_celery_flower"}


def test_a_service_that_does_not_exist_is_refused_by_name(stack):
    for playbook, variable in (("restart.yml", "restart_service"), ("logs.yml", "logs_service")):
        run = stack.play(playbook, "-e", f"{variable}=worker_7")
        assert run.returncode != 0
        assert f"{variable} is 'worker_7': allowed are" in run.stdout


def test_maintenance_is_for_all_but_health_and_nothing_else_fails(stack):
    """Whoever keeps a connection and uses it all the time gets an answer to everything, of the application or of maintenance."""
    answers, failures, over = set(), [], threading.Event()

    def use(path):
        with requests.Session() as session:
            # A reload closes a kept connection between two requests, and the next one may be on its way: as browsers do, ask again once, on
            # a new connection, where not a byte has come back. A connection that is refused is none of these
            # An answer of 503 says when to ask again; here it is an answer
            once = Retry(total=1, connect=0, read=1, redirect=0, status=0, other=0, respect_retry_after_header=False)
            session.mount("http://", HTTPAdapter(max_retries=once))
            while not over.wait(0.05):
                try:
                    answers.add((path, session.get(stack.url + path, timeout=20).status_code))
                except requests.RequestException as error:
                    failures.append(error)

    users = [threading.Thread(target=use, args=(path,)) for path in ("/login", "/health/live")]
    for user in users:
        user.start()
    started = stack.started_at("fba_nginx")
    try:
        on = stack.play("maintenance.yml", "-e", "maintenance=on")
        assert on.returncode == 0, on.stdout
        status, body, headers = stack.fetch("/static/style.css")
        assert (status, headers["Retry-After"], headers["Cache-Control"]) == (503, "60", "no-store")
        assert json.loads(body)["code"] == "maintenance"
        # What a browser has sent is not received, whatever it was
        status, page = stack.post("/files", 7 * 2**20, accept="text/html,*/*")
        assert (status, "<h1>Closed for maintenance</h1>" in page) == (503, True)
        assert [stack.fetch(path)[0] for path in ("/health/ready", "/health/live", "/nginx-health")] == [200, 200, 403]
        assert f"Maintenance is on at {stack.name}" in stack.play("status.yml").stdout
    finally:
        off = stack.play("maintenance.yml", "-e", '{"maintenance": false}')
        over.set()
        for user in users:
            user.join()
    assert off.returncode == 0, off.stdout
    assert stack.fetch("/static/style.css")[0] == 200
    assert failures == []
    assert answers == {("/login", 200), ("/login", 503), ("/health/live", 200)}
    assert stack.started_at("fba_nginx") == started


def test_maintenance_is_on_or_off(stack):
    run = stack.play("maintenance.yml", "-e", "maintenance=of")
    assert run.returncode != 0
    assert "maintenance is 'of': allowed are on and off" in run.stdout.replace("''", "'")
    assert stack.fetch("/login")[0] == 200


def test_stop_and_destroy_keep_the_data_and_deploying_again_finds_it(stack):
    stack.sql("CREATE TABLE kept AS SELECT 'over destroy' AS what")
    stopped = stack.play("stop.yml")
    assert stopped.returncode == 0, stopped.stdout
    assert not any(container["State"]["Running"] for container in stack.containers().values())
    gone = stack.play("destroy.yml")
    assert gone.returncode == 0, gone.stdout
    assert stack.containers() == {}
    assert stack.host.run("ls -d /etc/fba").rc != 0
    back = stack.play("site.yml")
    assert back.returncode == 0, back.stdout
    assert stack.healthy() == stack.services
    assert stack.sql("SELECT what FROM kept") == "over destroy"


def test_destroy_with_volumes_wants_the_stacks_name(stack):
    refused = stack.play("destroy.yml", "-e", "destroy_volumes=yes")
    assert refused.returncode != 0
    assert "allowed are 'fba', the stack's name" in refused.stdout
    assert stack.healthy() == stack.services
    gone = stack.play("destroy.yml", "-e", "destroy_volumes=fba")
    assert gone.returncode == 0, gone.stdout
    assert stack.host.check_output("docker volume ls --quiet --filter name=^fba_") == ""
