"""The inventories to copy: what they say is what ansible makes of them, and what the checks before a run accept."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from test_precheck import NOW, STATE, default_values, facts_of

from ansible_collections.fba.stack.plugins.filter.fleet import SERVICES, stack_hosts
from ansible_collections.fba.stack.plugins.plugin_utils.hosts import Fleet
from ansible_collections.fba.stack.plugins.plugin_utils.precheck import check, check_type

from conftest import ROOT

CLUSTER, CLOUD = ROOT / "inventories" / "cluster", ROOT / "inventories" / "cloud"


def run(environment: dict[str, str], *command: str | Path) -> str:
    """What one of ansible's commands prints, which has to succeed and to warn of nothing."""
    program = ["-m", "ansible", *map(str, command)]
    done = subprocess.run([sys.executable, *program], capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


class Inventory:
    """What ansible makes of an inventory."""

    def __init__(self, environment: dict[str, str], path: Path) -> None:
        listed = json.loads(run(environment, "inventory", "-i", path, "--list"))
        self.variables: dict[str, dict[str, Any]] = listed.pop("_meta")["hostvars"]
        self.groups: dict[str, list[str]] = {name: group.get("hosts", []) for name, group in listed.items()}


@cache
def options() -> dict[str, dict[str, Any]]:
    """Every variable that an inventory may set, as the roles' argument specs have it."""
    found: dict[str, dict[str, Any]] = {}
    for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            found |= entry.get("options", {})
    return found


def refusals(inventory: Inventory, host: str, build_host: str) -> list[str]:
    """What is refused on a host that is as the inventory says, with eight gigabytes of memory, in a run on all."""
    variables = inventory.variables[host]
    hosts = stack_hosts(inventory.groups)
    values = default_values() | {name: value for name, value in variables.items() if name in options()}
    problems = [problem for name, value in values.items() if name in options() for problem in check_type(name, options()[name], value)[1]]
    addresses = {each: str(inventory.variables[each].get("fba_private_address", "")) for each in hosts}
    fleet = Fleet(host, inventory.groups, (), build_host, addresses, hosts, hosts)
    facts = facts_of(addresses[host])
    return problems + check(values, fleet, facts=facts, state=STATE, connection="ssh", window=(NOW, NOW))


# Many hosts


@pytest.fixture(scope="module")
def cluster(ansible_environment: dict[str, str]) -> Inventory:
    """The example for many hosts."""
    return Inventory(ansible_environment, CLUSTER)


def test_every_service_of_the_cluster_has_a_host(cluster: Inventory) -> None:
    assert {service: bool(cluster.groups.get(service)) for service in SERVICES} == dict.fromkeys(SERVICES, True)
    # And every host has a service
    assert set(stack_hosts(cluster.groups)) == cluster.variables.keys()
    # It shows what it is for: a service on two hosts, and hosts with different ones
    assert len(cluster.groups["server"]) == len(cluster.groups["worker"]) == len(cluster.groups["beat"]) == 2


def test_every_host_of_the_cluster_has_addresses_of_its_own(cluster: Inventory) -> None:
    for name, example in (("ansible_host", r"203\.0\.113\.\d+"), ("fba_private_address", r"10\.\d+\.\d+\.\d+")):
        addresses = [variables[name] for variables in cluster.variables.values()]
        assert len(set(addresses)) == len(addresses)
        # Nobody's by RFC 5737, or private by RFC 1918: whoever forgets to change one reaches no stranger
        assert all(re.fullmatch(example, address) for address in addresses)


@pytest.mark.parametrize("host", ["data1", "app1", "app2", "work1", "work2", "edge1"])
def test_the_checks_before_a_run_accept_the_cluster(cluster: Inventory, host: str) -> None:
    assert refusals(cluster, host, cluster.groups["server"][0]) == []


def test_those_checks_would_see_what_the_example_avoids(cluster: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cluster.variables["work1"], "fba_app_storage", "volume")
    monkeypatch.setitem(cluster.variables["work1"], "worker_memory", "9g")
    starts = ("fba_app_storage is volume", "worker_memory is 9g")
    assert len([problem for problem in refusals(cluster, "work1", "app1") if problem.startswith(starts)]) == 2


def test_a_host_of_its_own_size_differs_from_the_others(cluster: Inventory) -> None:
    work2 = cluster.variables["work2"]
    assert {"worker_pools", "worker_memory", "worker_cpus", "worker_replicas"} <= work2.keys() - cluster.variables["work1"].keys()
    # Every key that a pool can have is shown
    assert {key for pool in work2["worker_pools"] for key in pool} == options()["worker_pools"]["options"].keys()
    # And no queue is left without a consumer, on this host or on the ones with the defaults
    consumed = {queue for pool in work2["worker_pools"] for queue in pool["queues"]}
    assert consumed == {queue for pool in options()["worker_pools"]["default"] for queue in pool["queues"]}


@pytest.mark.parametrize("path", sorted(path for folder in (CLUSTER, CLOUD) for path in folder.rglob("*_vars/**/*.yml")), ids=str)
def test_every_setting_is_one_and_has_its_type(path: Path) -> None:
    """Those behind a number sign too: who takes it away shall not meet an error."""
    text = path.read_text(encoding="utf-8")
    setting = re.compile(r"^# ([a-z]+_[a-z_]+: \S.*)$", re.M)
    settings = yaml.safe_load(setting.sub(r"\1", text))
    assert len(settings) == len(yaml.safe_load(text)) + len(setting.findall(text))
    for name, value in settings.items():
        if name not in ("ansible_user", "ansible_become", "ansible_python_interpreter"):
            assert name in options(), name
            assert check_type(name, options()[name], value)[1] == []


# Hosts that a cloud knows


TAGS = {
    "data1": "postgres,redis, rabbitmq",
    "app1": "server,beat",
    "app2": "server flower",
    "work1": "worker",
    "work2": " worker , beat",
    "edge1": "nginx",
    # What only looks like a service is none, and nothing is no service either
    "odd1": "servers,web-nginx,beat2",
    "odd2": "",
}
MEMBERS = {
    **{service: ["data1"] for service in ("postgres", "redis", "rabbitmq")},
    "server": ["app1", "app2"],
    "worker": ["work1", "work2"],
    "beat": ["app1", "work2"],
    "flower": ["app2"],
    "nginx": ["edge1"],
}


@pytest.fixture(scope="module")
def plugin_file() -> dict[str, Any]:
    """The example's own file."""
    return dict(yaml.safe_load((CLOUD / "aws_ec2.yml").read_text(encoding="utf-8")))


def instance(number: int, name: str, services: str | None) -> dict[str, Any]:
    """A host as EC2 tells of it."""
    tags = {"Name": name, "fba_stack": "production"} | ({} if services is None else {"fba_services": services})
    return {
        "InstanceId": f"i-{number:017x}",
        "PrivateIpAddress": f"10.20.0.{number}",
        **({"PublicIpAddress": "203.0.113.16"} if name == "edge1" else {}),
        "Placement": {"AvailabilityZone": "eu-central-1a"},
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }


# The last is somebody's who has forgotten the tag
INSTANCES = [instance(number, name, services) for number, (name, services) in enumerate([*TAGS.items(), ("odd3", None)], 11)]


@pytest.fixture(scope="module")
def plugin() -> Any:
    """The cloud's plugin, with these instances in the cloud's place."""
    made = inventory_loader.get("amazon.aws.aws_ec2")
    made.require_aws_sdk = lambda **_versions: None
    made._query = lambda *_filters: {"aws_ec2": INSTANCES}
    return made


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, ansible_environment: dict[str, str], plugin_file: dict[str, Any]) -> Inventory:
    """Hosts with the variables that the cloud's plugin gives them, and the example's expressions by ansible's plugin for such."""
    folder = tmp_path_factory.mktemp("cloud")
    prepare = importlib.import_module("ansible_collections.amazon.aws.plugins.inventory.aws_ec2")._prepare_host_vars
    hosts = {name: prepare(about, plugin_file["hostvars_prefix"]) for name, about in zip([*TAGS, "odd3"], INSTANCES, strict=True)}
    (folder / "1_hosts.yml").write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    expressions = {key: plugin_file[key] for key in ("strict", "compose", "groups")}
    (folder / "2_constructed.yml").write_text(json.dumps({"plugin": "ansible.builtin.constructed", **expressions}), encoding="utf-8")
    shutil.copytree(CLOUD / "group_vars", folder / "group_vars")
    return Inventory(ansible_environment, folder)


