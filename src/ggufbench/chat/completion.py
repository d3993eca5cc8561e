"""Generate the answer to a conversation, as text and tool calls."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import BaseMessage

from ggufbench.chat import reasoning, tools
from ggufbench.chat.call_formats import Call
from ggufbench.chat.control_tokens import Prompt, PromptTokenizer
from ggufbench.chat.engine import AnswerUsage, ChatEngine
from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.forms import Message
from ggufbench.chat.grammar import call_grammar, json_grammar
from ggufbench.chat.messages import to_template, with_instruction
from ggufbench.chat.options import Options
from ggufbench.chat.reasoning import Reader, Reasoning
from ggufbench.chat.sampling import Sampler
from ggufbench.chat.schemas import check_depth
from ggufbench.chat.template import CHATML, CHATML_END, Template
from ggufbench.chat.text_reader import TextReader
from ggufbench.chat.tools import ToolReader, argument_schemas, as_tool, describe
from ggufbench.text import printable

Tool = Mapping[str, Any]
Part = str | Reasoning | Call
Schema = Mapping[str, Any]

_ANY_OBJECT: Schema = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Form:
    """Required form of the answer."""

    tools: tuple[Tool, ...] = ()
    """Tools that may be called."""
    forced: bool = False
    """True if one of them must be called."""
    strict: bool = True
    described: Schema | None = None
    """Schema that the instruction describes to the model."""
    enforced: Schema | None = None
    """Schema that a grammar enforces: the model can write nothing but JSON of it."""

    @property
    def is_required(self) -> bool:
        """True if a grammar restricts the answer."""
        return self.forced or self.enforced is not None


class AnswerGenerator:
    """A model with its chat templates. Raises ChatModelError for an invalid template."""

    def __init__(
        self, engine: ChatEngine, chat_template: str | None, variables: Mapping[str, Any] | None = None
    ) -> None:
        self._engine, self._prompts = engine, PromptTokenizer(engine)
        own = engine.chat_template()
        self._has_template = bool(chat_template or own)
        if not self._has_template:
            warnings.warn(
                f"{engine.name} has no chat template, so ChatML is used; set chat_template to use another.",
                stacklevel=2,
            )
        self._template = self._compile(chat_template or own or CHATML)
        with_tools = None if chat_template else engine.chat_template("tool_use")
        self._tool_template = self._compile(with_tools) if with_tools else self._template
        self._check(variables or {})

    def _compile(self, source: str) -> Template:
        engine = self._engine
        return Template(source, engine.special_text("bos"), engine.special_text("eos"), engine.name)

    def prompt(
        self,
        template: Template,
        messages: Sequence[BaseMessage],
        form: Form,
        variables: Mapping[str, Any],
    ) -> Prompt:
        """The prompt of a conversation. Raises ChatModelError."""
        self._check(variables)

        def write(plain: Sequence[Message], tools: Sequence[Tool]) -> str:
            text = template.render(plain, tools, variables=variables)
            return reasoning.without_reasoning(text) if form.is_required else text

        try:
            return self._prompts.prompt(write, template.source, *_conversation(template, messages, form))
        except RecursionError:
            raise ChatModelError(
                "A tool or the arguments of a call are nested too deeply for a prompt; flatten them."
            ) from None

    def _check(self, variables: Mapping[str, Any]) -> None:
        """Raise ChatModelError for a variable that neither template reads."""
        self._template.check_variables(variables.keys() - self._tool_template.variables)

    def parts(
        self,
        messages: Sequence[BaseMessage],
        options: Options,
        stops: Sequence[str],
        tally: AnswerUsage,
        cancelled: threading.Event | None = None,
    ) -> Iterator[Part]:
        """Yield the text, the reasoning and the calls of the answer as they are generated.

        The model is locked until the iterator ends or is closed. Raises ChatModelError, and CancelledError
        once `cancelled` is set.
        """
        with self._engine.turn(cancelled):
            form = form_of(options)
            template = self._tool_template if form.tools else self._template
            prompt = self.prompt(template, messages, form, options.chat_template_kwargs)
            if not self._has_template:
                stops = [*stops, CHATML_END]
            engine, grammar = self._engine, self._grammar(template, form)
            split = reasoning.reader_for(prompt.text, template.source, has_tools=bool(form.tools))
            engine.visible = self._visible(form, split)
            sampler = Sampler(engine.api, engine.context, engine.vocabulary, options.sampling, grammar)
            try:
                pieces = self._engine.answer(prompt.tokens, sampler, tally, options.max_tokens, cancelled)
                texts = _texts(pieces, TextReader(stops, strip_space=self._engine.strips_space), tally)
                calls = ToolReader(argument_schemas(form.tools)) if form.tools else None
                yield from _parts(texts, split, calls, tally) if split or calls else texts
            finally:
                sampler.close()

    def _visible(self, form: Form, split: Reader | None) -> dict[int, bytes]:
        texts = (*(tools.CONTROL_TEXTS if form.tools else ()), *(reasoning.CONTROL_TEXTS if split else ()))
        return self._engine.control_tokens(texts)

    def _grammar(self, template: Template, form: Form) -> str | None:
        if not form.is_required:
            return None
        if not self._engine.can_end:
            raise ChatModelError(
                f"{self._engine.name} has no end-of-answer token, so no form can be enforced; "
                'use another model, or tool_choice = "auto".'
            )
        if form.enforced is not None:
            return json_grammar(form.enforced)
        tagged = template.calls_by_tag or not template.takes_tools
        return call_grammar(form.tools, tagged=tagged, strict=form.strict)


def form_of(options: Options) -> Form:
    """The form that the options require. Raises ChatModelError if they contradict each other."""
    tools = tuple(as_tool(tool) for tool in options.tools)
    chosen = chosen_tools(tools, options.tool_choice)
    described, enforced = _schemas(options.response_format)
    form = Form(chosen, options.tool_choice not in (None, "auto", "none"), options.strict is not False)
    if enforced is None:
        return form
    if form.forced:
        raise ChatModelError(
            "response_format cannot be combined with a forced tool call; leave out response_format."
        )
    return replace(form, tools=(), described=described, enforced=enforced)


def chosen_tools(tools: Sequence[Tool], choice: str | None) -> tuple[Tool, ...]:
    """The tools that may be called. Raises ChatModelError for an unknown choice."""
    if choice is None or choice in ("auto", "any"):
        if choice == "any" and not tools:
            raise ChatModelError('tool_choice = "any" needs at least one tool; bind some.')
        return tuple(tools)
    if choice == "none":
        return ()
    named = tuple(tool for tool in tools if tool["function"]["name"] == choice)
    if not named:
        known = ", ".join(tool["function"]["name"] for tool in tools) or "none"
        raise ChatModelError(
            f"tool_choice = {printable(repr(choice), 80)} does not name a bound tool; bound: {known}."
        )
    return named


def _schemas(requested: Mapping[str, Any] | None) -> tuple[Schema | None, Schema | None]:
    """The schema described to the model, and the one enforced on its answer."""
    kind = None if requested is None else requested.get("type")
    if requested is None or kind == "text":
        return None, None
    if kind == "json_object":
        return None, _ANY_OBJECT
    schema = requested.get("schema", requested.get("json_schema"))
    if kind != "json_schema" or not isinstance(schema, Mapping):
        raise ChatModelError(
            f"response_format = {printable(repr(requested), 80)} is invalid; "
            'use {"type": "json_object"} or {"type": "json_schema", "schema": {...}}.'
        )
    inner = schema.get("schema")
    described = inner if isinstance(inner, Mapping) else schema
    check_depth(described)
    return described, _ANY_OBJECT if requested.get("strict") is False else described


def _conversation(
    template: Template, messages: Sequence[BaseMessage], form: Form
) -> tuple[list[Message], tuple[Tool, ...]]:
    """The messages and the tools that the template is given."""
    plain = to_template(messages, knows_tools=template.takes_tools)
    if form.tools and not template.takes_tools:
        plain = with_instruction(plain, describe(form.tools))
    if form.described is not None:
        schema = json.dumps(form.described, ensure_ascii=False)
        plain = with_instruction(plain, f"Answer with JSON of this schema and nothing else:\n{schema}")
    return plain, form.tools if template.takes_tools else ()


def _texts(pieces: Iterator[bytes], reader: TextReader, tally: AnswerUsage) -> Iterator[str]:
    for piece in pieces:
        if text := reader.feed(piece):
            yield text
        if reader.stopped:
            tally.finish = "stop"
            return
    if text := reader.end():
        yield text


def _parts(
    texts: Iterator[str], split: Reader | None, calls: ToolReader | None, tally: AnswerUsage
) -> Iterator[Part]:
    """The parts of these texts, read by one reader or by both, one after the other."""
    called = False
    for part in _calls_in(_split(texts, split), calls):
        called |= isinstance(part, Call) and part.error is None
        yield part
    if called and tally.finish == "stop":
        tally.finish = "tool_calls"


def _split(texts: Iterator[str], reader: Reader | None) -> Iterator[Part]:
    if reader is None:
        yield from texts
        return
    for text in texts:
        yield from reader.feed(text)
    yield from reader.end()


def _calls_in(parts: Iterator[Part], reader: ToolReader | None) -> Iterator[Part]:
    for part in parts:
        if reader is not None and isinstance(part, str):
            yield from reader.feed(part)
        else:
            yield part
    if reader is not None:
        yield from reader.end()
