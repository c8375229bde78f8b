"""Kinds of values that requests may carry."""

from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


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
