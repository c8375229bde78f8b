"""The kind `email`: a message to some people, through the mail server that the settings name."""

import logging
import re
import smtplib
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address as Mailbox
from email.message import EmailMessage
from email.utils import parseaddr
from functools import lru_cache
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from fba_app import db
from fba_app.files import service as files
from fba_app.files.storage import ObjectMissingError, StorageUnavailableError, get_storage
from fba_app.settings import Settings, get_settings
from fba_app.tasks.context import TaskContext
from fba_app.tasks.registry import IO_QUEUE, kind
from fba_app.types import Model, Storable, Text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from fba_app.users.principal import Principal

ATTACHMENTS_MAX_SIZE = 10 * 2**20
"""Bytes of all the attachments of one message."""

WITH_ATTACHMENTS = BoundedSemaphore(4)
"""How many messages with attachments a process, in which thousands of tasks may run, holds in memory at once."""

PATIENCE = 60
"""Seconds to wait for one of these places."""

_LETTERS = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# Before the @, no more than RFC 5321 allows: Python breaks a longer word when it folds the header.
ADDRESS = rf"^[{_LETTERS}]([.{_LETTERS}]{{0,62}}[{_LETTERS}])?@{_LABEL}(\.{_LABEL})*$"

Address = Annotated[
    str,
    StringConstraints(max_length=254, pattern=ADDRESS),
    Field(description="Without a name. An internationalised domain is written in its ASCII form, `xn--…`."),
]
Addresses = Annotated[list[Address], Field(max_length=50)]
# Nothing that could end a header and begin another one.
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"
Line = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=ONE_LINE), Storable]
Body = Annotated[Text, StringConstraints(min_length=1, max_length=100_000)]

Answers = Mapping[str, tuple[int, bytes | str]]
"""What the mail server says of recipients that it refuses: a code and a text."""


logger = logging.getLogger(__name__)


class TemporaryError(Exception):
    """The mail server, or the way to it, may have recovered when the next attempt comes."""


class PermanentError(Exception):
    """A further attempt would fail just the same."""


