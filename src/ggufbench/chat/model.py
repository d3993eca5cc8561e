"""LangChain chat model on llama.cpp; needs only `langchain-core`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError

from ggufbench.chat import structured
from ggufbench.chat.async_stream import in_thread
from ggufbench.chat.chunks import call_chunk, last_chunk, text_chunk, whole_message
from ggufbench.chat.completion import AnswerGenerator, chosen_tools
from ggufbench.chat.engine import AnswerUsage, ChatEngine
from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.loading import Settings, load
from ggufbench.chat.options import ModelOptions, Options, options, refusal
from ggufbench.chat.text_reader import stop_texts
from ggufbench.chat.tools import Call, as_tool

__all__ = ["ChatLlamaCpp", "ChatModelError"]

_LOADING = tuple(Settings.__dataclass_fields__)
_ANSWER_OPTIONS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "max_tokens",
    "seed",
    "ignore_end",
)
Tool = dict[str, Any] | type | Callable[..., Any] | BaseTool
_ANY = ("any", "required", True)


class ChatLlamaCpp(ModelOptions, BaseChatModel):
    """A GGUF model as a chat model. The constructor loads the file; raises ChatModelError if that fails.

    One context serves all callers, one after the other. It keeps its KV cache, so the next turn of a
    conversation evaluates only the new tokens. The options of an answer (`temperature` to `seed`, and `stop`)
    can also be passed with a question, or by `bind`.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model_path: str = Field(min_length=1)
    """A GGUF file, or the first part of a split model."""
    streaming: bool = False
    """`invoke` streams too, so that callbacks get each token."""
    ignore_end: bool = Field(default=False, repr=False)
    """Never let the model end an answer, so that it is as long as the limit: for measurements. Answers that
    must have a form end anyway."""
    verbose: bool = Field(default=False, repr=False)
    """Let llama.cpp write its log to stderr."""

    _engine: ChatEngine = PrivateAttr()
    _generator: AnswerGenerator = PrivateAttr()

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise refusal(error, type(self)) from None
        settings = Settings(**{name: getattr(self, name) for name in _LOADING})
        self._engine = load(Path(self.model_path), settings)
        try:
            self._generator = AnswerGenerator(self._engine, self.chat_template)
        except BaseException:
            self._engine.close()
            raise

    def reset(self) -> None:
        """Clear the KV cache: the next prompt is evaluated in full."""
        with self._engine.turn():
            self._engine.reset()

    def close(self) -> None:
        """Free the model's memory; the model cannot be used afterwards."""
        self._engine.close()

    # LangChain: identity

    @property
    def model_name(self) -> str:
        """File name without suffix."""
        return self._engine.name

    @property
    def _llm_type(self) -> str:
        return "llamacpp"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that affects an answer; the key of LangChain's cache."""
        return {
            name: getattr(self, name)
            for name in ("model_path", *_LOADING, *_ANSWER_OPTIONS, "stop", "chat_template")
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "llamacpp"
        return params

    def get_token_ids(self, text: str) -> list[int]:
        """Tokenize `text` with the model's tokenizer."""
        return self._engine.tokenize(text)

    # LangChain: answers

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._answer(messages, stop, kwargs, None)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        cancelled = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(None, self._answer, messages, stop, kwargs, cancelled)
        finally:
            cancelled.set()

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        tally = AnswerUsage()
        chunks = self._chunks(self._parts(messages, stop, kwargs, tally, None), tally)
        if run_manager is None:
            yield from chunks
            return
        for chunk in chunks:
            run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        def work(cancelled: threading.Event) -> Iterator[ChatGenerationChunk]:
            tally = AnswerUsage()
            return self._chunks(self._parts(messages, stop, kwargs, tally, cancelled), tally)

        async with aclosing(in_thread(work)) as chunks:
            async for chunk in chunks:
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _answer(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        overrides: dict[str, Any],
        cancelled: threading.Event | None,
    ) -> ChatResult:
        tally = AnswerUsage()
        texts: list[str] = []
        calls: list[Call] = []
        for part in self._parts(messages, stop, overrides, tally, cancelled):
            if isinstance(part, Call):
                calls.append(part)
            else:
                texts.append(part)
        message = whole_message("".join(texts), calls, self._metadata(tally), tally)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunks(self, parts: Iterator[str | Call], tally: AnswerUsage) -> Iterator[ChatGenerationChunk]:
        calls = 0
        for part in parts:
            if isinstance(part, Call):
                yield call_chunk(part, calls)
                calls += 1
            else:
                yield text_chunk(part)
        yield last_chunk(self._metadata(tally), tally)

    def _parts(
        self,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        overrides: dict[str, Any],
        tally: AnswerUsage,
        cancelled: threading.Event | None,
    ) -> Iterator[str | Call]:
        stops = stop_texts(self.stop if stop is None else stop)
        return self._generator.parts(messages, self._options(overrides), stops, tally, cancelled)

    def _options(self, overrides: dict[str, Any]) -> Options:
        return options({name: getattr(self, name) for name in _ANSWER_OPTIONS}, overrides)

    def _metadata(self, tally: AnswerUsage) -> dict[str, Any]:
        return {"finish_reason": tally.finish, "model_name": self.model_name}

    # LangChain: tools and structured output

    def bind_tools(
        self,
        tools: Sequence[Tool] | Tool,
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools, or one tool, to the model.

        `tool_choice` is None or `auto` (the model decides), `any`, `none`, or a tool's name. The arguments of
        a forced call follow the tool's schema, unless `strict` is False. Raises ChatModelError for an unknown
        tool name.
        """
        formatted = [as_tool(tool) for tool in (tools if isinstance(tools, list | tuple) else [tools])]
        choice = _choice(tool_choice)
        chosen_tools(formatted, choice)
        bound = {"tools": formatted, "tool_choice": choice, "strict": strict, **kwargs}
        return super().bind(**{name: value for name, value in bound.items() if value is not None})

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        include_raw: bool = False,
        method: structured.Method = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """The model with answers of the form `schema`: a pydantic class, a TypedDict or a JSON schema.

        `json_schema` describes the schema to the model and enforces it; `function_calling` forces a call of a
        tool with this schema; `json_mode` enforces a JSON object, which the question must describe. With
        `strict=False` the schema is described but not enforced. Raises ChatModelError for an unknown method
        or argument.
        """
        if kwargs:
            raise ChatModelError(
                f"with_structured_output does not support {', '.join(kwargs)}; leave it out."
            )
        structured.check_method(method, schema)
        trace = structured.traced(schema, method)
        model: Runnable[LanguageModelInput, AIMessage]
        if method == "function_calling" and schema is not None:
            name = structured.tool_name(schema)
            model = self.bind_tools(
                [schema], tool_choice=name, strict=strict, ls_structured_output_format=trace
            )
        else:
            form = structured.response_format(schema, method, strict)
            model = self.bind(response_format=form, ls_structured_output_format=trace)
        parser = structured.complete() | structured.parser(schema, method)
        return structured.with_raw(model, parser) if include_raw else model | parser


def _choice(requested: str | dict[str, Any] | bool | None) -> str | None:
    """Normalize the forms of `tool_choice` that LangChain programs use."""
    if requested in _ANY:
        return "any"
    if requested is False:
        return None
    if isinstance(requested, dict):
        name = requested.get("function", requested).get("name")
        if not isinstance(name, str):
            raise ChatModelError("tool_choice does not name a tool; use its name, any, auto or none.")
        return name
    return requested if isinstance(requested, str) else None
