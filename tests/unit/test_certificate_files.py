"""From issued certificates to a host's files, and back from changed files to whom they are about."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from ansible_collections.fba.stack.plugins.filter.certificates import certificate_files, changed_identities
from ansible_collections.fba.stack.plugins.filter.container import TLS, container_options

from conftest import ROOT

FOLDER = "/etc/fba/tls"
USERS: dict[str, Any] = {"postgres": 999, "worker": "10001"}
ISSUED = {
    subject: {"certificate": f"the certificate of {subject}", "private_key": f"the key of {subject}"}
    for subject in ("data1/postgres", "data1/host", "data1.example.com/postgres", "work1/worker", "work1/host", "data/postgres")
}


def test_a_host_has_what_is_its_own_and_no_key_of_another() -> None:
    files = certificate_files(ISSUED, "data1", "the bundle", FOLDER, USERS)
    assert {entry["path"].removeprefix(f"{FOLDER}/") for entry in files} == {
        *(f"postgres/{name}" for name in ("ca.pem", "certificate.pem", "private_key.pem")),
        *(f"host/{name}" for name in ("ca.pem", "certificate.pem", "private_key.pem")),
    }
    # Names that begin alike are others' names
    assert [entry["secret_content"] for entry in files if "secret_content" in entry] == [
        "the key of data1/postgres",
        "the key of data1/host",
    ]
    assert {entry["content"] for entry in files if entry["path"].endswith("ca.pem")} == {"the bundle"}
    assert certificate_files(ISSUED, "elsewhere", "the bundle", FOLDER, USERS) == []


def test_a_key_is_for_its_containers_user_alone() -> None:
    files = {entry["path"]: entry for host in ("data1", "work1") for entry in certificate_files(ISSUED, host, "", FOLDER, USERS)}
    for service, user in (("postgres", 999), ("worker", 10001), ("host", 0)):
        for name in ("ca.pem", "certificate.pem", "private_key.pem"):
            entry = files[f"{FOLDER}/{service}/{name}"]
            assert entry["owner"] == user
            assert entry["mode"] == ("0400" if name == "private_key.pem" else "0444")
            # And in no diff
            assert ("secret_content" in entry) is (name == "private_key.pem")


def test_a_container_sees_its_folder_and_no_other() -> None:
    """Where the roles look for the files is where they are."""
    spec = {"name": "fba_postgres", "service": "postgres", "image": "x", "user": 999, "memory": "1g", "stop_timeout": 1, "tls": "postgres"}
    (mount,) = [each for each in container_options(spec, "", "", FOLDER)["mounts"] if each["target"].startswith("/run/fba")]
    assert mount["target"] == TLS
    assert mount["read_only"] is True
    files = certificate_files(ISSUED, "data1", "", FOLDER, USERS)
    seen = {f"{TLS}/{PurePosixPath(entry['path']).name}" for entry in files if str(PurePosixPath(entry["path"]).parent) == mount["source"]}
    common = yaml.safe_load((ROOT / "roles/common/defaults/main.yml").read_text(encoding="utf-8"))
    assert set(common["__fba_tls"].values()) == seen


def test_every_identity_of_a_service_has_the_services_user() -> None:
    """One that is forgotten would be root's, and its container could not read its key."""
    common = yaml.safe_load((ROOT / "roles/common/defaults/main.yml").read_text(encoding="utf-8"))
    specs = [path.read_text(encoding="utf-8") for path in (ROOT / "roles").rglob("*.yml") if path.parent.name in ("tasks", "vars")]
    used = {line.split(":")[1].strip() for text in specs for line in text.splitlines() if line.strip().startswith("tls: ")}
    assert used == common["__fba_users"].keys()


@pytest.mark.parametrize(
    ("paths", "services"),
    [
        ([], []),
        (["/etc/fba/tls"], []),
        (["/etc/fba/tls/server/ca.pem", "/etc/fba/tls/server/private_key.pem", "/etc/fba/tls/beat/ca.pem"], ["beat", "server"]),
        # A service that left: its folder went as well
        (["/etc/fba/tls/flower/ca.pem", "/etc/fba/tls/flower"], ["flower"]),
    ],
)
def test_who_has_to_take_over_what_has_changed(paths: list[str], services: list[str]) -> None:
    assert changed_identities(paths, FOLDER) == services
