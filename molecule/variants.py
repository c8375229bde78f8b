"""Other releases of the default application: its source with small changes, each like one that a release can bring.

    make_variant(project / "app", tmp_path / "bad", mark(3), answers_500())

A change edits the source as it is now, and fails if the place that it edits is no longer there. A release that follows one with a migration
must bring that one's migration too, before its own.

As a program it makes the one that the test fleet runs: variants.py SOURCE DESTINATION
"""

import re
import shutil
import sys
from pathlib import Path

# What a checkout has besides the source; .dockerignore keeps it out of images
NOT_SOURCE = (".env", ".venv", ".hypothesis", ".*_cache", "__pycache__", "*.pyc", "upload")


class VariantError(Exception):
    """A change does not fit the source: it must be written anew for what is there now."""


def make_variant(source, destination, *changes):
    """Copy the application's source to a folder that is not there yet, change it, and return the folder.

    Raises VariantError if a change does not find its place.
    """
    shutil.copytree(source, destination, ignore=shutil.ignore_patterns(*NOT_SOURCE), symlinks=True)
    for change in changes:
        change(destination)
    return destination


def _edit(root, path, pattern, replacement):
    """Replace what a regular expression finds in a file, where it must find one place."""
    file = root / path
    if not file.is_file():
        raise VariantError(f"{path} is not there")
    text, found = re.subn(pattern, lambda match: match.expand(replacement), file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found != 1:
        raise VariantError(f"{path} has {found} places, not one, that match {pattern}")
    file.write_text(text, encoding="utf-8")


def _add(root, path, text):
    """Write a file that is not there yet."""
    if (root / path).exists():
        raise VariantError(f"{path} is there already")
    if not (root / path).parent.is_dir():
        raise VariantError(f"{path} has no folder")
    (root / path).write_text(text, encoding="utf-8")


def _add_kind(root, name, text, before):
    """Add a module of kinds of tasks, before another one in the order of names."""
    _add(root, f"fba_app/kinds/{name}.py", text)
    _edit(root, "fba_app/kinds/__init__.py", rf"^(from fba_app\.kinds import .*?)\b{before}\b", rf"\1{name}, {before}")
    _edit(root, "fba_app/kinds/__init__.py", rf'^(__all__ = \[.*?)"{before}"', rf'\1"{name}", "{before}"')


# What a good release brings


def mark(number):
    """Make /openapi.json say the version 1.0.<number>, by which a release is told apart."""
    return lambda root: _edit(root, "fba_app/main.py", r'^( +)version="\d+\.\d+\.\d+",$', rf'\1version="1.0.{number}",')


GREET = '''"""The kind `greet`: says hello."""

from pydantic import Field

from fba_app.tasks.context import TaskContext
from fba_app.tasks.registry import IO_QUEUE, kind
from fba_app.types import Model, ShortText


class GreetArguments(Model):
    """Whom to greet."""

    name: ShortText = Field(examples=["Ada"])


class GreetResult(Model):
    """The greeting."""

    message: str = Field(examples=["Hello, Ada!"])


@kind("greet", queue=IO_QUEUE, time_limit=60)
def greet(context: TaskContext, arguments: GreetArguments) -> GreetResult:
    """Say hello."""
    context.progress(100, "done")
    return GreetResult(message=f"Hello, {arguments.name}!")
'''


def adds_a_kind():
    """Add the kind of task `greet`, which no worker of an earlier release knows."""
    return lambda root: _add_kind(root, "greet", GREET, before="inference")


EFFECT = '''"""The kinds `effect` and `effect_cpu`: each writes a row that says that it was done, in the transaction that ends the task."""

import hashlib
import os
import signal
import time

from pydantic import Field
from sqlalchemy import text

from fba_app.tasks.context import TaskContext
from fba_app.tasks.registry import CPU_QUEUE, IO_QUEUE, kind
from fba_app.types import Model, ShortText


class EffectArguments(Model):
    """What to write, and how long to be at it."""

    identity: ShortText
    seconds: float = Field(default=0.5, ge=0, le=30)


class EffectResult(Model):
    """What was written."""

    identity: str


def _write(context: TaskContext, identity: str) -> EffectResult:
    row = {"identity": identity, "task": str(context.id)}
    context.on_success.append(
        lambda session: session.execute(text("INSERT INTO effects (identity, task) VALUES (:identity, :task)"), row)
    )
    return EffectResult(identity=identity)


@kind("effect", queue=IO_QUEUE, time_limit=60)
def effect(context: TaskContext, arguments: EffectArguments) -> EffectResult:
    """Wait, and write it down."""
    context.sleep(arguments.seconds)
    return _write(context, arguments.identity)


@kind("effect_cpu", queue=CPU_QUEUE, time_limit=60)
def effect_cpu(context: TaskContext, arguments: EffectArguments) -> EffectResult:
    """Compute, and write it down."""
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        hashlib.sha256(bytes(100_000)).digest()
        context.check()
    return _write(context, arguments.identity)


@kind("poison", queue=CPU_QUEUE, time_limit=60)
def poison(context: TaskContext, arguments: EffectArguments) -> EffectResult:
    """End the process that runs it, whenever it runs."""
    os.kill(os.getpid(), signal.SIGKILL)
    return _write(context, arguments.identity)
'''


def records_effects():
    """Add kinds of tasks whose effect is a row in the table `effects`, which a test makes, and one that kills who runs it."""
    return lambda root: _add_kind(root, "effect", EFFECT, before="email")


def changes_a_signature():
    """Give the kind `sleep` another argument. It has a default, so that old submissions are good for new workers.

    What a server of this release accepts carries it, and workers of an earlier one refuse what they do not know.
    """

    def change(root):
        sleep = "fba_app/kinds/sleep.py"
        _edit(root, sleep, r"^( +)(duration: int = Field\(.*\))$", r'\1\2\n\1label: ShortText = Field(default="sleep")')
        _edit(root, sleep, r"^from fba_app\.types import Model$", "from fba_app.types import Model, ShortText")

    return change


def _next_migration(root, name, upgrade, downgrade, about, marker=""):
    versions = root / "migrations" / "versions"
    files = sorted(versions.glob("[0-9][0-9][0-9][0-9]_*.py"))
    latest = re.findall(r'^revision = "(\w+)"$', files[-1].read_text(encoding="utf-8"), re.MULTILINE) if files else []
    if len(latest) != 1:
        raise VariantError("migrations/versions does not end with a migration that says its revision")
    # With its name, so that a database which another variant has changed does not take it for that one's
    revision = f"{int(files[-1].name[:4]) + 1:04}_{name}"
    text = f'''"""{about}"""

import sqlalchemy as sa
from alembic import op

{marker}revision = "{revision}"
down_revision = "{latest[0]}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
{upgrade}

def downgrade() -> None:
    """Take back."""
{downgrade}'''
    _add(root, f"migrations/versions/{revision}.py", text)


ADD_TABLE = '    op.create_table("{0}", sa.Column("id", sa.Integer(), primary_key=True))\n'
DROP_TABLE = '    op.drop_table("{0}")\n'
ADD_COLUMN = '    op.add_column("tasks", sa.Column("note", sa.Text(), nullable=True))\n'
DROP_COLUMN = '    op.drop_column("tasks", "note")\n'


def compatible_migration():
    """Add a migration that the release before does not notice: a column that may be empty, in the table of tasks."""
    return lambda root: _next_migration(root, "note", ADD_COLUMN, DROP_COLUMN, "Let a task have a note.")


def incompatible_migration(reason="the table of greetings is not what the release before makes of it"):
    """Add a migration that says of itself that the release before cannot work with what it leaves."""
    marker = f"# fba: not compatible: {reason}\n"
    return lambda root: _next_migration(
        root, "greetings", ADD_TABLE.format("greetings"), DROP_TABLE.format("greetings"), "Make a table of greetings.", marker
    )


def benched(bench):
    """Add the tasks and the routes of the bench, from its folder."""

    def change(root):
        _add(root, "fba_app/bench.py", (bench / "worker" / "apps" / "ours.py").read_text(encoding="utf-8"))
        _add(root, "fba_app/measured.py", (bench / "worker" / "apps" / "measured.py").read_text(encoding="utf-8"))
        _add(root, "fba_app/bench_routes.py", (bench / "api" / "apps" / "routes.py").read_text(encoding="utf-8"))
        _edit(root, "fba_app/main.py", r"^(from fba_app\.audit import routes as audit)$", r"from fba_app import bench_routes\n\1")
        _edit(root, "fba_app/main.py", r"^( +)(tasks\.router,)$", r"\1bench_routes.router,\n\1\2")
        _edit(root, "fba_app/celery.py", r'^(app = Celery\(.*"fba_app\.maintenance")', r'\1, "fba_app.bench"')

    return change


# What a bad release brings


def failing_migration():
    """Add a migration that fails after it has made the table `half_done` and changed the table of tasks."""
    upgrade = ADD_TABLE.format("half_done") + ADD_COLUMN + '    raise RuntimeError("this migration fails half way")\n'
    downgrade = DROP_COLUMN + DROP_TABLE.format("half_done")
    return lambda root: _next_migration(root, "half_done", upgrade, downgrade, "Fail half way.")


def crashes_at_start():
    """Make the server import what is not there."""
    return lambda root: _edit(root, "fba_app/main.py", r"^(from fba_app\.audit import routes as audit)$", r"import fba_app.left_out\n\1")


def never_ready():
    """Make a server that starts, answers, and never says of itself that it is ready."""
    return lambda root: _edit(
        root, "fba_app/health/routes.py", r"^( +checks) = await states\(\)$", r'\1 = {**await states(), "redis": "timeout"}'
    )


def answers_500():
    """Make two addresses fail in a server that is ready: the start page, and /api/v1/tasks/kinds."""

    def change(root):
        broken = r'\1\n    raise RuntimeError("this release is broken")'
        _edit(root, "fba_app/tasks/routes.py", r'^(async def kinds\(.*:\n    """.*"""$)', broken)
        _edit(root, "fba_app/web/tasks.py", r'^(async def home\(.*:\n    """.*"""$)', broken)

    return change


def worker_crashes_at_start():
    """Make workers, which alone import what runs tasks, import what is not there; servers are as before."""
    return lambda root: _edit(root, "fba_app/tasks/runner.py", r"^(import fba_app\.kinds)$", r"\1\nimport fba_app.left_out")


if __name__ == "__main__":
    make_variant(Path(sys.argv[1]), Path(sys.argv[2]), records_effects())
