"""`ChatTransformers`: a chat model on transformers, for applications that have not migrated yet.

Small on purpose: text in, text out, no tools. It loads only safetensors on this machine: no download, no
pickle, no code from a checkpoint (see `worker/untrusted.py` for the ways in which code could run).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, PrivateAttr

from ggufbench.chat.config import AUTO, TransformersModelConfig
from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.text_reader import stop_texts
from ggufbench.discovery import hub
from ggufbench.discovery.checkpoints import read_checkpoint
from ggufbench.discovery.names import portable_path
from ggufbench.errors import GgufbenchError
from ggufbench.paths import expanded
from ggufbench.text import printable
from ggufbench.worker.untrusted import checkpoint_refusal


class CheckpointNotFoundError(GgufbenchError, LookupError):
    """No checkpoint to load. The message is one sentence with the remedy."""


def checkpoint_folder(config: TransformersModelConfig) -> Path:
    """The folder that the config names; `auto`: the revision of `main`, else the latest one.

    Raises CheckpointNotFoundError.
    """
    if config.model_path != AUTO:
        return expanded(config.model_path)
    cache = hub.hub_cache()
    for repository in hub.named(hub.repositories(cache), config.model)[:1]:
        for snapshot in hub.snapshots(repository):
            if read_checkpoint(snapshot, repository.stores) is not None:
                return snapshot
    where = printable(portable_path(cache), 300)
    raise CheckpointNotFoundError(
        f"no safetensors of {config.model} in {where}; download them with `hf download {config.model}`"
    )


class ChatTransformers(BaseChatModel):
    """One model in memory; questions are answered one after the other.

    Raises ChatModelError if the checkpoint cannot be loaded.
    """

    model_config = ConfigDict(extra="forbid")

    folder: str
    """Folder with config.json, safetensors and a tokenizer that has a chat template."""
    device: Literal["auto", "cpu", "mps", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    temperature: float = 0.8
    max_tokens: int | None = None
    _model: Any = PrivateAttr()
    _tokenizer: Any = PrivateAttr()
    _alone: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        if refusal := checkpoint_refusal(Path(self.folder)):
            raise ChatModelError(f"{self._shown} cannot be loaded: {refusal}")
        from transformers import AutoModelForCausalLM, AutoTokenizer

        safe = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(self.folder, **safe)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                self.folder,
                **safe,
                use_safetensors=True,
                output_loading_info=True,
                dtype=self.dtype,
                device_map={"": _device(self.device)},
            )
        except Exception as error:
            raise ChatModelError(f"{self._shown} cannot be loaded: {_first_line(error)}") from error
        model, loading_info = loaded
        if missing := sorted([*loading_info["missing_keys"], *map(str, loading_info["mismatched_keys"])]):
            # transformers fills missing weights with random numbers.
            raise ChatModelError(
                f"{self._shown} is incomplete: {len(missing)} weights are not in its files, "
                f"such as {missing[0]:.80}"
            )
        if not self._tokenizer.chat_template:
            raise ChatModelError(f"{self._shown} has no chat template; use a model that was trained for chat")
        self._model = model.eval()

    @property
    def _shown(self) -> str:
        return printable(portable_path(Path(self.folder)), 300)

    @property
    def _llm_type(self) -> str:
        return "transformers"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            name: getattr(self, name) for name in ("folder", "device", "dtype", "temperature", "max_tokens")
        }

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, run_manager, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if kwargs:
            raise ChatModelError(f"ChatTransformers does not support {', '.join(kwargs)}; leave it out")
        with self._alone:
            answer = _Generation(self._model, self._tokenizer, self._prompt(messages), self._settings())
            try:
                for text in until(answer.texts(), stop_texts(stop)):
                    chunk = ChatGenerationChunk(message=AIMessageChunk(content=text))
                    if run_manager:
                        run_manager.on_llm_new_token(text, chunk=chunk)
                    yield chunk
            finally:
                answer.end()
        yield ChatGenerationChunk(message=self._last(answer))

    def _prompt(self, messages: Sequence[BaseMessage]) -> Any:
        try:
            written = convert_to_openai_messages(messages, text_format="string")
            return self._tokenizer.apply_chat_template(
                written, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            ).to(self._model.device)
        except Exception as error:
            raise ChatModelError(
                f"the chat template rejects this conversation: {_first_line(error)}"
            ) from error

    def _settings(self) -> dict[str, Any]:
        sampled: dict[str, Any] = {"do_sample": True, "temperature": self.temperature}
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return {"max_new_tokens": self.max_tokens, **(sampled if self.temperature else greedy)}

    def _last(self, answer: _Generation) -> AIMessageChunk:
        """The final chunk of a stream: finish reason and token usage."""
        prompt, answered = answer.prompt_tokens, answer.tokens
        usage = UsageMetadata(input_tokens=prompt, output_tokens=answered, total_tokens=prompt + answered)
        reason = "length" if answer.is_full else "stop"
        metadata = {"finish_reason": reason, "model_name": Path(self.folder).name}
        return AIMessageChunk(
            content="", usage_metadata=usage, response_metadata=metadata, chunk_position="last"
        )


class _Generation:
    """One call of `generate`, in a separate thread."""

    def __init__(self, model: Any, tokenizer: Any, prompt: Any, settings: dict[str, Any]) -> None:
        from transformers import TextIteratorStreamer

        self.prompt_tokens = int(prompt["input_ids"].shape[-1])
        self.tokens = 0
        self._ended_itself = False
        self._ends = _end_tokens(model)
        context_size = int(model.config.get_text_config().max_position_embeddings)
        available = context_size - self.prompt_tokens
        if available < 1:
            raise ChatModelError(
                f"the prompt takes {self.prompt_tokens} tokens and the context of the model has "
                f"{context_size}; shorten the conversation"
            )
        self._most = min(available, settings["max_new_tokens"] or available)
        self._streamer: Any = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._ended = threading.Event()
        self._errors: SimpleQueue[Exception] = SimpleQueue()
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self._arguments = {
            **prompt,
            **settings,
            "max_new_tokens": self._most,
            "pad_token_id": padding,
            "streamer": self._streamer,
            "stopping_criteria": [self._stop],
        }
        self._thread = threading.Thread(target=self._run, args=(model,), daemon=True)
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """True if the answer was cut off."""
        return self.tokens >= self._most and not (self._ended.is_set() or self._ended_itself)

    def texts(self) -> Iterator[str]:
        """Yield pieces of the answer as they are generated."""
        yield from (text for text in self._streamer if text)
        self._thread.join()
        if not self._errors.empty():
            error = self._errors.get()
            raise ChatModelError(f"transformers failed: {_first_line(error)}") from error

    def end(self) -> None:
        """Stop generating and wait for the thread to end."""
        if self._thread.is_alive():
            self._ended.set()
        self._thread.join()

    def _run(self, model: Any) -> None:
        try:
            written = model.generate(**self._arguments)
            self._ended_itself = int(written[0, -1]) in self._ends
        except Exception as error:  # raised again in the reading thread
            self._errors.put(error)
            self._streamer.end()

    def _stop(self, input_ids: Any, _scores: Any, **_rest: Any) -> Any:
        """Stopping criterion, called after each token."""
        self.tokens = int(input_ids.shape[-1]) - self.prompt_tokens
        return input_ids.new_full((input_ids.shape[0],), self._ended.is_set()).bool()


def until(texts: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """The texts up to the first of `stops`, even if one is split; a possible beginning is held back."""
    held = ""
    for text in texts:
        held += text
        found = [place for stop in stops if (place := held.find(stop)) >= 0]
        if found:
            if held[: min(found)]:
                yield held[: min(found)]
            return
        keep = max((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        if ready := held[: len(held) - keep]:
            yield ready
        held = held[len(held) - keep :]
    if held:
        yield held


def _end_tokens(model: Any) -> list[int]:
    """Tokens with which the model ends an answer."""
    ends = model.generation_config.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends or ())


def _device(requested: str) -> str:
    import torch

    if requested != "auto":
        return requested
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0] if lines else type(error).__name__, 300)
