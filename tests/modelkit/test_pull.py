"""`ggufbench pull` against a fake hub: a real HTTP server with the required part of the hub's API."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from ggufbench.modelkit import SynthSpec, synthesize
from ggufbench.modelkit.hub_files import Offer, RemoteFile, choose, offers
from ggufbench.modelkit.spec import ModelError

COMMIT = "a" * 40
PIECE = 10 << 20
TOKEN = "hf_aVerySecretTokenOfNobody"  # noqa: S105 (no one's)


def remote(*names: str) -> list[RemoteFile]:
    return [RemoteFile(name, 1000 + number, None) for number, name in enumerate(names)]


def chosen(names: list[str], quantization: str | None = None) -> str:
    return choose(offers(remote(*names)), "a/b", quantization).files[0].name


def test_default_quantization_order():
    names = [f"m-{kind}.gguf" for kind in ("F16", "Q2_K", "Q8_0", "Q5_K_M", "IQ4_XS", "Q4_0", "Q4_K_M")]
    order = []
    while names:
        order.append(chosen(names))
        names.remove(order[-1])
    kinds = [name.removeprefix("m-").removesuffix(".gguf") for name in order]
    assert kinds == ["Q4_K_M", "IQ4_XS", "Q4_0", "Q5_K_M", "Q8_0", "Q2_K", "F16"]


def test_companion_files_are_never_chosen():
    beside = ["mmproj-m-Q4_K_M.gguf", "m-mmproj-f16.gguf", "m.imatrix.gguf", "m-lora-Q4_0.gguf", "README.md"]
    assert chosen([*beside, "m-Q8_0.gguf"]) == "m-Q8_0.gguf"
    with pytest.raises(ModelError, match=r"a/b has no complete GGUF model; .*ggufbench convert a/b"):
        chosen(beside)


def test_parts_are_complete_and_in_order():
    parts = [f"Q4_K_M/m-Q4_K_M-0000{n}-of-00003.gguf" for n in (3, 1, 2)]
    found = choose(offers(remote(*parts, "m-Q8_0.gguf")), "a/b", None)
    assert [file.name for file in found.files] == sorted(parts)
    assert chosen([*parts[:2], "m-Q8_0.gguf"]) == "m-Q8_0.gguf"


@pytest.mark.parametrize(
    "name",
    ["../m-Q4_0.gguf", "a/../../m-Q4_0.gguf", "/m-Q4_0.gguf", "C:\\m-Q4_0.gguf", "m\x1b[31m-Q4_0.gguf", "."],
)
def test_names_that_leave_the_cache_are_ignored(name):
    assert offers(remote(name)) == []


def test_missing_quantization_lists_available_ones():
    with pytest.raises(ModelError, match=r"a/b does not have Q6_K; it has Q4_K_M \(.*\), Q8_0 \(.*\)"):
        chosen(["m-Q8_0.gguf", "m-Q4_K_M.gguf"], "Q6_K")
    assert chosen(["m-Q8_0.gguf", "m-Q4_K_M.gguf"], "q8_0") == "m-Q8_0.gguf"


def test_two_models_of_one_quantization_need_a_name():
    names = ["small-Q4_0.gguf", "large-Q4_0.gguf"]
    with pytest.raises(
        ModelError, match=r"several models of Q4_0: small-Q4_0, large-Q4_0; select one by its name with --qu"
    ):
        chosen(names)
    assert chosen(names, "large-Q4_0.gguf") == "large-Q4_0.gguf"
    assert isinstance(offers(remote(*names))[0], Offer)


@dataclass
class FakeHub:
    """A fake of the hub: one repository `owner/model`, whose files are served by a second server, its CDN."""

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """Bytes of a body after which each of the next connections is cut."""
    stall_after: int | None = None
    """Bytes of a body after which the server stops sending."""
    over: threading.Event = field(default_factory=threading.Event)
    refuse: tuple[int, str] | None = None
    """Status and error code of every answer."""
    ignores_ranges: bool = False
    spoil: bool = False
    """Send bytes that do not match the stated hash."""
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of each request for a body."""
    cdn_headers: list[dict[str, str]] = field(default_factory=list)
    address: str = ""
    cdn: str = ""

    def model(self) -> dict[str, object]:
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": "0" * 40,
             "lfs": {"sha256": digest(data), "size": len(data), "pointerSize": 100}}
            for name, data in self.files.items()
        ]  # fmt: skip
        return {"_id": "1", "id": "owner/model", "modelId": "owner/model", "sha": COMMIT, "private": False,
                "siblings": siblings, "tags": [], "downloads": 0, "likes": 0}  # fmt: skip


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/cdn/"):
            self._body(path.removeprefix("/cdn/"))
        elif self.hub.refuse:
            self._refuse(*self.hub.refuse)
        elif path.startswith("/api/models/owner/model"):
            self._json(self.hub.model()) if "/revision/" not in path or self._known(path) else self._refuse(
                404, "RevisionNotFound"
            )
        elif path.startswith("/owner/model/resolve/"):
            self._redirect(path)
        else:
            self._refuse(404, "RepoNotFound")

    do_HEAD = do_GET  # noqa: N815

    def _known(self, path: str) -> bool:
        return path.rpartition("/revision/")[2] in ("main", "v1", COMMIT)

    def _json(self, value: object) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _redirect(self, path: str) -> None:
        name = path.removeprefix("/owner/model/resolve/").partition("/")[2]
        data = self.hub.files[name]
        self.send_response(302)
        self.send_header("Location", f"{self.hub.cdn}/cdn/{name}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{digest(data)}"')
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _body(self, name: str) -> None:
        self.hub.cdn_headers.append({key.lower(): value for key, value in self.headers.items()})
        whole = self.hub.files[name]
        data = bytes(len(whole)) if self.hub.spoil else whole
        asked = self.headers.get("Range")
        self.hub.ranges.append(asked)
        asked = None if self.hub.ignores_ranges else asked
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self._send(data[start:])

    def _send(self, data: bytes) -> None:
        if self.hub.cuts:
            self.wfile.write(data[: self.hub.cuts.pop(0)])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif self.hub.stall_after is not None:
            self.wfile.write(data[: self.hub.stall_after])
            self.wfile.flush()
            self.hub.over.wait(60)
        else:
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", "refused")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing to the terminal."""


@pytest.fixture
def hub():
    """A fake hub on loopback, with its CDN on another port."""
    fake = FakeHub()
    handler = type("FakeHubHandler", (Handler,), {"hub": fake})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    fake.address, fake.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    yield fake
    fake.over.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def env(hub, tmp_path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path / "home")}  # fmt: skip


