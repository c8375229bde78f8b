"""What the bench makes of what it finds."""

from __future__ import annotations

import configparser
import subprocess
from typing import Any

import pytest

from bench.playbooks import run
from bench.playbooks.compose import compose_file
from bench.targets import at_least, at_most, of_fleets, of_servers, of_workers

from conftest import ROOT


def inspected(**host: Any) -> dict[str, Any]:
    """A container as `docker inspect` shows it."""
    return {
        "Name": "/fba_redis",
        "Config": {
            "Image": "fba/redis:8.0-1",
            "Cmd": ["redis-server", "$HOME/redis.conf"],
            "Env": ["TZ=UTC"],
            "Hostname": "fba_redis",
            "User": "999:999",
            "StopTimeout": 30,
            "Healthcheck": {
                "Test": ["CMD", "sh", "-c", "echo $$"],
                "Interval": 3 * 10**9,
                "Timeout": 12 * 10**9,
                "Retries": 3,
                "StartPeriod": 60 * 10**9,
            },
        },
        "HostConfig": {
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "CapAdd": None,
            "SecurityOpt": ["no-new-privileges"],
            "Init": True,
            "RestartPolicy": {"Name": "unless-stopped"},
            "Memory": 2**28,
            "ShmSize": 2**26,
            "ExtraHosts": None,
            "Tmpfs": {"/tmp": "size=64m"},
            "Mounts": [
                {"Type": "bind", "Source": "/etc/fba/fba_redis/dir", "Target": "/etc/redis", "ReadOnly": True},
                {"Type": "volume", "Source": "fba_redis", "Target": "/data"},
            ],
            "PortBindings": {"6379/tcp": [{"HostIp": "", "HostPort": "6379"}]},
            **host,
        },
    }


def test_compose_starts_the_same_container() -> None:
    file = compose_file({"fba_redis": inspected()}, "fba_network")
    assert file["volumes"] == {"fba_redis": {"external": True}}
    assert file["networks"] == {"stack": {"external": True, "name": "fba_network"}}
    service = file["services"]["fba_redis"]
    # Compose takes one dollar sign for a variable
    assert service["command"] == ["redis-server", "$$HOME/redis.conf"]
    assert service["healthcheck"]["test"] == ["CMD", "sh", "-c", "echo $$$$"]
    assert (service["healthcheck"]["interval"], service["healthcheck"]["start_period"]) == ("3s", "60s")
    assert service["volumes"] == [
        {"type": "bind", "source": "/etc/fba/fba_redis/dir", "target": "/etc/redis", "read_only": True},
        {"type": "volume", "source": "fba_redis", "target": "/data", "read_only": False},
    ]
    assert service["ports"] == ["0.0.0.0:6379:6379/tcp"]
    assert service["networks"] == {"stack": {"aliases": ["fba_redis"]}}
    assert (service["read_only"], service["cap_drop"], service["mem_limit"]) == (True, ["ALL"], 2**28)
    # What Docker has nothing for, the file does not have
    assert not {"cap_add", "extra_hosts", "stop_signal"} & service.keys()


def test_a_container_without_mounts_and_ports_has_none() -> None:
    service = compose_file({"fba_redis": inspected(Mounts=None, PortBindings=None, Tmpfs=None)}, "n")["services"]["fba_redis"]
    assert not {"volumes", "ports", "tmpfs"} & service.keys()


OUTPUT = """
TASK [fba.stack.images : See which images the host has] ****
ok: [debian13]

TASK [Bring the images] ****
ok: [debian13]

PLAY RECAP ****
debian13   : ok=7    changed=2    unreachable=0    failed=0
work1      : ok=7    changed=1    unreachable=0    failed=0

===============================================================================
images ----------------------------------------------------------------- 12.34s
container --------------------------------------------------------------- 2.00s
total ------------------------------------------------------------------ 14.34s
"""


def test_a_run_is_measured_by_what_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, OUTPUT))
    measured = run.measure(["ansible-playbook"], {})
    assert {name: measured[name] for name in ("tasks", "changed", "images")} == {"tasks": 2, "changed": 3, "images": 12.34}


