"""Base types of stored documents, and messages about values that pydantic refuses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ggufbench.text import did_you_mean, escaped, printable

# A number in a file can have any size; a real value never exceeds this.
Count = Annotated[int, Field(ge=0, lt=2**63)]


Bytes = Count


Seconds = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A part of a stored document: immutable, and strict about its names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def first_complaint(error: ValidationError) -> str:
    """Place and reason of an error in a stored document: `launches.0.outcome: Input should be ...`."""
    first = error.errors(include_url=False)[0]
    where = ".".join(escaped(str(part)[:80]) for part in first["loc"]) or "document"
    return f"{where}: {first['msg']}"


def complaint(error: ValidationError, table: type[BaseModel], unlisted: Collection[str] = ()) -> str:
    """One sentence about a user's value: the key, the value, the reason and the fix.

    An unknown key comes first, because it is often why another one is missing. `unlisted` keys are not
    suggested in its place.
    """
    complaints = error.errors(include_url=False)
    first = next((found for found in complaints if found["type"] == "extra_forbidden"), complaints[0])
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    unknown = first["type"] == "extra_forbidden"
    names, inside = _names(first["loc"], table, unknown=unknown)
    key = ".".join(printable(name, 60) for name in names) or table.__name__
    if unknown:
        known = [name for name in inside.model_fields if name not in unlisted]
        return f"unknown key {key}{did_you_mean(names[-1], known) or '; known here: ' + ', '.join(known)}"
    if first["type"] in ("model_type", "model_attributes_type"):
        return f"{key} is not a table; write it as [{key}] with its keys below"
    if first["type"] == "missing":
        return f"{key} is missing; add it"
    reasons = dict.fromkeys(
        found["msg"][:1].lower() + found["msg"][1:]
        for found in complaints
        if _names(found["loc"], table)[0] == names
    )
    return f"{key} = {printable(repr(first['input']), 60)} is not usable: {' or '.join(reasons)}"


def _names(
    place: Sequence[int | str], table: type[BaseModel], *, unknown: bool = False
) -> tuple[list[str], type[BaseModel]]:
    """The keys of a location in a table, and the innermost table.

    If a key may have one of several types, pydantic adds the type that it tried to the location; this is not
    a key. An `unknown` location has all of its parts.
    """
    names, inside = [], table
    for part in map(str, place):
        field = inside.model_fields.get(part)
        if field is not None or unknown:
            names.append(part)
        inside = (_table_in(field.annotation) if field else None) or inside
    return names, inside


def _table_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _table_in(part))), None)
