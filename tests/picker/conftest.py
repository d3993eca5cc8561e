"""Models for the picker: real files in a cache with the hub's layout, and rows from a real run."""

import asyncio
import hashlib
import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from ggufbench.chat.cache import CachedModel
from ggufbench.chat.measurements import Measured
from ggufbench.modelkit import SynthSpec, synthesize
from ggufbench.picker.entries import PickerEntry
from ggufbench.records.runs import read_run

CHECKOUT = Path(__file__).resolve().parents[2]
COMMIT = "5f0b02c75b57c5855da9ae460ce51323ea669d8a"
FILES = (
    ("someone/llama-tiny-GGUF", "llama-tiny", "llama", "Q8_0"),
    ("someone/llama-tiny-GGUF", "llama-tiny", "llama", "Q4_0"),
    ("another/Qwen3-tiny-GGUF", "Qwen3-tiny", "qwen3", "Q8_0"),
)


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory) -> Path:
    """A cache in the layout of the hub's library: blobs by hash, snapshots that link to them, refs/main."""
    cache = tmp_path_factory.mktemp("hub")
    for number, (repository, name, architecture, quantization) in enumerate(FILES):
        folder = cache / f"models--{repository.replace('/', '--')}"
        for part in ("blobs", "refs", f"snapshots/{COMMIT}"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(COMMIT)
        spec = SynthSpec(architecture, 2_000_000, quantization, vocabulary=1024, seed=number)
        made = synthesize(folder / "blobs" / "made.gguf", spec)
        blob = made.rename(made.with_name(hashlib.sha256(made.read_bytes()).hexdigest()))
        link = folder / "snapshots" / COMMIT / f"{name}-{quantization}.gguf"
        link.symlink_to(os.path.relpath(blob, link.parent))
    return cache


@pytest.fixture(scope="session")
def measured_entries() -> list[PickerEntry]:
    """The models of the run in this repository, with its figures for the CPU."""
    run = read_run(CHECKOUT / "tests" / "fixtures" / "results", "first")
    records = [one for one in run.records if one.scenario == "cpu"]
    return [entry_of(record) for record in records]


def entry_of(record) -> PickerEntry:
    model = record.model
    medians = {name: figures.median for name, figures in record.summary.items()}
    figures = {
        name: medians.get(name)
        for name in (
            "decode_tokens_per_second", "prompt_tokens_per_second", "load_seconds", "peak_rss_bytes"
        )
    }  # fmt: skip
    row = CachedModel(
        label=f"{model.name}-{model.quantization}",
        name=model.name,
        repository=model.repository,
        quantization=model.quantization,
        architecture=model.architecture,
        parameters=model.parameters,
        path=Path("models", f"{model.name}-{model.quantization}.gguf"),
        file_size_bytes=model.file_size_bytes,
        trained_context=model.trained_context,
        chat_template=True,
        source="path",
        identity=model.identity,
        measured=Measured(record.scenario, record.outcome, created=record.created, **figures),
    )
    return PickerEntry(row, synthetic=model.synthetic, larger_than_memory=False)


@pytest.fixture(scope="session")
def vary(measured_entries):
    """A function that copies one of them under another name, with changes to its row."""

    def make(name: str, quantization: str = "Q4_K_M", number: int = 0, **changes) -> PickerEntry:
        entry = measured_entries[number]
        outcome = changes.pop("outcome", None)
        large = changes.pop("larger_than_memory", False)
        names = {"name": name, "quantization": quantization, "label": f"{name}-{quantization}"}
        row = replace(entry.row, path=Path("models", f"{name}.gguf"), **{**names, **changes})
        if outcome:
            row = replace(row, measured=replace(entry.row.measured, outcome=outcome))
        return replace(entry, row=row, larger_than_memory=large)

    return make


@pytest.fixture
def drive():
    """A function that runs a picker, operated by a script, and returns the choice."""

    def run(picker, script, size=(110, 30)):
        async def use():
            picker.animation_level = "none"
            async with picker.run_test(size=size) as pilot:
                await pilot.pause()
                await script(pilot)
            return picker.return_value

        return asyncio.run(use())

    return run


@pytest.fixture
def screen_of(text_of):
    """A function that returns the lines of text on the screen of an app."""
    return lambda app: text_of(app.export_screenshot())


@pytest.fixture
def text_of():
    """A function that returns the lines of text in a screenshot."""
    return lines_of


def lines_of(picture: str) -> list[str]:
    """Lines of text; a character is 12.2 wide there, and runs of spaces are omitted."""
    lines: dict[float, str] = {}
    for element in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text"):
        if "clip-path" in element.attrib:
            y, column = float(element.attrib["y"]), round(float(element.attrib["x"]) / 12.2)
            line = lines.get(y, "")
            text = (element.text or "").replace("\xa0", " ")
            lines[y] = line + " " * (column - cell_len(line)) + text
    return [line.rstrip() for _, line in sorted(lines.items())]
