"""What is killed, hangs or is given up comes back, and nobody has to do anything."""

import subprocess


def test_a_killed_program_is_back_within_seconds(stack, wait_until):
    before = {name: stack.started_at(name) for name in stack.services}
    for container, program in (("fba_server_1", "server"), ("fba_celery_worker", "worker-io"), ("fba_celery_beat", "beat")):
        pid = stack.supervised_pid(container, program)
        stack.kill_program(container, pid)
        wait_until(
            lambda container=container, program=program, pid=pid: stack.supervised_pid(container, program) not in (0, pid),
            timeout=10,
            what=f"{program} runs again",
        )
    wait_until(lambda: stack.get("/health/ready")[0] == 200, timeout=20, what="the server answers again")
    # Supervisord did it: no container was restarted for it
    assert {name: stack.started_at(name) for name in stack.services} == before


def test_a_killed_data_service_is_back_within_seconds(stack, wait_until):
    for container, process in (("fba_redis", "redis-server"), ("fba_postgres", "postgres"), ("fba_nginx", "nginx")):
        before = stack.started_at(container)
        stack.signal("KILL", stack.pids(container, process)[0])
        wait_until(lambda c=container, b=before: stack.started_at(c) != b, timeout=20, what=f"{container} was started again")
    wait_until(lambda: stack.healthy() == stack.services, timeout=60, what="all are healthy")
    wait_until(lambda: stack.get("/health/ready")[0] == 200, timeout=30, what="the server is ready")


def test_a_program_that_does_not_stay_up_ends_its_container(stack, wait_until):
    before = stack.started_at("fba_celery_worker")
    stack.kill_again_and_again("fba_celery_worker", " -Q cpu ", seconds=90)
    wait_until(lambda: stack.started_at("fba_celery_worker") != before, timeout=30, what="Docker started the container again")
    # Supervisord's word, and not the health check's, which leaves a pool the time to begin
    assert "worker-cpu does not stay up; ending the container" in stack.host.check_output("docker logs fba_celery_worker 2>&1")
    wait_until(lambda: stack.healthy() == stack.services, timeout=60, what="all are healthy")


def test_a_hanging_program_is_replaced(stack, wait_until):
    """Docker alone would mark them unhealthy and leave them as they are."""
    hanging = {"fba_server_1": "granian", "fba_redis": "redis-server", "fba_celery_beat": "celery"}
    before = {name: stack.started_at(name) for name in hanging}
    for container, process in hanging.items():
        stack.signal("STOP", *stack.pids(container, process))
    wait_until(
        lambda: all(stack.started_at(name) != moment for name, moment in before.items()),
        timeout=150,
        what="the containers were started again",
    )
    wait_until(lambda: stack.healthy() == stack.services, timeout=90, what="all are healthy")


RESULTS = """
import time
from fba_app.celery import app

# A task that every Celery worker has: it returns what it is given
sent = []
for number in range(1000):
    sent.append(app.send_task("celery.accumulate", args=[number], kwargs={"index": 0}, queue="io").id)
    time.sleep(0.05)
print("sent", flush=True)
deadline = time.monotonic() + 60
left = dict(enumerate(sent))
while left and time.monotonic() < deadline:
    for number, task_id in list(left.items()):
        try:
            meta = app.backend.get_task_meta(task_id, cache=False)
        except app.backend.connection_errors:
            break
        if meta["status"] == "SUCCESS":
            assert meta["result"] == number, meta
            del left[number]
    time.sleep(0.2)
print("missing", len(left), flush=True)
"""


def test_no_result_of_a_plain_task_is_lost(stack, wait_until):
    """Results that are stored together, while Redis, RabbitMQ and the pool's processes are killed."""
    command = ["docker", "exec", "-i", stack.name, "docker", "exec", "-i", "fba_server_1", "python3", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sender:
        sender.stdin.write(RESULTS)
        sender.stdin.close()
        for container, process in (("fba_redis", "redis-server"), ("fba_rabbitmq", "beam.smp"), ("fba_redis", "redis-server")):
            for pid in stack.pool_pids("io"):
                stack.kill_program("fba_celery_worker", pid)
            before = stack.started_at(container)
            stack.signal("KILL", *stack.pids(container, process))
            wait_until(lambda c=container, b=before: stack.started_at(c) != b, timeout=30, what=f"{container} was started again")
            wait_until(lambda: stack.healthy() == stack.services, timeout=60, what="all are healthy")
        said = sender.stdout.read()
    assert said.splitlines() == ["sent", "missing 0"]
    assert sender.returncode == 0
