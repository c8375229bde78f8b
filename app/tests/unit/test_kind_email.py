"""The kind `email`, with a mail server on this machine that answers as a test wants it to."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from threading import BoundedSemaphore
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from pydantic import SecretStr, ValidationError
from sqlalchemy.exc import OperationalError

from fba_app import db
from fba_app.files import service as files_service
from fba_app.files.storage import ObjectMissingError
from fba_app.kinds import email as module
from fba_app.kinds.email import EmailArguments, EmailResult, PermanentError, TemporaryError, email
from fba_app.problems import NotFoundError
from fba_app.settings import Settings, get_settings
from fba_app.tasks import progress
from fba_app.tasks.context import CancelledError, TaskContext
from fba_app.tasks.registry import IO_QUEUE, KINDS
from fba_app.users.principal import Principal

A, B, C = "a@example.com", "b@example.com", "c@example.com"
USERNAME, PASSWORD = "mailer", "correct horse"


@dataclass
class Mailbox:
    """The server's handler: keeps what it takes, and answers as it was told."""

    recipients: dict[str, list[str]] = field(default_factory=dict)
    """Answers to RCPT, one after the other; the rest are taken."""
    data: list[str] = field(default_factory=list)
    """Answers to DATA, likewise."""
    taken: list[Envelope] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        del server, session, options
        if answers := self.recipients.get(address):
            return answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.data:
            return self.data.pop(0)
        del session
        self.taken.append(envelope)
        assert server.transport is not None
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return "250 OK"

    def message(self, index: int = -1) -> EmailMessage:
        content = self.taken[index].original_content
        assert content is not None
        return message_from_bytes(content, policy=policy.default)


def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    del server, session, envelope, mechanism
    assert isinstance(data, LoginPassword)
    # Not handled: the server shall answer.
    return AuthResult(success=(data.login, data.password) == (USERNAME.encode(), PASSWORD.encode()), handled=False)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


Start = Callable[..., None]


@pytest.fixture
def start(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start the server with these of aiosmtpd's options, and point the settings, with these changes, at it."""
    controllers: list[Controller] = []

    def start_with(changes: Mapping[str, Any] | None = None, **options: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        controllers.append(Controller(mailbox, "127.0.0.1", port, **options))
        controllers[-1].start()
        use(monkeypatch, {"smtp_host": "localhost", "smtp_port": port, "smtp_security": "none", **(changes or {})})

    yield start_with
    for controller in controllers:
        controller.stop()


def use(monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, Any]) -> Settings:
    settings = get_settings().model_copy(
        update={"smtp_timeout": 5, "smtp_from": "The Stack <from@example.org>", **changes}
    )
    monkeypatch.setattr(module, "get_settings", lambda: settings)
    return settings


@pytest.fixture(autouse=True)
def _no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "write", lambda *_: None)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server_tls(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def arguments(**changes: Any) -> EmailArguments:
    return EmailArguments.model_validate({"to": [A], "subject": "Hello", "text": "Hello there.\n", **changes})


class Attempts:
    """The attempts of one task: each knows what an earlier one saved."""

    def __init__(self) -> None:
        self.id = uuid4()
        self.saved: dict[str, Any] = {}

    def __call__(self, to_send: EmailArguments) -> EmailResult:
        def save(checkpoint: dict[str, Any]) -> None:
            self.saved = checkpoint

        result = email(TaskContext(self.id, checkpoint=self.saved, save=save), to_send)
        assert isinstance(result, EmailResult)
        return result


def test_a_message_arrives(start: Start, mailbox: Mailbox) -> None:
    start()
    attempt = Attempts()
    result = attempt(arguments(cc=[B], bcc=[C, A], html="<p>Hello there.</p>"))
    assert result == EmailResult(sent=[A, B, C], refused={})
    assert attempt.saved == {"sent": [A, B, C], "refused": {}}
    assert (mailbox.taken[0].mail_from, mailbox.taken[0].rcpt_tos) == ("from@example.org", [A, B, C])
    message = mailbox.message()
    assert (message["From"], message["To"], message["Cc"]) == ("The Stack <from@example.org>", A, B)
    assert (message["Subject"], message["Message-ID"]) == ("Hello", f"<{attempt.id}@example.org>")
    assert message["Date"].datetime.tzinfo is not None
    assert C.encode() not in cast("bytes", mailbox.taken[0].original_content), "nobody learns of a blind copy"
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content().strip() for part in message.iter_parts()] == ["Hello there.", "<p>Hello there.</p>"]


