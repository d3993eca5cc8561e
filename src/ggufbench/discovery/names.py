"""Display names, without characters that are unsafe in a terminal or a path."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection
from pathlib import Path

from ggufbench.paths import home_folder
from ggufbench.text import printable

_KEPT = frozenset(" ._-+()")
_MOST = 80
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")
_PREFIX = r"(?:UD|i1)"  # before the quantization of a publisher's own mixture
_TYPE = r"""
    (?: I?Q[1-9] (?:[_-][0-9])? (?:[_-][48][_-][48])? (?:[_-]K[A-Z]{0,2})? (?:[_-](?:[XSML]{1,3}|NL|P|H))?
      | TQ[12][_-]0 | BF16 | F16 | F32 | FP16 | FP32 | MXFP4 (?:[_-]MOE)? | NVFP4 )
"""
_QUANTIZATION = re.compile(rf"(?:^|[-._ ])((?:{_PREFIX}[-._])?{_TYPE})$", re.IGNORECASE | re.VERBOSE)
_WITHIN = re.compile(
    rf"(?:^|[-._ ])((?:{_PREFIX}[-._])?(?=[^-. ]*_){_TYPE})(?=[-._ ]|$)", re.IGNORECASE | re.VERBOSE
)
_PREFIXES = {"ud": "UD-", "i1": "i1-"}


def clean(text: str, fallback: str = "model") -> str:
    """`text` with every character but letters, digits and ` ._-+()` replaced by `_`; 1 to 80 characters."""
    normal = unicodedata.normalize("NFC", text[: 8 * _MOST])
    kept = "".join(c if c.isalnum() or c in _KEPT else "_" for c in normal)
    return kept[:_MOST].strip() or fallback


def model_name(stem: str) -> str:
    """Name of a model from its file stem, without shard number and quantization.

    `Qwen3-8B-Q4_K_M-00001-of-00003` becomes `Qwen3-8B`.
    """
    whole = _SHARD.sub("", stem)
    return clean(_QUANTIZATION.sub("", whole) or whole)


def quantization_in(stem: str) -> str | None:
    """Quantization in a file stem, in its usual spelling: `Q4_K_M`, `UD-Q4_K_XL`, `i1-IQ2_XS`.

    The last one counts. One with an underscore may be followed by other words: `x-Q4_K_M-imat`.
    """
    whole = _SHARD.sub("", stem)
    found = _QUANTIZATION.search(whole)
    if found:
        return spelled(found[1])
    inside = _WITHIN.findall(whole)
    return spelled(inside[-1]) if inside else None


def without_shard(stem: str) -> str:
    """A file stem without its shard number."""
    return _SHARD.sub("", stem)


def spelled(quantization: str) -> str:
    """A quantization in its usual spelling: `ud.q4-k-xl` becomes `UD-Q4_K_XL`."""
    text = quantization.strip()
    prefix = _PREFIXES.get(text[:2].lower(), "") if text[2:3] in ("-", ".", "_") else ""
    return prefix + text[3 if prefix else 0 :].upper().replace("-", "_")


def unprefixed(quantization: str) -> str:
    """A quantization without the prefix of its publisher: `UD-Q4_K_XL` becomes `Q4_K_XL`."""
    return next(
        (quantization[3:] for one in _PREFIXES.values() if quantization.startswith(one)), quantization
    )


def having(wanted: str, labels: Collection[str]) -> set[str]:
    """The quantizations among `labels` that a user means; a prefix may be left out if none is without it."""
    asked = spelled(wanted)
    exact = {label for label in labels if spelled(label) == asked}
    return exact or {label for label in labels if unprefixed(spelled(label)) == asked}


def ollama_name(parts: tuple[str, ...]) -> str:
    """Model name from the path of an Ollama manifest: `.../library/llama3.2/1b` becomes `llama3.2-1b`."""
    words = [word for word in parts[-2:] if word != "latest"]
    return model_name("-".join(words))


def ollama_tag(parts: tuple[str, ...]) -> str:
    """Name of a model as Ollama writes it: `llama3.2:1b`, `owner/x:latest`, `hf.co/owner/x:Q8_0`."""
    *folders, model, tag = parts if len(parts) > 1 else (*parts, "latest")
    place = [one for one in folders if one not in ("registry.ollama.ai", "library")]
    return printable("/".join([*place, model]) + f":{tag}")


def clean_repository(text: str) -> str | None:
    """Cleaned `owner/name`; None if owner or name is missing."""
    owner, _, name = text.partition("/")
    return f"{clean(owner)}/{clean(name)}" if owner and name else None


def _working_folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was deleted
        return None


def portable_path(path: Path) -> str:
    """A path for display and records: relative to the working directory or to home if it lies below it.

    Bytes of a name that are not valid text are written as `\\xff`, because JSON cannot represent them.
    """
    shown = str(path)
    for base, prefix in ((_working_folder(), ""), (home_folder(), "~/")):
        if base is not None and path.is_relative_to(base):
            shown = prefix + path.relative_to(base).as_posix()
            break
    return os.fsencode(shown).decode("utf-8", errors="backslashreplace")
