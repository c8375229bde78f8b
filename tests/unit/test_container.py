"""From a container's spec to files, options and the hash that says when it must be replaced."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.fba.stack.plugins.filter.container import (
    container_files,
    container_hash,
    container_healthcheck,
    container_host_path,
    container_list,
    container_options,
    container_plan,
    container_reload_files,
)

from conftest import ROOT as CHECKOUT

ROOT = "/etc/fba/fba_thing"
LOGS = "/var/log/fba/fba_thing"
CERTIFICATES = "/etc/fba/tls"
TOOLS = {
    "probe.sh": "the probe",
    "launch.py": "the launcher",
    "supervisord.py": "what runs it",
    "supervise.py": "the listener",
    "watch.py": "the watcher",
    "singleton.py": "the election",
    "leased.py": "the lease",
    "http_check.py": "the check",
}
SPEC: dict[str, Any] = {
    "name": "fba_thing",
    "service": "thing",
    "image": "thing:1",
    "user": 999,
    "command": ["thing", "--now"],
    "environment": {"A": "1", "B": "2"},
    "files": [
        {"path": "/etc/thing/conf/thing.conf", "content": "setting"},
        {"path": "/etc/thing/conf/users", "content": "users", "on_change": "reload"},
        {"path": "/run/secrets/password", "content": "hunter2hunter2", "secret": True},
    ],
    "health": {"test": ["thing", "ping"]},
    "reload": ["thing", "reload"],
    "memory": "64m",
    "stop_timeout": 10,
}


def changed(**new: Any) -> dict[str, Any]:
    """The spec with other values at the top."""
    return {**copy.deepcopy(SPEC), **new}


def with_content(path: str, content: str) -> dict[str, Any]:
    """The spec with another content of one file."""
    spec = copy.deepcopy(SPEC)
    for entry in spec["files"]:
        if entry["path"] == path:
            entry["content"] = content
    return spec


def mounts(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The mounts by target, of which no two may have the same."""
    found = container_options(spec, ROOT, LOGS, CERTIFICATES)["mounts"]
    by_target = {mount["target"]: mount for mount in found}
    assert len(by_target) == len(found)
    return by_target


# The hash


@pytest.mark.parametrize(
    "spec",
    [
        with_content("/etc/thing/conf/thing.conf", "other"),
        with_content("/run/secrets/password", "other secret"),
        changed(command=["thing", "--later"]),
        changed(command=["--now", "thing"]),
        changed(environment={"A": "1", "B": "3"}),
        changed(environment={"A": "1"}),
        changed(image="thing:2"),
        changed(memory="65m"),
        changed(volumes={"fba_thing": "/data"}),
        changed(binds={"/srv/thing": "/data"}),
        changed(ports=["127.0.0.1:1:1"]),
        changed(tls="thing"),
        changed(hosts={"fba_redis": "10.20.0.1"}),
        changed(stop_timeout=11),
        changed(files=SPEC["files"][:2]),
        changed(health={"test": ["thing", "ping"], "interval": 11}),
        # It may lie in a folder that the container does not mount yet
        changed(files=[*SPEC["files"], {"path": "/etc/thing/tls/key", "content": "key", "on_change": "reload"}]),
    ],
)
def test_hash_changes_with_what_needs_another_container(spec: dict[str, Any]) -> None:
    assert container_hash(spec, "key") != container_hash(SPEC, "key")


@pytest.mark.parametrize(
    "spec",
    [
        with_content("/etc/thing/conf/users", "other users"),
        changed(reload=["thing", "reload", "--other"]),
        changed(files=SPEC["files"][::-1]),
        changed(environment={"B": "2", "A": "1"}),
        dict(reversed(SPEC.items())),
        changed(start_first=True),
    ],
    ids=["reloaded file", "reload command", "order of files", "order of environment", "order of keys", "how it is replaced"],
)
def test_hash_stays_with_what_a_running_container_takes_over(spec: dict[str, Any]) -> None:
    assert container_hash(spec, "key") == container_hash(SPEC, "key")


