"""Kinds of values that requests may carry."""

from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints


def _storable(value: str) -> str:
    """Refuse what PostgreSQL cannot keep: U+0000, and the halves of surrogate pairs, which JSON lets through."""
    if "\0" in value:
        raise ValueError("must not contain the character U+0000")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode") from None
    return value


Storable = AfterValidator(_storable)
Text = Annotated[str, Storable]
"""Any text that PostgreSQL can keep."""

ShortText = Annotated[str, StringConstraints(min_length=1, max_length=255), Storable]
"""A name or a subject."""


def _written_out(value: object) -> object:
    """Refuse a number of seconds, which pydantic would take for a moment, and the document does not allow."""
    if isinstance(value, str) and "T" not in value.upper():
        raise ValueError("must be a date and time with an offset, such as 2026-11-20T12:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]
"""A date and time with its offset."""

BigInt = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Model(BaseModel):
    """What every request body and answer derives from: an unknown key is an error, not a thing to pass over."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)


Item = TypeVar("Item")


class Page(Model, Generic[Item]):
    """Some of a list, the newest first, and where the next ones begin."""

    items: list[Item]
    next: str | None = Field(description="Give it back as `cursor` for the items after these; absent at the end.")


Json = dict[str, Any]
