"""A byte-level BPE vocabulary of any size, in which every token can be reached by merges.

256 byte symbols make every text tokenizable. Common English letter groups come first, so that prose takes
fewer tokens than bytes, as with a real vocabulary; words of two-letter syllables fill the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product

CONTROL_TOKENS = ("<|begin_of_text|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Control tokens: the last ones of the vocabulary."""

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_SPACE = "Ġ"
# Each group without its last letter is a letter or an earlier group.
_ENGLISH = """
th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri
ro ic ne ea ra ce li ch ll be ma si om ur ca el ta la ns di fo ho pe ec pr no ct us ac ot il tr ly nc et ut ss
so wh wi we wa sh my yo if up do go you the and ing ion ent her hat tha ere ate ter all tio tion that wit with
"""
_GROUPS = tuple(_ENGLISH.split())
_SYLLABLES = tuple(first + second for first, second in product("bcdfghjklmnpqrstvwxz", "aeiou"))


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens and merges of a tokenizer of type `gpt2`."""

    tokens: tuple[str, ...]
    """Printable symbols of the bytes, then one word per merge, then the control tokens."""
    merges: tuple[str, ...]

    def control_id(self, token: str) -> int:
        """The id of one of `CONTROL_TOKENS`."""
        return len(self.tokens) - len(CONTROL_TOKENS) + CONTROL_TOKENS.index(token)


def build_vocabulary(size: int) -> Vocabulary:
    """A vocabulary of exactly `size` tokens; at least 512, at most 262,144."""
    symbols = byte_symbols()
    merges = list(islice(_merges(symbols), size - len(symbols) - len(CONTROL_TOKENS)))
    tokens = (*symbols, *(left + right for left, right in merges), *CONTROL_TOKENS)
    return Vocabulary(tokens, tuple(f"{left} {right}" for left, right in merges))


def quiet_tokens(size: int) -> tuple[range, ...]:
    """Ids that should not occur in an answer: they would end it, or are bytes that are not text."""
    return range(0x20), range(0x7F, 0x100), range(size - len(CONTROL_TOKENS), size)


def byte_symbols() -> tuple[str, ...]:
    """A printable character for each byte, in byte order: the Latin-1 character, or one from U+0100 up."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(others)) for byte in range(256))


def _merges(symbols: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Pairs of existing tokens that form a new one; enough of them for every allowed size."""
    known = set(symbols)
    for left, right in _pairs():
        if left in known and right in known and left + right not in known:
            known.add(left + right)
            yield left, right


def _pairs() -> Iterator[tuple[str, str]]:
    yield from ((group[:-1], group[-1]) for group in _GROUPS)
    yield from ((_SPACE, letter) for letter in "abcdefghijklmnopqrstuvwxyz")
    yield from ((_SPACE, group) for group in _GROUPS)
    yield from ((syllable[0], syllable[1]) for syllable in _SYLLABLES)
    yield from ((_SPACE, syllable) for syllable in _SYLLABLES)
    yield from product(_SYLLABLES, _SYLLABLES)
    yield from ((_SPACE + first, second) for first, second in product(_SYLLABLES, _SYLLABLES))
    for first, second, third in product(_SYLLABLES, repeat=3):
        yield _SPACE + first + second, third