NGINX: dict[str, Any] = {
    "name": "fba_nginx",
    "service": "nginx",
    "image": "fba/nginx:1.26",
    "user": 101,
    "command": ["nginx", "-c", "/etc/fba/nginx/nginx.conf", "-g", "daemon off;"],
    "files": [
        {"path": "/etc/fba/nginx/nginx.conf", "content": "events {}", "on_change": "reload"},
        {"path": "/etc/fba/nginx/servers.conf", "content": "upstream server {}", "on_change": "reload"},
        {"path": "/etc/fba/tls/certificate.pem", "content": "PEM", "on_change": "reload"},
        {"path": "/etc/fba/tls/private_key.pem", "content": "PEM", "secret": True, "on_change": "reload"},
    ],
    "tls": "nginx",
    "address": "172.30.10.10",
    "volumes": {"fba_static": "/var/www/static:ro"},
    "tmpfs": {"/var/cache/nginx": "128m"},
    "ports": ["0.0.0.0:8000:80"],
    "health": {"test": ["curl", "-fsS", "http://127.0.0.1/nginx-health"], "interval": 3, "start_period": 30},
    "reload": ["sh", "-euc", "nginx -s reload"],
    "memory": "256m",
    "cpus": 0.0,
    "stop_signal": "SIGQUIT",
    "stop_timeout": 90,
}
SUPERVISED: dict[str, Any] = {
    **SPEC,
    "programs": [{"name": "thing", "command": ["thing"], "stop_wait": 5}],
    "files": [{"path": "/app/.env", "content": "x", "secret": True, "mount": "file"}],
    "logs": True,
}


@pytest.mark.parametrize(
    ("spec", "context", "digits"),
    [
        (SPEC, None, "0f8013ac1cb04718"),
        (NGINX, {"timezone": "UTC"}, "bcbec62636cb2cf5"),
        (SUPERVISED, None, "83288affaf80bd67"),
    ],
    ids=["all kinds of files", "nginx", "supervised"],
)
def test_hash_is_that_of_version_1_0(spec: dict[str, Any], context: Any, digits: str) -> None:
    """Another one would replace every container of every stack: these digits never change."""
    assert container_hash(spec, "key", context) == digits


def beside(*paths: str, on_change: str = "keep", content: str = "x") -> dict[str, Any]:
    """The spec with more files that a running container takes over."""
    return changed(files=[*SPEC["files"], *({"path": path, "content": content, "on_change": on_change} for path in paths)])


@pytest.mark.parametrize("on_change", ["nothing", "keep"])
@pytest.mark.parametrize("folder", ["/etc/thing/conf", "/run/secrets"])
def test_a_file_more_in_a_folder_that_is_mounted_makes_no_other_container(on_change: str, folder: str) -> None:
    spec = beside(f"{folder}/state", on_change=on_change)
    assert container_hash(spec, "key") == container_hash(SPEC, "key")
    assert mounts(spec) == mounts(SPEC)


@pytest.mark.parametrize("on_change", ["nothing", "keep"])
def test_a_folder_more_makes_another_container_and_its_files_do_not(on_change: str) -> None:
    folder = beside("/etc/thing/state/one", on_change=on_change)
    assert container_hash(folder, "key") != container_hash(SPEC, "key")
    for other in (
        beside("/etc/thing/state/one", on_change=on_change, content="other"),
        beside("/etc/thing/state/two", on_change=on_change),
        beside("/etc/thing/state/one", "/etc/thing/state/two", on_change=on_change),
    ):
        assert container_hash(other, "key") == container_hash(folder, "key")
        assert mounts(other) == mounts(folder)
    assert container_hash(beside("/etc/thing/other/one", on_change=on_change), "key") != container_hash(folder, "key")


def test_a_file_that_is_mounted_alone_brings_no_folder() -> None:
    alone = {"path": "/app/.env", "content": "x", "mount": "file"}
    state = {"path": "/app/state", "content": "x", "on_change": "keep"}
    assert container_hash(changed(files=[alone, state]), "key") != container_hash(changed(files=[alone]), "key")


def test_hash_is_keyed_and_takes_the_context_in() -> None:
    hashes = {container_hash(SPEC, "key"), container_hash(SPEC, "other key"), container_hash(SPEC, "key", "Europe/Berlin")}
    assert len(hashes) == 3
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in hashes)