def test_html_alone(start: Start, mailbox: Mailbox) -> None:
    start()
    Attempts()(arguments(text=None, html="<p>ü</p>"))
    assert mailbox.message().get_content_type() == "text/html"
    assert mailbox.message().get_content().strip() == "<p>ü</p>"


def test_unicode_goes_as_ascii_and_comes_back(start: Start, mailbox: Mailbox) -> None:
    start({"smtp_from": "Größe <from@example.org>"})
    subject, text = "Ünïcødé 報告 🙂 " + "длинный " * 20 + "!", "Grüße 🙂\n.\n.. a line of a dot\n" + "x" * 3000 + "\n"
    Attempts()(arguments(subject=subject, text=text))
    assert cast("bytes", mailbox.taken[0].original_content).isascii()
    assert mailbox.message()["Subject"] == subject
    assert mailbox.message()["From"] == "Größe <from@example.org>"
    assert mailbox.message().get_content().replace("\r\n", "\n") == text


def test_as_many_and_as_long_addresses_as_there_may_be(start: Start, mailbox: Mailbox) -> None:
    start()
    everyone = [f"{number:x>64}@{'y' * 60}.{'z' * 60}.example.com" for number in range(50)]
    assert Attempts()(arguments(to=everyone)).sent == everyone
    assert [each.addr_spec for each in mailbox.message()["To"].addresses] == everyone


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_it_is_encrypted(security: str, start: Start, mailbox: Mailbox, authority: trustme.CA, ca_file: Path) -> None:
    tls = server_tls(authority)
    options = {"ssl_context": tls} if security == "tls" else {"tls_context": tls, "require_starttls": True}
    start({"smtp_security": security, "smtp_ca_file": ca_file}, **options)
    assert Attempts()(arguments()).sent == [A]
    assert mailbox.encrypted == [True]


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize(("trusted", "name"), [(False, "localhost"), (True, "other.example")])
def test_a_certificate_that_is_not_valid_ends_it(
    security: str, trusted: bool, name: str, start: Start, mailbox: Mailbox, authority: trustme.CA, ca_file: Path
) -> None:
    tls = server_tls(authority if trusted else trustme.CA(), name)
    start(
        {"smtp_security": security, "smtp_ca_file": ca_file},
        **({"ssl_context": tls} if security == "tls" else {"tls_context": tls}),
    )
    with pytest.raises(PermanentError, match="certificate is not valid"):
        Attempts()(arguments())
    assert mailbox.taken == []


def test_it_is_not_sent_in_the_clear_when_the_server_has_no_tls(start: Start, mailbox: Mailbox) -> None:
    start({"smtp_security": "starttls"})
    with pytest.raises(PermanentError, match="STARTTLS"):
        Attempts()(arguments())
    assert mailbox.taken == []


@pytest.mark.parametrize("right", [True, False])
def test_it_logs_in(right: bool, start: Start, mailbox: Mailbox, authority: trustme.CA, ca_file: Path) -> None:
    password = PASSWORD if right else "wrong staple"
    start(
        {
            "smtp_security": "starttls",
            "smtp_ca_file": ca_file,
            "smtp_username": USERNAME,
            "smtp_password": SecretStr(password),
        },
        tls_context=server_tls(authority),
        require_starttls=True,
        auth_required=True,
        authenticator=authenticate,
    )
    if right:
        assert Attempts()(arguments()).sent == [A]
        return
    with pytest.raises(PermanentError, match="refused: 535") as caught:
        Attempts()(arguments())
    assert password not in str(caught.value)
    assert mailbox.taken == []


def test_a_server_that_wants_a_login_and_gets_none(start: Start, authority: trustme.CA, ca_file: Path) -> None:
    start(
        {"smtp_security": "starttls", "smtp_ca_file": ca_file},
        tls_context=server_tls(authority),
        auth_required=True,
        authenticator=authenticate,
    )
    with pytest.raises(PermanentError, match="530"):
        Attempts()(arguments())