def test_tags_become_our_groups(cloud: Inventory) -> None:
    found = {name: hosts for name, hosts in cloud.groups.items() if name not in ("all", "ungrouped")}
    assert found == MEMBERS
    assert set(cloud.groups["ungrouped"]) == {"odd1", "odd2", "odd3"}


def test_addresses_become_ours(cloud: Inventory) -> None:
    for number, host in enumerate(TAGS, 11):
        variables = cloud.variables[host]
        assert variables["fba_private_address"] == f"10.20.0.{number}"
        assert variables["ansible_host"] == ("203.0.113.16" if host == "edge1" else f"10.20.0.{number}")


def test_the_clouds_plugin_makes_the_same_of_the_file(plugin: Any, cloud: Inventory) -> None:
    inventory = InventoryData()
    plugin.parse(inventory, DataLoader(), str(CLOUD / "aws_ec2.yml"), cache=False)
    groups = {name: [host.name for host in group.get_hosts()] for name, group in inventory.groups.items()}
    assert {name: hosts for name, hosts in groups.items() if name not in ("all", "ungrouped", "aws_ec2")} == MEMBERS
    assert inventory.hosts.keys() == cloud.variables.keys()
    for name, host in inventory.hosts.items():
        for variable in ("ansible_host", "fba_private_address"):
            assert host.vars[variable] == cloud.variables[name][variable]


@pytest.mark.parametrize("host", [host for host in TAGS if not host.startswith("odd")])
def test_the_checks_before_a_run_accept_the_cloud(cloud: Inventory, host: str) -> None:
    build_host = cloud.variables[host]["fba_build_host"]
    assert build_host in cloud.groups["server"]
    assert refusals(cloud, host, build_host) == []


def test_every_option_is_the_plugins(plugin_file: dict[str, Any], ansible_environment: dict[str, str]) -> None:
    """It takes a word that it does not know for nothing, without one of its own."""
    name = plugin_file["plugin"]
    documented = json.loads(run(ansible_environment, "doc", "--json", "-t", "inventory", name))[name]["doc"]["options"]
    assert plugin_file.keys() - {"plugin"} <= documented.keys()


def test_the_plugin_takes_the_file_by_its_name(ansible_environment: dict[str, str]) -> None:
    """What it says without Amazon's library is that it needs that: so it was found, and the file is its."""
    command = [sys.executable, "-m", "ansible", "inventory", "-i", str(CLOUD), "--list"]
    # Where the library is there, there are no credentials
    environment = {**{k: v for k, v in ansible_environment.items() if not k.startswith("AWS_")}, "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert re.search(r"boto3|credentials|region", done.stderr), done.stderr
    assert "inventory plugin that can handle it" not in done.stderr
