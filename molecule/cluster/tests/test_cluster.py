"""A stack on six hosts: every test asks from outside, or takes something away and watches what happens.

In this order: what is there, what strangers get, what happens when parts go, and last what changes the fleet.
"""

import contextlib
import itertools
import json
import re
import secrets
import subprocess
import threading
import time
from pathlib import Path

import pytest
import requests
import variants
import yaml

HERE = Path(__file__).parent
TLS_DIR = "/etc/fba/tls"


def run_script(host, script, *arguments, data=""):
    """Run a Python script on a host, which has nothing but Python, and return what it prints as JSON."""
    # The script and what it reads go the same way, so the script comes as an argument
    command = ["docker", "exec", "-i", host, "python3", "-c", (HERE / script).read_text(), *map(str, arguments)]
    return json.loads(subprocess.run(command, input=data, text=True, check=True, capture_output=True).stdout)


def knock(host, doors, certificate="nginx", ca=f"{TLS_DIR}/nginx/ca.pem"):
    """Knock at doors from a host, with one of its certificates."""
    files = ("-", "-") if certificate is None else (f"{certificate}/certificate.pem", f"{certificate}/private_key.pem")
    files = [name if name.startswith(("/", "-")) else f"{TLS_DIR}/{name}" for name in files]
    return run_script(host, "knock.py", ca, *files, data=json.dumps(doors))


@pytest.fixture
def doors(fleet):
    """Everything that is published for peers: protocol, address, port, and the name that its certificate must have."""
    data, (app1, app2) = fleet["data"].address, [stack.address for stack in fleet.of("server")]
    return [
        ["postgres", data, 5432, "fba_postgres"],
        ["redis", data, 6379, "fba_redis"],
        ["rabbitmq", data, 5671, "fba_rabbitmq"],
        ["/health/live", app1, 8001, "fba_server"],
        ["/health/live", app2, 8001, "fba_server"],
        ["/flower/healthcheck", app2, 8555, "fba_celery_flower"],
        ["/v2/", app1, 5000, app1],
    ]


@pytest.fixture
def token(fleet):
    """A header that lets its holder submit tasks without a limit of open ones."""
    login = {"username": "admin", "password": fleet.door.secrets["fba_app_admin_password"]}
    answer = requests.post(f"{fleet.door.url}/api/v1/auth/login", json=login, timeout=20)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


class Load:
    """A steady stream of tasks, each with an identity, submitted through the door while the test goes on."""

    def __init__(self, fleet, token, name, per_second=4, seconds=1):
        # Of this run alone: a key that is known is an answer that is known
        self.fleet, self.token, self.name = fleet, token, f"{name}-{secrets.token_hex(4)}"
        self.pause, self.seconds = 1 / per_second, seconds
        self.accepted, self.failed = [], []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        for number in itertools.count():
            if self.stopping.wait(self.pause):
                return
            key = f"{self.name}-{number}"
            try:
                answer = requests.post(
                    f"{self.fleet.door.url}/api/v1/tasks",
                    json={"kind": "sleep", "arguments": {"duration": self.seconds}},
                    headers={**self.token, "Idempotency-Key": key},
                    timeout=20,
                )
                (self.accepted if answer.status_code == 202 else self.failed).append(key if answer.status_code == 202 else answer.text)
            except requests.RequestException as error:
                self.failed.append(repr(error))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_error):
        self.stopping.set()
        self.thread.join()

    def rows(self):
        """Return (state, attempt) of every task that was submitted."""
        query = f"SELECT state, attempt FROM tasks WHERE idempotency_key LIKE 'user:%:{self.name}-%'"
        return [tuple(line.split("|")) for line in self.fleet["data"].sql(query).splitlines()]

    def check(self, wait_until):
        """Every task that was accepted has succeeded, at the first attempt: none lost, none begun twice."""
        wait_until(lambda: {state for state, _attempt in self.rows()} == {"succeeded"}, timeout=60, what="all tasks have succeeded")
        assert self.failed == []
        assert len(self.accepted) > 10
        assert len(self.rows()) == len(self.accepted)
        assert {attempt for _state, attempt in self.rows()} == {"1"}


