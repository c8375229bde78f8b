"""The stack as its users meet it: every test asks from outside, or kills something and watches what happens."""

import gzip
import json
import re
import secrets
import shlex

import pytest

TLS = "/run/fba/tls"


def test_eight_containers_are_healthy(stack):
    assert stack.healthy() == stack.services


def test_supervisord_leaves_the_processors_to_its_programs(stack):
    for container in ("fba_server_1", "fba_celery_worker", "fba_celery_beat", "fba_celery_flower"):
        processes = stack.host.check_output(f"docker top {container} -o pid,cputimes,etimes,args").splitlines()
        (supervisord,) = (line.split() for line in processes if "/opt/fba/supervisord.py" in line and "docker-init" not in line)
        used, age = map(int, supervisord[1:3])
        assert used <= 2 + age / 50, f"supervisord in {container} has used {used} s of a processor in {age} s"


def test_a_task_runs_through_the_whole_stack(stack, wait_until):
    status, answer = stack.get("/run-task/?duration=1")
    assert status == 200
    assert answer["status"] == "Task submitted"
    assert stack.get("/task-status/00000000-0000-0000-0000-000000000000")[1] == {"status": "PENDING"}
    done = {"status": "SUCCESS", "result": "Task completed in 1 seconds!"}
    wait_until(lambda: stack.get(f"/task-status/{answer['task_id']}")[1] == done, timeout=15, what="the task is done")


def test_health_asks_every_data_service(stack):
    assert stack.get("/health/live")[0] == 200
    status, answer = stack.get("/health/ready")
    assert status == 200
    assert answer["checks"] == {"postgres": "ok", "redis": "ok", "rabbitmq": "ok"}


def test_flower_asks_for_the_generated_password_and_shows_the_workers(stack, wait_until):
    assert stack.get("/flower/")[0] == 401
    assert stack.get("/flower/", auth=("admin", "admin"))[0] == 401
    auth = ("admin", stack.secrets["fba_flower_password"])
    assert stack.get("/flower/", auth=auth)[0] == 200

    def pools():
        workers = stack.get("/flower/api/workers?refresh=1", auth=auth)[1]
        return {name.partition("-")[0] for name in workers}

    wait_until(lambda: pools() == {"io", "cpu"}, timeout=30, what="Flower shows both pools")

    # It turns the workers' events on, every few seconds: of a task that came before, it never hears
    submitted = []

    def shown():
        submitted.append(stack.get("/run-task/?duration=0")[1]["task_id"])
        tasks = stack.get("/flower/api/tasks?limit=100", auth=auth)[1]
        return any(tasks.get(task_id, {}).get("state") == "SUCCESS" for task_id in submitted)

    wait_until(shown, timeout=30, what="Flower shows that a task has succeeded")


def test_flower_and_the_application_keep_their_metrics_to_themselves(stack):
    assert [stack.get(path)[0] for path in ("/flower/metrics", "/flower/healthcheck", "/metrics")] == [404, 404, 404]


def test_beat_is_alive_and_a_worker_of_each_queue_really_consumes(stack, wait_until):
    """Every minute beat sends a task to each queue; what the workers write of it is what counts."""

    def ages():
        checks = stack.get("/health/background")[1]["checks"]
        assert set(checks) == {"beat", "worker:io", "worker:cpu"}
        return [check["age_seconds"] for check in checks.values()]

    wait_until(lambda: all(age is not None and age < 65 for age in ages()), timeout=90, what="heartbeats of the last minute")
    assert stack.get("/health/background")[0] == 200


def test_static_files_come_from_nginx(stack):
    status, body, headers = stack.fetch("/static/style.css")
    assert status == 200
    assert headers["Content-Type"] == "text/css"
    assert headers["Content-Encoding"] == "gzip"
    assert b"body" in gzip.decompress(body)


