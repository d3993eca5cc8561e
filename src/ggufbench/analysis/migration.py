"""Whether llama.cpp can replace transformers for a model on this machine: four questions with numbers."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from ggufbench.analysis.baselines import (
    Versus,
    advantage,
    compare_with_baselines,
    has_numbers,
    memory_of,
    newest,
)
from ggufbench.analysis.wording import ending, label, spread
from ggufbench.metrics import METRICS
from ggufbench.outcomes import Outcome
from ggufbench.records.schema import ModelIdentity, Record
from ggufbench.stats.ratios import Ratio, ratio_of
from ggufbench.text import count, listed, size, times
from ggufbench.worker.job import ENGINE, LLAMACPP, TRANSFORMERS

Question = Literal["stable", "faster", "smaller", "same interface"]
Reply = Literal["yes", "no", "not measured"]

SPEED = ("ready_seconds", "prompt_tokens_per_second", "decode_tokens_per_second")
"""Metrics of `faster`: loading up to the first token, the prompt, the answer."""

DOCUMENTED_SHARE = 1 / 3
"""Share of the memory of transformers in fp16 that a quantized model takes according to the documentation."""

_LOST = (Outcome.HUNG, Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.FAILED)
_BEFORE_THE_MODEL = ("start", "import")
"""Phases in which the library is at fault, not the model: it is not installed or not usable."""
_NO_CHAT_MODEL = (ENGINE, TRANSFORMERS, LLAMACPP)
"""Providers without the interface of LangChain."""
_MEASURE = "measure a baseline with `ggufbench run --scenario transformers-gguf`"


@dataclass(frozen=True, slots=True)
class MigrationAnswer:
    """Answer to one question about one model under one scenario."""

    question: Question
    answer: Reply
    sentence: str
    """The numbers behind it, as a clause without a full stop."""


@dataclass(frozen=True, slots=True)
class Migration:
    """Whether llama.cpp can replace transformers for a model in one scenario."""

    model: ModelIdentity
    scenario: str
    answers: tuple[MigrationAnswer, ...]
    """Answers in the order of `Question`."""
    verdict: Reply
    """Yes if all four answers are yes; no if any is no."""
    sentence: str
    """The verdict as a sentence."""
    case_id: str
    fingerprint: str
    """Fingerprint of the machine."""


def migrations(records: Sequence[Record], versus: Sequence[Versus] | None = None) -> list[Migration]:
    """A row for each model and llama.cpp scenario that was measured or tried, in the order of the records.

    `versus` is the result of `compare_with_baselines` for the same records, if the caller already has it.
    """
    current = newest(records)
    of_case: dict[str, list[Versus]] = {}
    for one in compare_with_baselines(current) if versus is None else versus:
        of_case.setdefault(_key(one.record), []).append(one)
    chats: dict[Hashable, list[Record]] = {}
    for record in current:
        if record.provider.name not in _NO_CHAT_MODEL:
            chats.setdefault((record.machine.fingerprint, record.model.identity), []).append(record)
    return [
        _migration(
            record,
            of_case.get(_key(record), []),
            chats.get((record.machine.fingerprint, record.model.identity), []),
        )
        for record in current
        if record.provider.name == ENGINE
    ]


def _key(record: Record) -> str:
    return f"{record.machine.fingerprint} {record.case_id}"


def _migration(record: Record, versus: Sequence[Versus], chats: Sequence[Record]) -> Migration:
    answers = (
        _stable(record, versus),
        _faster(record, versus),
        _smaller(record, versus),
        _interface(chats),
    )
    replies = {answer.answer for answer in answers}
    verdict: Reply = "no" if "no" in replies else "not measured" if "not measured" in replies else "yes"
    sentence = _sentence(record, answers, verdict)
    return Migration(
        model=record.model,
        scenario=record.scenario,
        answers=answers,
        verdict=verdict,
        sentence=sentence,
        case_id=record.case_id,
        fingerprint=record.machine.fingerprint,
    )


def _sentence(record: Record, answers: Sequence[MigrationAnswer], verdict: Reply) -> str:
    name = f"{label(record)} on this machine"
    if verdict == "yes":
        clauses = "; ".join(answer.sentence for answer in answers)
        return f"llama.cpp can replace transformers for {name}: with {record.scenario}, {clauses}."
    if verdict == "no":
        against = "; ".join(answer.sentence for answer in answers if answer.answer == "no")
        return f"llama.cpp cannot replace transformers for {name}: with {record.scenario}, {against}."
    names = [_ADJECTIVES[answer.question] for answer in answers if answer.answer == "not measured"]
    listed_names = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    return (
        f"undecided for {name}: with {record.scenario}, it is not known whether llama.cpp is {listed_names}."
    )


_ADJECTIVES: dict[Question, str] = {
    "stable": "stable",
    "faster": "faster",
    "smaller": "smaller",
    "same interface": "usable through the same interface",
}


def _stable(record: Record, versus: Sequence[Versus]) -> MigrationAnswer:
    """Yes if every launch completed and all gave the same answer to the fixed prompt."""
    baselines = _baseline_endings(versus)
    if not has_numbers(record):
        return MigrationAnswer("stable", "no", f"llama.cpp {ending(record)}{baselines}")
    digests = [launch.digest for launch in record.launches if launch.digest]
    if len(set(digests)) > 1:
        sentence = f"{len(digests)} launches gave {len(set(digests))} different answers to the same prompt"
        return MigrationAnswer("stable", "no", sentence + baselines)
    if len(digests) < 2:
        sentence = f"{count(len(digests), 'launch', 'launches')} gave an answer, but two are needed"
        return MigrationAnswer("stable", "not measured", sentence + baselines)
    sentence = f"all {len(record.launches)} launches were measured, with the same answer"
    return MigrationAnswer("stable", "yes", sentence + baselines)


def _baseline_endings(versus: Sequence[Versus]) -> str:
    """`; the baseline transformers-bf16 was measured and the baseline transformers-gguf hung in load`."""
    clauses = list(_endings([one.baseline for one in versus]))
    return f"; {' and '.join(clauses)}" if clauses else ""


def _faster(record: Record, versus: Sequence[Versus]) -> MigrationAnswer:
    """Yes if all three speeds are better than those of every measured baseline by the whole interval."""
    problem = _nothing_to_compare(record, versus)
    if problem is not None:
        return MigrationAnswer("faster", *problem)
    measured = [one for one in versus if has_numbers(one.baseline)]
    found = [_closest(measured, metric) for metric in SPEED]
    replies = {reply for reply, _, _ in found}
    reply: Reply = "no" if "no" in replies else "not measured" if "not measured" in replies else "yes"
    deciding = [(clause, scenario) for answer, clause, scenario in found if answer == reply]
    clauses = []
    for number, (clause, scenario) in enumerate(deciding):
        ends_here = number + 1 == len(deciding) or deciding[number + 1][1] != scenario
        clauses.append(f"{clause} as {scenario}" if ends_here else clause)
    return MigrationAnswer("faster", reply, f"it {listed(clauses)}")


def _closest(measured: Sequence[Versus], metric: str) -> tuple[Reply, str, str]:
    """The answer on one metric, its clause, and the scenario of the baseline that decides."""
    missing = [one for one in measured if metric not in one.ratios]
    if missing:
        return (
            "not measured",
            f"{METRICS[metric].verb} at a rate that cannot be compared",
            missing[0].baseline.scenario,
        )
    judged = [(one, advantage(one.ratios[metric], metric)) for one in measured]
    one, factor = min(judged, key=lambda pair: (_RANK[_judge(pair[1])], pair[1].value))
    return _judge(factor), f"{METRICS[metric].verb} {_factor(factor)}", one.baseline.scenario


_RANK: dict[Reply, int] = {"no": 0, "not measured": 1, "yes": 2}


def _judge(factor: Ratio) -> Reply:
    """Yes if the whole interval is better, no if none of it is; otherwise more launches are needed."""
    if factor.low is None or factor.high is None:
        return "not measured"
    return "yes" if factor.low > 1 else "no" if factor.high <= 1 else "not measured"


def _factor(factor: Ratio) -> str:
    """`12 times (11 to 13 at 97 %) as fast`, with a remark if there are too few launches for an answer."""
    remark = "too few launches" if factor.low is None else "more launches needed"
    undecided = _judge(factor) == "not measured"
    parts = [spread(factor).strip(" ()"), remark if undecided else ""]
    shown = "; ".join(part for part in parts if part)
    return f"{times(factor.value)} times{f' ({shown})' if shown else ''} as fast"


def _smaller(record: Record, versus: Sequence[Versus]) -> MigrationAnswer:
    """Yes if it takes less memory than every measured baseline, device memory included."""
    problem = _nothing_to_compare(record, versus)
    if problem is not None:
        return MigrationAnswer("smaller", *problem)
    ours = memory_of(record)
    sides = [(one.baseline, memory_of(one.baseline)) for one in versus if has_numbers(one.baseline)]
    if not ours or not all(theirs for _, theirs in sides):
        return MigrationAnswer("smaller", "not measured", "the peak memory was not measured on both sides")
    judged = [(baseline, ratio_of(ours, theirs)) for baseline, theirs in sides]
    shares = [(advantage(ratio, "peak_rss_bytes"), ratio, baseline) for baseline, ratio in judged]
    factor, ratio, baseline = min(shares, key=lambda share: (_RANK[_judge(share[0])], share[0].value))
    reply = _judge(factor)
    third = "not " if ratio.value > DOCUMENTED_SHARE else ""
    clause = (
        f"it takes {size(_middle(ours))}, {ratio.value:.2f} of what {baseline.scenario} takes"
        f"{_share_spread(ratio)}, {third}the documented third"
    )
    few = ", with too few launches" if ratio.low is None else ""
    return MigrationAnswer("smaller", reply, clause + few)


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _share_spread(ratio: Ratio) -> str:
    if ratio.low is None or ratio.high is None or ratio.level is None:
        return ""
    if f"{ratio.low:.2f}" == f"{ratio.high:.2f}":
        return ""
    return f" ({ratio.low:.2f} to {ratio.high:.2f} at {100 * ratio.level:.0f} %)"


def _nothing_to_compare(record: Record, versus: Sequence[Versus]) -> tuple[Reply, str] | None:
    """The answer if one of the sides has no number; None if both have."""
    if not has_numbers(record):
        return "not measured", f"llama.cpp {ending(record)}"
    if any(has_numbers(one.baseline) for one in versus):
        return None
    lost = [one.baseline for one in versus if _is_lost(one.baseline)]
    if lost:
        return "yes", f"transformers gave no result: {' and '.join(_endings(lost))}"
    tried = next((one.baseline for one in versus), None)
    if tried is not None:
        return "not measured", f"transformers {ending(tried)}, before it loaded the model"
    return "not measured", f"transformers was not measured with this model on this machine; {_MEASURE}"


def _is_lost(baseline: Record) -> bool:
    return baseline.outcome in _LOST and baseline.phase not in _BEFORE_THE_MODEL


def _endings(baselines: Sequence[Record]) -> Iterator[str]:
    """One clause for each way in which baselines ended: `the baseline transformers-gguf hung in load`."""
    for how, several in groupby(sorted(baselines, key=ending), key=ending):
        names = sorted({record.scenario for record in several})
        if len(names) == 1:
            yield f"the baseline {names[0]} {how}"
        else:
            yield f"the baselines {listed(names)} {how.replace('was ', 'were ', 1)}"


def _interface(chats: Sequence[Record]) -> MigrationAnswer:
    """Yes if a LangChain chat model driven by llama.cpp was measured with this model."""
    measured = [record for record in chats if has_numbers(record)]
    if measured:
        return MigrationAnswer(
            "same interface", "yes", f"the chat model {measured[0].provider.name} was measured"
        )
    if chats:
        return MigrationAnswer(
            "same interface", "not measured", f"{chats[0].provider.name} {ending(chats[0])}"
        )
    sentence = (
        "no chat model was measured; measure the one of ggufbench with `ggufbench run --scenario chat`, or "
        "your own as described in docs/providers.md"
    )
    return MigrationAnswer("same interface", "not measured", sentence)
