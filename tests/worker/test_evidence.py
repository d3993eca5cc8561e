"""The kernel's counters around a sample."""

import time

import pytest

from ggufbench.worker import evidence


def test_busy_and_stolen_time_come_from_proc_stat():
    ticks = evidence._TICKS_PER_SECOND
    line = f"cpu  {2 * ticks} {ticks} {ticks} 900 80 {ticks} 0 {3 * ticks} 50 0\n"
    assert evidence.parse_stat(line) == {"machine_busy_seconds": 5, "machine_steal_seconds": 3}


@pytest.mark.parametrize("line", ["", "cpu", "cpu  1 2 3"])
def test_missing_counters_are_left_out(line):
    assert evidence.parse_stat(line) == {}


def test_pressure_is_read_in_seconds():
    text = "some avg10=0.00 avg60=1.20 avg300=0.40 total=2500000\nfull avg10=0.00 total=7\n"
    assert evidence.parse_pressure(text) == {"cpu_pressure_seconds": 2.5}
    assert evidence.parse_pressure("") == {}


def test_waiting_is_read_in_nanoseconds():
    assert evidence.parse_schedstat("331762 2828095000 3\n") == pytest.approx(2.828095)
    with pytest.raises(ValueError, match="0 0"):
        evidence.parse_schedstat("0 0")


def test_work_and_sleep_are_distinguished():
    watch = evidence.Watch()
    watch.start()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    time.sleep(0.3)
    seen = watch.stop()
    assert 0.19 < seen["cpu_seconds"] < 0.4
    assert seen["wall_seconds"] >= 0.5
    assert seen["voluntary_switches"] >= 1


def test_other_counters_work_without_the_kernel_s_files(monkeypatch, tmp_path):
    monkeypatch.setattr(evidence, "_STAT", tmp_path / "none")
    monkeypatch.setattr(evidence, "_PRESSURE", tmp_path / "none")
    monkeypatch.setattr(evidence, "_TASKS", tmp_path / "none")
    monkeypatch.setattr(evidence, "_THROTTLE", tmp_path / "none")
    watch = evidence.Watch()
    watch.start()
    assert "machine_busy_seconds" not in (seen := watch.stop())
    assert seen["wall_seconds"] >= 0
