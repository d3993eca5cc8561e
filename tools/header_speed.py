"""Time discovery of one header with a large vocabulary, and of a folder with 1,000 links to 40 models.

Run it as `python tools/header_speed.py`. It writes about 400 MB of headers to a temporary folder; the tensors
after them are sparse. Prints medians in milliseconds, and the peak memory of a process that only reads
headers.
"""

from __future__ import annotations

import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOKENS = 262_000
REPEATS = 20
FILES = 40
LINKS = 1000


def text(value: str) -> bytes:
    """A GGUF string."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    """A key with its value; `kind` is the GGUF type."""
    return text(key) + struct.pack("<I", kind) + value


def header_bytes(tokens: int, merges: int) -> bytes:
    """Header of a small llama with `tokens` strings of about 6 bytes and `merges` strings of about 9."""
    words = b"".join(text(f"t{n:x}"[: 2 + n % 9]) for n in range(tokens))
    joins = b"".join(text(f"t{n:x} {n % 4096:x}") for n in range(merges))
    numbers = {"context_length": 8192, "embedding_length": 64, "block_count": 1, "attention.head_count": 4}
    pairs = [
        pair("general.architecture", 8, text("llama")),
        *(pair(f"llama.{key}", 4, struct.pack("<I", value)) for key, value in numbers.items()),
        pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, tokens) + words),
        pair("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, tokens) + bytes(4 * tokens)),
        pair("tokenizer.ggml.token_type", 9, struct.pack("<IQ", 5, tokens) + bytes(4 * tokens)),
        pair("tokenizer.ggml.merges", 9, struct.pack("<IQ", 8, merges) + joins),
        pair("tokenizer.chat_template", 8, text("{{ messages }}" * 500)),
    ]
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 64, tokens, 1, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + b"".join(pairs) + tensor


def write_model(path: Path, tokens: int, merges: int) -> None:
    """Write such a model with one sparse tensor of the right size."""
    raw = header_bytes(tokens, merges)
    with path.open("wb") as file:
        file.write(raw)
        file.truncate((len(raw) + 31) // 32 * 32 + 64 * tokens * 2)


def make_links(folder: Path) -> None:
    """Write 1,000 links with different names to 40 models with 32,000 to 262,000 tokens."""
    (folder / "files").mkdir()
    (folder / "links").mkdir()
    targets = []
    for number in range(FILES):
        tokens = 32_000 + (262_000 - 32_000) * number // (FILES - 1)
        targets.append(folder / "files" / f"model{number}-F16.gguf")
        write_model(targets[-1], tokens, tokens)
    for number in range(LINKS):
        (folder / "links" / f"link{number}.gguf").symlink_to(targets[number % FILES])


READ = """
import resource, statistics, sys, time
import numpy
from pathlib import Path
from ggufbench.discovery.header import read_header

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would start at the peak of the parent
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

before, times = peak(), []
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    read_header(Path(sys.argv[1]))
    times.append((time.perf_counter() - start) * 1000)
print(f"header: median {statistics.median(times):.1f} ms, first {times[0]:.1f} ms, "
      f"peak {peak():.1f} MiB ({peak() - before:.1f} MiB above the imports)")
"""

DISCOVER = """
import sys, time
from pathlib import Path
from ggufbench.discovery import discover
start = time.perf_counter()
found = discover([Path(sys.argv[1])])
seconds = time.perf_counter() - start
print(f"links: {len(found.models)} models, {len(found.rejected)} rejected, {seconds:.2f} s")
"""


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "large.gguf", TOKENS, TOKENS)
        subprocess.run([sys.executable, "-c", READ, str(folder / "large.gguf"), str(REPEATS)], check=True)
        make_links(folder)
        for _ in range(3):
            subprocess.run([sys.executable, "-c", DISCOVER, str(folder / "links")], check=True)
        _compare_hash(folder / "large.gguf")


def _compare_hash(path: Path) -> None:
    """Time the other half of a listing, the fingerprint."""
    from ggufbench.discovery.header import read_header
    from ggufbench.discovery.shards import gather, identity

    files = gather(path, read_header(path))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        identity(files)
        times.append((time.perf_counter() - start) * 1000)
    size = files.headers[0].header_bytes / 1e6
    print(f"identity: median {statistics.median(times):.1f} ms for a header of {size:.1f} MB")


if __name__ == "__main__":
    main()