def succeeded_on(stack, since):
    """Return the ids of tasks that have succeeded on this host's worker since a moment."""
    log = stack.host.run(f"docker logs --since {since} fba_celery_worker 2>&1").stdout
    return set(re.findall(r"Task fba_app\.sleep\[(\S+)\] succeeded", log))


def now(stack):
    """Return this host's time as Docker takes it."""
    return stack.host.check_output("date +%s.%N")


def test_each_host_runs_what_its_groups_say_and_all_is_healthy(fleet):
    names = {"worker": "celery_worker", "server": "server_1", "beat": "celery_beat", "flower": "celery_flower"}
    for host in fleet.members():
        wanted = {f"fba_{names.get(service, service)}" for service, hosts in fleet.groups.items() if host in hosts and service != "all"}
        wanted |= {"fba_registry"} if host == "app1" else set()
        assert fleet[host].healthy() == wanted, host


def test_status_is_one_table_of_the_whole_fleet(fleet):
    run = fleet.door.play("status.yml")
    assert run.returncode == 0, run.stdout
    rows = [line.split() for line in run.stdout.splitlines()]
    services = {(row[0], row[1]) for row in rows if len(row) > 4 and row[3] == "healthy"}
    wanted = {
        (service, host) for service, hosts in fleet.groups.items() if service in ("postgres", "worker", "server", "nginx") for host in hosts
    }
    assert wanted <= services and ("registry", "app1") in services
    consumers = {row[0]: row[3] for row in rows if len(row) == 4 and row[0] in ("io", "cpu")}
    # A process of the pool io consumes by itself; there are two on each host
    assert consumers == {"io": "4", "cpu": "2"}
    assert re.search(r"^beat runs on (app1|work2); elsewhere it stands by$", run.stdout, re.MULTILINE)


def test_tasks_run_on_both_workers(fleet, token, wait_until):
    moment = now(fleet["data"])
    with Load(fleet, token, "both", per_second=20) as load:
        wait_until(lambda: len(load.accepted) >= 40, timeout=30, what="40 tasks are accepted")
    load.check(wait_until)
    shares = [succeeded_on(stack, moment) for stack in fleet.of("worker")]
    assert all(shares)
    assert sum(map(len, shares)) == len(load.accepted)


def test_pages_files_and_flower_come_through_the_one_door(fleet, wait_until):
    door = fleet.door
    assert door.fetch("/static/style.css")[0] == 200
    assert door.get("/flower/")[0] == 401
    auth = ("admin", door.secrets["fba_flower_password"])

    def hosts():
        return {name.partition("@")[2] for name in door.get("/flower/api/workers?refresh=1", auth=auth)[1]}

    wait_until(lambda: hosts() >= {"fba-work1", "fba-work2"}, timeout=30, what="Flower shows the workers of both hosts")


def test_a_file_is_there_whichever_server_is_asked(fleet, log_in_at):
    client = log_in_at(fleet.door)
    file = client.upload("numbers.csv", b"a,b\n1,2\n" * 1000, "text/csv")
    for _server in range(4):
        assert client.expect(200, "GET", f"/files/{file['id']}/content").content == b"a,b\n1,2\n" * 1000


def test_each_certificate_is_its_services_own_and_opens_what_it_should(fleet, doors):
    """As a third party sees it: another client, on another host, that verifies chain and name."""
    answers = knock("edge", doors)
    assert [answer.split()[0] for answer in answers[3:]] == ["HTTP/1.1"] * 4
    assert "200" in answers[3] and "200" in answers[6]
    # PostgreSQL goes on to ask for the password, Redis too, RabbitMQ begins to speak
    assert answers[0].startswith("R") and answers[1].startswith("-NOAUTH") and answers[2].startswith("\x01"), answers
    wrong_names = [[protocol, address, port, "fba_other"] for protocol, address, port, _name in doors]
    assert all("certificate verify failed" in answer for answer in knock("edge", wrong_names))


