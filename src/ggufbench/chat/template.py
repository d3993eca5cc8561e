"""Chat templates: programs from a model file, rendered in a sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateError, meta

from ggufbench.chat.completeness import Probe, omitted, shows_python
from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.forms import Form, Message, applied
from ggufbench.chat.sandbox import LimitError, Sandbox, limited, limits
from ggufbench.text import did_you_mean, printable

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_END = "<|im_end|>"

_PROVIDED = frozenset({"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"})
"""Variables with a fixed meaning."""
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_PYTHON = "it shows a list or a dictionary as a Python object"

_SEARCH_SECONDS = 5.0
"""Time for finding a form of the conversation that the template accepts."""


class Template:
    """A compiled chat template. Raises ChatModelError if the source is invalid."""

    def __init__(self, source: str, bos: str, eos: str, name: str) -> None:
        environment = Sandbox()
        self.source = source
        self._name, self._texts = name, {"bos_token": bos, "eos_token": eos}
        self.calls_by_tag = "<tool_call>" in source
        try:
            tree = environment.parse(source)
            names = meta.find_undeclared_variables(tree)
            self._template = environment.from_string(source)
        except (TemplateError, RecursionError, ArithmeticError, ValueError, MemoryError) as error:
            raise self._broken(error) from None
        self.variables = frozenset(names) - _PROVIDED - environment.globals.keys()
        """Names that `chat_template_kwargs` can set."""
        self.takes_tools = "tools" in names and self._shows_tools()

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] = _NOTHING,
    ) -> str:
        """The prompt of this conversation, up to the beginning of the answer.

        It equals the one that transformers renders, unless the template rejects the conversation or omits a
        text of it. Then the conversation is rewritten into a form that the template renders completely.
        Raises ChatModelError if there is none.
        """
        probe = Probe([_with_reasoning(message) for message in messages])
        write = partial(self._render, tools=tools, variables=variables)
        problems: list[ChatModelError] = []
        for form, formed in applied(probe.messages, _SEARCH_SECONDS):
            prompt, problem = self._attempt(write, probe, form, formed)
            if problem is None:
                return prompt
            problems.append(problem)
        raise problems[0]

    def check_variables(self, names: Iterable[str]) -> None:
        """Raise ChatModelError for a name that the template does not read."""
        for name in names:
            if name not in self.variables:
                known = ", ".join(sorted(self.variables)) or "no variables"
                hint = did_you_mean(name, self.variables) or f"; it reads {known}"
                raise ChatModelError(
                    f"chat_template_kwargs: the chat template of {self._name} does not read "
                    f"{printable(repr(name), 60)}, so the value would be ignored{printable(hint, 200)}"
                )

    def _shows_tools(self) -> bool:
        """False if the template does not write the tools that it is given."""
        name = "first_tool_of_a_probe"
        function = {"name": name, "description": "Probe.", "parameters": {"type": "object", "properties": {}}}
        try:
            shown = self._render(
                [{"role": "user", "content": "Hello"}], [{"type": "function", "function": function}], _NOTHING
            )
        except Exception:  # the reason is reported with the first prompt
            return True
        return name in shown

    def _attempt(
        self, write: Callable[[list[Message]], str], probe: Probe, form: Form, formed: list[Message]
    ) -> tuple[str, ChatModelError | None]:
        """The prompt of one form of the conversation, and why it cannot be used."""
        try:
            prompt = write(formed)
            missing = omitted(prompt, probe.messages)
            if missing is None:
                missing = probe.omitted(write(form(probe.marked)))
        except LimitError as error:
            raise self._broken(error) from None
        except Exception as error:  # a template can raise anything, including MemoryError
            return "", self._broken(error)
        if missing is not None:
            return "", self._incomplete(missing)
        problem = self._broken(ValueError(_PYTHON)) if shows_python(prompt, formed) else None
        return prompt, problem

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any],
    ) -> str:
        given = {
            **variables, **self._texts, **limits(),
            "messages": messages, "tools": tools or None, "documents": None, "add_generation_prompt": True,
        }  # fmt: skip
        return "".join(limited(self._template.generate(given)))

    def _broken(self, error: Exception) -> ChatModelError:
        return ChatModelError(
            f"The chat template of {self._name} fails: {printable(str(error) or type(error).__name__, 160)}; "
            "set chat_template to another one."
        )

    def _incomplete(self, missing: str) -> ChatModelError:
        return ChatModelError(
            f"The chat template of {self._name} omits {printable(repr(missing), 80)} from the prompt, so the "
            "model would not read it; set chat_template to another one."
        )


def _with_reasoning(message: Message) -> Message:
    """The message with its reasoning under the names that templates read, as transformers passes it."""
    reasoning = message.get("reasoning_content")
    return message if reasoning is None else {"thinking": reasoning, **message}
