"""The texts by which answers are compared, and their division into chunks.

All of them were written for this package. Several domains, because no quantization harms all of them equally;
and one long document, because errors of positions do not show in short chunks.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ggufbench.errors import GgufbenchError
from ggufbench.paths import read_regular
from ggufbench.text import printable

Domain = Literal["prose", "code", "numbers", "german", "dialogue", "long"]
DOMAINS: tuple[Domain, ...] = ("prose", "code", "numbers", "german", "dialogue", "long")

_FOLDER = Path(__file__).with_name("texts")
_MOST_BYTES = 2**22
"""Maximum size of a user's own text: about a million tokens, which take hours."""


class CorpusError(GgufbenchError):
    """A text is not usable; the message names the file, the reason and the fix."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a dialogue."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts by domain, and dialogues, which a model's own chat template turns into text."""

    name: str
    """`built-in`, or the name of the user's file."""
    texts: dict[str, str]
    dialogues: tuple[tuple[Message, ...], ...] = ()

    @property
    def digest(self) -> str:
        """Hash of all texts."""
        content = [sorted(self.texts.items()), [[(m.role, m.content) for m in d] for d in self.dialogues]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@cache
def shipped_corpus() -> Corpus:
    """The texts of this package."""
    texts: dict[str, str] = {
        name: (_FOLDER / f"{name}.txt").read_text(encoding="utf-8") for name in DOMAINS if name != "dialogue"
    }
    stored = json.loads((_FOLDER / "dialogue.json").read_text(encoding="utf-8"))
    dialogues = tuple(tuple(Message(**message) for message in dialogue) for dialogue in stored)
    return Corpus("built-in", texts, dialogues)


def corpus_for(text: str) -> Corpus:
    """The shipped texts, or those of a scenario that names a file. Raises CorpusError."""
    return corpus_of(Path(text)) if text else shipped_corpus()


def corpus_of(path: Path) -> Corpus:
    """A corpus of one text of the user. Raises CorpusError."""
    try:
        text = read_regular(path, _MOST_BYTES).decode()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}; give a text file with --text") from None
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not text: not UTF-8 at byte {error.start}; save it as UTF-8, or give another file"
        ) from None
    if not text.strip():
        raise CorpusError(f"{path} is empty; give a text of several pages with --text")
    return Corpus(printable(path.name), {"text": text})
