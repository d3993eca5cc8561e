"""Findings: the sentences at the top of a report, worst first; each is one fact about all of its cases.

A finding gives a count and names the worst few cases, never all: ten thousand records produce as many
sentences as ten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ggufbench.analysis.baselines import (
    Versus,
    advantage,
    compare_with_baselines,
    has_numbers,
    memory_of,
    newest,
)
from ggufbench.analysis.verdicts import VERDICT_KINDS, Kind
from ggufbench.analysis.wording import ending, label
from ggufbench.metrics import METRICS
from ggufbench.outcomes import Outcome
from ggufbench.records.comparison import Cell, Comparison, Verdict
from ggufbench.records.schema import Record
from ggufbench.stats.ratios import Ratio, ratio_of
from ggufbench.text import count, listed, times

BESIDE_TRANSFORMERS = (
    "ready_seconds",
    "peak_rss_bytes",
    "prompt_tokens_per_second",
    "decode_tokens_per_second",
)
"""Metrics with a sentence of their own, in the order of the report."""

_DECODE = "decode_tokens_per_second"
_ORDER: tuple[Kind, ...] = ("bad", "warn", "good")


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about all the cases that it concerns."""

    kind: Kind
    sentence: str
    case_ids: Sequence[str] = ()
    """Cases that it names or counts as exceptions."""


def findings(
    records: Sequence[Record],
    comparisons: Sequence[Comparison] = (),
    versus: Sequence[Versus] | None = None,
) -> list[Finding]:
    """Findings of a run: comparisons, broken cases, targets, transformers, quantizations, interference.

    `versus` is the result of `compare_with_baselines` for the same records, if the caller already has it.
    """
    current = newest(records)
    ours = [record for record in current if not record.is_baseline]
    theirs = [record for record in current if record.is_baseline]
    found = [
        *_verdicts(comparisons),
        *_broken(ours, "llama.cpp", "bad"),
        *_unequal_answers(ours),
        *_targets(ours),
        *_broken(theirs, "transformers", "warn"),
        *_versus_transformers(compare_with_baselines(current) if versus is None else versus),
        *_quantizations(ours),
        *_environment(current),
    ]
    return sorted(found, key=lambda finding: _ORDER.index(finding.kind))


def _verdicts(comparisons: Sequence[Comparison]) -> Iterator[Finding]:
    for verdict, kind in VERDICT_KINDS.items():
        cases = [one for one in comparisons if one.verdict is verdict]
        if cases:
            words = listed([f"{one.case_id}{_change(one, verdict)}" for one in cases])
            sentence = f"gate: {verdict} in {len(cases)} of {count(len(comparisons), 'comparison')}: {words}."
            yield Finding(kind, sentence, [one.case_id for one in cases])


def _change(comparison: Comparison, verdict: Verdict) -> str:
    """The deciding cells: ` (decode 8.1 % slower)`; or the reason, if no number decided."""
    if verdict in (Verdict.BROKEN, Verdict.MISSING):
        return f" ({comparison.reason})" if comparison.reason else ""
    cells = [cell for cell in comparison.cells if cell.against == "baseline" and cell.verdict is verdict]
    changes = [change for cell in cells if (change := _cell(cell))]
    return f" ({', '.join(changes)})" if changes and verdict is not Verdict.NO_REGRESSION else ""


def _cell(cell: Cell) -> str:
    metric = METRICS.get(cell.metric)
    if cell.change is None or metric is None:
        return ""
    return f"{metric.name} {metric.change(cell.change)}"


def _broken(records: Sequence[Record], library: str, kind: Kind) -> Iterator[Finding]:
    """One sentence for each way in which cases ended, with the phase and the timeout."""
    ways: dict[str, list[str]] = {}
    for record in records:
        if not has_numbers(record):
            ways.setdefault(_way(record), []).append(record.case_id)
    most = sorted(ways.items(), key=lambda way: -len(way[1]))
    for how, cases in most[:_MOST_WAYS]:
        sentence = f"{library} {how} in {len(cases)} of {count(len(records), 'case')}: {listed(cases)}."
        yield Finding(kind, sentence, cases)
    rest = [case for _, cases in most[_MOST_WAYS:] for case in cases]
    if rest:
        yield Finding(kind, f"{library} failed in other ways in {count(len(rest), 'case')}.", rest)


_MOST_WAYS = 6
"""Maximum sentences about failures: each may have a different message, so there can be one for each case."""


def _way(record: Record) -> str:
    return ending(record).rstrip(".")


def _unequal_answers(records: Sequence[Record]) -> Iterator[Finding]:
    cases = [
        record.case_id
        for record in records
        if len({launch.digest for launch in record.launches if launch.digest}) > 1
    ]
    if cases:
        sentence = f"the launches of {count(len(cases), 'case')} gave different answers: {listed(cases)}."
        yield Finding("warn", sentence, cases)