def test_hash_is_of_the_spec_and_not_of_what_the_collection_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer collection with an option more restarts no database."""
    before = container_hash(SPEC, "key")
    module = container_hash.__globals__
    known = module["_with_defaults"]
    monkeypatch.setitem(module, "_with_defaults", lambda spec: {"new_option": "its default", **known(spec)})
    assert container_hash(SPEC, "key") == before


def test_hash_sees_what_templates_inside_the_spec_become() -> None:
    """A filter gets lists and dictionaries whose templates are evaluated only when somebody looks."""

    def hash_with(value: str) -> str:
        spec = changed(command=["thing", trust_as_template("--{{ value }}")], health={"test": [trust_as_template("{{ value }}")]})
        templar = Templar(loader=DataLoader(), variables={"spec": spec, "value": value, "tools": TOOLS})
        plan = "{{ (spec | fba.stack.container_plan('key', {}, ['/etc/thing', '/var/log/thing', '/etc/tls'], tools)).hash }}"
        return str(templar.template(trust_as_template(plan)))

    assert hash_with("one") != hash_with("two")
    assert hash_with("one") == container_hash(changed(command=["thing", "--one"], health={"test": ["one"]}), "key", {})


# Files


def test_secret_files_are_for_their_owner_alone_and_passed_as_secrets() -> None:
    files = {entry["path"].rsplit("/", 1)[1]: entry for entry in container_files(SPEC, ROOT, TOOLS)}
    assert files["password"] == {
        "path": f"{ROOT}/dir-run-secrets/password",
        "mode": "0400",
        "secret_content": "hunter2hunter2",
    }
    assert files["thing.conf"] == {"path": f"{ROOT}/dir-etc-thing-conf/thing.conf", "mode": "0444", "content": "setting"}


def test_the_probe_comes_with_a_health_check_alone() -> None:
    assert "the probe" in [entry.get("content") for entry in container_files(SPEC, ROOT, TOOLS)]
    assert "the probe" not in [entry.get("content") for entry in container_files(changed(health={}), ROOT, TOOLS)]


def test_supervised_programs_bring_their_tools_and_configuration() -> None:
    spec = changed(programs=[{"name": "thing", "command": ["thing"], "stop_wait": 5}])
    names = {entry["path"].rsplit("/", 1)[1] for entry in container_files(spec, ROOT, TOOLS)}
    assert {*TOOLS, "supervisord.conf"} <= names
    assert {"/opt/fba", "/etc/supervisor"} <= mounts(spec).keys()
    command = container_options(spec, ROOT, LOGS, CERTIFICATES)["command"]
    assert command == ["/opt/supervisor/bin/python", "/opt/fba/supervisord.py", "-c", "/etc/supervisor/supervisord.conf"]


def test_every_file_lies_below_a_mounted_folder() -> None:
    """What is written on the host is what the container sees."""
    spec = changed(
        programs=[{"name": "thing", "command": ["thing"], "stop_wait": 5}],
        files=[*SPEC["files"], {"path": "/app/.env", "content": "x", "mount": "file"}, {"path": "/top", "content": "y"}],
    )
    sources = [mount["source"] for mount in mounts(spec).values()]
    for entry in container_files(spec, ROOT, TOOLS):
        assert any(entry["path"] == source or entry["path"].rsplit("/", 1)[0] == source for source in sources), entry["path"]


def test_folders_that_differ_in_a_dash_alone_stay_apart() -> None:
    files = [{"path": "/etc/my-app/conf", "content": "1"}, {"path": "/etc/my/app/conf", "content": "2"}]
    spec = changed(files=files)
    written = {entry["content"]: entry["path"] for entry in container_files(spec, ROOT, TOOLS) if entry["content"] in ("1", "2")}
    assert written["1"] != written["2"]
    assert {"/etc/my-app", "/etc/my/app"} <= mounts(spec).keys()


def test_the_way_to_reload_lies_in_the_container(tmp_path: Path) -> None:
    """Whoever changes a certificate knows the container's name alone, and runs what is there."""
    words = ["sh", "-c", 'printf "%s|" "$@" > "$0"', str(tmp_path / "said"), "two words", "it's", "$HOME", 5]
    spec = changed(reload=words)
    (entry,) = [entry for entry in container_files(spec, ROOT, TOOLS) if entry["path"].endswith("/reload")]
    name = entry["path"].removeprefix(f"{mounts(spec)['/opt/fba']['source']}/")
    tasks = yaml.safe_load((CHECKOUT / "roles/container/tasks/reload.yml").read_text(encoding="utf-8"))
    (asked,) = [task[name] for task in tasks for name in task if name == "community.docker.docker_container_exec"]
    script = asked["argv"][-1]
    # As in the container, but for where its folders are
    (tmp_path / "opt").mkdir()
    script = script.replace("/opt/fba", str(tmp_path / "opt"))
    assert subprocess.run(["sh", "-c", script], check=False).returncode == 0
    assert not (tmp_path / "said").exists()
    (tmp_path / "opt" / name).write_text(entry["content"], encoding="utf-8")
    assert subprocess.run(["sh", "-c", script], check=False).returncode == 0
    assert (tmp_path / "said").read_text() == "two words|it's|$HOME|5|"


