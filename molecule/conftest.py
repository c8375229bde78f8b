"""What the tests of all scenarios share."""

import base64
import functools
import gzip
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from email import message_from_bytes, policy
from pathlib import Path

import pytest
import requests
import testinfra
import variants
import yaml
from aiosmtpd.controller import Controller

if "MOLECULE_SCENARIO_NAME" not in os.environ:
    # Outside molecule there are no hosts, and testinfra would take this machine for one.
    collect_ignore_glob = ["*"]


def pytest_collection_modifyitems(items):
    """What every scenario expects of a stack first; what changes and destroys it after that."""
    items.sort(key=lambda item: "shared" not in item.path.resolve().parts)


def _wait_until(condition, timeout, what):
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not so after {timeout} s", pytrace=False)
        time.sleep(0.5)
    return answer


def _reboot(host, power_cut=False):
    name = host.backend.get_hostname()
    started = time.monotonic()
    for step in ("kill", "start") if power_cut else ("restart",):
        subprocess.run(["docker", step, name], check=True, stdout=subprocess.DEVNULL)
    # The first calls can come before systemd listens; from then on --wait lasts until the boot is over.
    _wait_until(
        lambda: host.run("systemctl is-system-running --wait").stdout.strip() in ("running", "degraded"),
        timeout=120,
        what=f"{name} has booted",
    )
    return time.monotonic() - started


@pytest.fixture(scope="session")
def wait_until():
    """wait_until(condition, timeout, what): what `condition()` returned once it was true; a failure after the timeout."""
    return _wait_until


@pytest.fixture
def reboot():
    """reboot(host): restart the host and return, when systemd has started everything, the seconds it took.

    With power_cut=True nothing on the host gets the chance to stop.
    """
    return _reboot


# Where every container sees its certificate
TLS = "/run/fba/tls"


@functools.cache
def _secrets(file, project):
    """Return what a vault file holds. Once: to open one takes a second of processor time, and each test has a stack of its own."""
    view = ["ansible-vault", "view", "--vault-password-file", str(project / "bin" / "vault-password"), str(file)]
    return yaml.safe_load(subprocess.run(view, check=True, capture_output=True).stdout)


