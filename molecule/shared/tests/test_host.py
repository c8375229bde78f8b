"""The machine itself."""


def test_nothing_failed(host):
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""
    assert host.check_output("systemctl is-system-running") == "running"


def test_docker_starts_at_boot_and_keeps_containers_over_its_restart(host):
    docker = host.service("docker")
    assert docker.is_running
    assert docker.is_enabled
    assert host.check_output("docker info --format '{{.LiveRestoreEnabled}}'") == "true"
