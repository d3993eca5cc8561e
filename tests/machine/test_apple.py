"""Facts about a Mac, from fake programs on PATH that print composed text in the wording of macOS's own."""

import sys

import pytest

from ggufbench.calibration import doctor
from ggufbench.calibration.doctor import device_problems
from ggufbench.machine import apple, conditions, facts
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.fitness import unfit
from ggufbench.machine.parts import Conditions, Device

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake programs are shell scripts")

M4 = """hw.perflevel0.name: Performance
hw.perflevel0.physicalcpu: 4
hw.perflevel1.name: Efficiency
hw.perflevel1.physicalcpu: 6
kern.hv_vmm_present: 0
machdep.cpu.brand_string: Apple M4
iogpu.wired_limit_mb: 0
"""
M5_PRO = """hw.perflevel0.name: Super
hw.perflevel0.physicalcpu: 6
hw.perflevel1.name: Performance
hw.perflevel1.physicalcpu: 12
machdep.cpu.brand_string: Apple M5 Pro
"""
INTEL = """kern.hv_vmm_present: 0
machdep.cpu.brand_string: Intel(R) Core(TM) i7
"""
RUNNER = """hw.perflevel0.name: Performance
hw.perflevel0.physicalcpu: 3
kern.hv_vmm_present: 1
machdep.cpu.brand_string: Apple M1 (Virtual)
"""
VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10934.
Pageins:                               99999999.
Pageouts:                                 12345.
Swapins:                                     {ins}.
Swapouts:                                     2.
"""


@pytest.fixture
def mac(tmp_path, monkeypatch):
    """A function that makes this process see a Mac whose programs print these texts, by program."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(facts, "_IS_MAC", True)
    apple.system_values.cache_clear()

    def make(**programs):
        for name, text in programs.items():
            (tmp_path / f"{name}.txt").write_text(text)
            program = tmp_path / name
            program.write_text(f"#!/bin/sh\ncat {tmp_path}/{name}.txt\nexit 1\n")  # some names are missing
            program.chmod(0o755)
        apple.system_values.cache_clear()

    yield make
    apple.system_values.cache_clear()


@pytest.fixture
def usable(monkeypatch):
    """A function that sets the number of physical and usable cores."""

    def cores(count):
        monkeypatch.setattr(facts, "physical_cores", lambda: count)
        monkeypatch.setattr(facts, "usable_cores", lambda: count)

    return cores


@pytest.mark.parametrize(
    ("text", "cores", "fast_and_slow", "auto"),
    [(M4, 10, (4, 6), 4), (M5_PRO, 18, (18, 0), 17), (INTEL, 8, None, 7), (RUNNER, 3, (3, 0), 2)],
)
def test_auto_threads_leave_out_efficiency_cores(mac, usable, text, cores, fast_and_slow, auto):
    mac(sysctl=text)
    usable(cores)
    assert apple.cores() == fast_and_slow
    assert facts.resolve_threads("auto") == auto
    assert facts.resolve_threads("physical") == cores


def test_a_mac_in_a_record(mac, monkeypatch):
    mac(sysctl=M4)
    monkeypatch.setattr(facts, "_cpu_info", lambda: {"brand_raw": "arm"})
    machine = facts.read_machine()
    assert (machine.cpu, machine.virtualization) == ("Apple M4", facts._virtualization({}))
    assert (machine.performance_cores, machine.efficiency_cores, machine.gpu_wired_limit_mib) == (4, 6, 0)
    mac(sysctl=RUNNER)
    assert facts.read_machine().virtualization == "virtual machine"


def test_a_mac_without_these_programs(mac, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert apple.cores() is None and apple.processor_name() == "" and apple.wired_limit_mib() is None
    assert apple.thermal_pressure() is None and apple.swapped_bytes() is None


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("com.apple.system.thermalpressurelevel 0\n", 0),
        ("com.apple.system.thermalpressurelevel 2\n", 2),
        ("com.apple.system.thermalpressurelevel: Failed with code 1\n", None),
        ("", None),
    ],
)
def test_heat_is_the_thermal_pressure(mac, text, level):
    mac(notifyutil=text, pmset="Note: No thermal warning level has been recorded\n")
    found = conditions._read_darwin()
    assert (found.thermal_pressure, found.speed_limit_percent) == (level, None)
    assert len(unfit(found)) == (1 if level else 0)


def test_no_clock_rate_from_a_mac(monkeypatch):
    monkeypatch.setattr(conditions.sys, "platform", "darwin")
    assert conditions._frequency_mhz() is None


def test_thermal_pressure_is_named():
    (found,) = unfit(Conditions(thermal_pressure=3))
    assert found.problem == "macOS reports thermal pressure 3 of 4"


def test_only_swapping_counts_as_swapping(mac, monkeypatch):
    mac(vm_stat=VM_STAT.format(ins=5))
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    assert doctor._swapped_bytes() == 7 * 16384
    mac(vm_stat="garbage")
    assert doctor._swapped_bytes() == 0


def test_a_paravirtual_gpu_is_a_problem():
    def problems(description):
        gpu = Device(
            name="MTL0", description=description, type="gpu", memory_free_bytes=1, memory_total_bytes=1
        )
        return device_problems(AvailableDevices({}, "", False, [gpu]))

    (found,) = problems("Apple Paravirtual device")
    assert "MTL0: Apple Paravirtual device" in found.problem and found.remedy
    assert problems("Apple M4") == []