def test_a_page_gets_the_files_of_its_own_release(host, stack):
    page = stack.fetch("/login")[1]
    page = gzip.decompress(page) if page.startswith(b"\x1f\x8b") else page
    (release,) = set(re.findall(r"/static/[a-z.]+\?v=([^\"]+)", page.decode()))
    image = host.check_output("docker inspect --format '{{ .Config.Image }}' fba_server_1")
    assert image.endswith(f":{release}")

    def style(query):
        status, body, _headers = stack.fetch(f"/static/style.css{query}")
        assert status == 200
        return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body

    present = style(f"?v={release}")
    shell = f"docker run --rm --network none --user 10001 --entrypoint sh --volume fba_static:/srv {image} -c"
    host.check_output(f"{shell} 'mkdir /srv/earlier /srv/.hidden; for d in earlier .hidden; do echo other > /srv/$d/style.css; done'")
    try:
        assert style("?v=earlier") == b"other\n"
        # Of a page that knows nothing of releases, of a release that is gone, and of somebody who tries
        for query in ("", "?v=0123abcd", "?v=.hidden", "?v=..", "?v=../earlier", "?v=%65arlier", f"?v={'a' * 129}"):
            assert style(query) == present, query
    finally:
        host.check_output(f"{shell} 'rm -r /srv/earlier /srv/.hidden'")


def test_nginx_says_which_server_has_answered(host, stack, wait_until):
    marks = {path: f"{path}?mark={secrets.token_hex(8)}" for path in ("/health/live", "/static/style.css")}

    def said():
        lines = host.check_output("docker logs --since 60s fba_nginx").splitlines()
        return [line for mark in marks.values() for line in lines if mark in line]

    for path in marks.values():
        assert stack.fetch(path)[0] == 200
    # It writes many lines at a time, five times a second
    wait_until(lambda: len(said()) == 2, timeout=15, what="nginx has said so")
    asked, served = said()
    assert re.search(r' upstream="[\d.]+:8001" status="200" seconds="[\d.]+"$', asked), asked
    assert served.endswith(' upstream="-" status="-" seconds="-"')


def test_a_reload_of_nginx_is_over_when_all_go_by_the_new_configuration(host):
    def taking():
        titles = "for p in /proc/[0-9]*; do echo \"$p $(tr '\\0' ' ' < $p/cmdline)\"; done 2> /dev/null"
        lines = host.run(f"docker exec fba_nginx sh -c {shlex.quote(titles)}").stdout.splitlines()
        return {line.split()[0] for line in lines if "nginx: worker process" in line and "shutting down" not in line}

    before = taking()
    host.check_output("docker exec fba_nginx sh /opt/fba/reload")
    after = taking()
    assert before and after and not before & after


def test_nobody_gets_an_upload_by_its_path(host, stack):
    path = "upload/private.txt"
    host.check_output(f"docker exec fba_server_1 sh -c 'echo private > {path}'")
    # nginx can read it, and waits for the application's word
    assert host.check_output("docker exec fba_nginx cat /var/www/upload/private.txt") == "private"
    assert stack.fetch(f"/_{path}")[0] == 404
    assert stack.fetch(f"/static/{path}")[0] in (401, 403, 404)
    host.check_output(f"docker exec fba_server_1 rm {path}")


def test_a_body_over_the_limit_is_refused(stack):
    # By nginx, which speaks to a program as the application does
    status, answer = stack.post("/run-task/", 5 * 2**20 + 1)
    assert status == 413
    assert '"code": "too_large"' in answer and "application/problem+json" in answer
    status, answer = stack.post("/run-task/", 5 * 2**20 + 1, accept="text/html")
    assert status == 413
    assert "<html>" in answer
    # Below the limit the application answers, which knows no POST there
    assert stack.post("/run-task/", 4 * 2**20)[0] == 405


def test_only_nginx_is_published_beyond_loopback(host):
    # What else listens is the host's own business
    addresses = [line.split()[3] for line in host.check_output("ss -Hltnp").splitlines() if "docker-proxy" in line]
    public = {address.rpartition(":")[2] for address in addresses if not address.startswith(("127.", "[::1]"))}
    assert public == {"8000"}


def test_no_secret_shows_anywhere(host, stack):
    """Not to whoever inspects containers, lists processes, or reads logs; every one is in a file that its owner alone reads."""
    seen = {
        "docker inspect": host.check_output("docker inspect $(docker ps --all --quiet)"),
        "process list": host.check_output("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'"),
        "logs": host.check_output("for name in $(docker ps --all --quiet); do docker logs $name 2>&1; done; cat /var/log/fba/*/*"),
    }
    assert len(stack.secrets) >= 8
    for where, text in seen.items():
        assert [name for name, value in stack.secrets.items() if value in text] == [], where
    loose = host.check_output("find /etc/fba -type f -perm /077 -print0 | xargs -0 cat")
    assert [name for name, value in stack.secrets.items() if value in loose] == []