def refused(answer):
    """Return whether a service has said nothing, or only that it refuses."""
    return answer.startswith(("refused", "closed")) or "requires a valid client certificate" in answer


def test_who_has_no_certificate_of_the_stack_gets_nothing(fleet, doors):
    """From a host that the packet filters let through."""
    edge = fleet["edge"].host
    edge.check_output(
        "mkdir -p /root/stranger && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj '/CN=fba_server'"
        " -keyout /root/stranger/private_key.pem -out /root/stranger/certificate.pem"
    )
    for certificate in (None, "/root/stranger"):
        answers = knock("edge", doors, certificate)
        assert all(refused(answer) for answer in answers), (certificate, answers)


def test_a_stranger_finds_nginx_alone(fleet, doors):
    addresses = {name: fleet[name].address for name in fleet.members()}
    found = run_script("outsider", "scan.py", 1, 10000, *addresses.values())
    assert {name: found[address] for name, address in addresses.items()} == {name: [8000] if name == "edge" else [] for name in addresses}
    # The same scan, by a peer, finds what is published for peers: it is the filter that makes the difference
    found = run_script("work1", "scan.py", 5000, 9000, addresses["data"], addresses["app1"])
    assert found == {addresses["data"]: [5432, 5671, 6379], addresses["app1"]: [5000, 8001]}
    # Nor past the published ports, straight to the containers
    inside = fleet["data"].host.check_output("docker inspect -f '{{.NetworkSettings.Networks.fba_network.IPAddress}}' fba_postgres")
    outsider = ["docker", "exec", "outsider"]
    subprocess.run([*outsider, "ip", "route", "replace", f"{inside}/32", "via", addresses["data"]], check=True)
    assert run_script("outsider", "scan.py", 5432, 5432, inside) == {inside: []}
    subprocess.run([*outsider, "ip", "route", "del", f"{inside}/32"], check=True)


def test_no_secret_shows_on_any_host(fleet):
    for name in fleet.members():
        text = fleet[name].host.check_output(
            "docker inspect $(docker ps --all --quiet); cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n';"
            " for each in $(docker ps --all --quiet); do docker logs $each 2>&1; done;"
            " find /etc/fba /etc/docker -type f -perm /077 -print0 | xargs -0 cat"
        )
        assert [secret for secret, value in fleet.door.secrets.items() if value in text] == [], name
        assert "PRIVATE KEY" not in text, name


def test_a_plan_tells_what_a_deploy_would_do_where_and_why(fleet, tmp_path):
    """With another release, and another setting of nginx. What is deployed already and stays, `molecule idempotence` has seen."""
    variants.make_variant(fleet.door.project / "app", tmp_path / "app", variants.mark(1))
    before = fleet.started()
    run = fleet.door.play(
        "site.yml", "--check", "--diff", "-e", json.dumps({"nginx_body_limit": "7m", "fba_app_source": str(tmp_path / "app")})
    )
    assert run.returncode == 0, run.stdout
    assert "+    client_max_body_size 7m;" in run.stdout
    groups = {service: hosts for service, hosts in fleet.groups.items() if service not in ("all", "ungrouped")}
    rows = [line.split() for line in run.stdout.splitlines() if re.match(rf"^({'|'.join(groups)}) ", line)]
    verdicts = {(row[0], row[1]): row[3] for row in rows}
    of_service = dict.fromkeys(("server", "worker", "beat"), "replaced") | {"nginx": "reloaded"}
    assert verdicts == {(service, host): of_service.get(service, "left") for service, hosts in groups.items() for host in hosts}
    assert not any(value in run.stdout for value in fleet.door.secrets.values())
    assert fleet.started() == before


# When parts go


def leader(fleet):
    """Return the host whose beat runs, and those whose beat stands by, by what each says of itself."""
    leads = {}
    for stack in fleet.of("beat"):
        said = re.findall(r"singleton: beat (leads here|stands by|has lost)", stack.host.run("docker logs fba_celery_beat 2>&1").stdout)
        leads[stack.name] = bool(said) and said[-1] == "leads here"
    return [name for name, is_leader in leads.items() if is_leader], [name for name, is_leader in leads.items() if not is_leader]


