"""The figures of a report: which there are, what they say, and that no record can get out of them."""

import dataclasses
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest

from ggufbench.analysis.pairs import Pairs
from ggufbench.analysis.verdicts import judged_cell
from ggufbench.history.judgement import judge
from ggufbench.history.queries import StoredSeries, StoredSession
from ggufbench.history.series import Level, SeriesRow
from ggufbench.records.comparison import Arm, Comparison, Verdict
from ggufbench.report.content import Content
from ggufbench.report.figures import Figures, draw_all, save_figures
from ggufbench.report.figures.captions import plain
from ggufbench.report.figures.cases import CaseFacts
from ggufbench.report.figures.label_placement import Labels
from ggufbench.report.figures.load import promise_of
from ggufbench.report.figures.memory import devices_sentence, parts_of
from ggufbench.report.figures.pareto import ParetoPoint, front, pareto, point_of
from ggufbench.report.figures.scatter import MOST_POINTS, thin
from ggufbench.report.figures.style import COLORS, Canvas, drawing, fit, theme_css, width_of
from ggufbench.report.figures.tokens import line_of
from ggufbench.stats.sequential_test import Series
from ggufbench.stats.sequential_test import judge as gate

SVG = "{http://www.w3.org/2000/svg}"
PLAIN = ["load", "memory", "rate-prompt", "rate-decode", "pareto", "tokens"]
"""Figures of one measured case."""
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "$x^2$ \\frac{1}{2} 100 % $",
    "]]> --> <!-- & &amp; \" '",
    "\x00\x1b[31mred\u202egnp.exe\u2066\ufffe",
    "漢字 עברית 🦙",
    "n" * 9000,
    " ",
    "\n\n\n\n",
]


@pytest.fixture(scope="module")
def drawn(baseline_records):
    """The figures of two quantizations, three models and their baselines, by name."""
    return {one.name: one for one in draw_all(Content(baseline_records))}


def texts(svg):
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def comparison(base, verdict, cells, **changes):
    arms = [
        Arm(
            role=role, name=name, kind="requirement", scenario="cpu", setting=base.setting,
            provider=base.provider,
        )
        for role, name in (("baseline", "llama-cpp-python==0.3.35"), ("candidate", "."))
    ]  # fmt: skip
    values = {
        "run_id": "r", "case_id": base.case_id, "created": "2026-01-01", "wall_seconds": 1,
        "verdict": verdict, "model": base.model, "workload": base.workload, "tolerance": base.tolerance,
        "machine": base.machine,
        "source": base.source, "seed": 7, "arms": arms, "blocks": 10, "disturbed_blocks": 0, "launches": 22,
        "cells": cells,
    }  # fmt: skip
    return Comparison(**{**values, **changes})


def cell(metric, log_ratios):
    found = Pairs([20.0] * len(log_ratios), [19.0] * len(log_ratios), log_ratios)
    return judged_cell(metric, "baseline", found, gate({0: Series(log_ratios, 0.05)})[0], None)


def series(case_id, values, levels=()):
    sessions = [
        StoredSession(f"run-{n}", 10**15 + n * 10**11, value, None, None) for n, value in enumerate(values)
    ]
    found = StoredSeries(1, "absolute", case_id, "m", "cpu", "", "load_seconds", len(values), sessions)
    return SeriesRow(
        found, judge([math.log(value) for value in values], 0.05, hold_out=False), None, list(levels)
    )


def test_figures_with_data_are_drawn_in_order(first_run, drawn):
    assert list(drawn) == ["versus", *PLAIN]
    assert [one.name for one in draw_all(Content(first_run.records[:1]))] == PLAIN
    assert draw_all(Content([])) == []


def test_versus_figure_shows_llama_cpp_and_its_baselines(baseline_records):
    (found,) = [one for one in draw_all(Content(baseline_records)) if one.name == "versus"]
    for words in ("llama.cpp: ", "x as fast (", "x the memory (", "transformers-gguf", "transformers-bf16"):
        assert words in found.svg
    assert "Load and first token: " in found.description


@pytest.mark.parametrize("value", [0.0, -1.0, 1e300, float("inf"), float("nan")])
def test_impossible_values_draw_no_bar(baseline_records, value):
    records = [damaged(one, median=value, minimum=value, maximum=value) for one in baseline_records]
    for one in draw_all(Content(records)):
        ET.fromstring(one.svg)