def test_a_temporary_refusal_passes(start: Start, mailbox: Mailbox) -> None:
    start()
    mailbox.data = ["451 Try again"]
    attempt = Attempts()
    with pytest.raises(TemporaryError, match="451 Try again"):
        attempt(arguments())
    assert attempt(arguments()).sent == [A]
    assert len(mailbox.taken) == 1


@pytest.mark.parametrize("where", ["recipient", "data"])
def test_a_permanent_refusal_by_all_ends_it(where: str, start: Start, mailbox: Mailbox) -> None:
    start()
    if where == "data":
        mailbox.data = ["554 No such thing here"]
    else:
        mailbox.recipients = {A: ["550 No such thing here"]}
    with pytest.raises(PermanentError, match=rf"all recipients: {A}: 55. No such thing here"):
        Attempts()(arguments())
    assert mailbox.taken == []


def test_only_those_who_were_refused_for_a_while_are_tried_again(start: Start, mailbox: Mailbox) -> None:
    start()
    mailbox.recipients = {B: ["450 Busy"], C: ["550 Unknown"]}
    attempt, everyone = Attempts(), arguments(to=[A, B, C])
    with pytest.raises(TemporaryError, match=f"Not yet sent to all: {B}: 450 Busy$"):
        attempt(everyone)
    assert attempt.saved == {"sent": [A], "refused": {C: "550 Unknown"}}
    assert attempt(everyone) == EmailResult(sent=[A, B], refused={C: "550 Unknown"})
    assert [envelope.rcpt_tos for envelope in mailbox.taken] == [[A], [B]]
    assert mailbox.message(0)["Message-ID"] == mailbox.message(1)["Message-ID"]
    # An attempt that died after its last step sends nothing again.
    assert attempt(everyone) == EmailResult(sent=[A, B], refused={C: "550 Unknown"})
    assert len(mailbox.taken) == 2


def test_nobody_is_lost_when_the_server_hangs_up(start: Start, mailbox: Mailbox) -> None:
    start()
    mailbox.recipients = {A: ["550 Unknown"], B: ["421 Going down"]}
    attempt, everyone = Attempts(), arguments(to=[A, B, C])
    with pytest.raises(TemporaryError, match=f"{B}: 421 Going down; {C}: 421"):
        attempt(everyone)
    assert attempt(everyone) == EmailResult(sent=[B, C], refused={A: "550 Unknown"})


def test_it_does_not_fail_because_of_the_database_once_it_is_sent(
    start: Start, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    start()

    def save(_: dict[str, Any]) -> None:
        raise OperationalError("UPDATE", {}, Exception("the server closed the connection"))

    assert email(TaskContext(uuid4(), save=save), arguments()).sent == [A]
    assert len(mailbox.taken) == 1
    assert "it is not kept" in caplog.text


def test_a_server_that_does_not_answer_may_do_so_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        changes = {"smtp_host": "127.0.0.1", "smtp_port": server.getsockname()[1], "smtp_security": "none"}
        use(monkeypatch, changes)
        with pytest.raises(TemporaryError, match="cannot be reached"):
            Attempts()(arguments())
        server.listen()
        use(monkeypatch, {**changes, "smtp_timeout": 1})
        with pytest.raises(TemporaryError, match=r"hung up|cannot be reached"):
            Attempts()(arguments())


@pytest.mark.parametrize(
    ("greeting", "error"),
    [(b"554 Go away\r\n", PermanentError), (b"421 Later\r\n", TemporaryError), (b"", TemporaryError)],
)
def test_a_server_that_does_not_let_in(
    greeting: bytes, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        del client
        use(monkeypatch, {"smtp_host": "127.0.0.1", "smtp_port": server.getsockname()[1], "smtp_security": "none"})

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting)

        with pytest.raises(error):
            asyncio.run(both(answer, lambda: Attempts()(arguments())))


async def both(first: Callable[[], object], second: Callable[[], object]) -> None:
    await asyncio.gather(asyncio.to_thread(first), asyncio.to_thread(second))


def test_it_can_be_cancelled_before_it_is_sent(start: Start, mailbox: Mailbox) -> None:
    start()
    context = TaskContext(uuid4())
    context.stop(CancelledError)
    with pytest.raises(CancelledError):
        email(context, arguments())
    assert mailbox.taken == []


@dataclass
class Stored:
    """A file, in place of those that are in the storage."""

    name: str
    content_type: str
    content: bytes
    id: UUID = field(default_factory=uuid4)

    @property
    def key(self) -> str:
        return self.id.hex

    @property
    def size(self) -> int:
        return len(self.content)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[Stored]], list[str]]:
    """Put files where attachments are read from, and return their identifiers."""
    files: dict[UUID, Stored] = {}

    class Storage:
        def get(self, key: str) -> Iterator[bytes]:
            content = files[UUID(key)].content
            return iter([content[:3], content[3:]])

    class Session:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

    def open_file(_: object, file_id: UUID) -> Stored:
        if file_id not in files:
            raise ObjectMissingError(f"file {file_id}")
        return files[file_id]

    monkeypatch.setattr(files_service, "open_file", open_file)
    monkeypatch.setattr(module, "get_storage", Storage)
    monkeypatch.setattr(db, "session", Session)

    def put(these: Sequence[Stored]) -> list[str]:
        files.update({each.id: each for each in these})
        return [str(each.id) for each in these]

    return put


