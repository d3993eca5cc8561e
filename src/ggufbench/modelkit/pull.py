"""`ggufbench pull`: download a GGUF from the hub into the Hugging Face cache, where every program finds it.

`hf_hub_download` discards an interrupted download. Here an incomplete download is kept beside the blob, under
its hash, and the next pull resumes it; `hf_hub_download` then only links the complete blob.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ggufbench.discovery.hub import folder_name, hub_cache
from ggufbench.errors import GgufbenchError
from ggufbench.modelkit.hub_files import Offer, RemoteFile, choose, offers
from ggufbench.modelkit.output import orderly_end
from ggufbench.modelkit.spec import ModelError
from ggufbench.paths import expanded, home_folder, open_regular
from ggufbench.processes import alone
from ggufbench.text import decimal_size

if TYPE_CHECKING:
    from huggingface_hub.utils import tqdm

Tell = Callable[[str], None]

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}")
_RESERVE_BYTES = 64 << 20
_MOST_BY_HTTP_BYTES = 50_000_000_000
"""The hub serves larger files only through its own protocol, which cannot resume a download."""
_PIECE_BYTES = 1 << 20
_RETRIES = 5
"""Consecutive connections that may break without receiving a byte."""
_RETRY_SECONDS = 1.0
_PARTIAL_CONTENT = 206
_NAME_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is now in the cache."""

    path: Path
    """The file, or the first shard."""
    repository: str
    revision: str
    """Commit of the repository."""
    quantization: str | None
    file_size_bytes: int
    """Total size of all shards."""
    fetched_bytes: int
    """Bytes downloaded by this call."""
    seconds: float


def pull(
    repository: str,
    quantization: str | None = None,
    revision: str | None = None,
    cache: Path | None = None,
    tell: Tell = lambda _sentence: None,
) -> Pulled:
    """Download a model of the repository `owner/name`. Raises `ModelError`.

    An interrupted download is resumed by the next call. `cache` is the hub cache; None is the default one.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise ModelError(f"{repository!r} is not a repository name; write owner/name, as in the hub's URL.")
    started = time.monotonic()
    with orderly_end(), _explained(repository, revision):
        folder = _cache_folder(cache)
        commit, found = _listed(repository, revision)
        offer = choose(found, repository, quantization)
        hub = _Hub(repository, revision, commit, folder)
        missing = hub.missing_bytes(offer.files)
        kind, count = offer.quantization or offer.title, len(offer.files)
        files = f"{count} files, " if count > 1 else ""
        there = (
            f", {decimal_size(offer.size_bytes - missing)} already downloaded"
            if missing < offer.size_bytes
            else ""
        )
        tell(f"{repository}: {kind}, {files}{decimal_size(offer.size_bytes)}{there}, into {folder}")
        _check_space(folder, missing)
        paths = [hub.fetch(file, tell) for file in offer.files]
    return Pulled(
        paths[0],
        repository,
        commit,
        offer.quantization,
        offer.size_bytes,
        missing,
        time.monotonic() - started,
    )


@dataclass(frozen=True, slots=True)
class _Hub:
    """One revision of a repository, and the target cache."""

    repository: str
    revision: str | None
    commit: str
    cache: Path

    def missing_bytes(self, files: Sequence[RemoteFile]) -> int:
        """Bytes that are not in the cache yet."""
        return sum(file.size_bytes - self._present(file) for file in files)

    def fetch(self, file: RemoteFile, tell: Tell) -> Path:
        """The path of the file in the cache; downloads it if it is missing."""
        from huggingface_hub import hf_hub_download

        if _can_resume(file) and not self._blob(file).exists():
            self._download(file, tell)
        # Links the blob and stores the commit of the revision, or downloads a small or very large file.
        return Path(
            hf_hub_download(self.repository, file.name, revision=self.revision, cache_dir=str(self.cache))
        )

    def _download(self, file: RemoteFile, tell: Tell) -> None:
        blob = self._blob(file)
        part = blob.with_name(f"{blob.name}.ggufbench.incomplete")
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock = blob.with_name(f"{blob.name}.ggufbench.lock")
        with alone(lock, lambda: tell(f"another process downloads {file.name}; waiting for it")):
            if blob.exists():
                return
            self._append(file, part)
            if _sha256(part) != file.sha256:
                part.unlink()
                raise ModelError(f"The SHA-256 of {file.name} does not match the hub's; pull it again.")
            part.replace(blob)
        lock.unlink(missing_ok=True)

    def _append(self, file: RemoteFile, part: Path) -> None:
        """Append the missing bytes of the file to `part`; reconnects if a connection breaks."""
        from huggingface_hub.utils import tqdm

        with part.open("ab") as target:
            if target.tell() > file.size_bytes:
                _empty(target)
            progress = tqdm(
                total=file.size_bytes,
                initial=target.tell(),
                unit="B",
                unit_scale=True,
                desc=file.name.rpartition("/")[2][-_NAME_SHOWN:],
            )
            failures = 0
            with progress:
                while (have := target.tell()) < file.size_bytes:
                    try:
                        self._receive(file, target, progress)
                    except Exception as error:
                        failures = 0 if target.tell() > have else failures + 1
                        if failures > _RETRIES or not _is_broken_connection(error):
                            raise
                        time.sleep(_RETRY_SECONDS)

    def _receive(self, file: RemoteFile, target: BinaryIO, progress: tqdm) -> None:
        """Request the bytes that `target` lacks. Bytes received before an error are kept."""
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

        have = target.tell()
        # No compression, because with it a server would ignore the range.
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        request = http_stream_backoff(
            "GET",
            hf_hub_url(self.repository, file.name, revision=self.commit),
            headers={**headers, "Range": f"bytes={have}-"} if have else headers,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            retry_on_exceptions=(),  # it cannot repeat a body that has started
        )
        with request as response:
            hf_raise_for_status(response)
            if response.status_code != _PARTIAL_CONTENT:
                progress.update(-have)
                _empty(target)
            for piece in response.iter_bytes(_PIECE_BYTES):
                target.write(piece)
                progress.update(len(piece))
        if target.tell() < file.size_bytes:
            raise ConnectionError("the response ended early")

    def _blob(self, file: RemoteFile) -> Path:
        return self.cache / folder_name(self.repository) / "blobs" / (file.sha256 or "none")

    def _present(self, file: RemoteFile) -> int:
        if not _can_resume(file):
            return 0
        blob = self._blob(file)
        if blob.exists():
            return file.size_bytes
        part = blob.with_name(f"{blob.name}.ggufbench.incomplete")
        return min(part.stat().st_size, file.size_bytes) if part.exists() else 0


def _empty(target: BinaryIO) -> None:
    target.seek(0)
    target.truncate()


def _can_resume(file: RemoteFile) -> bool:
    return file.sha256 is not None and file.size_bytes <= _MOST_BY_HTTP_BYTES


def _listed(repository: str, revision: str | None) -> tuple[str, list[Offer]]:
    """The commit, and its models."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    if not info.sha or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
        raise ModelError(
            f"The hub did not report a commit of {repository}; check that HF_ENDPOINT is the URL of a hub."
        )
    files = []
    for sibling in info.siblings or []:
        digest = sibling.lfs.sha256 if sibling.lfs else None
        known = digest if isinstance(digest, str) and _HASH.fullmatch(digest) else None
        files.append(RemoteFile(sibling.rfilename, sibling.size or 0, known))
    return info.sha, offers(files)


