"""Base types of stored documents."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# A number in a file can be of any size, and of that size no figure is real.
Count = Annotated[int, Field(ge=0, lt=2**63)]


Bytes = Count


Seconds = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A part of a stored document: immutable, and strict about its names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