def test_a_figure_without_data_is_absent(make_record):
    failed = make_record(outcome="crashed", phase="load", signal="SIGSEGV")
    assert draw_all(Content([failed])) == []
    assert draw_all(Content([make_record(outcome="skipped", reason="no device")])) == []
    no_answer = make_record(outcome="crashed", phase="decode", signal="SIGSEGV")
    names = [one.name for one in draw_all(Content([no_answer]))]
    assert names == ["load"]


def test_svg_can_be_embedded_in_any_page(drawn):
    for one in drawn.values():
        root = ET.fromstring(one.svg)
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        tags = {element.tag.removeprefix(SVG) for element in root.iter()}
        assert tags <= {
            "svg", "g", "path", "text", "tspan", "use", "defs", "clipPath", "rect", "title", "desc", "pattern"
        }, tags  # fmt: skip
        for element in root.iter():
            assert "style" not in element.attrib
            assert not any(key.lower().startswith("on") for key in element.attrib)
            assert element.get("href", "#").startswith("#")
        assert re.findall(r"https?:[^\"]*", one.svg) == ["http://www.w3.org/2000/svg"]


def test_ids_have_the_prefix_of_the_figure_and_references_have_targets(drawn):
    seen = set()
    for one in drawn.values():
        ids = [element.get("id") for element in ET.fromstring(one.svg).iter() if element.get("id")]
        assert len(ids) == len(set(ids))
        assert all(found.startswith(f"{one.name}-") for found in ids)
        assert not seen & set(ids)
        seen |= set(ids)
        used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', one.svg)
        assert {a or b for a, b in used} <= set(ids)


def test_inline_colours_are_variables_that_the_theme_defines(drawn):
    names = {color.name for color in COLORS}
    for one in drawn.values():
        assert set(re.findall(r"var\(--([a-z]+)", one.svg)) <= names
        assert not re.findall(r'(?:fill|stroke)="#', one.svg)
    css = theme_css()
    assert all(css.count(f"--{name}:") == 2 for name in names)
    assert len({color.light for color in COLORS}) == len(COLORS)