def _cache_folder(given: Path | None) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    if given is None and home_folder() is None:
        return hub_cache().absolute()  # the library would make a folder named ~
    return (expanded(given) if given else Path(constants.HF_HUB_CACHE)).absolute()


def _check_space(folder: Path, missing: int) -> None:
    base = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(base).free
    if missing and free < missing + _RESERVE_BYTES:
        raise ModelError(
            f"{decimal_size(missing)} must be downloaded but only {decimal_size(free)} are free in {folder}; "
            "free some space, or name another cache with --cache."
        )
    if not os.access(base, os.W_OK | os.X_OK):
        raise ModelError(f"{folder} is not writable; name another cache with --cache.")


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _explained(repository: str, revision: str | None) -> Iterator[None]:
    """Turn the hub's errors into one sentence. Their own texts may contain URLs and are not shown."""
    try:
        yield
    except (GgufbenchError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise ModelError(_sentence(error, repository, revision, os.environ)) from None


def _sentence(error: Exception, repository: str, revision: str | None, env: Mapping[str, str]) -> str:
    from huggingface_hub import errors

    # The first match counts: a gated repository and a missing revision are repository errors, too.
    known: dict[type[Exception], str] = {
        errors.GatedRepoError: f"{repository} is gated: accept its terms on its page, then log in with "
        "`hf auth login` or set HF_TOKEN.",
        errors.RevisionNotFoundError: f"{repository} has no revision {revision!r}; leave out --revision to "
        "get the newest.",
        errors.RepositoryNotFoundError: f"There is no repository {repository}, or it is private: check the "
        "spelling, or log in with `hf auth login`.",
        errors.OfflineModeIsEnabled: f"{repository} cannot be downloaded: HF_HUB_OFFLINE is set; unset it.",
    }
    for kind, sentence in known.items():
        if isinstance(error, kind):
            return sentence
    if isinstance(error, errors.HfHubHTTPError):
        return f"The hub returned HTTP {error.response.status_code} for {repository}; try again later."
    if isinstance(error, OSError) and error.strerror:
        return f"{repository} cannot be stored: {error.strerror}; name another cache with --cache."
    if isinstance(error, OSError) or _is_broken_connection(error):
        hub = "The hub at HF_ENDPOINT" if env.get("HF_ENDPOINT") else "The hub"
        return f"{hub} cannot be reached, or the connection broke; pull again to resume the download."
    return f"{repository} cannot be downloaded: {type(error).__name__} in huggingface_hub."


def _is_broken_connection(error: Exception) -> bool:
    """True if another attempt may succeed."""
    # By name: the HTTP library of huggingface_hub is httpx or, since 2.0, httpx2, which share no classes.
    return isinstance(error, ConnectionError) or "TransportError" in {c.__name__ for c in type(error).__mro__}
