"""What users and roles may be called."""

from typing import Annotated

from pydantic import StringConstraints

NAME = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$"

Username = Annotated[str, StringConstraints(pattern=NAME, to_lower=True)]
RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
