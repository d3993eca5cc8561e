"""Encode batches with the worker's encoder: each batch at once, and each of its sequences alone.

Reads `[{"path": ..., "texts": [...]} or {"path": ..., "ids": [[...]]}, ...]` from stdin.
"""

import ctypes
import json
import sys

from ggufbench.worker.encoder import Encoder
from ggufbench.worker.job import Job, Setting, Workload
from ggufbench.worker.native import Library


def tokenized(library: Library, encoder: Encoder, text: str) -> list[int]:
    """The text's tokens, with the marks that the model needs."""
    vocabulary, raw = library.api.llama_model_get_vocab(encoder._model), text.encode()
    ids = (ctypes.c_int32 * 512)()
    count = library.api.llama_tokenize(vocabulary, raw, len(raw), ids, len(ids), True, True)
    return list(ids[:count])


def main() -> None:
    """Print the vectors and the tokens of each batch."""
    library, answers = Library(), []
    for asked in json.load(sys.stdin):
        sequences = len(asked.get("texts") or asked["ids"])
        setting = Setting("cpu", n_ctx=1024, n_batch=1024, n_ubatch=1024)
        encoder = Encoder(library, Job("encoder", asked["path"], setting, Workload(sequences=sequences)))
        encoder.load()
        ids = asked.get("ids") or [tokenized(library, encoder, text) for text in asked["texts"]]
        encoder.encode(ids)
        together, alone = encoder.vectors(ids), []
        for sequence in ids:
            encoder.encode([sequence])
            alone += encoder.vectors([sequence])
        encoder.close()
        answers.append({"ids": ids, "together": together, "alone": alone})
    print(json.dumps(answers))


main()