def takes_over(fleet, other, moment, timeout, wait_until):
    """Wait until another beat leads, and return how long after the moment it said so."""

    def said():
        lines = fleet[other].host.run(f"docker logs --timestamps --since {moment} fba_celery_beat 2>&1").stdout
        return re.findall(r"^(\S+) singleton: beat leads here", lines, re.MULTILINE)

    stamp = wait_until(said, timeout=timeout, what=f"beat on {other} leads")[-1]
    seconds = float(fleet[other].host.check_output(f"date -d {stamp} +%s.%N")) - float(moment)
    print(f"beat on {other} leads after {seconds:.1f} s")
    return seconds


def ticks(stack, since):
    """Return the ticks that this host's beat has made since a moment, as it logs them."""
    log = stack.host.run(f"docker logs --since {since} fba_celery_beat 2>&1").stdout
    return re.findall(r"the schedule (\S+ \(\S+ ?\S*\)) has added a task", log)


def test_one_beat_fires_whatever_happens_to_the_other(fleet, log_in_at, wait_until):
    client = log_in_at(fleet.door)
    schedule = client.expect(
        201, "POST", "/schedules", json={"name": "often", "task": {"kind": "sleep", "arguments": {"duration": 0}}, "every": 10}
    ).json()
    start = now(fleet["data"])
    (first,), (second,) = leader(fleet)

    def fires(host, since):
        wait_until(lambda: ticks(fleet[host], since), timeout=30, what=f"beat on {host} has made a tick")

    # Killed, and everything in its container with it
    moment = now(fleet[first])
    fleet[first].host.check_output("docker kill --signal KILL fba_celery_beat")
    assert takes_over(fleet, second, moment, 20, wait_until) < 15
    fires(second, moment)
    fleet[first].host.check_output("docker start fba_celery_beat")
    wait_until(lambda: leader(fleet) == ([second], [first]), timeout=60, what="the first stands by")

    # Stopped in peace
    moment = now(fleet[second])
    fleet[second].host.check_output("docker stop fba_celery_beat")
    assert takes_over(fleet, first, moment, 10, wait_until) < 5
    fires(first, moment)
    fleet[second].host.check_output("docker start fba_celery_beat")
    wait_until(lambda: leader(fleet) == ([first], [second]), timeout=60, what="the second stands by")

    # Frozen past its turn, and thawed: the time of a tick is over by then, and it must not make up for it
    moment = now(fleet[first])
    fleet[first].host.check_output("docker pause fba_celery_beat")
    assert takes_over(fleet, second, moment, 20, wait_until) < 15
    fires(second, moment)
    thaw = now(fleet[first])
    fleet[first].host.check_output("docker unpause fba_celery_beat")
    wait_until(lambda: leader(fleet) == ([second], [first]), timeout=60, what="the first stands by again")
    fires(second, thaw)
    assert ticks(fleet[first], thaw) == []
    assert "Sending due task" not in fleet[first].host.run(f"docker logs --since {thaw} fba_celery_beat 2>&1").stdout

    client.expect(204, "DELETE", f"/schedules/{schedule['id']}")
    made = ticks(fleet[first], start) + ticks(fleet[second], start)
    assert len(made) >= 4
    assert len(made) == len(set(made))


def test_a_server_that_goes_is_not_missed(fleet, wait_until):
    """Safe requests go to the next; and what comes back is used again."""
    app2 = fleet["app2"]
    app2.host.check_output("docker stop fba_server_1")
    assert [fleet.door.get("/health/ready")[0] for _request in range(10)] == [200] * 10
    app2.host.check_output("docker start fba_server_1")
    wait_until(lambda: "fba_server_1" in app2.healthy(), timeout=60, what="the server is healthy")