def test_containers_are_hardened(host):
    for container in json.loads(host.check_output("docker inspect $(docker ps --quiet)")):
        config, limits = container["Config"], container["HostConfig"]
        name = container["Name"]
        assert config["User"].partition(":")[0] not in ("", "0", "root"), name
        assert limits["CapDrop"] == ["ALL"], name
        assert not limits["CapAdd"], name
        assert limits["ReadonlyRootfs"], name
        assert "no-new-privileges" in limits["SecurityOpt"], name
        assert limits["Memory"] > 0, name
        assert limits["LogConfig"]["Config"]["max-size"] == "5m", name


def test_the_applications_role_owns_its_database_and_nothing_else(stack):
    assert stack.sql("SELECT 1", as_application=True) == "1"
    for database, query in (
        ("postgres", "SELECT 1"),
        ("template1", "SELECT 1"),
        ("fba", "CREATE DATABASE another"),
        ("fba", "CREATE ROLE another"),
        ("fba", "COPY (SELECT 1) TO PROGRAM 'true'"),
    ):
        with pytest.raises(AssertionError):
            stack.sql(query, database=database, as_application=True)


def test_postgresql_takes_neither_a_wrong_password_nor_plain_text(host, stack):
    url = "host=fba_postgres dbname=fba user=fba sslmode={mode}"
    for mode, password in (("require", "wrong"), ("disable", stack.secrets["fba_database_password"])):
        answer = stack.psql(url.format(mode=mode), "SELECT 1", password)
        assert answer.rc != 0
        assert "password authentication failed" in answer.stderr if mode == "require" else "no encryption" in answer.stderr


def test_the_data_services_want_a_certificate_of_the_stack(stack):
    """The right password alone opens nothing."""
    answer = stack.psql(
        "host=fba_postgres dbname=fba user=fba sslmode=require sslcert=/none", "SELECT 1", stack.secrets["fba_database_password"]
    )
    assert answer.rc != 0
    assert "requires a valid client certificate" in answer.stderr
    unknown = f"docker exec fba_redis redis-cli --tls --cacert {TLS}/ca.pem -h localhost --user probe --pass x ping 2>&1"
    assert "PONG" not in stack.host.run(unknown).stdout
    handshake = f"openssl s_client -connect localhost:5671 -CAfile {TLS}/ca.pem -tls1_2 < /dev/null 2>&1"
    assert "alert" in stack.host.run(f'docker exec fba_rabbitmq sh -c "{handshake}"').stdout


def test_redis_wants_a_password_keeps_its_data_and_evicts_nothing(stack):
    assert "NOAUTH" in stack.redis("GET some-key")
    assert "NOPERM" in stack.redis("GET some-key", "--user probe --pass x")
    settings = stack.redis("CONFIG GET appendonly maxmemory-policy", password=stack.secrets["fba_redis_password"])
    # In any order, which Redis picks anew at each start
    names, values = settings.split()[::2], settings.split()[1::2]
    assert dict(zip(names, values, strict=True)) == {"appendonly": "yes", "maxmemory-policy": "noeviction"}


def test_rabbitmq_has_the_applications_user_and_vhost_alone(host):
    rabbitmqctl = "docker exec fba_rabbitmq rabbitmqctl --silent --formatter json "
    assert [user["user"] for user in json.loads(host.check_output(rabbitmqctl + "list_users"))] == ["fba"]
    assert [vhost["name"] for vhost in json.loads(host.check_output(rabbitmqctl + "list_vhosts"))] == ["fba"]
    queues = json.loads(host.check_output(rabbitmqctl + "-p fba list_queues name type policy"))
    assert {queue["name"]: (queue["type"], queue["policy"]) for queue in queues if queue["name"] in ("io", "cpu", "dead-letter")} == {
        "io": ("quorum", "dead-letter"),
        "cpu": ("quorum", "dead-letter"),
        "dead-letter": ("quorum", "dead-letters-stay"),
    }


def test_after_a_restart_of_the_host_all_eight_come_back(host, stack, reboot, wait_until):
    row = stack.sql("SELECT max(beat_at) FROM heartbeats")
    reboot(host)
    wait_until(lambda: stack.healthy() == stack.services, timeout=180, what="all are healthy")
    test_a_task_runs_through_the_whole_stack(stack, wait_until)
    assert row and stack.sql("SELECT max(beat_at) FROM heartbeats") >= row
