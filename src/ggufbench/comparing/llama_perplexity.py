"""Verification of the scored divergence against llama-perplexity, for `ggufbench verify --perplexity`.

Both read the same tokens in the same batches: a text in chunks as llama-perplexity makes them, with the
second half of each chunk scored.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ggufbench.comparing.llama_bench import LlamaBenchError, check_executable
from ggufbench.exit_codes import ExitCode
from ggufbench.launching.launcher import Interpreter, worker_environment
from ggufbench.measuring.case import CaseTimeouts
from ggufbench.measuring.machine_lock import one_at_a_time
from ggufbench.measuring.preparation import Request, find_models, plan_cases, probe_for, read_scenarios
from ggufbench.planning.plan import Case
from ggufbench.processes import OutputTooLongError, run_program
from ggufbench.quality.conversation import Asking, ScoringError, Script, converse, scores_of, tokens_of
from ggufbench.quality.corpus import corpus_for
from ggufbench.text import printable
from ggufbench.worker.protocol import Score, Text, Vocabulary

T = TypeVar("T")

TOLERANCE = 1e-3
"""Largest relative difference of the divergences from one stored reference."""
_STORED_RANGE = 16.0
"""llama-perplexity stores log-probabilities in 16 bits, down to this distance from the largest one."""
_MEAN = re.compile(r"^Mean\s+KLD:\s+(-?\d+\.\d+)", re.MULTILINE)
_PERPLEXITY = re.compile(r"^Mean PPL\(Q\)\s*:\s*(\d+\.\d+)", re.MULTILINE)


class PerplexityError(LlamaBenchError):
    """llama-perplexity cannot be used, or failed; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class PerplexityRequest:
    """Request for a verification of divergences."""

    request: Request
    program: Path
    tell: Callable[[str], None] = lambda _sentence: None
    on_wait: Callable[[str], None] = lambda _sentence: None


@dataclass(frozen=True, slots=True)
class VerifiedDivergence:
    """One case: the mean divergence from its reference by both programs, in nats."""

    case_id: str
    model: str
    reference: str
    tokens: int
    """Scored tokens."""
    ours: float
    """From the exact distributions of the reference."""
    stored: float
    """From those distributions as llama-perplexity stores them."""
    theirs: float
    perplexity: float
    """By llama-perplexity, over the same tokens."""

    @property
    def difference(self) -> float:
        """Relative difference of the divergences from the stored reference."""
        return abs(self.stored - self.theirs) / self.theirs if self.theirs else abs(self.stored)

    @property
    def agrees(self) -> bool:
        """True if the difference is at most `TOLERANCE`."""
        return self.difference <= TOLERANCE


@dataclass(frozen=True, slots=True)
class DivergenceVerification:
    """The result of a verification."""

    program: Path
    cases: list[VerifiedDivergence]
    skipped: list[tuple[str, str]]

    @property
    def exit_code(self) -> ExitCode:
        """10 if a case differs, 14 without any case."""
        if not self.cases:
            return ExitCode.NOTHING_MEASURED
        return ExitCode.PASS if all(case.agrees for case in self.cases) else ExitCode.REGRESSION


def verify_divergences(question: PerplexityRequest) -> DivergenceVerification:
    """Score each case of the request's scorer scenarios with both programs.

    Raises GgufbenchError for a request that cannot be carried out, and if a program fails.
    """
    program = check_executable(question.program, "llama-perplexity")
    request = question.request
    scenarios = read_scenarios(request)
    found, models = find_models(request, question.tell)
    cases = plan_cases(models, scenarios, probe_for(scenarios, Interpreter()), {}, found.models)
    ready = [case for case in cases if case.skip is None]
    with (
        one_at_a_time(question.on_wait, request.time_budget_seconds),
        tempfile.TemporaryDirectory(prefix="ggufbench-perplexity-") as folder,
    ):
        verified = [_verified(case, program, Path(folder), question.tell) for case in ready]
    return DivergenceVerification(program, verified, [(case.id, case.skip) for case in cases if case.skip])


def arguments(case: Case, text: Path, chunk_tokens: int) -> list[str]:
    """Arguments of llama-perplexity for one file and setting, one chunk in each batch."""
    setting = case.setting
    on_cpu = setting.device == "cpu"
    return [
        *("-m", str(case.model.path)),
        *("-f", str(text)),
        *("-c", str(chunk_tokens)),
        *("-b", str(chunk_tokens)),
        *("-ub", str(chunk_tokens)),
        *("-t", str(setting.n_threads)),
        *("-tb", str(setting.n_threads_batch)),
        *("-fa", setting.flash_attn),
        *("-ctk", setting.type_k),
        *("-ctv", setting.type_v),
        *([] if setting.repack else ["-nr"]),
        *(["-dev", "none", "-ngl", "0"] if on_cpu else ["-ngl", str(setting.n_gpu_layers)]),
        "--no-warmup",
    ]


def chunks_of_text(ids: Sequence[int], size: int, first_token: int | None) -> list[list[int]]:
    """Chunks as llama-perplexity makes them: the first token of each is replaced by that of a text."""
    stream = [*([] if first_token is None else [first_token]), *ids]
    pieces = [list(stream[start : start + size]) for start in range(0, len(stream) - size + 1, size)]
    return [piece if first_token is None else [first_token, *piece[1:]] for piece in pieces]


