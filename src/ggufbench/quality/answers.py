"""Check that the candidate of a comparison answers like its baseline, apart from rounding.

The baseline continues passages of real text with its likeliest tokens. Both arms then evaluate the same
tokens, once as a batch and once one by one, because a prompt and an answer use different kernels, and their
distributions of the next token are compared. How much another rounding changes them is measured in the
same session: the baseline computes once more with flash attention switched, and with smaller batches.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from ggufbench.launching.launcher import Interpreter, PhaseTimeouts
from ggufbench.planning.plan import Case
from ggufbench.quality.conversation import Asking, ScoringError, Script, converse, scores_of, tokens_of
from ggufbench.quality.corpus import Domain, shipped_corpus
from ggufbench.quality.grading import PassageScores, graded
from ggufbench.quality.reference import ReferenceRows
from ggufbench.records.comparison import AnswerCheck, Divergence
from ggufbench.records.schema import ChunkScores
from ggufbench.stats.clustered_mean import clustered_mean
from ggufbench.worker.job import ENGINE, Setting
from ggufbench.worker.protocol import Continue, Score, Text, Vocabulary

T = TypeVar("T")

ANSWER_TOKENS = 64
_SHORT_PROMPT_TOKENS = 96
"""Length of the short prompts; the long one is as long as what the scenario measures."""
_LEAST_DISTINCT = 16
"""An answer with fewer distinct tokens repeats itself and shows little; the text itself replaces it."""
_SMALL_UBATCH = 64
_CHUNK_TOKENS = 256
"""As in scenarios/quality.toml."""


@dataclass(frozen=True, slots=True)
class Side:
    """One arm: its Python, its case and the timeouts of its phases."""

    interpreter: Interpreter
    case: Case
    timeouts: PhaseTimeouts


@dataclass(frozen=True, slots=True)
class _Answer:
    """A passage and its continuation, which both arms evaluate."""

    name: str
    ids: list[int]
    prompt_tokens: int
    one_by_one: bool
    rows: Path
    """File of the baseline's logits."""

    def request(self, *, compare: bool) -> Score:
        """The request to a worker to evaluate it."""
        first = self.prompt_tokens - 1
        return Score(self.ids, first, str(self.rows), compare=compare, one_by_one=self.one_by_one)


def can_check(case: Case) -> bool:
    """True if the distributions of the case can be read: a generator under llama.cpp's engine."""
    return case.scenario.provider == ENGINE and case.setting.n_ctx >= 2 * ANSWER_TOKENS


def check_answers(baseline: Side, candidate: Side, most_divergence: float | None = None) -> AnswerCheck:
    """Compare the distributions of both arms. Raises ScoringError if the baseline cannot be scored.

    With `most_divergence`, in nats, their divergence over the whole texts is also measured.
    """
    check = _graded(baseline, candidate)
    if most_divergence is None or check.passages == []:
        return check
    return check.model_copy(update={"divergence": _divergence(baseline, candidate, most_divergence)})


def _graded(baseline: Side, candidate: Side) -> AnswerCheck:
    with tempfile.TemporaryDirectory(prefix="ggufbench-answers-") as folder:
        answers, texts = _converse(baseline, partial(_prepare, baseline.case, Path(folder)))
        try:
            found = _converse(candidate, partial(_compare_candidate, texts, answers))
        except ScoringError as error:
            return AnswerCheck(verdict="other answers", reason=f"the candidate cannot be scored: {error}")
        if isinstance(found, str):
            return AnswerCheck(verdict="other answers", reason=found)
        differs = any(any(scores.divergences) for scores in found)
        return graded(found, _other_roundings(baseline, answers) if differs else {})


def _divergence(baseline: Side, candidate: Side, most: float) -> Divergence:
    """The candidate's divergence over the shipped texts; the baseline's rows are deleted afterwards."""
    case = baseline.case
    session = uuid.uuid4().hex  # two arms may have one version and different machine code
    rows = ReferenceRows(
        shipped_corpus(), _CHUNK_TOKENS, case.model.identity, case.setting, [session], keep=False
    )
    chunks: list[ChunkScores] = []
    try:
        while not rows.is_complete:
            _converse(baseline, rows.write)
            chunks += _converse(candidate, rows.compare)
    finally:
        rows.release()
    tokens = [chunk.tokens for chunk in chunks]
    mean = clustered_mean([chunk.kl_divergence * chunk.tokens for chunk in chunks], tokens)
    return Divergence(
        kl_divergence=mean.value,
        low=None if mean.low is None else max(0.0, mean.low),
        high=mean.high,
        most=most,
        tokens=sum(tokens),
    )


