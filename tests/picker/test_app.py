"""The picker with simulated key presses, on screens of several sizes."""

import time

import pytest

from ggufbench.picker.app import Picker
from ggufbench.picker.entries import SORTS, Order
from ggufbench.text import rate, seconds_text, size


@pytest.fixture
def five(vary):
    """Models in every state."""
    return [
        vary("alpha", "Q4_K_M", number=0, repository="someone/Alpha-GGUF", file_size_bytes=5 * 2**30),
        vary("alpha", "Q8_0", number=1, repository="someone/Alpha-GGUF", file_size_bytes=9 * 2**30),
        vary("bravo", "IQ4_NL", repository=None, outcome="crashed", file_size_bytes=2**30),
        vary("charlie", "MXFP4", repository=None, measured=None, file_size_bytes=3 * 2**30),
        vary(
            "delta",
            "F16",
            repository=None,
            measured=None,
            file_size_bytes=900 * 2**30,
            larger_than_memory=True,
        ),
    ]


def names(app) -> list[str]:
    return [entry.row.label for entry in app.shown]


def test_each_model_is_a_line_with_its_figures(drive, screen_of, measured_entries):
    app = Picker(measured_entries)

    async def script(_pilot):
        lines = screen_of(app)
        assert lines[1].split() == [
            "Model", "↑", "Quant", "Size", "Context", "Cost", "Speed", "Memory", "Load"
        ]  # fmt: skip
        for entry in measured_entries:
            line = next(x for x in lines if f" {entry.row.name} ~ " in x and entry.row.quantization in x)
            measured = entry.row.measured
            assert size(entry.row.file_size_bytes) in line
            figures = (
                rate(measured.decode_tokens_per_second),
                size(measured.peak_rss_bytes),
                seconds_text(measured.load_seconds),
            )
            assert line.partition("free")[2].split() == " ".join(figures).split()

    assert drive(app, script) is None


def test_typing_filters_and_enter_chooses(drive, screen_of, five):
    app = Picker(five)

    async def script(pilot):
        await pilot.press(*"GGUF")  # in the repository alone
        assert names(app) == ["alpha-Q4_K_M", "alpha-Q8_0"]
        await pilot.press("space", *"q8")
        assert names(app) == ["alpha-Q8_0"]
        assert "1 of 5" in screen_of(app)[0]
        await pilot.press("backspace", "backspace", "down", "enter")

    assert drive(app, script) is five[1]


def test_filter_without_matches(drive, screen_of, five):
    app = Picker(five, "nosuch [b]thing")

    async def script(pilot):
        await pilot.press("enter")
        assert app.is_running and app.highlighted is None
        assert "contains all of: nosuch [b]thing" in " ".join(screen_of(app))
        await pilot.press("ctrl+u", "enter")

    assert drive(app, script) is five[0]


def test_an_empty_list_can_be_left(drive):
    app = Picker([])

    async def script(pilot):
        await pilot.press("down", "enter", "ctrl+s", "ctrl+r", "tab", "enter", "q")

    assert drive(app, script) is None and not app.is_running


@pytest.mark.parametrize("keys", [["escape"], ["ctrl+c"], ["tab", "q"], ["tab", "escape"], ["?", "ctrl+c"]])
def test_leaving_chooses_nothing(drive, five, keys):
    app = Picker(five)

    async def script(pilot):
        await pilot.press(*keys)

    assert drive(app, script) is None and app.return_code == 0 and not app.is_running


def test_letters_of_the_table_are_text_in_the_filter(drive, five):
    app = Picker(five)

    async def script(pilot):
        await pilot.press(*"e/Alpha")
        assert names(app) == ["alpha-Q4_K_M", "alpha-Q8_0"]
        await pilot.press(*"qsr")
        assert app.is_running and app.shown == []
        await pilot.press("ctrl+u", "tab", "s")
        assert app.order == Order("quantization")
        await pilot.press("slash", *"delta", "enter")

    assert drive(app, script) is five[4]