def test_what_cannot_reload_has_nothing_to_run() -> None:
    assert not [entry for entry in container_files(changed(reload=[]), ROOT, TOOLS) if entry["path"].endswith("/reload")]


def test_reload_files_are_the_paths_that_are_written() -> None:
    (path,) = container_reload_files(SPEC, ROOT)
    assert path.endswith("/users")
    assert path in [entry["path"] for entry in container_files(SPEC, ROOT, TOOLS)]


def test_a_single_file_is_found_where_the_whole_spec_writes_it() -> None:
    written = {entry["path"] for entry in container_files(SPEC, ROOT, TOOLS)}
    assert {container_host_path(entry["path"], ROOT) for entry in SPEC["files"]} <= written


@pytest.mark.parametrize("user", [0, "0"])
def test_root_is_refused(user: int | str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"container_spec.user of fba_thing is 0"):
        container_options(changed(user=user), ROOT, LOGS, CERTIFICATES)


def test_a_kept_file_is_written_as_one_and_no_other() -> None:
    kept = {entry["path"]: entry["keep"] for entry in container_files(beside("/run/secrets/state"), ROOT, TOOLS) if "keep" in entry}
    assert kept == {f"{ROOT}/dir-run-secrets/state": True}
    spec = beside("/run/secrets/state", on_change="nothing")
    assert not [entry for entry in container_files(spec, ROOT, TOOLS) if "keep" in entry]
    assert container_reload_files(spec, ROOT) == container_reload_files(SPEC, ROOT)


@pytest.mark.parametrize("on_change", ["reload", "nothing", "keep"])
def test_a_file_mounted_alone_cannot_be_reloaded(on_change: str) -> None:
    entry = {"path": "/app/.env", "content": "x", "mount": "file", "on_change": on_change}
    with pytest.raises(AnsibleFilterError, match=r"/app/.env is mounted alone"):
        container_files(changed(files=[entry]), ROOT, TOOLS)


# Options


def test_files_of_one_folder_are_one_mount() -> None:
    found = mounts(SPEC)
    assert found.keys() == {"/etc/thing/conf", "/run/secrets", "/opt/fba"}
    assert found["/etc/thing/conf"] == {
        "type": "bind",
        "source": f"{ROOT}/dir-etc-thing-conf",
        "target": "/etc/thing/conf",
        "read_only": True,
    }


def test_a_file_can_be_mounted_alone() -> None:
    found = mounts(changed(files=[{"path": "/app/.env", "content": "x", "mount": "file"}]))
    assert found["/app/.env"] == {"type": "bind", "source": f"{ROOT}/file-app/.env", "target": "/app/.env", "read_only": True}
    assert "/app" not in found


def test_volumes_and_logs() -> None:
    found = mounts(changed(volumes={"fba_data": "/data", "fba_static": "/static:ro"}, logs=True))
    assert (found["/data"]["source"], found["/data"]["read_only"]) == ("fba_data", False)
    assert (found["/static"]["source"], found["/static"]["read_only"]) == ("fba_static", True)
    assert (found["/var/log/fba"]["source"], found["/var/log/fba"]["read_only"]) == ("/var/log/fba/fba_thing", False)


def test_a_container_sees_one_certificate() -> None:
    found = mounts(changed(tls="server"))
    assert found["/run/fba/tls"] == {
        "type": "bind",
        # Not the folder of all
        "source": f"{CERTIFICATES}/server",
        "target": "/run/fba/tls",
        "read_only": True,
    }
    assert mounts(SPEC).keys() == found.keys() - {"/run/fba/tls"}


def test_names_of_other_hosts_are_handed_over_as_they_are() -> None:
    hosts = {"fba_postgres": "10.20.0.1", "fba_redis": "10.20.0.1"}
    assert container_options(changed(hosts=hosts), ROOT, LOGS, CERTIFICATES)["hosts"] == hosts
    # An empty one, not none: a container that had some shall lose them
    assert container_options(SPEC, ROOT, LOGS, CERTIFICATES)["hosts"] == {}