def test_files_are_attached(start: Start, mailbox: Mailbox, store: Callable[[Sequence[Stored]], list[str]]) -> None:
    start()
    ids = store(
        [
            Stored("report.pdf", "application/pdf", bytes(range(256)) * 10),
            Stored("Übersicht\r\nX-Evil: 1.txt", "text/plain; charset=utf-8", "Grüße\n".encode()),
            Stored("mail.eml", "message/rfc822", b"Subject: x\r\n\r\ny"),
            Stored("strange", "nonsense", b"abc"),
        ]
    )
    Attempts()(arguments(attachments=ids))
    message = mailbox.message()
    assert "X-Evil" not in message
    found = [
        (part.get_filename(), part.get_content_type(), part.get_payload(decode=True))
        for part in message.iter_attachments()
    ]
    assert found[0] == ("report.pdf", "application/pdf", bytes(range(256)) * 10)
    assert found[1][1:] == ("text/plain", "Grüße\n".encode())
    assert found[2] == ("mail.eml", "application/octet-stream", b"Subject: x\r\n\r\ny")
    assert found[3] == ("strange", "application/octet-stream", b"abc")
    body = message.get_body()
    assert body is not None
    assert body.get_content().strip() == "Hello there."


def test_attachments_have_a_limit_in_all(
    start: Start, mailbox: Mailbox, store: Callable[[Sequence[Stored]], list[str]]
) -> None:
    start()
    half = bytes(module.ATTACHMENTS_MAX_SIZE // 2)
    ids = store([Stored("a", "a/b", half), Stored("b", "a/b", half + b"1")])
    with pytest.raises(PermanentError, match="more than 10 MiB"):
        Attempts()(arguments(attachments=ids))
    assert mailbox.taken == []


def test_an_attachment_that_was_deleted_meanwhile_ends_it(
    start: Start, mailbox: Mailbox, store: Callable[[Sequence[Stored]], list[str]]
) -> None:
    start()
    gone = uuid4()
    with pytest.raises(PermanentError, match=f"no longer there: file {gone}"):
        Attempts()(arguments(attachments=[*store([Stored("a", "a/b", b"")]), gone]))
    assert mailbox.taken == []


def test_messages_with_attachments_wait_for_one_another(
    start: Start,
    mailbox: Mailbox,
    store: Callable[[Sequence[Stored]], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start()
    places = BoundedSemaphore(1)
    monkeypatch.setattr(module, "WITH_ATTACHMENTS", places)
    monkeypatch.setattr(module, "PATIENCE", 1)
    with_attachment = arguments(attachments=store([Stored("a", "text/plain", b"abc")]))
    with places:
        with pytest.raises(TemporaryError, match="Too many"):
            Attempts()(with_attachment)
        assert Attempts()(arguments()).sent == [A], "others need not wait"
    for _ in range(2):
        assert Attempts()(with_attachment).sent == [A], "the place is given back"
    assert len(mailbox.taken) == 3


def test_only_ones_own_files_can_be_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    user = SimpleNamespace(id=uuid4())
    own, others = uuid4(), uuid4()
    asked: list[tuple[object, ...]] = []

    async def may_use(session: object, by: Principal, file_id: UUID, location: Sequence[str | int]) -> None:
        asked.append((session, by, file_id, tuple(location)))
        if file_id == others:
            raise NotFoundError("no such file")

    monkeypatch.setattr(files_service, "may_use", may_use)
    check = KINDS["email"].check
    assert check is not None
    session = cast("Any", object())
    with pytest.raises(NotFoundError):
        asyncio.run(check(session, cast("Any", user), arguments(attachments=[own, others])))  # type: ignore[arg-type]
    place = ("body", "arguments", "attachments")
    assert asked == [(session, user, own, (*place, 0)), (session, user, others, (*place, 1))]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "someone",
        "@example.com",
        "a@",
        "a@b@c",
        "a b@example.com",
        "a@example.com\r\nBcc: b@example.com",
        "a@example.com\n",
        "a@example..com",
        "a@-example.com",
        ".a@example.com",
        "a.@example.com",
        f"{'a' * 65}@b.de",
        "Name <a@example.com>",
        "a@example.com, b@example.com",
        "ä@example.com",
        "a@exämple.com",
        "a@" + ".".join(["b" * 63] * 4),
        1,
    ],
)
@pytest.mark.parametrize("place", ["to", "cc", "bcc"])
def test_what_is_not_an_address_is_refused(address: object, place: str) -> None:
    with pytest.raises(ValidationError):
        arguments(**{place: [address]})


@pytest.mark.parametrize("separator", ["\r\n", "\n", "\r", "\x00", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_subject_is_one_line(separator: str) -> None:
    with pytest.raises(ValidationError):
        arguments(subject=f"Hello{separator}Bcc: b@example.com")


@pytest.mark.parametrize(
    "changes",
    [
        {"to": []},
        {"to": [A] * 51},
        {"cc": [A] * 51},
        {"subject": ""},
        {"subject": "x" * 256},
        {"text": None},
        {"text": ""},
        {"text": "x" * 100_001},
        {"text": "\x00"},
        {"text": "\ud800"},
        {"attachments": [str(UUID(int=number)) for number in range(11)]},
        {"attachments": ["report.pdf"]},
        {"from": A},
    ],
)
def test_other_arguments_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        arguments(**changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"smtp_host": None}, "SMTP_HOST is not set"),
        ({"smtp_from": "nobody"}, "SMTP_FROM is not an address"),
        ({"smtp_username": "u"}, "SMTP_USERNAME is set without SMTP_PASSWORD"),
        ({"smtp_username": "u", "smtp_password": SecretStr("ü")}, "SMTP_USERNAME and SMTP_PASSWORD must be ASCII"),
        ({"smtp_username": "u", "smtp_password": SecretStr("p")}, None),
    ],
)
def test_it_says_why_it_cannot_be_used(changes: dict[str, Any], reason: str | None) -> None:
    settings = get_settings().model_copy(update={"smtp_host": "mail.example.com", **changes})
    assert KINDS["email"].unavailable(settings) == reason


def test_the_schema_tells_what_is_allowed() -> None:
    schema = EmailArguments.model_json_schema()
    assert schema["properties"]["subject"]["pattern"] == module.ONE_LINE
    assert schema["properties"]["to"]["items"]["pattern"] == module.ADDRESS
    assert [each["required"] for each in schema["anyOf"]] == [["text"], ["html"]]


def test_the_kind() -> None:
    kind = KINDS["email"]
    assert (kind.queue, kind.time_limit, kind.max_attempts, kind.backoff) == (IO_QUEUE, 120, 6, 10.0)
    assert issubclass(TemporaryError, kind.retry_on)
    assert not issubclass(PermanentError, kind.retry_on)
    # What the documentation shows can be sent as it is.
    fields = EmailArguments.model_json_schema()["properties"]
    EmailArguments.model_validate({name: schema["examples"][0] for name, schema in fields.items()})
