"""`ggufbench chat`: streamed answers, conversations line by line, and no control characters."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from ggufbench.cli.options import harmless

pytestmark = pytest.mark.real

CHAT = [sys.executable, "-m", "ggufbench.cli", "chat"]


def test_answer_on_stdout_and_rate_on_stderr(make, ggufbench):
    done = ggufbench("chat", make(), "Hello", "--max-tokens", "8", "--temperature", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    found = re.fullmatch(
        r"8 tokens in (\S+) s, (\S+) tokens/s including the prompt; first text after (\S+) s\n", done.stderr
    )
    seconds, rate, first = map(float, found.groups())
    assert 0 <= first <= seconds + 0.01
    # Seconds are rounded to hundredths and rates to tenths, so each allows for the rounding.
    assert 8 / (rate + 0.06) - 0.006 <= seconds <= 8 / (rate - 0.06) + 0.006


def test_a_conversation_ends_with_the_input(make):
    command = [*CHAT, str(make()), "--max-tokens", "4"]
    done = subprocess.run(
        command, input="one\n\ntwo\n", capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("4 tokens in ") == 2


def test_conversation_longer_than_the_context_continues(make):
    command = [*CHAT, str(make(context=256)), "--max-tokens", "60"]
    asked = b"".join(b"Question %d, caf\xe9?\n" % number for number in range(5)) + b"word " * 300
    done = subprocess.run(command, input=asked, capture_output=True, timeout=120, check=False)
    said = done.stderr.decode()
    assert said.count("60 tokens in ") == 5, "every answer has room, and a byte that is not UTF-8 is replaced"
    assert "the conversation exceeds the context of 256 tokens, so its oldest 1 turn was dropped\n" in said
    assert re.search(r"ggufbench: The prompt takes \d+ tokens .* shorten the conversation.*\n$", said)
    assert done.returncode == 2, "the last question alone is too long"


def test_invalid_request_messages(make, refused, tmp_path, encoders):
    (tmp_path / "text.gguf").write_text("no model")
    assert "cannot be used for chat: " in refused("chat", tmp_path / "text.gguf", "Hello")
    assert "is not a GGUF file" in refused("chat", tmp_path, "Hello")
    reranker = encoders.write_bert(tmp_path / "r.gguf", "rank")
    assert "cannot be used for chat: it is a reranker; measure it" in refused("chat", reranker, "Hello")
    assert "omit --quant" in refused("chat", make(), "Hello", "--quant", "Q8_0")
    sentence = refused("chat", "owner/none", "Hello", HF_HUB_CACHE=str(tmp_path / "hub"))
    assert "owner/none" in sentence


def test_control_characters_are_escaped():
    assert harmless("a\x1b[31m\u202eb\r\n\tc") == "a\\x1b[31m\\u202eb\\r\n\tc"
    assert harmless("\U0001f469\u200d\U0001f52c é") == "\U0001f469\u200d\U0001f52c é"
