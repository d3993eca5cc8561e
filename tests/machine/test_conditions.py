"""The system's reports about power, heat and other processes, and their interpretation.

The macOS texts are composed in the documented format of pmset; none was taken from a Mac.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from ggufbench.machine.conditions import (
    busiest_processes,
    parse_pmset_battery,
    parse_pmset_settings,
    parse_pmset_thermal,
    read_conditions,
    read_cpus,
    read_power_supplies,
)
from ggufbench.machine.fitness import unfit
from ggufbench.machine.parts import BusyProcess, Conditions

FIXTURES = Path(__file__).parents[1] / "fixtures"
BUSY_LOOP = "import os, sys\nprint(os.getpid(), flush=True)\nwhile True: pass"


@pytest.fixture
def composed():
    """A function that returns the composed output of pmset by its name."""
    return lambda name: (FIXTURES / f"composed_pmset_{name}.txt").read_text()


@pytest.fixture
def tree(tmp_path):
    """A function that makes a folder with these files, as the kernel shows its state."""

    def make(**files: str) -> Path:
        for name, content in files.items():
            path = tmp_path.joinpath(*name.split("__"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")
        return tmp_path

    return make


@pytest.fixture
def stranger():
    """Process id of a busy process that is not a child of this one, because its parent has ended."""
    script = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=1)"
    command = [sys.executable, "-c", script, f"import signal; signal.alarm(60)\n{BUSY_LOOP}"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert started.stdout is not None
    pid = int(started.stdout.readline())
    started.wait()
    yield pid
    psutil.Process(pid).kill()


def test_this_machine_s_conditions_are_plain_values():
    conditions = read_conditions()
    assert json.loads(json.dumps(asdict(conditions))) == asdict(conditions)
    assert conditions.load_average is not None and conditions.load_average >= 0
    assert conditions.power_source in ("mains", "battery", None)


def test_macos_power_source(composed):
    assert parse_pmset_battery(composed("batt_battery")) == "battery"
    assert parse_pmset_battery(composed("batt_mains")) == "mains"


def test_macos_low_power_mode(composed):
    assert parse_pmset_settings(composed("low_power")) is True
    assert parse_pmset_settings(composed("high_power")) is False


def test_macos_heat(composed):
    assert parse_pmset_thermal(composed("therm_hot")) == 62
    assert parse_pmset_thermal(composed("therm_cool")) is None, "Apple silicon prints this at any heat"


@pytest.mark.parametrize("text", ["", "\x00garbage", "Now drawing from", "powermode", "CPU_Speed_Limit = x"])
def test_uninformative_pmset_output(text):
    for parse in (parse_pmset_battery, parse_pmset_settings, parse_pmset_thermal):
        assert parse(text) is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"AC__type": "Mains", "AC__online": "1"}, "mains"),
        ({"AC__type": "Mains", "AC__online": "0", "BAT0__type": "Battery", "BAT0__status": "Full"}, "mains"),
        (
            {"AC__type": "Mains", "AC__online": "0", "BAT0__type": "Battery", "BAT0__status": "Discharging"},
            "battery",
        ),
        # A weak charger still counts as mains, which decides the power limits.
        (
            {"C__type": "USB", "C__online": "1", "BAT0__type": "Battery", "BAT0__status": "Discharging"},
            "mains",
        ),
        ({"BAT0__type": "Battery", "BAT0__status": "Charging"}, "mains"),
        ({"BAT0__type": "Battery", "BAT0__status": "Discharging"}, "battery"),
        ({"m__type": "Battery", "m__scope": "Device", "m__status": "Discharging"}, None),
        ({"x__type": "UPS"}, None),
        ({}, None),
    ],
)
def test_linux_power_source(tree, files, expected):
    assert read_power_supplies(tree(**files)) == expected


def test_linux_processors(tree):
    folder = tree(
        cpu0__cpufreq__scaling_governor="powersave",
        cpu1__cpufreq__scaling_governor="performance",
        cpu0__cpufreq__scaling_driver="acpi-cpufreq",
        cpu0__thermal_throttle__core_throttle_count="3",
        cpu1__thermal_throttle__core_throttle_count="4",
        cpufreq__scaling_governor="not a core",
    )
    assert read_cpus(folder) == Conditions(
        governor="performance,powersave", frequency_driver="acpi-cpufreq", throttle_events=7
    )
    assert read_cpus(folder / "nothing") == Conditions()


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        (Conditions(power_source="battery"), "battery"),
        (Conditions(low_power_mode=True), "low power mode"),
        (Conditions(speed_limit_percent=62), "62 %"),
        (Conditions(governor="powersave", frequency_driver="acpi-cpufreq"), "powersave"),
        (Conditions(governor="performance,powersave"), "powersave"),
        (
            Conditions(governor="powersave", frequency_driver="intel_pstate", energy_preference="power"),
            "energy preference",
        ),
    ],
)
def test_conditions_that_make_a_machine_unfit(conditions, words):
    (found,) = unfit(conditions)
    assert words in found.problem
    assert found.remedy


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(),
        Conditions(power_source="mains", low_power_mode=False, speed_limit_percent=100, governor="schedutil"),
        # The default governor of a driver that chooses frequencies itself.
        Conditions(
            governor="powersave",
            frequency_driver="intel_pstate",
            energy_preference="balance_performance",
        ),
        Conditions(throttle_events=5, load_average=99.0, frequency_mhz=400.0),
    ],
)
def test_conditions_of_a_fit_machine(conditions):
    assert unfit(conditions) == []


def test_only_a_busy_process_makes_a_machine_unfit():
    (found,) = unfit(Conditions(), [BusyProcess(7, "backup", 0.8), BusyProcess(8, "shell", 0.05)])
    assert found.problem == "process 7 (backup) uses 80 % of a core"


@pytest.mark.real
@pytest.mark.timing
def test_an_unrelated_busy_process_is_found(stranger):
    found = {process.pid: process for process in busiest_processes(0.5)}
    assert found[stranger].core_share > 0.1
    assert "python" in found[stranger].name


@pytest.mark.real
@pytest.mark.timing
def test_own_children_are_not_listed():
    with subprocess.Popen([sys.executable, "-c", BUSY_LOOP], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            assert child.pid not in {process.pid for process in busiest_processes(0.3)}
        finally:
            child.kill()
