"""Models and single measurements from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ggufbench.calibration.limits import load_limits
from ggufbench.discovery import discover as discover_places
from ggufbench.discovery.model import Discovery, Model
from ggufbench.errors import GgufbenchError
from ggufbench.launching.launcher import Interpreter
from ggufbench.machine.facts import read_machine, source_state
from ggufbench.measuring.case import Bench, measure_case, skipped_record
from ggufbench.measuring.machine_lock import one_at_a_time
from ggufbench.measuring.preparation import plan_cases, probe_for, requested_places
from ggufbench.planning.scenario import Scenario, load_scenario_file, load_scenarios, scenario_folder
from ggufbench.records.schema import Record
from ggufbench.records.store import new_run_id, write_record
from ggufbench.text import listed


def discover(places: Sequence[str | Path] = ()) -> Discovery:
    """Every GGUF model on this machine, and the files that cannot be measured with the reason.

    `places` are files and folders to search instead of GGUFBENCH_MODELS and the known caches. Raises
    GgufbenchError for a place that does not exist.
    """
    given = [places] if isinstance(places, str | Path) else places
    return discover_places(requested_places([os.fspath(place) for place in given]) or None)


def measure(
    model: Model | str | Path,
    scenario: Scenario | str | Path = "cpu",
    *,
    results: str | Path | None = None,
    tell: Callable[[str], None] = lambda _sentence: None,
) -> Record:
    """Measure one case in a supervised worker, as `ggufbench run` does, and return its record.

    `scenario` is a name, a TOML file or a Scenario. The record is stored only if `results` names a folder.
    While it measures, no other run of this user measures; `tell` is called if this one has to wait. What the
    machine can do at most is compared if it is known from an earlier run. Raises GgufbenchError for an
    argument that cannot be used; a crash, a timeout or a skipped case is the outcome of the record.
    """
    chosen, found = _scenario(scenario), _model(model)
    interpreter = Interpreter()
    environments = probe_for([chosen], interpreter)
    machine = read_machine(environments[""].gpu_names())
    (case,) = plan_cases([found], [chosen], environments, {})
    bench = Bench(new_run_id(), machine, source_state(Path.cwd()), interpreter)
    if case.skip is not None:
        record = skipped_record(case, bench, case.skip)
    else:
        if case.setting.device == "cpu":
            bench = replace(bench, limits=load_limits(machine, environments[""]))
        with one_at_a_time(tell):
            record = measure_case(case, bench)
    if results is not None:
        write_record(Path(results), record)
    return record


def _model(given: Model | str | Path) -> Model:
    if isinstance(given, Model):
        return given
    found = discover([given])
    if not found.models:
        reason = found.rejected[0].reason if found.rejected else "it holds no GGUF"
        raise GgufbenchError(f"{given} cannot be measured: {reason}")
    if len(found.models) > 1:
        labels = listed([model.label for model in found.models])
        raise GgufbenchError(f"{given} holds {len(found.models)} models ({labels}); give the file of one")
    return found.models[0]


def _scenario(given: Scenario | str | Path) -> Scenario:
    if isinstance(given, Scenario):
        return given
    if Path(given).suffix == ".toml":
        return load_scenario_file(Path(given))
    found = load_scenarios(scenario_folder(), [str(given)])
    if len(found) > 1:
        raise GgufbenchError(
            f"scenario {given!r} has {len(found)} combinations; give a TOML file with one value for each key"
        )
    return found[0]