def test_a_host_that_vanishes_is_noticed_by_the_broker(fleet, token, wait_until):
    """Without a word: its packets are dropped both ways, as when a cable is pulled."""

    @contextlib.contextmanager
    def some_tasks(name):
        with Load(fleet, token, name, per_second=15, seconds=2) as load:
            wait_until(lambda: len(load.accepted) > 30, timeout=30, what="tasks are submitted")
            yield
            wait_until(lambda: len(load.accepted) > 90, timeout=30, what="more tasks are submitted")
        load.check(wait_until)

    data, work1 = fleet["data"], fleet["work1"]
    octets = [int(octet) for octet in work1.address.split(".")]
    work1_groups = [octets[0] * 256 + octets[1], octets[2] * 256 + octets[3]]

    def connections():
        names = data.host.check_output("docker exec fba_rabbitmq rabbitmqctl --silent --formatter json list_connections peer_host")
        # Eight groups of an IPv6 address, of which the last two are the IPv4 one
        return [each for each in json.loads(names) if each["peer_host"][6:] == work1_groups]

    def connections_to_redis():
        lines = work1.host.check_output("docker exec fba_celery_worker cat /proc/net/tcp").splitlines()[1:]
        # Port 6379, and established
        return [line for line in lines if line.split()[2].endswith(":18EB") and line.split()[3] == "01"]

    with some_tasks("before"):
        # Each task that waits for Redis takes a connection of its own
        data.host.check_output("docker pause fba_redis && sleep 2 && docker unpause fba_redis")
    assert connections()
    assert len(connections_to_redis()) > 3
    started = time.monotonic()
    work1.host.check_output("iptables -w -I FORWARD 1 -j DROP")
    try:
        wait_until(lambda: not connections(), timeout=40, what="the broker has noticed")
        seconds = time.monotonic() - started
        wait_until(lambda: not connections_to_redis(), timeout=40, what="the worker has noticed")
    finally:
        work1.host.check_output("iptables -w -D FORWARD 1")
    print(f"the broker has noticed after {seconds:.1f} s")
    # A question takes a second or two by itself
    assert seconds < 33
    wait_until(connections, timeout=60, what="the worker is back")
    wait_until(work1.consumes, timeout=60, what="its pools consume")
    # What has died meanwhile takes nothing with it when it is used again
    with some_tasks("after"):
        pass


def test_the_packet_filter_is_there_after_a_restart(fleet, reboot, wait_until):
    app2 = fleet["app2"]
    rules = app2.host.check_output("iptables -w -S FBA-fba")
    app2.host.check_output("systemctl restart docker")
    assert app2.host.check_output("iptables -w -S FBA-fba") == rules
    reboot(app2.host)
    assert app2.host.check_output("iptables -w -S FBA-fba") == rules
    assert "-d 172.30.10.0/24 -j FBA-fba" in app2.host.check_output("iptables -w -S DOCKER-USER").splitlines()[1]
    wait_until(lambda: {"fba_server_1", "fba_celery_flower"} <= app2.healthy(), timeout=120, what="its containers are back")
    assert run_script("outsider", "scan.py", 8000, 8600, app2.address) == {app2.address: []}


@pytest.fixture
def ghost(tmp_path):
    """The options that put a host into the inventory that nobody reaches."""
    extra = {"ansible_connection": "ssh", "ansible_host": "10.213.0.99", "ansible_ssh_timeout": 3, "fba_private_address": "10.213.0.99"}
    (tmp_path / "ghost.yml").write_text(yaml.safe_dump({"worker": {"hosts": {"ghost": extra}}}))
    return ("-i", str(tmp_path / "ghost.yml"))


def test_a_host_that_is_not_reached_is_named_and_stops_nobody_else(fleet, ghost):
    run = fleet.door.play("site.yml", *ghost, "--limit", "ghost,work2", "--check")
    assert run.returncode != 0
    assert re.search(r"^work2 +: ok=\d+ .*unreachable=0 +failed=0", run.stdout, re.MULTILINE), run.stdout[-3000:]
    assert re.search(r"^ghost +: .*unreachable=1", run.stdout, re.MULTILINE)
    assert "not as the inventory says: ghost." in " ".join(run.stdout.split())


