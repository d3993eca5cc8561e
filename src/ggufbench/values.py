"""Base types of stored documents, and messages about values that pydantic refuses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ggufbench.text import did_you_mean, escaped, printable

# A number in a file can have any size; a real value never exceeds this.
Count = Annotated[int, Field(ge=0, lt=2**63)]


Bytes = Count

FileBytes = Annotated[Count, Field(gt=0)]
"""Size of a file with content, which sizes are divided by."""


MOST_AMOUNT = 1e16
"""Limit of every stored number with a fraction: no machine has 10 petabytes or as many seconds."""

Amount = Annotated[float, Field(gt=-MOST_AMOUNT, lt=MOST_AMOUNT)]


Seconds = Annotated[float, Field(ge=0, lt=MOST_AMOUNT)]


Name = Annotated[str, Field(max_length=2**14)]
"""A name from a file, a library or a user; a longer one comes from a damaged file."""


Sentence = Name
"""A reason or a fact of the machine, which tables and pages repeat for each case."""


def moment(text: str) -> datetime:
    """The time in UTC of a text in ISO 8601, which is in UTC if it names no zone. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{printable(text, 60)} is not a time in ISO 8601") from None


def _with_time(text: str) -> str:
    moment(text)
    return text


Created = Annotated[str, AfterValidator(_with_time)]

_T = TypeVar("_T")


def _possible(value: _T) -> _T:
    for name, number in asdict(value).items():  # type: ignore[call-overload]  # a dataclass
        for one in number if isinstance(number, list) else [number]:
            if isinstance(one, int | float) and not -MOST_AMOUNT < one < MOST_AMOUNT:
                raise ValueError(f"{name} is too large to be real")
    return value


Possible = AfterValidator(_possible)
"""Validator of a dataclass whose module cannot import pydantic: its numbers have the limits of `Amount`."""


class Part(BaseModel):
    """A part of a stored document: immutable, and strict about its names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def first_complaint(error: ValidationError) -> str:
    """Place and reason of an error in a stored document: `launches.0.outcome: Input should be ...`."""
    first = error.errors(include_url=False)[0]
    where = ".".join(escaped(str(part)[:80]) for part in first["loc"]) or "document"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


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
