"""What a request for a task looks like: one model for each kind that users may submit, told apart by `kind`."""

from typing import TYPE_CHECKING, Annotated, Literal, Union

from pydantic import BaseModel, Field, create_model

import fba_app.kinds  # noqa: F401
from fba_app.tasks.registry import KINDS, Kind
from fba_app.types import Model


class AnyTaskRequest(Model):
    """A kind of task and its arguments."""

    kind: str
    arguments: BaseModel


def _request(kind: Kind) -> type[AnyTaskRequest]:
    return create_model(
        f"{kind.name.title()}Request",
        __base__=AnyTaskRequest,
        __doc__=kind.description,
        kind=(Literal[kind.name], ...),  # type: ignore[arg-type]
        arguments=(kind.arguments, ...),
    )


if TYPE_CHECKING:
    TaskRequest = AnyTaskRequest
else:
    TaskRequest = Annotated[
        Union[tuple(_request(kind) for kind in KINDS.values() if kind.public)],  # noqa: UP007
        Field(discriminator="kind"),
    ]