def test_a_dead_host_is_taken_out_all_the_same(fleet, ghost, doors):
    run = fleet.door.play("remove_host.yml", *ghost, "-e", "remove_host=ghost")
    assert run.returncode == 0, run.stdout
    assert "ghost is out" in run.stdout
    assert "It was not reached, so nothing was removed there." in run.stdout
    assert not any(refused(answer) for answer in knock("edge", doors))


def test_a_host_that_cannot_work_is_refused_before_anything_is_touched(fleet, tmp_path):
    (tmp_path / "more.yml").write_text(yaml.safe_dump({"worker": {"hosts": {"outsider": {}}}, "redis": {"hosts": {"outsider": {}}}}))
    run = fleet.door.play("site.yml", "-i", str(tmp_path / "more.yml"), "--limit", "outsider")
    assert run.returncode != 0
    assert "Nothing was touched on outsider, because:" in run.stdout
    assert "group redis has 2 hosts (data, outsider): exactly one is allowed" in run.stdout
    assert "fba_private_address" in run.stdout


# What changes the fleet


@pytest.fixture
def seventh(tmp_path):
    """The options that put another host into the inventory."""
    (tmp_path / "seventh.yml").write_text(yaml.safe_dump({"worker": {"hosts": {"work3": {}}}}))
    return ("-i", str(tmp_path / "seventh.yml"))


def test_a_host_joins_and_leaves_while_tasks_run(fleet, token, seventh, doors, wait_until):
    work3, data = fleet["work3"], fleet["data"]
    # It has Docker, reaches its peers, and nothing else
    assert work3.host.run("ip route get 192.0.2.1").rc != 0
    before, moment = fleet.started(), now(data)
    with Load(fleet, token, "seventh", per_second=8, seconds=2) as load:
        started = time.monotonic()
        run = fleet.door.play("site.yml", *seventh, "--limit", "work3")
        print(f"a host has joined after {time.monotonic() - started:.0f} s")
        assert run.returncode == 0, run.stdout
        wait_until(lambda: succeeded_on(work3, moment), timeout=30, what="the new host has done a task")
        # Nothing else was touched but what lets it in
        assert fleet.started() == before
        assert set(re.findall(r"^(\w+) +: ok=", run.stdout, re.MULTILINE)) == {"work3"}
        assert set(re.findall(r"changed: \[work3 -> (\w+)", run.stdout)) == {"data", "app1"}
        # It would have been let in
        assert not any(refused(answer) for answer in knock("work3", doors[:3], "worker", f"{TLS_DIR}/worker/ca.pem"))
        stolen = {name: work3.host.check_output(f"cat {TLS_DIR}/worker/{name}.pem") for name in ("certificate", "private_key")}

        started = time.monotonic()
        run = fleet.door.play("remove_host.yml", *seventh, "-e", "remove_host=work3")
        print(f"a host has left after {time.monotonic() - started:.0f} s")
        assert run.returncode == 0, run.stdout
        assert "work3 is out. Take it out of the inventory now" in run.stdout
    load.check(wait_until)
    # Of ours, nothing is left there but what it was said to leave
    assert work3.containers() == {}
    assert work3.host.run("ls -d /etc/fba /var/log/fba /etc/docker/certs.d/*").stdout == ""
    assert work3.host.check_output("docker images --quiet") == ""
    assert "FBA" not in work3.host.check_output("iptables -w -S")
    assert work3.address not in data.host.check_output("iptables -w -S FBA-fba")
    # Nobody was replaced for the new authority
    after = fleet.started()
    assert {name for name in before if after.get(name) != before[name]} <= {("app1", "fba_registry")}

    # With what was its own, nobody is let in any more, not even from a peer
    fleet["edge"].host.check_output("mkdir -p /root/removed")
    for name, text in stolen.items():
        fleet["edge"].host.check_output(f"cat > /root/removed/{name}.pem <<'END'\n{text}\nEND")
    answers = knock("edge", doors, "/root/removed")
    assert all(refused(answer) for answer in answers), answers
    # And everybody else is
    assert not any(refused(answer) for answer in knock("edge", doors))