@pytest.fixture
def pulled(ggufbench, env):
    """A function that runs `ggufbench pull owner/model` and checks that it never prints the token."""

    def run(*arguments: str, **changes: str):
        done = ggufbench("pull", "owner/model", *arguments, **{**env, **changes})
        assert TOKEN not in done.stdout + done.stderr
        return done

    return run


def blobs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "hub" / "models--owner--model" / "blobs").glob("*"))


@pytest.mark.real
def test_a_model_is_pulled_into_the_cache_and_loaded(hub, pulled, make, ggufbench, env, tmp_path):
    small, large = make(quantization="Q4_K_M").read_bytes(), make(quantization="Q8_0").read_bytes()
    hub.files = {"m-Q8_0.gguf": large, "m-Q4_K_M.gguf": small, "mmproj-m-Q4_0.gguf": b"x", "README.md": b"#"}
    done = pulled()
    assert done.returncode == 0, done.stderr
    snapshot = tmp_path / "hub" / "models--owner--model" / "snapshots" / COMMIT
    assert (snapshot / "m-Q4_K_M.gguf").read_bytes() == small
    assert (snapshot.parent.parent / "refs" / "main").read_text() == COMMIT
    assert [path.name for path in blobs(tmp_path)] == [digest(small)]
    assert f"owner/model: Q4_K_M, {len(small) / 1e6:.1f} MB, into {tmp_path / 'hub'}" in done.stderr
    assert re.search(r"loads in \S+ m?s on the CPU: \d+ layers", done.stdout)
    assert hub.ranges == [None] and "authorization" not in hub.cdn_headers[0]
    listed = ggufbench("models", **{**env, "HOME": str(tmp_path)})
    assert re.search(r"^m-Q4_K_M ~ .* owner/model", listed.stdout, re.MULTILINE), listed.stdout
    again = json.loads(pulled("--json").stdout)
    assert again["fetched_bytes"] == 0 and again["revision"] == COMMIT and len(hub.ranges) == 1


@pytest.mark.real
def test_all_parts_of_a_split_model_are_pulled(hub, pulled, float_model):
    first = float_model("m-F16", parts_of=20)
    hub.files = {f"F16/{path.name}": path.read_bytes() for path in first.parent.iterdir()}
    done = pulled("--quant", "f16")
    assert done.returncode == 0, done.stderr
    assert f"F16, {len(hub.files)} files, " in done.stderr
    assert len(hub.ranges) == len(hub.files) and "loads in" in done.stdout


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> bytes:
    """A model of three times PIECE, which is a multiple of the chunk size of a download."""
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    return synthesize(path, SynthSpec("llama", 30_000_000, "Q8_0", vocabulary=2048)).read_bytes()


