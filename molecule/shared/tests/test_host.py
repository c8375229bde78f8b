"""The machine itself."""


def test_nothing_failed(host):
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""
    assert host.check_output("systemctl is-system-running") == "running"


def test_restarted_host_comes_back(host, reboot):
    booted = host.check_output("systemctl show --property=UserspaceTimestampMonotonic --value")
    reboot(host)
    assert host.check_output("systemctl show --property=UserspaceTimestampMonotonic --value") != booted
    test_nothing_failed(host)
