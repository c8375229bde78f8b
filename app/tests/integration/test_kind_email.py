"""The kind `email`, with a task of PostgreSQL and a file of the storage, to a mail server on this machine."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from uuid import UUID, uuid4

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from sqlalchemy import delete, update

from fba_app import db
from fba_app.files import service as files
from fba_app.files.models import File
from fba_app.files.storage import get_storage
from fba_app.kinds import email as module
from fba_app.settings import get_settings
from fba_app.tasks import runner
from fba_app.tasks.context import TaskContext
from fba_app.tasks.models import State, Task
from fba_app.tasks.registry import IO_QUEUE

A, B = "a@example.com", "b@example.com"


class Mailbox:
    """Takes what it gets, but for B at the first time."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.busy = True

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        del server, session, options
        if address == B and self.busy:
            self.busy = False
            return "450 Busy"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        del server, session
        self.taken.append(envelope)
        return "250 OK"


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    changes = {"smtp_host": "127.0.0.1", "smtp_port": port, "smtp_security": "none", "smtp_from": "from@example.org"}
    settings = get_settings().model_copy(update=changes)
    monkeypatch.setattr(module, "get_settings", lambda: settings)
    mailbox = Mailbox()
    controller = Controller(mailbox, "127.0.0.1", port)
    controller.start()
    yield mailbox
    controller.stop()


@pytest.fixture
def file() -> Iterator[File]:
    """A file that some task made."""
    context = TaskContext(uuid4())
    file = files.store_file(context, "Übersicht.txt", "text/plain", "report", [b"Hello", b" there"])
    file.task_id = None
    with db.session() as session, session.begin():
        session.add(file)
    yield file
    get_storage().delete(file.key)
    with db.session() as session, session.begin():
        session.execute(delete(File).where(File.id == file.id))


@pytest.fixture(autouse=True)
def _no_tasks_left() -> Iterator[None]:
    yield
    with db.session() as session, session.begin():
        session.execute(delete(Task))


def get(task_id: UUID) -> Task:
    with db.session() as session:
        return session.get_one(Task, task_id)


def test_only_whom_it_did_not_reach_gets_it_in_a_later_attempt(mailbox: Mailbox, file: File) -> None:
    task_id = uuid4()
    arguments = {"to": [A, B], "subject": "Hello", "text": "x", "attachments": [str(file.id)]}
    with db.session() as session, session.begin():
        session.add(Task(id=task_id, kind="email", queue=IO_QUEUE, arguments=arguments))

    runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.error) == (State.RETRYING, f"Not yet sent to all: {B}: 450 Busy")
    assert task.checkpoint == {"sent": [A], "refused": {}}
    assert task.due_at > datetime.now(UTC)

    with db.session() as session, session.begin():
        session.execute(update(Task).where(Task.id == task_id).values(due_at=datetime.now(UTC)))
    runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.result) == (State.SUCCEEDED, {"sent": [A, B], "refused": {}})

    assert [envelope.rcpt_tos for envelope in mailbox.taken] == [[A], [B]]
    for envelope in mailbox.taken:
        assert isinstance(envelope.original_content, bytes)
        message = message_from_bytes(envelope.original_content, policy=policy.default)
        assert message["Message-ID"] == f"<{task_id}@example.org>"
        attachment = next(message.iter_attachments())
        assert (attachment.get_filename(), attachment.get_payload(decode=True)) == ("Übersicht.txt", b"Hello there")


def test_a_file_that_was_deleted_ends_it_at_once(mailbox: Mailbox) -> None:
    task_id = uuid4()
    arguments = {"to": [A], "subject": "Hello", "text": "x", "attachments": [str(uuid4())]}
    with db.session() as session, session.begin():
        session.add(Task(id=task_id, kind="email", queue=IO_QUEUE, arguments=arguments))
    runner.run(task_id)
    task = get(task_id)
    assert task.state == State.FAILED
    assert (task.error or "").startswith("An attachment is no longer there")
    assert mailbox.taken == []
