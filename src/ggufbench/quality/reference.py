"""Distributions of a reference: written to the cache by one launch, and compared with by others.

They are large: 4 bytes for each scored token and each entry of the vocabulary, 0.8 GB for the shipped texts
and a vocabulary of 49,152 tokens. What exceeds the budget is scored in groups of chunks, one after the other,
so that never more than the budget is on the disk, and never two models are in memory.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ggufbench.paths import atomic_write, cache_folder, read_regular
from ggufbench.quality.chunks import Chunk, chunks_of
from ggufbench.quality.conversation import Asking, ScoringError, scores_of
from ggufbench.quality.corpus import Corpus
from ggufbench.records.schema import ChunkScores
from ggufbench.text import size
from ggufbench.worker.job import Setting
from ggufbench.worker.protocol import Score, Vocabulary

MOST_BYTES = 2 * 2**30
"""Budget of one group on the disk; at most half of what is free is used."""
_MOST_CACHED_BYTES = 2 * MOST_BYTES
"""References that were not used for the longest time are deleted beyond this sum."""
_MOST_INDEX_BYTES = 2**25


class _Index(BaseModel):
    """The chunks whose distributions are in the cache."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int
    chunks: list[Chunk]


@dataclass(slots=True)
class ReferenceRows:
    """The distributions of one reference for one corpus, in the cache."""

    corpus: Corpus
    chunk_tokens: int
    identity: str
    """Identity of the reference's file."""
    setting: Setting
    build: Sequence[str]
    """Versions and build flags of the library, and variables that change how it computes."""
    keep: bool = True
    """Keep complete rows for later cases."""
    chunks: list[Chunk] = field(default_factory=list)
    ready: range = range(0)
    """Chunks whose distributions are on the disk."""
    vocabulary: int = 0

    def __post_init__(self) -> None:
        index = self._cached()
        if index is not None:
            self.chunks, self.vocabulary, self.ready = (
                index.chunks,
                index.vocabulary,
                range(len(index.chunks)),
            )
            self._index.touch()

    @property
    def is_complete(self) -> bool:
        """True if the last chunks have been made ready."""
        return bool(self.chunks) and self.ready.stop == len(self.chunks)

    @property
    def folder(self) -> Path:
        """Folder of these rows in the cache."""
        made_with = [
            self.corpus.digest, self.chunk_tokens, self.identity, asdict(self.setting), list(self.build)
        ]  # fmt: skip
        digest = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:16]
        return cache_folder() / "reference-distributions" / digest

    def write(self, vocabulary: Vocabulary) -> Asking[None]:
        """Script of the reference: the next group of chunks, as many as the budget allows."""
        if not self.chunks:
            self.chunks = yield from chunks_of(self.corpus, self.chunk_tokens, self.setting.n_ctx, vocabulary)
            self.vocabulary = vocabulary.size
        shutil.rmtree(self.folder, ignore_errors=True)
        _delete_oldest(self.folder.parent)
        self.folder.mkdir(parents=True)
        start = self.ready.stop
        stop = self._end_of_group(start)
        for number in range(start, stop):
            yield self._request(number, compare=False)
        self.ready = range(start, stop)
        if self.keep and start == 0 and self.is_complete:
            with atomic_write(self._index) as path:
                path.write_text(_Index(vocabulary=self.vocabulary, chunks=self.chunks).model_dump_json())

    def compare(self, vocabulary: Vocabulary) -> Asking[list[ChunkScores]]:
        """Script of a candidate: its scores of the ready chunks. Raises ScoringError for other tokens."""
        if vocabulary.size != self.vocabulary:
            raise ScoringError(
                f"its vocabulary has {vocabulary.size} tokens and the reference's {self.vocabulary}, so "
                "their distributions cannot be compared"
            )
        own = yield from chunks_of(self.corpus, self.chunk_tokens, self.setting.n_ctx, vocabulary)
        if [chunk.ids for chunk in own] != [chunk.ids for chunk in self.chunks]:
            raise ScoringError(
                "its tokenizer or chat template gives other tokens than the reference's for the same text, "
                "so their distributions cannot be compared"
            )
        scores: list[ChunkScores] = []
        for number in self.ready:
            scored = scores_of((yield self._request(number, compare=True)))
            scores += self.chunks[number].scores(scored)
        return scores

    def release(self) -> None:
        """Delete the rows unless they are complete and kept for later cases."""
        if not self._index.is_file():
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _index(self) -> Path:
        return self.folder / "index.json"

    def _request(self, number: int, *, compare: bool) -> Score:
        chunk = self.chunks[number]
        return Score(chunk.ids, chunk.first, str(self._rows(number)), compare=compare)

    def _rows(self, number: int) -> Path:
        return self.folder / f"{number}.f32"

    def _bytes_of(self, chunk: Chunk) -> int:
        return 4 * chunk.scored * self.vocabulary

    def _end_of_group(self, start: int) -> int:
        free = shutil.disk_usage(self.folder).free
        room, stop = min(MOST_BYTES, free // 2), start
        while stop < len(self.chunks) and room >= (needed := self._bytes_of(self.chunks[stop])):
            room, stop = room - needed, stop + 1
        if stop == start:
            wanted, left = size(self._bytes_of(self.chunks[start])), size(free)
            raise ScoringError(
                f"the distributions of one chunk have {wanted}, and {left} is free in {self.folder.parent}; "
                "free some space, or name another folder with GGUFBENCH_CACHE"
            )
        return stop

    def _cached(self) -> _Index | None:
        """The index of complete rows; None if they are missing, damaged or incomplete."""
        try:
            index = _Index.model_validate_json(read_regular(self._index, _MOST_INDEX_BYTES))
            sizes = [self._rows(number).stat().st_size for number in range(len(index.chunks))]
        except (OSError, ValidationError):
            return None
        self.vocabulary = index.vocabulary
        return index if sizes == [self._bytes_of(chunk) for chunk in index.chunks] else None


def _delete_oldest(folder: Path) -> None:
    """Make room for another reference: delete those that were not used for the longest time."""
    if not folder.is_dir():
        return
    rows = {one: list(one.iterdir()) for one in folder.iterdir() if one.is_dir()}
    total = sum(file.stat().st_size for files in rows.values() for file in files)
    for one in sorted(rows, key=_last_use):
        if total <= _MOST_CACHED_BYTES - MOST_BYTES:
            return
        total -= sum(file.stat().st_size for file in rows[one])
        shutil.rmtree(one, ignore_errors=True)


def _last_use(folder: Path) -> float:
    """Time of the last use of a reference, in seconds; 0 for an incomplete one."""
    index = folder / "index.json"
    return index.stat().st_mtime if index.is_file() else 0.0
