"""The command that asks a model: chat."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ggufbench.cli.options import harmless, print_error
from ggufbench.errors import GgufbenchError
from ggufbench.paths import expanded, unusable_path
from ggufbench.text import count

if TYPE_CHECKING:
    from ggufbench.chat import LlamaCppModelConfig
    from ggufbench.chat.model import ChatLlamaCpp

_TEMPLATE_TOKENS = 16
"""Tokens reserved for the text that a chat template adds around a question and its answer."""


def chat(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="GGUF file, owner/name, or a name of `ggufbench models`.")
    ],
    question: Annotated[
        str | None,
        typer.Argument(
            metavar="QUESTION", help="Question (default: read questions, one per line, until Ctrl-D)."
        ),
    ] = None,
    quant: Annotated[str | None, typer.Option(help="Quantization of owner/name, such as Q4_K_M.")] = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, max=2**20, help="Maximum number of tokens in an answer.")
    ] = 512,
    temperature: Annotated[
        float,
        typer.Option(min=0, max=100, help="Sampling temperature; 0 always takes the most likely token."),
    ] = 0.8,
) -> None:
    """Ask a model a question and stream its answer. The token rate is printed to standard error.

    A conversation that outgrows the context continues without its oldest turns.

    Example: ggufbench chat model.gguf "Why is the sky blue?"

    Exit codes: 0; 2 if the model cannot be found, loaded or asked.
    """
    from ggufbench.chat import get_chat_model

    try:
        speaker: Any = get_chat_model(_config(model, quant, max_tokens=max_tokens, temperature=temperature))
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            raise GgufbenchError(unusable_path(error)) from None
        raise GgufbenchError(str(error)) from None
    conversation = _Conversation(speaker, max_tokens)
    for text in [question] if question is not None else _lines():
        try:
            conversation.ask(_valid(text))
        except (ValueError, RuntimeError) as error:  # langchain's own among them
            if question is not None or not sys.stdin.isatty():
                raise GgufbenchError(str(error)) from None
            print_error(error)


class _Conversation:
    """The questions and answers so far; the oldest are dropped once the context is too small for the next."""

    def __init__(self, speaker: ChatLlamaCpp, max_tokens: int) -> None:
        self._speaker = speaker
        self._reserved = min(max_tokens, speaker.n_ctx // 4)
        self._turns: list[tuple[str, str]] = []
        self._tokens = 0
        """Tokens of all turns, as the last answer reported them."""

    def ask(self, question: str) -> None:
        """Stream the answer to standard output. Raises ChatModelError if the question alone is too long."""
        from langchain_core.messages import AIMessage, HumanMessage

        from ggufbench.chat.errors import PromptTooLongError

        kinds = (HumanMessage, AIMessage)
        self._drop_oldest(self._speaker.n_ctx - self._reserved - self._count(question))
        while True:
            talk = [kind(text) for turn in self._turns for kind, text in zip(kinds, turn, strict=True)]
            try:
                answer, self._tokens = _answer(self._speaker, [*talk, HumanMessage(question)])
            except PromptTooLongError:
                if not self._turns:
                    raise
                self._drop_oldest(self._tokens - 1)
            else:
                self._turns.append((question, answer))
                return

    def _drop_oldest(self, room: int) -> None:
        """Drop turns until the rest takes at most `room` tokens, and print how many were dropped."""
        dropped = 0
        while self._turns and self._tokens > room:
            self._tokens -= sum(self._count(text) for text in self._turns.pop(0))
            dropped += 1
        if dropped:
            print_error(
                f"the conversation exceeds the context of {self._speaker.n_ctx} tokens, so its oldest "
                f"{count(dropped, 'turn')} {'was' if dropped == 1 else 'were'} dropped"
            )

    def _count(self, text: str) -> int:
        return len(self._speaker.get_token_ids(text)) + _TEMPLATE_TOKENS // 2


def _valid(text: str) -> str:
    """The text with a replacement character for each byte that is not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _config(model: str, quant: str | None, **changes: Any) -> LlamaCppModelConfig:
    """The config of a file, with a context length that it was trained for. Raises GgufbenchError."""
    from ggufbench.chat.cache import find_gguf, rows
    from ggufbench.discovery import discover
    from ggufbench.discovery.model import KIND_NAMES

    path = expanded(model)
    if not path.is_file():
        if model.lower().endswith(".gguf") or path.exists():
            raise GgufbenchError(
                f"{model} is not a GGUF file; name one, or owner/name in the Hugging Face cache"
            )
        path = find_gguf(model, quantization=quant)
    elif quant is not None:
        raise GgufbenchError(
            f"--quant {quant} selects a file of owner/name, but {model} is a file; omit --quant"
        )
    found = discover([path])
    if not found.models:
        reason = found.rejected[0].reason if found.rejected else "it contains no model"
        raise GgufbenchError(f"{model} cannot be used for chat: {reason}")
    if found.models[0].kind != "generator":
        kind = KIND_NAMES[found.models[0].kind]
        raise GgufbenchError(
            f"{model} cannot be used for chat: it is {kind}; measure it with `ggufbench run`"
        )
    return rows(found.models)[0].config(**changes)


def _lines() -> Iterable[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    while True:
        if sys.stdin.isatty():
            typer.echo("> ", err=True, nl=False)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")


def _answer(speaker: ChatLlamaCpp, talk: list[Any]) -> tuple[str, int]:
    """Stream the answer to standard output; return it unchanged, and the tokens of prompt and answer.

    The rate includes the time to read the question. A piece of text may hold several tokens, so the number of
    tokens between the first piece and the last is not known.
    """
    from time import perf_counter

    said, usage, first = [], None, 0.0
    asked = perf_counter()
    for chunk in speaker.stream(talk):
        first = first or (perf_counter() - asked if chunk.text else 0.0)
        usage = chunk.usage_metadata or usage
        said.append(chunk.text)
        if reasoning := chunk.additional_kwargs.get("reasoning_content"):
            typer.echo(harmless(reasoning), nl=False, err=True)
        typer.echo(harmless(chunk.text), nl=False)
        sys.stdout.flush()
    seconds = perf_counter() - asked
    typer.echo()
    sys.stdout.flush()
    tokens = usage["output_tokens"] if usage else len(said)
    rate = f"{tokens} tokens in {seconds:.2f} s, {tokens / seconds:.1f} tokens/s including the prompt"
    typer.echo(f"{rate}; first text after {first:.2f} s", err=True)
    return "".join(said), usage["total_tokens"] if usage else 0
