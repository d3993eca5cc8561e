"""Preparation of a run: the steps that pytest and the command line share before anything is measured."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ggufbench.calibration.probe import probe, probe_transformers
from ggufbench.discovery import discover
from ggufbench.discovery.model import Discovery, Model
from ggufbench.discovery.names import portable_path
from ggufbench.errors import GgufbenchError
from ggufbench.launching.launcher import Interpreter
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.facts import available_memory_bytes, read_machine
from ggufbench.machine.parts import Machine
from ggufbench.outcomes import Outcome
from ggufbench.paths import expanded, with_variables
from ggufbench.planning.plan import Case, Host, Selection, environment_key, make_plan
from ggufbench.planning.scenario import Scenario, load_scenarios, scenario_folder
from ggufbench.quality.corpus import CorpusError, corpus_for
from ggufbench.records.schema import Record
from ggufbench.records.store import read_records
from ggufbench.worker.job import SCORER, TRANSFORMERS

_RUNS_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class Request:
    """The user's request, from pytest or from the command line."""

    places: Sequence[Path] = ()
    """Files and folders to look in instead of the known caches."""
    selection: Selection = field(default_factory=Selection)
    scenarios: Sequence[str] = ()
    """Names; empty means every scenario of the folder."""
    scenario_folder: Path | None = None
    demo_folder: Path | None = None
    """If no model is found, get the demo models here and use those."""
    launches: int | None = None
    cold_launches: int | None = None
    repetitions: int | None = None
    results: Path = Path("results")
    text: Path | None = None
    """The text by which answers are compared instead of the shipped ones."""
    deadline_scale: float = 1.0
    """Factor for every timeout after which a silent worker counts as hung."""
    time_budget_seconds: float | None = None
    """A case that would end after this time is not started."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything found and planned."""

    discovery: Discovery
    cases: list[Case]
    environments: Mapping[str, AvailableDevices]
    machine: Machine
    earlier: Mapping[tuple[str, str], Record]
    """The last record of each case on this machine, by model identity and scenario."""


def requested_places(given: Sequence[str], env: Mapping[str, str] = os.environ) -> list[Path]:
    """The places of `--models`, or of GGUFBENCH_MODELS (separated as in PATH) without that option."""
    listed = env.get("GGUFBENCH_MODELS", "").split(os.pathsep)
    return [expanded(text) for text in given or [with_variables(text, env) for text in listed if text]]


def prepare_run(
    request: Request, interpreter: Interpreter, tell: Callable[[str], None] = lambda _sentence: None
) -> Prepared:
    """Find the models, read the scenarios, probe llama.cpp for its devices and plan.

    Raises PlaceNotFoundError, PlanError and ScenarioError.

    `tell` is called with a message before slow steps.
    """
    scenarios = read_scenarios(request)
    found, models = find_models(request, tell)
    environments = probe_for(scenarios, interpreter)
    machine = read_machine(environments[""].gpu_names())
    earlier = earlier_records(request.results, machine.fingerprint)
    cases = plan_cases(models, scenarios, environments, earlier, found.models)
    return Prepared(found, cases, environments, machine, earlier)


def read_scenarios(request: Request) -> list[Scenario]:
    """The requested scenarios. Raises ScenarioError, and CorpusError for a text that cannot be read."""
    folder = scenario_folder(request.scenario_folder)
    scenarios = [_adjust(scenario, request) for scenario in load_scenarios(folder, request.scenarios)]
    texts = [scenario.text for scenario in scenarios if scenario.provider == SCORER]
    for text in dict.fromkeys(texts):
        corpus_for(text)
    if request.text is not None and not texts:
        raise CorpusError(
            f"--text {request.text} is for scenarios that compare answers; add --scenario quality"
        )
    return scenarios


def find_models(request: Request, tell: Callable[[str], None]) -> tuple[Discovery, list[Model]]:
    """All models found, and those selected. Raises PlaceNotFoundError and PlanError."""
    found = _discover(request, tell)
    return found, request.selection.choose(found.models)


def probe_for(scenarios: Sequence[Scenario], interpreter: Interpreter) -> dict[str, AvailableDevices]:
    """Devices that an environment's libraries see, by `environment_key`; always with llama.cpp (`""`)."""
    asked = {"", *map(environment_key, scenarios)}
    return {
        key: probe_transformers(interpreter) if key == TRANSFORMERS else probe(interpreter, key)
        for key in sorted(asked)
    }


def plan_cases(
    models: Sequence[Model],
    scenarios: Sequence[Scenario],
    environments: Mapping[str, AvailableDevices],
    earlier: Mapping[tuple[str, str], Record],
    found: Sequence[Model] = (),
) -> list[Case]:
    """Every model with every scenario in that environment; `found` are also those that were not selected."""
    past_seconds = {key: record.wall_seconds for key, record in earlier.items()}
    return make_plan(
        models, scenarios, Host(environments, available_memory_bytes(), past_seconds, found or models)
    )


def earlier_records(results: Path, fingerprint: str) -> dict[tuple[str, str], Record]:
    """The last record of each case that was measured on this machine, by model identity and scenario.

    Reads the newest runs only: they serve estimates and hints, which must not take longer than the run.
    """
    return {
        (record.model.identity, record.scenario): record
        for record in read_records(results, newest=_RUNS_LOOKED_AT)
        if isinstance(record, Record) and _counts(record, fingerprint)
    }


def parse_duration(text: str) -> float:
    """Parse a duration such as `90`, `90s`, `10m` or `1.5h`. Raises GgufbenchError for any other text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip().lower())
    if match is None:
        raise GgufbenchError(f"{text!r} is not a duration; write for example 90s, 10m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _discover(request: Request, tell: Callable[[str], None]) -> Discovery:
    """The models of this machine; if none is found and a demo folder is given, the demo models instead."""
    found = discover(request.places or None)
    if found.models or request.demo_folder is None:
        return found
    from ggufbench.modelkit import download_demo_model, make_demo_models

    tell(f"no GGUF model was found, so the demo models in {portable_path(request.demo_folder)} are measured")
    download_demo_model(request.demo_folder, tell)
    make_demo_models(
        request.demo_folder, lambda name, done, _total: tell(f"making {name}") if not done else None
    )
    demos = discover([request.demo_folder])
    return replace(demos, rejected=(*found.rejected, *demos.rejected))


def _counts(record: Record, fingerprint: str) -> bool:
    return record.outcome is Outcome.MEASURED and record.machine.fingerprint == fingerprint


def _adjust(scenario: Scenario, request: Request) -> Scenario:
    asked = {name: getattr(request, name) for name in ("launches", "cold_launches", "repetitions")}
    changes = {name: value for name, value in asked.items() if value is not None}
    text = {} if request.text is None else {"text": str(request.text)}
    return scenario.model_copy(update={"workload": scenario.workload.model_copy(update=changes), **text})
