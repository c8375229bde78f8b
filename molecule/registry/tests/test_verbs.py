"""The operator verbs, as an operator sees them."""


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
