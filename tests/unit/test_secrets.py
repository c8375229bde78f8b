"""The action that makes the passwords which nobody has given."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader

from ansible_collections.fba.stack.plugins.action.secrets import ActionModule
from ansible_collections.fba.stack.plugins.plugin_utils.vault import VaultFile

WANTED: list[dict[str, Any]] = [{"name": "fba_postgres_password", "volume": "fba_postgres"}, {"name": "fba_flower_password", "length": 20}]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the vault file is, or is not yet."""
    return tmp_path / "secrets.yml"


@pytest.fixture
def run(run_action: Run, path: Path) -> Run:
    """Run the action on the wanted secrets."""

    def run(given: dict[str, Any] | None = None, volumes: list[str] | None = None, **options: Any) -> dict[str, Any]:
        return run_action(ActionModule, {"path": str(path), "wanted": WANTED, "volumes": volumes or []}, given, **options)

    return run


@pytest.fixture
def stored(path: Path, loader: DataLoader) -> Callable[[], dict[str, Any]]:
    """What the vault file holds now."""
    return lambda: VaultFile(str(path), loader, "").read()


def test_missing_ones_are_made_and_kept(run: Run, stored: Callable[[], dict[str, Any]]) -> None:
    result = run()
    assert result["changed"] is True
    facts = result["ansible_facts"]
    assert re.fullmatch(r"[A-Za-z0-9]{32}", facts["fba_postgres_password"])
    assert re.fullmatch(r"[A-Za-z0-9]{20}", facts["fba_flower_password"])
    assert stored() == facts
    again = run()
    assert again["changed"] is False
    assert again["ansible_facts"] == facts


def test_two_stacks_have_different_passwords(run: Run, path: Path) -> None:
    first = run()["ansible_facts"]
    path.unlink()
    assert not set(first.values()) & set(run()["ansible_facts"].values())


def test_a_given_one_wins_and_is_not_kept(run: Run, stored: Callable[[], dict[str, Any]]) -> None:
    """A fact would win over the inventory's variable, so there is none."""
    result = run({"fba_postgres_password": "given by the inventory"})
    assert result["ansible_facts"].keys() == {"fba_flower_password"}
    assert stored().keys() == {"fba_flower_password"}
    run()
    assert run({"fba_postgres_password": "given by the inventory"})["ansible_facts"].keys() == {"fba_flower_password"}


def test_only_what_is_missing_is_made(run: Run, path: Path, loader: DataLoader, stored: Callable[[], dict[str, Any]]) -> None:
    VaultFile(str(path), loader, "").write({"fba_postgres_password": "kept", "somebody_elses": "also kept"})
    facts = run()["ansible_facts"]
    assert facts["fba_postgres_password"] == "kept"
    assert stored() == {**facts, "somebody_elses": "also kept"}


def test_no_new_password_for_a_volume_that_has_one(run: Run, path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match=r"fba_postgres_password is not known, but the volume fba_postgres") as error:
        run(volumes=["fba_postgres", "fba_rabbitmq"])
    assert str(path) in str(error.value)
    assert "fba_flower_password" not in str(error.value)
    assert not path.exists()


def test_a_known_password_of_a_volume_is_no_problem(run: Run) -> None:
    run()
    assert run(volumes=["fba_postgres"])["changed"] is False
    assert run({"fba_postgres_password": "given"}, volumes=["fba_postgres"])["changed"] is False


def test_check_mode_writes_nothing(run: Run, path: Path) -> None:
    result = run(check_mode=True)
    assert result["changed"] is True
    # The tasks that follow need a value to be checked with
    assert len(result["ansible_facts"]["fba_postgres_password"]) == 32
    assert not path.exists()


# Without `volumes`: whoever calls has not looked at the hosts yet, and shall only if there is a reason to


@pytest.fixture
def first(run_action: Run, path: Path) -> Run:
    """Run the action before anybody has looked which volumes there are."""

    def first(given: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        return run_action(ActionModule, {"path": str(path), "wanted": WANTED}, given, **options)

    return first


@pytest.mark.parametrize("check_mode", [False, True])
def test_nothing_is_made_before_the_volumes_are_known(first: Run, path: Path, check_mode: bool) -> None:
    result = first(check_mode=check_mode)
    assert result["ask"] == ["fba_postgres"]
    assert result["changed"] is False
    # Not even what no volume depends on: it is made with the others
    assert "ansible_facts" not in result
    assert not path.exists()


def test_nobody_looks_at_a_host_for_a_secret_that_is_known(first: Run, run: Run, path: Path, loader: DataLoader) -> None:
    """So a run without the data hosts needs none of them."""
    result = first({"fba_postgres_password": "given by the inventory"})
    assert (result["ask"], result["changed"]) == ([], True)
    assert result["ansible_facts"].keys() == {"fba_flower_password"}

    made = run()["ansible_facts"]
    again = first()
    assert (again["ask"], again["changed"], again["ansible_facts"]) == ([], False, made)

    # One that no volume depends on is made at once
    VaultFile(str(path), loader, "").write({"fba_postgres_password": "kept"})
    result = first()
    assert (result["ask"], result["changed"]) == ([], True)
    assert result["ansible_facts"]["fba_postgres_password"] == "kept"


def test_after_a_look_at_the_volumes_it_is_made_or_refused(first: Run, run: Run, path: Path) -> None:
    assert first()["ask"]
    with pytest.raises(AnsibleActionFail, match="fba_postgres_password is not known"):
        run(volumes=["fba_postgres"])
    assert not path.exists()
    result = run(volumes=[])
    assert (result["ask"], result["changed"]) == ([], True)
    assert result["ansible_facts"].keys() == {entry["name"] for entry in WANTED}