def test_same_data_gives_the_same_picture(baseline_records, tmp_path):
    content = Content(baseline_records[:3])
    first, second = (save_figures(content, tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_ratios_to_transformers_are_written(drawn):
    for name in PLAIN:
        said = [words for words in texts(drawn[name].svg) if re.search(r"\d+x (gguf|bf16)", words)]
        assert said, name
        assert re.search(
            r"llama.cpp \w+( a token| prompts)? [\d.]+( to [\d.]+)?x (as fast as|the memory of) transformers",
            drawn[name].caption,
        )
    assert "10x gguf, 3.3x bf16" in " ".join(texts(drawn["rate-decode"].svg))


def test_failed_case_has_its_reason_in_place_of_a_bar(drawn):
    for name in ("memory", "rate-prompt", "rate-decode"):
        said = " ".join(texts(drawn[name].svg))
        assert "hung in load" in said
        assert "crashed in load (SIGSEGV)" in said
        assert "hung in load" in drawn[name].description
    assert "hung in load" in " ".join(texts(drawn["load"].svg))
    assert "Transformers gave no value in 2 cases" in drawn["load"].caption


def test_without_a_baseline_no_ratio_is_claimed(make_record):
    for one in draw_all(Content([make_record()])):
        assert "No transformers baseline" in one.caption
        assert "as fast as" not in one.caption


def test_hostile_names_are_escaped(make_record, recwarn):
    records = [make_record(name=name, quantization=name[:500], scenario=name[:500]) for name in HOSTILE]
    records += [
        make_record(name=name, scenario=name[:500], provider="transformers", speed=0.2)
        for name in HOSTILE[:3]
    ]
    records.append(make_record(name="m", outcome="failed", phase="load", reason=HOSTILE[1] * 200))
    records[-1] = records[-1].model_copy(update={"phase": HOSTILE[4]})
    comparisons = [comparison(record, Verdict.MISSING, [], reason=HOSTILE[0]) for record in records]
    history = [series(HOSTILE[0] * 30, [1.0, 1.1, 1.2]), series(HOSTILE[4], [1.0, 1.0, 1.0])]
    figures = draw_all(Content(records, comparisons=comparisons, history=history))
    assert [one.name for one in figures] == [*PLAIN, "before-after", "history"]
    for one in figures:
        root = ET.fromstring(one.svg)
        tags = {element.tag.removeprefix(SVG) for element in root.iter()}
        assert not tags & {"img", "script", "style", "foreignObject"}
        everything = one.svg + one.caption + one.description
        assert all(letter.isprintable() or letter == "\n" for letter in everything)
        assert "<img" not in one.svg
        assert len(one.svg) < 300_000
        assert len(one.description) < 40_000
    said = " ".join(words for one in figures for words in texts(one.svg))
    assert "<img" in said
    assert "$x^2$" in said
    assert "\\x1b" in said or "\\u202e" in said
    assert [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)] == []


LABELS = [
    "_model", "_x_", "__", "_", "$a_1^2$", "100 % %s", "\\frac{1}{2}", "two\nlines", "\u202eevil", "עברית",
    "&amp;<b>", "transformers", "other models", "w" * 200, "]]>",
]  # fmt: skip


def test_a_label_is_data_whatever_it_begins_with(make_record, recwarn):
    """Every name is in the legend of the models; matplotlib leaves out labels that begin with `_`."""
    for start in range(0, len(LABELS), 5):
        names = LABELS[start : start + 5]
        records = [make_record(name=name, scenario=name) for name in names]
        with drawing("pareto"):
            figure = pareto(CaseFacts(Content(records))).draw(None)
        shown = [text.get_text() for text in figure.legends[0].get_texts()]
        assert sorted(shown) == sorted(fit(plain(name), 1.7) for name in names)
        assert not any(text.get_parse_math() for text in figure.legends[0].get_texts())
    assert [str(warning.message) for warning in recwarn] == []


def test_no_text_leaves_its_picture(make_record, baseline_records, drawn):
    long = [make_record(name=f"{'very-long-name-' * 12}{n}", scenario="s" * 300) for n in range(2)]
    for one in [*drawn.values(), *draw_all(Content([*long, *baseline_records]))]:
        root = ET.fromstring(one.svg)
        width = float(root.get("viewBox").split()[2])
        for element in root.iter(f"{SVG}text"):
            place = re.search(r"translate\(([-\d.]+) ", element.get("transform", "")) or [0, element.get("x")]
            if "rotate(-90" in element.get("transform", "") or place[1] is None:
                continue
            size = float(element.get("font-size").removesuffix("px"))
            wide = 72 * width_of(element.text or "", size, element.get("font-weight", "normal"))
            shift = {"middle": wide / 2, "end": wide}.get(element.get("text-anchor"), 0.0)
            assert float(place[1]) - shift >= -2, element.text
            assert float(place[1]) - shift + wide <= width + 8, element.text


def damaged(record, **figures):
    """A record whose summary has these values for every metric."""
    summary = {name: dataclasses.replace(found, **figures) for name, found in record.summary.items()}
    return record.model_copy(update={"summary": summary})


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-300, 1e300, float("inf"), float("nan")])
def test_impossible_values_are_left_out(make_record, value):
    bad = damaged(make_record(name="bad"), median=value, minimum=value, maximum=value)
    figures = draw_all(Content([make_record(), bad]))
    assert [one.name for one in figures] == PLAIN
    for one in draw_all(Content([bad])):
        ET.fromstring(one.svg)


def test_impossible_token_times_draw_no_line(make_record):
    facts = CaseFacts(Content([]))
    for seconds in (0.0, 1e300):
        record = make_record()
        launches = [
            launch.model_copy(
                update={
                    "samples": [
                        sample.model_copy(update={"token_seconds": [seconds] * len(sample.token_seconds)})
                        for sample in launch.samples
                    ]
                }
            )
            for launch in record.launches
        ]
        record = record.model_copy(update={"launches": launches})
        assert line_of(facts._row(record)) is None
        assert "tokens" not in [one.name for one in draw_all(Content([record]))]


def test_bar_figures_show_24_cases_with_a_note(make_record):
    base = make_record()
    many = [
        base.model_copy(
            update={
                "case_id": f"case-{n}",
                "scenario": f"cpu-{n}",
                "model": base.model.model_copy(update={"name": f"model-{n // 4}", "identity": str(n)}),
            }
        )
        for n in range(60)
    ]
    paired = (
        make_record(name="paired"),
        make_record(name="paired", provider="transformers", scenario="transformers-gguf", speed=0.5),
    )
    figures = {one.name: one for one in draw_all(Content([*many, *paired]))}
    assert "The figure shows 24 of 62 cases" in figures["memory"].caption
    assert "transformers-gguf" in " ".join(texts(figures["memory"].svg))
    assert sum("file" in words and "GiB" in words for words in texts(figures["memory"].svg)) == 24


