"""LangChain's standard tests, with the tiny model that has memorized their dialogues.

Tests that do not apply to such a model are excluded by the suite's properties, and listed in `conftest.py`.
"""

import pytest
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from ggufbench.chat.model import ChatLlamaCpp


class Common:
    @pytest.fixture(autouse=True)
    def _file(self, trained_path):
        self.path = str(trained_path)

    @property
    def chat_model_class(self):
        return ChatLlamaCpp

    @property
    def chat_model_params(self):
        return {"model_path": self.path, "n_ctx": 1024, "n_gpu_layers": 0, "n_threads": 1}

    @property
    def standard_chat_model_params(self):
        # No time-outs, retries or keys: they are for models behind a network, and refused here.
        return {"temperature": 0, "max_tokens": 200, "stop": []}

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_anthropic_inputs(self):
        return True

    @property
    def supports_model_override(self):
        return False

    @property
    def supported_usage_metadata_details(self):
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}


class TestUnit(Common, ChatModelUnitTests):
    pass


# The mark is for the asynchronous tests, in whatever mode pytest-asyncio is; it warns of the others.
@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore:.*is not an async function.*")
class TestIntegration(Common, ChatModelIntegrationTests):
    def invoke_with_cache_read_input(self, *, stream=False):
        model = ChatLlamaCpp(**self.standard_chat_model_params, **self.chat_model_params)
        model.invoke("Hello")
        if not stream:
            return model.invoke("Hello")
        chunks = list(model.stream("Hello"))
        whole = sum(chunks[1:], chunks[0])
        assert isinstance(whole, AIMessage)
        return whole