def test_every_column_sorts_in_both_directions(drive, five, screen_of):
    app = Picker(five)
    seen = {}

    async def script(pilot):
        for by in SORTS:
            assert app.order == Order(by)
            seen[by] = names(app)
            arrow = "↓" if by in {"context", "speed"} else "↑"
            assert screen_of(app)[1].count(arrow) == 1
            await pilot.press("ctrl+r")
            seen[by, "reverse"] = names(app)
            await pilot.press("ctrl+s")
        assert app.order == Order("name"), "after the last the first again"

    drive(app, script)
    assert seen["size"][0] == "bravo-IQ4_NL" and seen["size", "reverse"] == seen["size"][::-1]
    assert seen["quantization"] == [
        "delta-F16", "bravo-IQ4_NL", "charlie-MXFP4", "alpha-Q4_K_M", "alpha-Q8_0"
    ]  # fmt: skip
    measured = sorted(five[:2], key=lambda entry: -entry.row.measured.decode_tokens_per_second)
    assert seen["speed"][:2] == [entry.row.label for entry in measured]
    for by in ("speed", "memory", "load"):
        assert seen[by, "reverse"][:2] == seen[by][1::-1]
        assert seen[by][2:] == seen[by, "reverse"][2:] == ["bravo-IQ4_NL", "charlie-MXFP4", "delta-F16"]


def test_heading_clicks_sort_and_reverse(drive, five, screen_of):
    app = Picker(five)

    async def click(pilot, heading):
        x = screen_of(app)[1].index(heading)
        await pilot.click(offset=(x + 1, 1))
        await pilot.pause()

    async def script(pilot):
        await click(pilot, "Size")
        assert app.order == Order("size") and names(app)[0] == "bravo-IQ4_NL"
        await click(pilot, "Size")
        assert app.order == Order("size", reverse=True) and names(app)[0] == "delta-F16"
        await click(pilot, "Cost")
        assert app.order == Order("size", reverse=True)
        await click(pilot, "Size")
        assert app.order == Order("size")

    drive(app, script)


def test_the_mouse_highlights_then_chooses(drive, five):
    app = Picker(five)

    async def script(pilot):
        await pilot.click(offset=(3, 4))
        await pilot.pause()
        assert app.is_running and app.highlighted is five[2]
        await pilot.click(offset=(3, 4))
        await pilot.pause()

    assert drive(app, script) is five[2]


def test_highlight_stays_when_the_order_changes(drive, five):
    app = Picker(five)

    async def script(pilot):
        await pilot.press("down", "down", "down")
        assert app.highlighted is five[3]
        await pilot.press("ctrl+s", "ctrl+s")
        assert app.highlighted is five[3]
        await pilot.press(*"mxfp", "ctrl+u")
        assert app.highlighted is five[3]
        await pilot.resize_terminal(40, 12)
        await pilot.pause()
        assert app.highlighted is five[3]

    drive(app, script)


@pytest.mark.parametrize(
    ("outcome", "cell", "sentence"),
    [
        ("crashed", "crashed", "crashed (cpu, 2026"),
        ("hung", "hung", "hung (cpu, 2026"),
        ("out of memory", "out of memory", "ran out of memory (cpu, 2026"),
        ("failed", "failed", "failed (cpu, 2026"),
    ],
)
def test_broken_model_shows_its_outcome(drive, screen_of, vary, outcome, cell, sentence):
    app = Picker([vary("alpha", outcome=outcome)])

    async def script(pilot):
        lines = screen_of(app)
        assert lines[2].startswith(" ! alpha ") and cell in lines[2]
        assert any(line.startswith(" ! Measured") and sentence in line for line in lines)
        assert any("To measure" in line and "--models models/alpha.gguf" in line for line in lines)
        await pilot.resize_terminal(40, 20)
        await pilot.pause()
        assert screen_of(app)[2].startswith(" ! alpha ")

    drive(app, script)