def test_a_plan_is_worked_out_from_the_spec_and_the_folders() -> None:
    spec = changed(tls="thing", logs=True)
    plan = container_plan(spec, "key", {"timezone": "UTC"}, (ROOT, LOGS, CERTIFICATES), TOOLS)
    assert plan["hash"] == container_hash(spec, "key", {"timezone": "UTC"})
    assert (plan["root"], plan["log_dir"], plan["owner"], plan["once"]) == (ROOT, LOGS, 999, False)
    sources = {mount["target"]: mount["source"] for mount in plan["options"]["mounts"]}
    assert (sources["/var/log/fba"], sources["/run/fba/tls"]) == (LOGS, f"{CERTIFICATES}/thing")
    # What is run after a change is what whoever changes a certificate runs
    (script,) = [entry["path"] for entry in plan["files"] if entry["path"].endswith("/reload")]
    assert plan["reload"] == ["sh", f"/opt/fba/{script.rpartition('/')[2]}"]
    without = container_plan(changed(reload=[]), "key", {}, (ROOT, LOGS, CERTIFICATES), TOOLS, once=True)
    assert (without["reload"], without["log_dir"], without["once"]) == ([], None, True)


@pytest.mark.parametrize(("given", "name"), [({}, ""), ({"start_first": False}, ""), ({"start_first": True}, f"{SPEC['name']}_leaving")])
def test_a_plan_says_whether_one_finishes_beside_its_successor(given: dict[str, Any], name: str) -> None:
    assert container_plan(changed(**given), "key", {}, (ROOT, LOGS, CERTIFICATES), TOOLS)["leaves_as"] == name


def test_what_is_the_hosts_is_never_writable() -> None:
    found = mounts(changed(binds={"/srv/checkout/app/shop": "/app/shop"}))
    assert found["/app/shop"] == {"type": "bind", "source": "/srv/checkout/app/shop", "target": "/app/shop", "read_only": True}


def test_tmp_is_always_writable_and_belongs_to_the_user() -> None:
    options = container_options(changed(tmpfs={"/run/thing": "1m"}), ROOT, LOGS, CERTIFICATES)
    assert options["tmpfs"] == [
        "/run/thing:size=1m,uid=999,gid=999,mode=0755,nosuid,nodev",
        "/tmp:size=64m,uid=999,gid=999,mode=0755,nosuid,nodev",
    ]
    assert container_options(changed(tmpfs={"/tmp": "1g"}), ROOT, LOGS, CERTIFICATES)["tmpfs"][0].startswith("/tmp:size=1g,")


def test_hardening_is_the_default() -> None:
    options = container_options(SPEC, ROOT, LOGS, CERTIFICATES)
    assert options["user"] == "999:999"
    assert options["read_only"] is True
    assert options["capabilities"] == []


def test_values_are_of_the_types_that_the_module_takes() -> None:
    options = container_options(changed(command=["x", 5], environment={"N": 1}, cpus="1.5", stop_timeout="7"), ROOT, LOGS, CERTIFICATES)
    assert options["command"] == ["x", "5"]
    assert options["env"] == {"N": "1"}
    assert (options["cpus"], options["cpu_shares"], options["stop_timeout"]) == (1.5, 0, 7)
    assert options["hostname"] == "fba_thing"


def test_the_health_check_leaves_the_probe_time_for_both_commands() -> None:
    health = {"test": ["t", "1"], "liveness": ["l"], "interval": 7, "timeout": 15, "failures": 4, "start_period": 90}
    check = container_options(changed(health=health), ROOT, LOGS, CERTIFICATES)["healthcheck"]
    assert check["test"] == ["CMD", "sh", "/opt/fba/probe.sh", "15", "4", "90", "t", "1", "--liveness", "l"]
    assert int(check["timeout"].removesuffix("s")) > 2 * 15
    assert (check["interval"], check["retries"], check["start_period"]) == ("7s", 4, "90s")
    assert "healthcheck" not in container_options(changed(health={}), ROOT, LOGS, CERTIFICATES)


@pytest.mark.parametrize(("interval", "at_start"), [(15, "3s"), (5, "1s"), (2, "1s")])
def test_a_start_is_checked_more_often(interval: int, at_start: str) -> None:
    health = {"test": ["t"], "interval": interval}
    assert container_options(changed(health=health), ROOT, LOGS, CERTIFICATES)["healthcheck"]["start_interval"] == at_start


@pytest.mark.parametrize(
    ("engine", "can"),
    [("20.10.24+dfsg1", False), ("24.0.9", False), ("", False), ("dev", False), ("25.0.0", True), ("26.1.5+dfsg1", True), ("29.1", True)],
)
def test_an_engine_is_asked_for_what_it_can(engine: str, can: bool) -> None:
    check = {"test": ["t"], "interval": "5s", "start_interval": "1s"}
    assert container_healthcheck(check, engine) == (check if can else {"test": ["t"], "interval": "5s"})