class EmailArguments(Model):
    """The message."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": [body], "properties": {body: {"type": "string"}}} for body in ("text", "html")]
        }
    )

    to: Addresses = Field(min_length=1, examples=[["someone@example.com"]])
    cc: Addresses = Field(default=[], examples=[[]])
    bcc: Addresses = Field(default=[], description="Recipients that the message does not name.", examples=[[]])
    subject: Line = Field(examples=["Good morning"])
    text: Body | None = Field(default=None, examples=["Hello,\n\nthe report is ready.\n"])
    html: Body | None = Field(
        default=None,
        description="What most programs show instead of the text.",
        examples=["<p>Hello,</p><p>the report is ready.</p>"],
    )
    attachments: list[UUID] = Field(
        default=[],
        max_length=10,
        description=f"Identifiers of files, {ATTACHMENTS_MAX_SIZE // 2**20} MiB in all.",
        examples=[[]],
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.text is None and self.html is None:
            raise ValueError("text or html is required")
        return self


class EmailResult(Model):
    """For whom the mail server took the message, and for whom not."""

    sent: list[str] = Field(examples=[["someone@example.com"]])
    refused: dict[str, str] = Field(description="Addresses and the server's reasons.", examples=[{}])


def _unavailable(settings: Settings) -> str | None:
    username, password = settings.smtp_username, settings.smtp_password
    if settings.smtp_host is None:
        return "SMTP_HOST is not set"
    if not re.match(ADDRESS, parseaddr(settings.smtp_from)[1]):
        return "SMTP_FROM is not an address"
    if username is not None and password is None:
        return "SMTP_USERNAME is set without SMTP_PASSWORD"
    if username is not None and password is not None and not (username + password.get_secret_value()).isascii():
        return "SMTP_USERNAME and SMTP_PASSWORD must be ASCII"  # all that smtplib can send
    return None


async def _check(session: "AsyncSession", user: "Principal", arguments: EmailArguments) -> None:
    for index, file_id in enumerate(arguments.attachments):
        await files.may_use(session, user, file_id, ("body", "arguments", "attachments", index))


@contextmanager
def _place_in_memory(context: TaskContext, arguments: EmailArguments) -> Iterator[None]:
    if not arguments.attachments:
        yield
        return
    for _ in range(PATIENCE):
        context.check()
        if WITH_ATTACHMENTS.acquire(timeout=1):
            break
    else:
        raise TemporaryError("Too many messages with attachments are being sent.")
    try:
        yield
    finally:
        WITH_ATTACHMENTS.release()


def _attach(message: EmailMessage, file_ids: Sequence[UUID]) -> None:
    try:
        with db.session() as session:
            attachments = [files.open_file(session, file_id) for file_id in file_ids]
        if sum(each.size for each in attachments) > ATTACHMENTS_MAX_SIZE:
            raise PermanentError(f"The attachments have more than {ATTACHMENTS_MAX_SIZE // 2**20} MiB.")
        contents = [b"".join(get_storage().get(each.key)) for each in attachments]
    except ObjectMissingError as error:
        raise PermanentError(f"An attachment is no longer there: {error}") from error
    for each, content in zip(attachments, contents, strict=True):
        main_type, _, sub_type = each.content_type.partition(";")[0].strip().partition("/")
        if not sub_type or main_type in ("message", "multipart"):  # which cannot be plain bytes
            main_type, sub_type = "application", "octet-stream"
        message.add_attachment(content, maintype=main_type, subtype=sub_type, filename=each.name)


def _compose(task_id: UUID, sender: Mailbox, arguments: EmailArguments) -> EmailMessage:
    # Not every server on the way takes bytes beyond ASCII.
    message = EmailMessage(policy.SMTP.clone(cte_type="7bit"))
    message["From"] = sender
    message["To"] = ", ".join(arguments.to)
    if arguments.cc:
        message["Cc"] = ", ".join(arguments.cc)
    message["Subject"] = arguments.subject
    message["Date"] = datetime.now(UTC)
    # The same in each attempt, so that a message can be told to be one that was sent before, when the answer was lost.
    message["Message-ID"] = f"<{task_id}@{sender.domain}>"
    if arguments.text is None:
        message.set_content(arguments.html, subtype="html")
    else:
        message.set_content(arguments.text)
        if arguments.html is not None:
            message.add_alternative(arguments.html, subtype="html")
    if arguments.attachments:
        _attach(message, arguments.attachments)
    return message


@lru_cache
def _tls(ca_file: Path | None) -> ssl.SSLContext:
    # One for all: with the system's authorities it takes a megabyte, and time.
    return ssl.create_default_context(cafile=ca_file)


@contextmanager
def _server(settings: Settings) -> Iterator[smtplib.SMTP]:
    host, port, timeout = settings.smtp_host or "", settings.smtp_port, settings.smtp_timeout
    server: smtplib.SMTP
    if settings.smtp_security == "tls":
        server = smtplib.SMTP_SSL(host, port, timeout=timeout, context=_tls(settings.smtp_ca_file))
    else:
        server = smtplib.SMTP(host, port, timeout=timeout)
    with closing(server):
        if settings.smtp_security == "starttls":
            server.starttls(context=_tls(settings.smtp_ca_file))
        if settings.smtp_username and settings.smtp_password:
            server.login(settings.smtp_username, settings.smtp_password.get_secret_value())
        yield server
        # The message is handed over, whatever the server says to that.
        with suppress(smtplib.SMTPException):
            server.quit()


def _reason(code: int, text: bytes | str) -> str:
    text = text if isinstance(text, str) else text.decode(errors="replace")
    return f"{code} {''.join(each if each.isprintable() else ' ' for each in text)[:200]}"


def _list(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{address}: {reason}" for address, reason in reasons.items())[:2000]


def _hand_over(message: EmailMessage, sender: Mailbox, recipients: Sequence[str]) -> Answers:
    """Send the message, and return what the server answers for those recipients for whom it does not take it.

    Raises:
        TemporaryError, PermanentError: it did not come to that.
    """
    try:
        with _server(get_settings()) as server:
            try:
                return server.send_message(message, sender.addr_spec, recipients)
            except smtplib.SMTPRecipientsRefused as error:
                # After a 421, the server was not asked about the others.
                return dict.fromkeys(recipients, (421, b"the server hung up")) | error.recipients
            except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
                return dict.fromkeys(recipients, (error.smtp_code, error.smtp_error))
    except ssl.SSLCertVerificationError as error:
        raise PermanentError(f"The mail server's certificate is not valid: {error.verify_message}") from error
    except smtplib.SMTPResponseException as error:
        failure = PermanentError if 500 <= error.smtp_code < 600 else TemporaryError
        raise failure(f"The mail server refused: {_reason(error.smtp_code, error.smtp_error)}") from error
    except smtplib.SMTPServerDisconnected as error:
        raise TemporaryError(f"The mail server hung up: {error}") from error
    except smtplib.SMTPException as error:
        raise PermanentError(f"The mail server cannot do what is needed: {error}") from error
    except OSError as error:
        raise TemporaryError(f"The mail server cannot be reached: {error}") from error


@kind(
    "email",
    queue=IO_QUEUE,
    time_limit=120,
    max_attempts=6,
    retry_on=(TemporaryError, *db.AWAY, StorageUnavailableError),
    backoff=10.0,
    check=_check,
    unavailable=_unavailable,
)
def email(context: TaskContext, arguments: EmailArguments) -> EmailResult:
    """Send an e-mail. Recipients whom the mail server cannot serve just now are tried again later, and only they."""
    sent: list[str] = list(context.checkpoint.get("sent", []))
    refused: dict[str, str] = dict(context.checkpoint.get("refused", {}))
    everyone = dict.fromkeys(arguments.to + arguments.cc + arguments.bcc)
    pending = [address for address in everyone if address not in sent and address not in refused]
    if pending:
        context.progress(0, f"sending to {len(pending)} of {len(everyone)}")
        name, address = parseaddr(get_settings().smtp_from)
        sender = Mailbox(name, addr_spec=address)
        with _place_in_memory(context, arguments):
            message = _compose(context.id, sender, arguments)
            answers = _hand_over(message, sender, pending)
        sent += [address for address in pending if address not in answers]
        refused |= {address: _reason(*answer) for address, answer in answers.items() if answer[0] >= 500}
        try:
            context.save_checkpoint({"sent": sent, "refused": refused})
        except db.AWAY as error:
            # The message is sent: to fail now would be to send it again.
            logger.warning("it is not kept to whom the message of task %s was sent: %s", context.id, error)
        later = {address: _reason(*answer) for address, answer in answers.items() if answer[0] < 500}
        if later:
            raise TemporaryError(f"Not yet sent to all: {_list(later)}")
    if not sent:
        raise PermanentError(f"Refused for all recipients: {_list(refused)}")
    return EmailResult(sent=sent, refused=refused)
