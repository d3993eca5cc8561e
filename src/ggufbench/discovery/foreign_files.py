"""Recognize files that carry the name of a GGUF but are something else, with the fix."""

from __future__ import annotations

import re

from ggufbench.text import decimal_size

START_BYTES = 512
"""Bytes from the beginning of a file that are enough."""

_LFS = b"version https://git-lfs.github.com/spec/"
_XET = b"# xet version"
_POINTER_SIZE = re.compile(rb"^(?:size|filesize *=) *(\d{1,18})$", re.MULTILINE)
_LEGACY = (b"lmgg", b"fmgg", b"tjgg", b"algg")  # ggml, ggmf, ggjt and ggla, as little-endian numbers
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}
_ARCHIVES = {b"PK\x03\x04": "a ZIP archive, such as a PyTorch file", b"7z\xbc\xaf": "a 7z archive"}


def reason_of(start: bytes) -> str:
    """Why a file that begins with these bytes, at most `START_BYTES`, is not a GGUF: one sentence."""
    for kind, beginning in (("Git LFS", _LFS), ("Xet", _XET)):
        if start.startswith(beginning):
            return _pointer(kind, start)
    for magic, program in _COMPRESSED.items():
        if start.startswith(magic):
            return f"the file is compressed: decompress it with {program}"
    for magic, archive in _ARCHIVES.items():
        if start.startswith(magic):
            return f"this is {archive}, not a GGUF file: unpack it or download the GGUF"
    if start[:4] in _LEGACY:
        return "the file has a format older than GGUF, which llama.cpp no longer reads: download a GGUF"
    return _text_or_numbers(start)


def _pointer(kind: str, start: bytes) -> str:
    found = _POINTER_SIZE.search(start)
    whole = f" of {decimal_size(int(found[1]))}" if found else ""
    command = "`git lfs pull`" if kind == "Git LFS" else "`git xet pull`"
    return f"a {kind} pointer, not the model{whole}: run {command} in its repository, or download the file"


def _text_or_numbers(start: bytes) -> str:
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, not a model: download the file again, and log in first if its page requires it"
    if text.startswith((b"<?xml", b'{"error')):
        return "an error message of a server, not a model: download the file again"
    if start[8:10] == b'{"':
        return "this is a safetensors file, not a GGUF file: convert it with `ggufbench convert`"
    if len(start) == START_BYTES and not any(start):
        return "the file begins with zeros: its download is incomplete, so resume it or download it again"
    return "this is not a GGUF file: it does not start with the magic bytes GGUF"