def test_the_play_waits_longer_than_a_start_may_take() -> None:
    options = container_options(
        changed(health={"test": ["t"], "start_period": 360, "interval": 10, "failures": 3}), ROOT, LOGS, CERTIFICATES
    )
    assert options["patience"] >= 360 + 3 * 10


# Order


def container(name: str, service: str, state: str = "running", **labels: str) -> dict[str, Any]:
    """A container as docker_host_info lists it."""
    labels = {f"fba.{label}": value for label, value in labels.items()}
    return {"Names": [f"/{name}"], "State": state, "Labels": {"fba.service": service, "fba.once": "false", **labels}}


FOUND = [
    container("fba_nginx", "nginx"),
    container("fba_server_2", "server"),
    container("fba_migrate", "migrate", "exited", once="true"),
    container("fba_later", "a_service_of_another_release"),
    container("fba_server_1", "server", "exited"),
    container("fba_celery_worker", "worker", stop_timeout="640"),
    container("fba_postgres", "postgres"),
]
LEAVES = container("fba_celery_worker_leaving", "worker")
ORDER = ["fba_postgres", "fba_celery_worker", "fba_server_1", "fba_server_2", "fba_nginx", "fba_later"]


def names(order: str, **options: Any) -> list[str]:
    """The names in their order."""
    return [entry["name"] for entry in container_list(FOUND, order, **options)]


def test_services_start_after_what_they_stand_on_and_stop_before_it() -> None:
    assert names("start") == ORDER
    assert names("stop") == ORDER[::-1]


def test_ended_containers_are_reached_when_asked_for() -> None:
    assert set(names("start", once=True)) == {*ORDER, "fba_migrate"}


def test_one_that_finishes_beside_its_successor_is_stopped_and_never_started() -> None:
    assert [entry["name"] for entry in container_list([*FOUND, LEAVES], "start", once=True)] == names("start", once=True)
    stopped = [entry["name"] for entry in container_list([*FOUND, LEAVES], "stop")]
    assert set(stopped) == {*ORDER, "fba_celery_worker_leaving"}


def test_each_is_given_the_time_that_it_was_started_with() -> None:
    timeouts = {entry["name"]: entry["stop_timeout"] for entry in container_list(FOUND, "stop")}
    assert timeouts["fba_celery_worker"] == 640
    # Docker's own, for one that an earlier release has started
    assert timeouts["fba_postgres"] == 10


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"services": ["server", "postgres"]}, ["fba_postgres", "fba_server_1", "fba_server_2"]),
        ({"services": []}, []),
        ({"services": ["migrate"]}, []),
        ({"services": ["migrate"], "once": True}, ["fba_migrate"]),
        ({"running": True}, [name for name in ORDER if name != "fba_server_1"]),
        # What ended is not what runs, whatever was asked for
        ({"running": True, "once": True}, [name for name in ORDER if name != "fba_server_1"]),
        ({"services": ["server"], "running": True}, ["fba_server_2"]),
        # Services that this host has none of, such as the host itself
        ({"services": ["host", "flower"]}, []),
    ],
)
def test_some_services_or_those_that_run(options: dict[str, Any], found: list[str]) -> None:
    assert names("start", **options) == found
    assert names("stop", **options) == found[::-1]


@pytest.mark.parametrize(("spec", "way"), [(SPEC, "command"), (changed(reload=[], reload_by_restart=True), "restart")])
def test_a_container_says_what_it_was_started_with(spec: dict[str, Any], way: str) -> None:
    """By its labels: whoever stops or reloads it later has no spec."""
    templates = yaml.safe_load((CHECKOUT / "roles/container/vars/main.yml").read_text(encoding="utf-8"))["__container_labels"]
    plan = container_plan(spec, "key", {}, (ROOT, LOGS, CERTIFICATES), TOOLS)
    templar = Templar(loader=DataLoader(), variables={"plan": plan, "fba_name": "fba"})
    labels = {name: templar.template(trust_as_template(value)) for name, value in templates.items()} | plan["labels"]
    # Docker's are texts
    assert all(isinstance(value, str) for value in labels.values())
    listed = {"Names": ["/fba_thing"], "State": "running", "Labels": labels}
    assert container_list([listed], "start", services=["thing"]) == [{"name": "fba_thing", "stop_timeout": 10, "reload": way}]


def test_one_that_an_earlier_release_has_started_is_asked_to_reload() -> None:
    assert {entry["reload"] for entry in container_list(FOUND, "start")} == {"command"}