def _verified(case: Case, program: Path, folder: Path, tell: Callable[[str], None]) -> VerifiedDivergence:
    """Score a case with both programs; a reference is scored once, and its files stay in the folder."""
    reference = case.reference
    if reference is None:
        name = case.scenario.name
        raise PerplexityError(f'scenario {name} compares no answers; name one with provider = "scorer"')
    size, text = case.workload.prompt_tokens, "\n".join(corpus_for(case.scenario.text).texts.values())
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    about = json.dumps([reference.model.identity, asdict(reference.setting), text, size])
    rows = folder / hashlib.sha256(about.encode()).hexdigest()[:16]
    if not rows.is_dir():
        rows.mkdir()
        tell(f"{reference.model.label}, the reference: llama-perplexity")
        base = ["--kl-divergence-base", str(rows / "base.bin")]
        _run(program, reference, [*arguments(reference, path, size), *base])
        tell(f"{reference.model.label}, the reference: ggufbench")
        _score(reference, partial(_written, text=text, size=size, rows=rows))
    tell(f"{case.id}: llama-perplexity")
    extra = ["--kl-divergence-base", str(rows / "base.bin"), "--kl-divergence"]
    output = _run(program, case, [*arguments(case, path, size), *extra])
    tell(f"{case.id}: ggufbench")
    own = _own_divergences(case, text, size, rows)
    mean, perplexity = _MEAN.search(output), _PERPLEXITY.search(output)
    if mean is None or perplexity is None:
        raise PerplexityError(f"{program} printed no mean divergence for {case.id}; is it llama-perplexity?")
    return VerifiedDivergence(
        case_id=case.id,
        model=case.model.label,
        reference=reference.model.label,
        tokens=len(own),
        ours=sum(exact for exact, _ in own) / len(own),
        stored=sum(stored for _, stored in own) / len(own),
        theirs=float(mean[1]),
        perplexity=float(perplexity[1]),
    )


def _run(program: Path, case: Case, command: Sequence[str]) -> str:
    seconds = sum(CaseTimeouts(case)(phase) for phase in ("load", "score"))
    try:
        done = run_program([program, *command], seconds, env=worker_environment({}))
    except subprocess.TimeoutExpired:
        raise PerplexityError(
            f"{program} did not end within {seconds:.0f} s with {case.model.path}"
        ) from None
    except (OSError, OutputTooLongError) as error:
        raise PerplexityError(f"{program} cannot be used: {error}") from None
    if done.code:
        last = printable((done.errors.strip().splitlines() or ["no message"])[-1], 200)
        raise PerplexityError(f"{program} failed with {case.model.path} (exit {done.code}): {last}")
    return done.output


def _score(case: Case, script: Script[T]) -> T:
    size = case.workload.prompt_tokens
    setting = replace(case.setting, n_ctx=size, n_batch=size, n_ubatch=size)
    try:
        return converse(str(case.model.path), setting, script, CaseTimeouts(case))
    except ScoringError as error:
        raise PerplexityError(str(error)) from None


def _written(vocabulary: Vocabulary, *, text: str, size: int, rows: Path) -> Asking[None]:
    """Script that writes the distributions of each chunk."""
    ids = tokens_of((yield Text(text)))
    for number, chunk in enumerate(chunks_of_text(ids, size, vocabulary.first_token)):
        yield Score(chunk, size // 2, str(rows / f"{number}.f32"))


def _own_divergences(case: Case, text: str, size: int, rows: Path) -> list[tuple[float, float]]:
    """The divergence of each scored token, from the reference and from the stored reference."""

    def requests(vocabulary: Vocabulary) -> Asking[list[tuple[float, float]]]:
        ids, found = tokens_of((yield Text(text))), list[tuple[float, float]]()
        for number, chunk in enumerate(chunks_of_text(ids, size, vocabulary.first_token)):
            reference, own = rows / f"{number}.f32", rows / "own.f32"
            exact = scores_of((yield Score(chunk, size // 2, str(reference), compare=True))).divergences
            yield Score(chunk, size // 2, str(own))
            found += zip(exact, stored_divergences(reference, own, vocabulary.size), strict=True)
        return found

    return _score(case, requests)


def stored_divergences(reference: Path, candidate: Path, vocabulary: int) -> list[float]:
    """Divergences of the rows of two files, with the reference as llama-perplexity stores it.

    It keeps log-probabilities in steps of 1/65535 of their range, which is at most 16 nats, and
    leaves out those below -16 (tools/perplexity/perplexity.cpp of llama.cpp).
    """
    import numpy as np

    before, after = (np.fromfile(path, np.float32).reshape(-1, vocabulary) for path in (reference, candidate))
    largest = before.max(1, keepdims=True)
    smallest = np.maximum(before.min(1, keepdims=True), largest - np.float32(_STORED_RANGE))
    step = (largest - smallest) / np.float32(65535)
    lowest = smallest - largest - _log_sum(before)
    stored = np.rint(np.maximum(before - smallest, 0) / np.where(step > 0, step, 1)) * step + lowest
    own = after - after.max(1, keepdims=True) - _log_sum(after)
    terms = np.where(stored > -_STORED_RANGE, np.exp(stored) * (stored - own), 0)
    return [float(value) for value in terms.sum(1)]


def _log_sum(logits: Any) -> Any:
    """Logarithm of the sum of exp(logit - largest logit) of each row."""
    import numpy as np

    shifted = (logits - logits.max(1, keepdims=True)).astype(np.float64)
    return np.log(np.exp(shifted).sum(1, keepdims=True))
