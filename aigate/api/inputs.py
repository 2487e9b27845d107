"""Shapes of what callers send to the control plane, shared by several routes."""

import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query
from pydantic import AliasChoices, AliasGenerator, BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel


class Input(BaseModel):
    """A JSON body. Fields may be spelt in snake_case or camelCase; a field that we do not know is an error, not a silence."""

    model_config = ConfigDict(
        extra="forbid",
        str_strip_whitespace=True,
        alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(name, to_camel(name))),
    )


Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]  # text without control characters

Month = Annotated[str | None, Query(pattern=r"^\d{4}-(0[1-9]|1[0-2])$", description="YYYY-MM, UTC; this month when left out")]


def month_or_now(month: str | None) -> str:
    return month or datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m")
