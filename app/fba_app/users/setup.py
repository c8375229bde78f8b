"""What must be there before anyone can log in: the built-in roles and a first user."""

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fba_app import db
from fba_app.audit.models import AuditEntry
from fba_app.settings import PLACEHOLDERS, ConfigurationError, Settings
from fba_app.users import passwords
from fba_app.users.models import ADMIN, Role, User
from fba_app.users.names import Username
from fba_app.users.principal import Permission

LOCK = 7_362_002
"""Any number, as long as every setup of this application takes the same lock, and nothing else does."""

BUILT_IN = {
    ADMIN: ("May do everything.", set(Permission)),
    "operator": ("Runs the application.", set(Permission) - {Permission.USERS_MANAGE, Permission.AUDIT_READ}),
    "user": ("Submits tasks and uploads files.", {Permission.TASKS_SUBMIT, Permission.FILES_WRITE}),
}


def _roles(session: Session) -> list[str]:
    said = []
    for name, (description, allowed) in BUILT_IN.items():
        permissions = sorted(map(str, allowed))
        role = session.scalar(select(Role).where(Role.name == name))
        if role is None:
            role = Role(name=name)
            session.add(role)
            said.append(f"role {name}: made")
        elif (role.description, role.permissions, role.built_in) != (description, permissions, True):
            said.append(f"role {name}: updated")
        role.description, role.permissions, role.built_in = description, permissions, True
    return said


def _first_user(settings: Settings) -> User:
    if settings.admin_password is None:
        raise ConfigurationError("ADMIN_PASSWORD: is required, as there is no user yet")
    try:
        username = TypeAdapter(Username).validate_python(settings.admin_username)
    except ValidationError:
        raise ConfigurationError(
            "ADMIN_USERNAME: must be up to 64 letters, digits and characters of ._@+-, and begin with a letter or digit"
        ) from None
    password = settings.admin_password.get_secret_value()
    if settings.environment == "production":
        if fault := passwords.fault(password, username):
            raise ConfigurationError(f"ADMIN_PASSWORD: {fault}")
        if any(word in password.lower() for word in PLACEHOLDERS):
            raise ConfigurationError("ADMIN_PASSWORD: must be random in production; this one looks like a placeholder")
    return User(username=username, password_hash=passwords.hash_now(password))


def initialize(settings: Settings) -> list[str]:
    """Make what is missing and return what was done, in words. Safe to repeat, and to run twice at once.

    Raises:
        ConfigurationError: there is no user, and the settings do not say whom to make. Nothing was changed.
    """
    with db.session() as session, session.begin():
        session.execute(select(func.pg_advisory_xact_lock(LOCK)))
        said = _roles(session)
        if session.scalar(select(User.id).limit(1)) is None:
            user = _first_user(settings)
            user.roles = list(session.scalars(select(Role).where(Role.name == ADMIN)))
            session.add(user)
            session.flush()
            session.add(AuditEntry(action="user.create", object_id=str(user.id), details={"username": user.username}))
            said.append(f"user {user.username}: made, with the role {ADMIN}")
    return said or ["nothing to do"]
