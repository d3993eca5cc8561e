"""Display names, without characters that are unsafe in a terminal or a path."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

_KEPT = frozenset(" ._-+()")
_MOST = 80
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")
_QUANTIZATION = re.compile(
    r"""[-._ ]
    (?: (?:UD|i1) [-._] )?  # prefixes that publishers use
    ( I?Q[1-9] (?:_[0-9])? (?:_K)? (?:_(?:XXS|XS|S|M|L|XL|XXL|NL))?
    | Q4_0_[48]_[48] | TQ[12]_0 | BF16 | F16 | F32 | FP16 | FP32 | MXFP4 (?:[-_]MOE)? | NVFP4 )
    $""",
    re.IGNORECASE | re.VERBOSE,
)


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
    """Quantization at the end of a file stem, in upper case: `Q4_K_M`."""
    found = _QUANTIZATION.search(_SHARD.sub("", stem))
    return found.group(1).upper() if found else None


def ollama_name(parts: tuple[str, ...]) -> str:
    """Model name from the path of an Ollama manifest: `.../library/llama3.2/1b` becomes `llama3.2-1b`."""
    words = [word for word in parts[-2:] if word != "latest"]
    return model_name("-".join(words))


def clean_repository(text: str) -> str | None:
    """Cleaned `owner/name`; None if owner or name is missing."""
    owner, _, name = text.partition("/")
    return f"{clean(owner)}/{clean(name)}" if owner and name else None


def portable_path(path: Path) -> str:
    """A path for display and records: relative to the working directory or to home if it lies below it.

    Bytes of a name that are not valid text are written as `\\xff`, because JSON cannot represent them.
    """
    shown = str(path)
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(base):
            shown = prefix + path.relative_to(base).as_posix()
            break
    return os.fsencode(shown).decode("utf-8", errors="backslashreplace")