def playbook_command(playbook, *arguments):
    """Return the command and the environment that run one of the collection's playbooks against the scenario's hosts."""
    project = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
    command = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], str(project / "playbooks" / playbook), *arguments]
    environment = os.environ | {
        "ANSIBLE_COLLECTIONS_PATH": str(project / ".ansible" / "collections"),
        "ANSIBLE_VAULT_PASSWORD_FILE": str(project / "bin" / "vault-password"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        "ANSIBLE_NOCOLOR": "true",
    }
    environment.pop("ANSIBLE_FORCE_COLOR", None)
    return command, environment


class Stack:
    """A stack, as one of its hosts has it: asked through its public door, which may be another host, or on the host."""

    services = frozenset(
        f"fba_{name}" for name in ("postgres", "redis", "rabbitmq", "server_1", "celery_worker", "celery_beat", "celery_flower", "nginx")
    )

    def __init__(self, host, door=None):
        self.host = host
        self.name = host.backend.get_hostname()
        self.address = self._address(self.name)
        self.url = f"http://{self._address(door or self.name)}:8000"
        self.inventory = os.environ["MOLECULE_INVENTORY_FILE"]
        self.project = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
        self.secrets = _secrets(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "secrets" / "fba_secrets.yml", self.project)

    @staticmethod
    def _address(name):
        inspect = ["docker", "inspect", "--format", "{{ .NetworkSettings.Networks.fba_test.IPAddress }}", name]
        return subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.strip()

    def fetch(self, path, auth=None):
        """Return (status, body, headers); the body is None where nothing answers."""
        request = urllib.request.Request(self.url + path, headers={"Accept-Encoding": "gzip"})
        if auth:
            request.add_header("Authorization", "Basic " + base64.b64encode(":".join(auth).encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers
        except OSError:
            return 0, None, {}

    def post(self, path, size, accept="*/*"):
        """POST so many bytes and return (status, headers and body as text).

        They are sent once the server agrees to take them: who refuses may close at once.
        """
        fields = {"Host": "stack", "Content-Length": size, "Expect": "100-continue", "Accept": accept, "Connection": "close"}
        head = "\r\n".join([f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""])
        with socket.create_connection((urllib.parse.urlsplit(self.url).hostname, 8000), timeout=20) as connection:
            connection.sendall(head.encode())
            answer = connection.makefile("rb")
            status = int(answer.readline().split()[1])
            if status == 100:
                answer.readline()
                connection.sendall(b"x" * size)
                status = int(answer.readline().split()[1])
            return status, answer.read().decode()

    def get(self, path, auth=None):
        """Return (status, decoded JSON or None)."""
        status, body, headers = self.fetch(path, auth)
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        return status, json.loads(body) if "json" in headers.get("Content-Type", "") else None

    def containers(self):
        """Return name to what `docker inspect` says of each container that was meant to stay."""
        ids = self.host.check_output("docker ps --all --quiet --filter label=fba.stack --filter label=fba.once=false")
        found = json.loads(self.host.check_output(f"docker inspect {' '.join(ids.split())}")) if ids else []
        return {container["Name"].lstrip("/"): container for container in found}

    def healthy(self):
        """Return the names of the healthy containers."""
        states = {name: container["State"] for name, container in self.containers().items()}
        return {name for name, state in states.items() if state["Running"] and state["Health"]["Status"] == "healthy"}

    def started_at(self, name):
        """Return when a container was last started."""
        return self.host.check_output(f"docker inspect --format '{{{{.State.StartedAt}}}}' {name}")

    def supervised_pid(self, container, program):
        """Return the process id, inside the container, of a supervised program; 0 while it does not run."""
        answer = self.host.run(
            f"docker exec {container} /opt/supervisor/bin/supervisorctl -c /etc/supervisor/supervisord.conf pid programs:{program}"
        )
        return int(answer.stdout) if answer.rc == 0 and answer.stdout.strip().isdigit() else 0

    def pool_pids(self, pool):
        """Return the process ids, inside the worker's container, of a pool's running processes."""
        answer = self.host.run("docker exec fba_celery_worker /opt/supervisor/bin/supervisorctl -c /etc/supervisor/supervisord.conf status")
        lines = [line.replace(",", " ").split() for line in answer.stdout.splitlines() if " RUNNING " in line]
        return [int(words[3]) for words in lines if re.fullmatch(rf"programs:worker-{pool}(-\d+)?", words[0])]

    def consumes(self):
        """Return whether every pool of the worker says that it consumes. What Docker says of its health is some seconds old."""
        return self.host.run("docker exec fba_celery_worker python3 /opt/worker/check.py").rc == 0

    def pids(self, container, process):
        """Return the host's process ids of a container's processes with that in their command line, the oldest first."""
        lines = self.host.check_output(f"docker top {container} -o pid,args").splitlines()[1:]
        found = [int(line.split()[0]) for line in lines if process in line and "docker-init" not in line and "launch.py" not in line]
        assert found, f"no process {process} in {container}: {lines}"
        return found

    def signal(self, name, *pids):
        """Send a signal to processes, named by the host's ids."""
        self.host.check_output(f"kill -{name} {' '.join(map(str, pids))}")

    def kill_program(self, container, pid):
        """Kill a supervised program, named by the container's process id."""
        self.host.check_output(f"docker exec {container} python3 -c 'import os; os.kill({pid}, 9)'")

    def kill_again_and_again(self, container, process, seconds):
        """Kill every process with that in its command line, as soon as it is there, until the container ends."""
        killer = f"""
import os, pathlib, time
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if b"{process}" in (folder / "cmdline").read_bytes().replace(b"\\0", b" "):
                os.kill(int(folder.name), 9)
        except (FileNotFoundError, ProcessLookupError):
            pass
    time.sleep(0.2)
"""
        self.host.run(f"docker exec -i {container} python3 - <<'END'\n{killer}\nEND")

    def psql(self, connection, query, password=""):
        """Run a query in PostgreSQL's container over the network, with that container's certificate unless the connection names another."""
        environment = f"-e PGPASSWORD='{password}' -e PGSSLCERT={TLS}/certificate.pem -e PGSSLKEY={TLS}/private_key.pem"
        return self.host.run(f"docker exec {environment} fba_postgres psql -qtAX -c \"{query}\" '{connection}'")

    def sql(self, query, database="fba", as_application=False):
        """Return the answer of a query, run by the superuser or, over the network, by the application's role."""
        if as_application:
            connection = f"host=fba_postgres dbname={database} user=fba sslmode=require"
            answer = self.psql(connection, query, self.secrets["fba_database_password"])
        else:
            answer = self.host.run(f'docker exec fba_postgres psql -qtAX -U postgres -d {database} -c "{query}"')
        assert answer.rc == 0, answer.stderr
        return answer.stdout.strip()

    def redis(self, command, options="", password=None):
        """Return what Redis answers."""
        environment = f"-e REDISCLI_AUTH={password}" if password else ""
        files = f"--cacert {TLS}/ca.pem --cert {TLS}/certificate.pem --key {TLS}/private_key.pem"
        return self.host.check_output(f"docker exec {environment} fba_redis redis-cli --tls {files} -h localhost {options} {command}")

    def play(self, playbook, *arguments):
        """Run one of the collection's playbooks against the scenario's hosts and return the finished process."""
        command, environment = playbook_command(playbook, *arguments)
        # Ansible writes what fails on standard error: both are what an operator reads
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False)


class Fleet:
    """A stack on several hosts: `fleet["data"]` is the stack as that host has it, `fleet.door` the host with nginx."""

    def __init__(self):
        listing = subprocess.run(
            ["ansible-inventory", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "--list"], check=True, capture_output=True
        )
        inventory = json.loads(listing.stdout)
        self.groups = {name: group["hosts"] for name, group in inventory.items() if name != "_meta" and "hosts" in group}
        self.hosts = {}

    def __getitem__(self, name):
        if name not in self.hosts:
            self.hosts[name] = Stack(testinfra.get_host(f"docker://{name}"), door=self.groups["nginx"][0])
        return self.hosts[name]

    @property
    def door(self):
        """The stack as the host with nginx has it."""
        return self[self.groups["nginx"][0]]

    def of(self, service):
        """Return the stack as each host of a service has it."""
        return [self[name] for name in self.groups[service]]

    def members(self):
        """Return the names of all hosts that have a service."""
        services = ("postgres", "redis", "rabbitmq", "server", "worker", "beat", "flower", "nginx")
        return sorted({host for service in services for host in self.groups[service]})

    def started(self):
        """Return when each container of each host was last started."""
        return {(host, name): each["State"]["StartedAt"] for host in self.members() for name, each in self[host].containers().items()}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """sources(name, *changes): the options that deploy the application with these changes, which is made when first asked for."""
    root = tmp_path_factory.mktemp("sources")

    def make(name, *changes):
        if not (root / name).exists():
            variants.make_variant(Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "app", root / name, *changes)
        return ("-e", f"fba_app_source={root / name}")

    return make


@pytest.fixture(scope="session")
def fleet():
    """The stack of a scenario with several hosts."""
    return Fleet()


@pytest.fixture
def mailbox(stack):
    """A mail server where the stack's settings say there is one, and what it was given: pairs of recipients and message."""
    command = ["ansible-inventory", "-i", stack.inventory, "--host", stack.name]
    variables = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    received = []

    class Handler:
        async def handle_DATA(self, server, session, envelope):
            received.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default)))
            return "250 Message accepted"

    settings = variables["fba_app_env"]
    controller = Controller(Handler(), hostname=settings["SMTP_HOST"], port=settings["SMTP_PORT"])
    controller.start()
    yield received
    controller.stop()


