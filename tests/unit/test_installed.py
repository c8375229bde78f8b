"""The collection as it is installed: built, unpacked somewhere else, and called by its name."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
INVENTORY = """
all:
  hosts:
    here:
      ansible_connection: local
      ansible_python_interpreter: /usr/bin/python3
      fba_name: Not A Name
  children:
    {postgres: &one {hosts: {here: {}}}, redis: *one, rabbitmq: *one, server: *one, worker: *one, beat: *one, flower: *one, nginx: *one}
"""


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / command[0]), *map(str, command[1:])],
        capture_output=True,
        text=True,
        check=False,
        cwd=environment.pop("cwd", CHECKOUT),
        env={"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": os.environ["HOME"], **environment},
    )


# What lies in the checkout of somebody who uses it, and is nobody else's
PRIVATE = (
    ".vault-password",
    ".venv/bin/python",
    "inventories/local/group_vars/all/fba_secrets.yml",
    "inventories/cluster/group_vars/all/fba_secrets.yml",
    "inventories/cluster/group_vars/all/fba_certificates.yml",
    "inventories/cluster/group_vars/all/fba_images.yml",
    "inventories/cloud/group_vars/all/fba_secrets.yml",
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built collection, of a checkout that has been used."""
    folder = tmp_path_factory.mktemp("built")
    checkout = folder / "checkout"
    large = shutil.ignore_patterns(".git", ".venv", ".cache", ".ansible", ".*_cache", ".hypothesis", "__pycache__")
    shutil.copytree(CHECKOUT, checkout, symlinks=True, ignore=large)
    for name in PRIVATE:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("private", encoding="utf-8")
    built = run("ansible-galaxy", "collection", "build", checkout, "--output-path", folder)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("fba-stack-*.tar.gz"))


def test_the_archive_has_the_application_and_nothing_of_the_checkouts_own(archive: Path) -> None:
    with tarfile.open(archive) as content:
        names = set(content.getnames())
    assert {
        "app/.dockerignore",
        "app/requirements.lock",
        "app/fba_app/main.py",
        "roles/images/files/distro/postgres/Dockerfile",
        "playbooks/site.yml",
    } <= names
    # The examples, with their settings
    examples = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "inventories").rglob("*.yml") if not path.name.startswith("fba_")}
    assert {"inventories/cluster/group_vars/all/stack.yml", "inventories/cluster/host_vars/work2.yml"} < examples <= names
    assert {"inventories/cloud/aws_ec2.yml", "inventories/cloud/group_vars/all/stack.yml"} < examples
    assert names & set(PRIVATE) == set()
    assert [name for name in names if name.startswith((".venv", ".vault-password"))] == []


def test_its_playbooks_run_by_name_and_find_its_plugins_and_application(archive: Path, tmp_path: Path) -> None:
    collections = tmp_path / "collections"
    installed = run("ansible-galaxy", "collection", "install", "--offline", "--no-deps", "-p", collections, archive, cwd=str(tmp_path))
    assert installed.returncode == 0, installed.stderr
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(INVENTORY)
    refused = run("ansible-playbook", "-i", inventory, "fba.stack.site", ANSIBLE_COLLECTIONS_PATH=str(collections), cwd=str(tmp_path))
    assert refused.returncode != 0
    # The one thing that is wrong: whatever else it needed, the application's source among it, was found
    assert "fba_name is 'Not A Name'" in refused.stdout
    assert "Nothing was touched on here" in refused.stdout
    assert "cannot be evaluated" not in refused.stdout