def test_details_of_the_highlighted_model(drive, screen_of, five):
    app = Picker(five)

    async def script(pilot):
        lines = screen_of(app)
        assert any(line.startswith(" Measured    decode ") and "(cpu, 2026-" in line for line in lines)
        assert not any("To measure" in line for line in lines)
        assert any(line.startswith(" From        someone/Alpha-GGUF (path)") for line in lines)
        assert any(line.startswith(" Path        models/alpha.gguf") for line in lines)
        await pilot.press(*"delta")
        lines = screen_of(app)
        assert lines[2].startswith(" ! delta ")
        assert any("! Memory    the file is larger than the memory of this machine" in line for line in lines)
        assert any(line.startswith(" Measured    never on this machine") for line in lines)

    drive(app, script)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_narrow_terminal_keeps_model_quant_and_size(drive, screen_of, vary, width):
    entries = [vary("qwen3-30b-a3b-instruct-2507", "Q4_K_M"), vary("tiny", "MXFP4", measured=None)]
    app = Picker(entries)

    async def script(_pilot):
        lines = screen_of(app)
        if width >= 40:
            assert "qwen3-30b-a3" in lines[2] and "Q4_K_M" in lines[2] and "MiB" in lines[2]
        assert ("Speed" in lines[1]) == (width >= 60) and ("Load" in lines[1]) == (width >= 100)
        assert all(len(line) <= width for line in lines)

    drive(app, script, size=(width, 24))


@pytest.mark.parametrize("size", [(1, 1), (10, 3), (40, 8), (300, 100)])
def test_every_terminal_size_works(drive, five, size):
    app = Picker(five)

    async def script(pilot):
        await pilot.press("?")
        await pilot.resize_terminal(*size)
        await pilot.press("ctrl+s", "?", "ctrl+r", "down")
        await pilot.resize_terminal(100, 30)
        await pilot.press("ctrl+u", "enter")

    assert drive(app, script) in five


def test_keys_screen_opens_and_closes(drive, screen_of, five):
    app = Picker(five)

    async def script(pilot):
        assert "esc Leave" in screen_of(app)[-1]
        for close in ("escape", "?", "q", "enter"):
            await pilot.press("?")
            await pilot.pause()
            assert any("filter the list" in line for line in screen_of(app)), close
            await pilot.press(close)
            await pilot.pause()
            assert not any("filter the list" in line for line in screen_of(app)), close
        assert app.is_running and app.shown == five

    drive(app, script)


HOSTILE = (
    "[red]alarm[/red]", "[/]", "[@click=app.bell]x[/]", "\x1b[31mred\x1b]0;title\x07", "line\nbreak\r\ttab",
    "turned \u202e round", "zero\u200bwidth", "n" * 5000, "名前" * 40, "مرحبا", "$(reboot)", "\udcffbyte",
)  # fmt: skip


def test_hostile_names_are_text(drive, screen_of, vary):
    entries = [vary(name, quantization="[b]Q4", repository=f"x/{name}", measured=None) for name in HOSTILE]
    app = Picker(entries, order=Order("size"))

    async def script(pilot):
        for _ in entries:
            lines = screen_of(app)
            assert len(lines) == 40 and all(line.isprintable() for line in lines)
            await pilot.press("down")
        shown = "\n".join(screen_of(app))
        assert "[red]alarm[/red] ~" in shown and r"\x1b[31mred\x1b]0;title" in shown
        assert r"line\nbreak\r\ttab" in shown and r"turned \u202e round" in shown and "[b]Q4" in shown
        assert shown.count("free") == len(entries), "each takes one line, with all its columns"

    drive(app, script, size=(120, 40))


def test_three_hundred_models_stay_quick(drive, vary):
    entries = [vary(f"model-{number:04}", number=number % 3) for number in range(300)]
    app = Picker(entries)

    async def script(pilot):
        begun = time.monotonic()
        await pilot.press(*"0299")
        await pilot.pause()
        assert names(app) == ["model-0299-Q4_K_M"]
        await pilot.press("ctrl+u", "ctrl+s", "ctrl+r", "pagedown")
        await pilot.pause()
        assert time.monotonic() - begun < 8, "ten times the usual time, for a busy machine"

    drive(app, script)
