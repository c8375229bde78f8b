"""The database's versions: there and back again, and the same as the tables that the code expects."""

from alembic import command
from alembic.config import Config

CONFIG = Config("alembic.ini")


def test_the_newest_version_is_what_the_code_expects() -> None:
    command.check(CONFIG)


def test_every_version_can_be_taken_back_and_made_again() -> None:
    command.downgrade(CONFIG, "base")
    command.upgrade(CONFIG, "head")
    command.check(CONFIG)