def _targets(records: Sequence[Record]) -> Iterator[Finding]:
    """For each target, the number of cases that met it, and by how much the worst cases missed it."""
    held: dict[str, int] = {}
    missed: dict[str, list[tuple[float, str, str]]] = {}
    for record in records:
        for target in record.targets:
            if target.status == "not applicable" or target.measured is None:
                continue
            held[target.name] = held.get(target.name, 0) + 1
            if target.status == "missed":
                excess = target.measured / target.limit if target.limit > 0 else float("inf")
                metric = METRICS[target.metric]
                words = f"{metric.exact(target.measured)}, limit {metric.exact(target.limit)}"
                missed.setdefault(target.name, []).append((excess, record.case_id, words))
    for name, total in held.items():
        if name not in missed:
            yield Finding(
                "good", f"{name}: target met in {'all ' if total > 1 else ''}{count(total, 'case')}."
            )
            continue
        worst = sorted(missed[name], reverse=True)
        words = listed([f"{case} ({numbers})" for _, case, numbers in worst])
        met = f"target met in {total - len(worst)} of {count(total, 'case')}"
        yield Finding("bad", f"{name}: {met}; missed by {words}.", [case for _, case, _ in worst])


def _versus_transformers(pairs: Sequence[Versus]) -> Iterator[Finding]:
    for metric in BESIDE_TRANSFORMERS:
        factors = sorted(
            (advantage(ratio, metric).value, one.record.case_id, label(one.record))
            for one in pairs
            if (ratio := _ratio(one, metric)) is not None
        )
        if factors:
            yield _factors(metric, factors)


def _ratio(one: Versus, metric: str) -> Ratio | None:
    """Ratio of a metric; for memory it includes device memory, which the process does not count."""
    ratio = one.ratios.get(metric)
    if ratio is None or metric != "peak_rss_bytes":
        return ratio
    ours, theirs = memory_of(one.record), memory_of(one.baseline)
    return ratio_of(ours, theirs) if ours and theirs else None


def _factors(metric: str, factors: Sequence[tuple[float, str, str]]) -> Finding:
    models = sorted({name for _, _, name in factors})
    over = f"over {len(models)} models" if len(models) > 1 else f"with {models[0]}"
    lost = [case for factor, case, _ in factors if factor <= 1]
    what = "takes less memory than" if metric == "peak_rss_bytes" else f"{METRICS[metric].verb} faster than"
    if lost:
        cases = list(dict.fromkeys(lost))
        sentence = (
            f"llama.cpp {what} transformers in only {len(factors) - len(lost)} of "
            f"{count(len(factors), 'comparison')}; not in {listed(cases)} "
            f"({_factor_range(metric, factors)})."
        )
        return Finding("bad", sentence, cases)
    if metric == "peak_rss_bytes":
        return Finding("good", f"llama.cpp takes {_factor_range(metric, factors)} of transformers {over}.")
    return Finding(
        "good", f"llama.cpp {METRICS[metric].verb} {_factor_range(metric, factors)} as transformers {over}."
    )


def _factor_range(metric: str, factors: Sequence[tuple[float, str, str]]) -> str:
    """`12 to 40 times as fast`, `0.31 to 0.46 of the memory`."""
    least, most = factors[0][0], factors[-1][0]
    if metric == "peak_rss_bytes":
        low, high = f"{1 / most:.2f}", f"{1 / least:.2f}"
        return f"{low if low == high else f'{low} to {high}'} of the memory"
    low, high = times(least), times(most)
    return f"{low if low == high else f'{low} to {high}'} times as fast"


def _quantizations(records: Sequence[Record]) -> Iterator[Finding]:
    """For each model with several quantizations, the one that decodes fastest on its fastest device."""
    rates: dict[tuple[str, str, str], dict[str, tuple[float, str]]] = {}
    for record in records:
        if has_numbers(record) and _DECODE in record.summary:
            key = (record.machine.fingerprint, record.model.name, record.scenario)
            rate = record.summary[_DECODE].median
            rates.setdefault(key, {})[record.model.quantization] = (rate, record.case_id)
    best: dict[tuple[str, str], tuple[float, str, str, str]] = {}
    for (machine, name, scenario), found in rates.items():
        if len(found) > 1:
            rate, case_id = max(found.values())
            quantization = next(quant for quant, value in found.items() if value == (rate, case_id))
            answer = (rate, quantization, scenario, case_id)
            best[machine, name] = max(answer, best.get((machine, name), answer))
    if not best:
        return
    words = [
        f"{name} as {quantization} ({METRICS[_DECODE].amount(rate)}, {scenario})"
        for (_, name), (rate, quantization, scenario, _) in best.items()
    ]
    yield Finding("good", f"fastest quantization: {listed(words)}.", [found[3] for found in best.values()])


def _environment(records: Sequence[Record]) -> Iterator[Finding]:
    """Cases with interference in most of their samples."""
    disturbed = [record for record in records if record.outcome is Outcome.ENVIRONMENT]
    if disturbed:
        why = f" ({disturbed[0].environment.sentence})" if disturbed[0].environment else ""
        cases = [record.case_id for record in disturbed]
        total = count(len(records), "case")
        sentence = (
            f"interference in {len(cases)} of {total}, which must be measured again: {listed(cases)}{why}."
        )
        yield Finding("warn", sentence, cases)
