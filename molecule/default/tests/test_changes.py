"""What the playbooks do to a stack that is there: nothing else than they should."""

import json
import re
from datetime import datetime


def test_check_mode_tells_what_would_change_and_changes_nothing(stack):
    before = {name: stack.started_at(name) for name in stack.services}
    run = stack.play("site.yml", "--check", "--diff", "-e", '{"nginx_body_limit": "7m"}')
    assert run.returncode == 0, run.stdout
    assert "+    client_max_body_size 7m;" in run.stdout
    assert re.search(r"debian13 +: ok=\d+ +changed=1 ", run.stdout), run.stdout[-2000:]
    # What precheck has seen is not looked for again
    blocks = run.stdout.split("TASK [")[1:]
    ran = {block.partition("]")[0] for block in blocks if re.search(r"^(ok|changed): \[debian13\]", block, re.MULTILINE)}
    assert "fba.stack.precheck : Refuse what cannot work" in ran
    assert not {name for name in ran if ": See which images" in name or ": See again which containers" in name}
    assert not any(value in run.stdout for value in stack.secrets.values())
    assert {name: stack.started_at(name) for name in stack.services} == before
    assert "did not reach the application" in stack.post("/run-task/", 5 * 2**20 + 1)[1]


def test_a_server_that_does_not_start_is_taken_back_and_nothing_else_is_touched(stack):
    before = {name: stack.started_at(name) for name in stack.services}
    run = stack.play("site.yml", "-e", '{"server_extra_arguments": ["--no-such-option"]}')
    assert run.returncode != 0
    assert "fba_server_spare: does not stay up" in run.stdout
    assert re.search("Error: No such option.*--no-such-option", run.stdout)
    assert "what ran before goes on" in " ".join(run.stdout.split())
    # The one before has served all the time, and the one that failed is gone
    assert {name: stack.started_at(name) for name in stack.services} == before
    assert set(stack.containers()) == stack.services == stack.healthy()


def test_a_changed_variable_touches_what_it_is_about(stack, log_in):
    # Before it is closed. It runs when the worker's turn comes to be replaced
    admin = log_in()
    task = admin.submit("sleep", {"duration": 60})
    closed = stack.play("maintenance.yml", "-e", "maintenance=on")
    assert closed.returncode == 0, closed.stdout
    before = {name: stack.started_at(name) for name in stack.services}
    # Nearly all that there is: not to be had twice
    memory = int(stack.host.check_output("awk '/^MemTotal/ {print int($2 / 1024) - 100}' /proc/meminfo"))
    options = {"nginx_body_limit": "6m", "beat_log_level": "debug", "redis_publish_port": 6380, "worker_memory": f"{memory}m"}
    run = stack.play("site.yml", "-e", json.dumps(options))
    # What an operator has closed, a deploy does not open
    answers = [stack.fetch(path)[0] for path in ("/", "/health/ready")]
    opened = stack.play("maintenance.yml", "-e", "maintenance=off")
    assert opened.returncode == 0, opened.stdout
    assert run.returncode == 0, run.stdout
    assert answers == [503, 200]
    assert stack.healthy() == stack.services
    # Beat has another command; Redis a port, on loopback; nginx has read its file again
    changed = {name for name in stack.services if stack.started_at(name) != before[name]}
    assert changed == {"fba_celery_beat", "fba_celery_worker", "fba_redis"}
    # Without the memory for two, a worker starts when the one before it has finished
    seen = admin.see(task)
    assert (seen["state"], seen["attempt"]) == ("succeeded", 1)
    assert datetime.fromisoformat(stack.started_at("fba_celery_worker")) > datetime.fromisoformat(seen["finished_at"])
    listening = [line.split()[3] for line in stack.host.check_output("ss -Hltn").splitlines()]
    assert [address for address in listening if address.endswith(":6380")] == ["127.0.0.1:6380"]
    # The application has a limit of its own
    assert "A request here may have 5242880 bytes" in stack.post("/run-task/", 5 * 2**20 + 1)[1]


def test_a_lost_vault_file_is_not_made_up_for(stack):
    """A new password would not open the database that is there."""
    run = stack.play("site.yml", "-e", "fba_secrets_file=/nonexistent/fba_secrets.yml")
    assert run.returncode != 0
    assert "fba_postgres_password is not known, but the volume fba_postgres was made with one" in run.stdout
    assert stack.healthy() == stack.services