def test_thousands_of_points_stay_small(make_record):
    base = make_record()
    records = []
    for n in range(3000):
        factor = 1.002**n
        model = base.model.model_copy(
            update={"name": f"m{n}", "identity": str(n), "file_size_bytes": int(1e7 * factor)}
        )
        summary = {
            name: dataclasses.replace(
                found,
                median=found.median * factor,
                minimum=found.minimum * factor,
                maximum=found.maximum * factor,
            )
            for name, found in base.summary.items()
        }
        records.append(base.model_copy(update={"model": model, "case_id": f"m{n}", "summary": summary}))
    figures = draw_all(Content(records))
    assert sum(len(one.svg) for one in figures) < 1_500_000
    assert all(len(one.svg) < 300_000 and len(one.description) < 20_000 for one in figures)
    assert len(thin((n + 1.0, 1e6 / (n + 1)) for n in range(10_000))) <= MOST_POINTS


def test_front_contains_unbeaten_points(make_record):
    record = make_record()
    points = [ParetoPoint(record, *pair) for pair in ((3, 9), (1, 5), (2, 4), (4, 9), (2, 7), (5, 20))]
    best = front(points)
    assert [(point.memory, point.speed) for point in best] == [(1, 5), (2, 7), (3, 9), (5, 20)]
    for point in points:
        beaten = any(
            other.memory <= point.memory and other.speed >= point.speed
            and (other.memory, other.speed) != (point.memory, point.speed)
            for other in points
        )  # fmt: skip
        assert (point not in best) == beaten


def test_memory_on_a_device_counts_once(make_record):
    base = make_record()
    device = dataclasses.replace(base.summary["peak_rss_bytes"], median=5e9, minimum=5e9, maximum=5e9)
    both = base.model_copy(update={"summary": {**base.summary, "device_bytes": device}})
    peak = base.summary["peak_rss_bytes"].median
    assert point_of(both).memory == peak + 5e9
    shared = both.model_copy(update={"setting": dataclasses.replace(both.setting, device="metal")})
    assert point_of(shared).memory == max(peak, 5e9)


def test_caption_of_memory_names_apple_s_gpu(make_record):
    record = make_record()
    metal = record.model_copy(update={"setting": dataclasses.replace(record.setting, device="metal")})
    rows = [SimpleNamespace(record=one) for one in (record, metal)]
    assert devices_sentence(rows[:1]) == "Memory on devices is not included."
    assert "Activity Monitor shows the footprint" in devices_sentence(rows)


def test_sum_of_parts_is_the_peak(first_run, baseline_records):
    for record in [*first_run.records, *baseline_records]:
        if "peak_rss_bytes" in record.summary:
            parts = parts_of(record)
            assert sum(parts.values()) == pytest.approx(record.summary["peak_rss_bytes"].median)
            assert min(parts.values()) >= 0
            assert record.is_baseline or not parts.get("transformers")


def test_band_follows_the_targets(make_record):
    small, large = make_record(file_size=10**7), make_record(file_size=11 * 10**9)
    for records in ([small], [small, large]):
        promise = promise_of(records)
        assert 11e9 / promise.slow == pytest.approx(10)
        assert 11e9 / promise.fast == pytest.approx(5)
        assert promise.least_seconds == 1
    strange = large.model_copy(
        update={"targets": [dataclasses.replace(one, limit=1e-9, promise=5.0) for one in large.targets]}
    )
    promise = promise_of([strange])
    assert promise.fast >= promise.slow > 0


def test_the_line_of_tokens_is_the_median_at_each_position(make_record):
    record = make_record()
    line = line_of(CaseFacts(Content([]))._row(record))
    first = sorted(
        sample.token_seconds[0]
        for launch in record.launches
        for sample in launch.samples
        if sample.phase == "decode" and not sample.warmup and not sample.disturbed
    )
    assert line.positions[0] == 1
    assert first[0] <= line.seconds[0] <= first[-1]
    assert len(line.seconds) == record.workload.generated_tokens


def test_comparisons_show_before_after_interval_and_verdict(make_record):
    slow = [0.081, 0.079, 0.083, 0.078, 0.085, 0.080, 0.082, 0.077, 0.084, 0.086]
    base = make_record()
    found = [
        comparison(base, Verdict.REGRESSION, [cell("decode_tokens_per_second", slow)]),
        comparison(base, Verdict.MISSING, [], reason="the candidate crashed in decode"),
    ]
    (figure,) = draw_all(Content([], comparisons=found))
    assert figure.name == "before-after"
    said = " ".join(texts(figure.svg))
    assert "20.0 t/s → 19.0 t/s, +8.5 %" in said
    assert re.search(r"\(\+8\.\d to \+8\.\d\): regression", said)
    assert "the candidate crashed in decode" in said
    assert "tolerance" in said
    assert "right is worse" in said


