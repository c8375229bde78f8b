"""Forms: what was put in, and what is wrong with it, beside the field that it is about."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import ValidationError

from fba_app.problems import ProblemError

NESTED = ("body", "task", "arguments")
"""What leads to a form's fields in the API's requests."""

Values = Mapping[str, Sequence[str]]

EMPTY = {"missing", "string_too_short", "too_short"}
NO_INTEGER = {"int_type", "int_parsing", "int_from_float"}
SHOWN = 100
"""Characters of a wrong value that a message repeats."""


class Form:
    """The fields of a form by name; a field can have several values."""

    def __init__(self, values: Values | None = None) -> None:
        self.values = dict(values or {})
        self.errors: dict[str, str] = {}
        """What is wrong with a field."""
        self.problem: str | None = None
        """What is wrong with all of it."""

    def text(self, name: str) -> str:
        """Return a field's value; empty if there is none."""
        return next(iter(self.values.get(name, ())), "")

    def texts(self, name: str) -> list[str]:
        """Return all of a field's values."""
        return list(self.values.get(name, ()))

    def words(self, name: str) -> list[str]:
        """Return what a field holds between commas and newlines."""
        return [word.strip() for word in self.text(name).replace("\n", ",").split(",") if word.strip()]

    def number(self, name: str) -> int | str | None:
        """Return a field's integer; None if it is empty, and the text itself if it is no integer."""
        text = self.text(name).strip()
        # No number that counts here has more digits, and Python refuses to read thousands of them.
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text or None

    def uses(self, *names: str) -> bool:
        """Return whether one of the fields holds anything, or is wrong."""
        return any(self.text(name) or name in self.errors for name in names)

    @property
    def faulty(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.errors or self.problem)

    def refuse(self, error: ValidationError | ProblemError, kind: str = "") -> int:
        """Take over what is wrong, and return the HTTP status to say it with. `kind` is that of the form's task."""
        faults: list[tuple[Sequence[str | int], str]]
        if isinstance(error, ValidationError):
            faults = [(each["loc"], _message(each)) for each in error.errors(include_url=False, include_context=False)]
            status = 422
        else:
            faults = [(each.location, _sentence(each.message)) for each in error.errors or []]
            status = error.status_code
            if not faults:
                self.problem = error.detail
        for location, message in faults:
            name = _field(location, kind)
            if name is None:
                self.problem = message
            else:
                self.errors.setdefault(name, message)
        return status


def _field(location: Iterable[str | int], kind: str) -> str | None:
    names = [part for part in location if isinstance(part, str)]
    while names and names[0] in (*NESTED, kind):
        names.pop(0)
    return names[0] if names else None


def _sentence(text: str) -> str:
    text = text.removeprefix("Value error, ").replace("Input should", "This should")
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _message(error: Any) -> str:  # noqa: ANN401
    value = error["input"]
    if value is None or (error["type"] in EMPTY and not value):
        return "Fill this in."
    if error["type"] in NO_INTEGER:
        return "Enter a whole number."
    if error["type"] == "string_pattern_mismatch":
        return f"“{str(value)[:SHOWN]}” is not in the right form."
    return _sentence(error["msg"])


async def _posted(request: Request) -> Form:
    values: dict[str, list[str]] = {}
    async with request.form() as data:
        for name, value in data.multi_items():
            if isinstance(value, str):
                # As everywhere but in what browsers send.
                values.setdefault(name, []).append(value.replace("\r\n", "\n"))
    return Form(values)


Posted = Annotated[Form, Depends(_posted)]
"""The form that a request brings."""