@pytest.mark.real
def test_broken_connection_is_resumed(hub, pulled, large):
    hub.files, hub.cuts = {"m-Q8_0.gguf": large}, [PIECE + 1000]
    done = pulled()
    assert done.returncode == 0, done.stderr
    assert hub.ranges == [None, f"bytes={PIECE}-"]


@pytest.mark.real
def test_server_that_ignores_ranges(hub, pulled, large, tmp_path):
    hub.files, hub.cuts, hub.ignores_ranges = {"m-Q8_0.gguf": large}, [PIECE + 1000], True
    assert pulled().returncode == 0
    assert hub.ranges == [None, f"bytes={PIECE}-"]
    assert [path.stat().st_size for path in blobs(tmp_path)] == [len(large)]


@pytest.mark.real  # five retries, a second apart
def test_failed_download_is_resumed_by_the_next_pull(hub, pulled, large, tmp_path):
    hub.files, hub.cuts = {"m-Q8_0.gguf": large}, [PIECE + 1000, *[0] * 20]
    done = pulled()
    assert done.returncode == 2 and "pull again to resume the download" in done.stderr
    hub.cuts.clear()
    hub.ranges.clear()
    assert pulled().returncode == 0
    assert hub.ranges == [f"bytes={PIECE}-"]


@pytest.mark.real
def test_interrupted_pull_is_resumed_by_the_next(hub, started, env, large, tmp_path, wait_until, pulled):
    hub.files, hub.stall_after = {"m-Q8_0.gguf": large}, PIECE + 1000
    process = started("pull", "owner/model", **env)
    wait_until(lambda: any(path.stat().st_size >= PIECE for path in blobs(tmp_path)), "the first piece")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    hub.stall_after = None
    hub.over.set()
    hub.ranges.clear()
    found = json.loads(pulled("--json").stdout)
    assert hub.ranges == [f"bytes={PIECE}-"]
    assert found["fetched_bytes"] == len(large) - PIECE and found["load_test"]["problem"] is None
    assert [path.name for path in blobs(tmp_path)] == [digest(large)]


@pytest.mark.real
def test_download_with_wrong_hash_is_discarded(hub, pulled, make, tmp_path):
    hub.files, hub.spoil = {"m-Q8_0.gguf": make().read_bytes()}, True
    done = pulled()
    assert done.returncode == 2 and "The SHA-256 of m-Q8_0.gguf does not match the hub's" in done.stderr
    assert not [path for path in blobs(tmp_path) if not path.name.endswith(".lock")]


@pytest.mark.real
def test_file_that_does_not_load_is_kept_and_exits_11(hub, pulled, tmp_path):
    hub.files = {"m-Q8_0.gguf": b"no model"}
    done = pulled()
    assert done.returncode == 11 and "was written, but it does not load: " in done.stderr
    assert len(blobs(tmp_path)) == 1


@pytest.mark.real
@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((401, "RepoNotFound"), "There is no repository owner/model, or it is private"),
        ((403, "GatedRepo"), "owner/model is gated: accept its terms on its page, then log in with `hf auth"),
        ((418, "Teapot"), "The hub returned HTTP 418 for owner/model"),
    ],
)
def test_hub_error_messages(hub, env, refused, refusal, words):
    hub.refuse = refusal
    sentence = refused("pull", "owner/model", **env)
    assert words in sentence and TOKEN not in sentence


@pytest.mark.real
def test_invalid_request_messages(hub, env, refused):
    hub.files = {"m-Q8_0.gguf": b"x" * 1_000_000}
    assert "is not a repository name; write owner/name" in refused("pull", "../../etc", **env)
    assert "There is no repository owner/other" in refused("pull", "owner/other", **env)
    assert "has no revision 'v9'" in refused("pull", "owner/model", "--revision", "v9", **env)
    assert "does not have Q4_K_M; it has Q8_0 (1 MB)" in refused(
        "pull", "owner/model", "--quant", "Q4_K_M", **env
    )
    assert "HF_HUB_OFFLINE is set" in refused("pull", "owner/model", **{**env, "HF_HUB_OFFLINE": "1"})
    nowhere = {**env, "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert "The hub at HF_ENDPOINT cannot be reached" in refused("pull", "owner/model", **nowhere)


@pytest.mark.real
def test_unwritable_cache_message(hub, pulled, tmp_path):
    hub.files = {"m-Q8_0.gguf": b"x"}
    (tmp_path / "file").write_text("mine")
    done = pulled("--cache", str(tmp_path / "file" / "cache"))
    assert done.returncode == 2 and len(done.stderr.splitlines()[-1:]) == 1
    assert "--cache" in done.stderr
