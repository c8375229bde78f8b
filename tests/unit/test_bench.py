"""What the bench makes of what it finds."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from bench.playbooks import run
from bench.playbooks.compose import compose_file


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
fba.stack.images ------------------------------------------------------- 12.34s
fba.stack.container ----------------------------------------------------- 2.00s
total ------------------------------------------------------------------ 14.34s
"""


def test_a_run_is_measured_by_what_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, OUTPUT))
    measured = run.measure(["ansible-playbook"], {})
    assert {name: measured[name] for name in ("tasks", "changed", "images")} == {"tasks": 2, "changed": 3, "images": 12.34}


def test_a_run_that_fails_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 2, "what went wrong"))
    with pytest.raises(RuntimeError, match="what went wrong"):
        run.measure(["ansible-playbook"], {})