def test_history_shows_suspects_and_changes_of_level(first_run):
    from ggufbench.stats.change_points import ChangePoint

    values = [1 + 0.001 * (n % 5) for n in range(30)]
    level = Level(ChangePoint(20, 0.1133, 0.001), "run-20", ["llama.cpp b1 -> b2"])
    stepped = series("stepped", values[:20] + [1.12 * value for value in values[20:]], [level])
    suspect = series("suspect", [*values, 1.4])
    short = series("short", [1.0, 1.0])
    (figure,) = draw_all(Content([], history=[short, stepped, suspect]))
    said = " ".join(texts(figure.svg))
    assert figure.name == "history"
    assert "12.0 % worse since" in said
    assert "llama.cpp b1 -> b2" in said
    assert "suspect, 39" in figure.description or "suspect, 40" in figure.description
    assert "short" not in texts(figure.svg)
    assert draw_all(Content([], history=[short])) == []
    for value in (float("inf"), 1e300):
        broken = series("broken", [1.0, 1.0, 1.0])
        sessions = [dataclasses.replace(one, value=value) for one in broken.series.sessions]
        broken = dataclasses.replace(broken, series=dataclasses.replace(broken.series, sessions=sessions))
        assert draw_all(Content([], history=[broken])) == []


def test_separate_files_have_a_title(baseline_records, tmp_path):
    written = save_figures(Content(baseline_records[:2]), tmp_path / "deep" / "folder")
    assert [path.name for path in written] == [f"{name}.{kind}" for name in PLAIN for kind in ("svg", "png")]
    for path in written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
            continue
        root = ET.fromstring(path.read_text("utf-8"))
        assert "var(" not in path.read_text("utf-8")
        assert root.get("width")
        assert root.find(f"{SVG}title").text in " ".join(texts(path.read_text("utf-8")))


def test_the_overview_is_one_sheet(baseline_records, tmp_path):
    import matplotlib.image

    facts = f"2 cores {HOSTILE[0]} {'x' * 500}\x00"
    Figures(Content(baseline_records)).save_overview(tmp_path / "sheet.png", facts)
    height, width, _ = matplotlib.image.imread(tmp_path / "sheet.png").shape
    assert width == 1600
    assert 1200 <= height <= 2400


def test_matplotlib_settings_of_the_user_are_ignored_and_kept(make_record):
    import matplotlib

    content = Content([make_record()])
    usual = [one.svg for one in draw_all(content)]
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "axes.facecolor": "red"}):
        assert [one.svg for one in draw_all(content)] == usual
        assert matplotlib.rcParams["font.size"] == 30


def test_labels_of_near_points_do_not_overlap():
    with drawing("t"):
        axes = Canvas(5.0).axes(0.8, 0.4, 8.0, 4.0)
        axes.set(xlim=(0, 100), ylim=(0, 100))
        labels = Labels(axes)
        points = [(50.0 + n, 50.0 + (n % 2)) for n in range(8)]
        labels.keep_off(points)
        assert all(labels.put(point, f"case number {n}\n1.2x bf16") for n, point in enumerate(points))
        boxes = labels._taken[len(points) :]
    assert len(boxes) == len(points)
    for one, other in itertools.combinations(labels._taken, 2):
        if one in boxes or other in boxes:
            assert one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]


def test_a_long_name_keeps_both_ends():
    with drawing("t"):
        short = fit("abcdefghij" * 100, 1.5)
        assert width_of(short) <= 1.5
    assert short.startswith("abc")
    assert short.endswith("hij")
    assert "…" in short
    assert fit("abc", 1.5) == "abc"
    assert plain("\u202e\x07") == "\\u202e\\x07"
    assert len(plain("z" * 10**6)) < 500


@pytest.mark.real
def test_importing_figures_does_not_import_matplotlib():
    code = "import sys, ggufbench.report.figures; print({'matplotlib', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.real
def test_figures_need_no_window_system(make_record, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "tkagg")
    code = (
        "from pathlib import Path; from ggufbench.records.runs import read_run; "
        "from ggufbench.report.content import Content; from ggufbench.report.figures import draw_all; "
        "import sys; records = read_run(Path('tests/fixtures/results'), 'first').records[:1]; "
        "print(len(draw_all(Content(records))), 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() == ["6", "False"], done.stderr
