"""`python -m fba_app init`."""

import os
import subprocess
import sys

import pytest
from sqlalchemy import delete, func, select, update

from fba_app import db
from fba_app.audit.models import AuditEntry
from fba_app.settings import ConfigurationError, Settings, get_settings
from fba_app.users import passwords, setup
from fba_app.users.models import ADMIN, Role, User
from fba_app.users.principal import Permission

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _nobody() -> None:
    """No user and no role."""
    with db.session() as session, session.begin():
        for model in (AuditEntry, User, Role):
            session.execute(delete(model))


def settings(password: str | None = PASSWORD, **values: str) -> Settings:
    changed = get_settings().model_dump() | {"admin_password": password, "environment": "production"} | values
    return Settings.model_validate(changed)


def count(model: type[User] | type[Role]) -> int:
    with db.session() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def test_it_makes_the_roles_and_the_first_user() -> None:
    said = setup.initialize(settings(admin_username="Root"))
    assert said == [
        "role admin: made",
        "role operator: made",
        "role user: made",
        "user root: made, with the role admin",
    ]
    with db.session() as session:
        user = session.scalars(select(User)).one()
        assert passwords._verify(PASSWORD, user.password_hash)[0]
        assert [role.name for role in user.roles] == [ADMIN]
        allowed = {role.name: role.permissions for role in session.scalars(select(Role))}
        entry = session.scalars(select(AuditEntry)).one()
        assert (entry.action, entry.object_id) == ("user.create", str(user.id))
    assert allowed[ADMIN] == sorted(Permission)
    assert set(Permission) - set(allowed["operator"]) == {Permission.USERS_MANAGE, Permission.AUDIT_READ}
    assert allowed["user"] == ["files:write", "tasks:submit"]


def test_a_second_time_it_does_nothing() -> None:
    setup.initialize(settings())
    assert setup.initialize(settings("another good password", admin_username="other")) == ["nothing to do"]
    assert setup.initialize(settings(None)) == ["nothing to do"]
    assert (count(User), count(Role)) == (1, 3)


def test_it_brings_the_built_in_roles_up_to_date() -> None:
    setup.initialize(settings())
    with db.session() as session, session.begin():
        session.execute(update(Role).where(Role.name == "user").values(permissions=["of:another-version"]))
    assert setup.initialize(settings()) == ["role user: updated"]
    with db.session() as session:
        assert session.scalar(select(Role.permissions).where(Role.name == "user")) == ["files:write", "tasks:submit"]


@pytest.mark.parametrize("password", [None, "short", "abababababab", "change-me-please", "Admin-Password-1"])
def test_without_a_good_password_it_changes_nothing(password: str | None) -> None:
    with pytest.raises(ConfigurationError, match="ADMIN_PASSWORD") as caught:
        setup.initialize(settings(password))
    assert password is None or password not in str(caught.value)
    assert (count(User), count(Role)) == (0, 0)


def test_without_a_good_name_it_changes_nothing() -> None:
    with pytest.raises(ConfigurationError, match="ADMIN_USERNAME"):
        setup.initialize(settings(admin_username="with space"))
    assert (count(User), count(Role)) == (0, 0)


def test_in_development_a_password_may_be_weak() -> None:
    setup.initialize(settings("dev", environment="development"))
    assert count(User) == 1


def run(**environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "fba_app", "init"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_at_once_make_one_user() -> None:
    both = [run(ADMIN_PASSWORD=PASSWORD) for _ in range(2)]
    outputs = sorted(process.communicate(timeout=60)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0] == "nothing to do\n"
    assert outputs[1].endswith("user admin: made, with the role admin\n")
    assert (count(User), count(Role)) == (1, 3)


def test_the_command_names_the_setting_it_lacks() -> None:
    process = run(ADMIN_PASSWORD="")
    output, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == ""
    assert error == "ADMIN_PASSWORD: is required, as there is no user yet\n"
