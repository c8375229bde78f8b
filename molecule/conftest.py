"""What the tests of all scenarios share."""

import os
import subprocess
import time

import pytest

if "MOLECULE_SCENARIO_NAME" not in os.environ:
    # Outside molecule there are no hosts, and testinfra would take this machine for one.
    collect_ignore_glob = ["*"]


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
    for step in (("kill", "start") if power_cut else ("restart",)):
        subprocess.run(["docker", step, name], check=True, stdout=subprocess.DEVNULL)
    # The first calls can come before systemd listens; from then on --wait lasts until the boot is over.
    _wait_until(
        lambda: host.run("systemctl is-system-running --wait").stdout.strip() in ("running", "degraded"),
        timeout=120,
        what=f"{name} has booted",
    )
    return time.monotonic() - started


@pytest.fixture
def wait_until():
    """wait_until(condition, timeout, what): what `condition()` returned once it was true; a failure after the timeout."""
    return _wait_until


@pytest.fixture
def reboot():
    """reboot(host): restart the host and return, when systemd has started everything, the seconds it took.

    With power_cut=True nothing on the host gets the chance to stop.
    """
    return _reboot