def _converse(side: Side, script: Script[T], setting: Setting | None = None) -> T:
    case = side.case
    return converse(str(case.model.path), setting or case.setting, script, side.timeouts, side.interpreter)


def _prompts(case: Case) -> list[tuple[Domain, int]]:
    """Domain and length of each prompt in tokens."""
    most = case.setting.n_ctx - ANSWER_TOKENS
    short = min(_SHORT_PROMPT_TOKENS, most)
    measured = min(case.workload.prompt_tokens + case.workload.depth, most)
    prompts: list[tuple[Domain, int]] = [("prose", short), ("code", short)]
    return [*prompts, ("long", measured)] if measured > short else prompts


def _prepare(
    case: Case, folder: Path, vocabulary: Vocabulary
) -> Asking[tuple[list[_Answer], dict[Domain, list[int]]]]:
    """Answers of the baseline with their logits in `folder`, and the tokens of each text."""
    answers: list[_Answer] = []
    texts: dict[Domain, list[int]] = {}
    for name, length in _prompts(case):
        ids = texts[name] = yield from _token_ids(vocabulary, name, length + ANSWER_TOKENS)
        prompt, rest = ids[:length], ids[length : length + ANSWER_TOKENS]
        likeliest = tokens_of((yield Continue(prompt, ANSWER_TOKENS)))
        following = rest if len(set(likeliest)) < _LEAST_DISTINCT else likeliest
        for one_by_one in (False, True):
            rows = folder / f"{name}-{one_by_one}"
            answer = _Answer(name, prompt + following, length, one_by_one, rows)
            yield answer.request(compare=False)
            answers.append(answer)
    return answers, texts


def _token_ids(vocabulary: Vocabulary, name: Domain, least: int) -> Asking[list[int]]:
    """Tokens of a text as a prompt; random ones where there is no tokenizer, or the text ends."""
    ids: list[int] = [] if vocabulary.first_token is None else [vocabulary.first_token]
    if vocabulary.tokenizes:
        ids += tokens_of((yield Text(shipped_corpus().texts[name])))
    source = random.Random(name)  # noqa: S311 (a workload, no secret)
    return ids + [source.randrange(vocabulary.size) for _ in range(least - len(ids))]


def _compare_candidate(
    texts: Mapping[Domain, list[int]], answers: Sequence[_Answer], vocabulary: Vocabulary
) -> Asking[list[PassageScores] | str]:
    """Scores of the candidate; a sentence if its tokenizer gives other tokens."""
    for name, ids in texts.items():
        own = yield from _token_ids(vocabulary, name, len(ids))
        if own != ids:
            return _other_tokens(name, own, ids)
    return (yield from _compare(answers, vocabulary))


def _other_tokens(name: str, own: Sequence[int], ids: Sequence[int]) -> str:
    both = enumerate(zip(own, ids, strict=False))
    place = next((number for number, (new, old) in both if new != old), min(len(own), len(ids)))
    return (
        f"the candidate's tokenizer gives other tokens for the same text ({name}, from token {place} on: "
        f"{own[place : place + 3]} instead of {ids[place : place + 3]})"
    )


def _compare(answers: Sequence[_Answer], _vocabulary: Vocabulary) -> Asking[list[PassageScores]]:
    found = []
    for answer in answers:
        scored = scores_of((yield answer.request(compare=True)))
        scores = PassageScores(
            answer.name, answer.prompt_tokens, answer.one_by_one, scored.divergences, scored.gaps
        )
        found.append(scores)
    return found


def _other_roundings(baseline: Side, answers: Sequence[_Answer]) -> dict[str, list[PassageScores]]:
    """The baseline against itself with flash attention switched, and with smaller batches.

    A setting that this model or device does not support is left out.
    """
    setting = baseline.case.setting
    flash_attn = "on" if setting.flash_attn == "off" else "off"
    n_ubatch = _SMALL_UBATCH if setting.n_ubatch != _SMALL_UBATCH else _SMALL_UBATCH // 2
    others = {
        f"flash_attn = {flash_attn}": replace(setting, flash_attn=flash_attn),
        f"n_ubatch = {n_ubatch}": replace(setting, n_ubatch=n_ubatch),
    }
    found = {}
    for name, other in others.items():
        with contextlib.suppress(ScoringError):
            found[name] = _converse(baseline, partial(_compare, answers), other)
    return found