def test_a_run_is_measured_as_the_checkout_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `ansible.cfg` enables is not put out of use by what the measurement needs."""
    environments: list[dict[str, str]] = []

    def ran(command: list[str], env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        environments.append(env)
        return subprocess.CompletedProcess(command, 0, OUTPUT)

    monkeypatch.setattr(run.subprocess, "run", ran)
    run.measure(["ansible-playbook"], {})
    config = configparser.ConfigParser()
    config.read(ROOT / "ansible.cfg")
    enabled = environments[0]["ANSIBLE_CALLBACKS_ENABLED"].split(",")
    assert set(config["defaults"]["callbacks_enabled"].split(",")) < set(enabled)


def test_a_run_that_fails_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 2, "what went wrong"))
    with pytest.raises(RuntimeError, match="what went wrong"):
        run.measure(["ansible-playbook"], {})


def rounds(*rates: float, **more: float) -> list[dict[str, float]]:
    """The outcomes of rounds."""
    return [{"rate": rate, **more} for rate in rates]


WORKERS = {
    "workloads": {
        "noop": {
            "ours": rounds(1200, 1400, 1300),
            "celery-5.6-gevent": rounds(100),
            "celery-gevent": rounds(10),
            "dramatiq": rounds(2600),
            "taskiq": rounds(650),
        },
        "wait": {"ours": rounds(1300), "dramatiq": rounds(1300), "taskiq": rounds(1250)},
        "mix": {"ours": rounds(1235)},
    },
    "events": {"none": rounds(2000), "events": rounds(1700), "flower": rounds(1400)},
    "idle_mib": 290.0,
}


def test_targets_say_what_is_reached_and_what_is_not() -> None:
    found = {target.what: target for target in of_workers(WORKERS)}
    assert [target.what for target in found.values() if not target.reached] == [
        "tasks that do nothing, beside dramatiq",
        "rate lost to events, and to Flower on the same machine",
        # MiB, as docker says, are larger than MB
        "memory of an idle container of workers",
    ]
    lead = found["tasks that do nothing, beside the stock configuration on Celery 5.6.3"]
    assert (lead.wanted, lead.measured) == ("≥ 6 times", "13 times")
    assert found["tasks that wait for a second"].measured == "1,300 a second"
    assert found["rate of tasks that wait, lost to such as compute"].measured == "5 %"


def test_targets_of_servers() -> None:
    def steps(rate: float, p99: float) -> dict[str, Any]:
        return {"64": rounds(rate), "half": rounds(rate / 2, p99=p99)}

    asked = {
        "submit": {"ours": steps(1500, 40)},
        "apply-async": {"ours": steps(600, 90)},
        "live": {"ours": steps(9000, 3), "nginx": steps(5000, 4.5), "uvicorn": steps(4000, 9)},
        "read": {"ours": steps(900, 3), "uvicorn": steps(1000, 9)},
    }
    found = {target.what: target for target in of_servers({"targets": asked})}
    assert [(target.what, target.measured) for target in found.values() if not target.reached] == [
        ("submitting a task, beside plain `apply_async`", "2.5 times"),
        ("a read with the database, beside uvicorn", "0.9 times"),
    ]
    assert found["what nginx adds to p99 at half the rate"].measured == "1.5 ms"


def test_targets_of_fleets_compare_four_hosts_with_one() -> None:
    def runs(seconds: float, **more: float) -> list[dict[str, float]]:
        return [{"seconds": seconds, **more}]

    hosts = {
        "1": {"no-op": runs(30), "release": runs(60, bytes=2e6)},
        "2": {"no-op": runs(35), "join": runs(70), "release": runs(60, bytes=3e6)},
        "4": {"no-op": runs(50), "join": runs(90), "release": runs(60, bytes=1e6)},
    }
    # Taken by turns: those from before are from another time
    turns = {"1": runs(31) + runs(30) + runs(29), "4": runs(40) + runs(42) + runs(39)}
    assert [(target.measured, target.reached) for target in of_fleets({"hosts": hosts, "turns": turns})] == [
        ("1.33 times", True),
        ("70 s", False),
        ("3 MB", True),
    ]


def test_a_target_may_be_exactly_met() -> None:
    assert at_least("what", 3, 3.0, " times").reached
    assert at_most("what", 0, 0, "").reached