@pytest.fixture
def stack(host):
    """The stack on a host."""
    return Stack(host)


class Client:
    """Somebody who is logged in."""

    def __init__(self, url, username, password):
        self.url = url
        self.http = requests.Session()
        self.tokens = self.expect(200, "POST", "/auth/login", json={"username": username, "password": password}).json()
        self.http.headers["Authorization"] = f"Bearer {self.tokens['access_token']}"

    def ask(self, method, path, **options):
        """Send a request below /api/v1."""
        return self.http.request(method, f"{self.url}/api/v1{path}", timeout=60, **options)

    def expect(self, status, method, path, **options):
        """Send a request that must be answered with this status."""
        answer = self.ask(method, path, **options)
        assert answer.status_code == status, answer.text
        return answer

    def submit(self, kind, arguments, **options):
        """Submit a task and return it."""
        return self.expect(202, "POST", "/tasks", json={"kind": kind, "arguments": arguments}, **options).json()

    def see(self, task):
        """Return a task as it is now."""
        return self.expect(200, "GET", f"/tasks/{task['id']}").json()

    def watch(self, task, timeout=120):
        """Return every state of a task that is sent to whoever watches, up to its end."""
        seen = []
        while not seen or seen[-1]["finished_at"] is None:
            # A stream ends from time to time, so that no server waits for it
            with self.http.get(f"{self.url}/api/v1/tasks/{task['id']}/events", stream=True, timeout=timeout) as answer:
                assert answer.headers["Content-Type"].startswith("text/event-stream")
                data = [line for line in answer.iter_lines(decode_unicode=True) if line.startswith("data: ")]
                assert data
                seen += [json.loads(line.removeprefix("data: ")) for line in data]
        return seen

    def result(self, kind, arguments):
        """Run a task to its end and return what it gave, with the percentages on the way."""
        task = self.submit(kind, arguments)
        seen = self.watch(task)
        assert seen[-1]["state"] == "succeeded", seen[-1]
        assert seen[-1]["progress"] == 100
        progress = [each["progress"] for each in seen]
        return self.expect(200, "GET", f"/tasks/{task['id']}/result").json()["result"], progress

    def upload(self, name, content, content_type):
        """Upload a file and return its record."""
        return self.expect(201, "POST", "/files", files={"file": (name, content, content_type)}).json()


@pytest.fixture
def log_in(stack):
    """log_in(): a new session of the administrator."""
    return lambda username="admin", password=stack.secrets["fba_app_admin_password"]: Client(stack.url, username, password)


@pytest.fixture(scope="session")
def log_in_at():
    """log_in_at(stack): a new session of the administrator of that stack."""
    return lambda stack: Client(stack.url, "admin", stack.secrets["fba_app_admin_password"])
