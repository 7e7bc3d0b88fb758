"""A source as a stream of byte blocks in bounded memory: plain files, gzip, and standard input that never ends.

Knows how far it has come in the bytes as stored, for a truthful estimate of what is left; knows nothing of rows.
"""

from __future__ import annotations

import hashlib
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from infra.sources.errors import UnreadableSource

BLOCK = 4 << 20  # bytes; the peak of a reader is a few of these, whatever the file's size
_PACKED_BLOCK = 256 << 10  # bytes of gzip at a time: `bytes_read` runs ahead of the rows by no more than this
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's way to say: gzip header and checksum


class BrokenStream(Exception):
    """The bytes end or stop making sense in the middle. Internal: readers turn it into `SourceCutShort`."""


class ByteBlocks:
    """The unpacked bytes of a source, block by block.

    Args:
        stream: the bytes as stored; gzip is recognised by its first two bytes, never by a name.
        size: bytes in all as stored, none where nobody knows.
        is_live: hand on what is there instead of waiting for a full block.
    """

    def __init__(self, stream: BinaryIO, size: int | None, is_live: bool) -> None:
        self._stream = stream
        self.size = size
        self.is_live = is_live
        self.bytes_read = 0

    def __iter__(self) -> Iterator[bytes]:
        """Blocks of at most `BLOCK` bytes, none empty.

        Raises:
            BrokenStream: gzip data that is cut short or damaged, after everything before it was handed on.
        """
        first = self._next(_PACKED_BLOCK)
        while 0 < len(first) < len(_GZIP_MAGIC):
            more = self._next(_PACKED_BLOCK)
            if not more:
                break
            first += more
        if first[:2] == _GZIP_MAGIC:
            yield from self._unpack(first)
            return
        while first:
            yield first
            first = self._next(BLOCK)

    def _next(self, size: int) -> bytes:
        # read1 returns what a pipe holds now: an endless stream moves on without waiting for a block to fill.
        try:
            block = self._stream.read1(size) if self.is_live else self._stream.read(size)  # type: ignore[attr-defined]
        except OSError as error:
            raise BrokenStream(f"reading failed: {error.strerror or error}") from error
        self.bytes_read += len(block)
        return bytes(block)

    def _unpack(self, packed: bytes) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(_GZIP_WINDOW)
        while True:
            try:
                # A bomb grows a thousandfold: never more than one block at a time.
                block = unpacker.decompress(packed, BLOCK)
            except zlib.error as error:
                raise BrokenStream(f"gzip data is damaged: {error}") from error
            if block:
                yield block
            packed = unpacker.unconsumed_tail
            if unpacker.eof:
                packed = unpacker.unused_data.lstrip(b"\0") or self._next(_PACKED_BLOCK).lstrip(b"\0")
                if not packed:
                    return
                unpacker = zlib.decompressobj(_GZIP_WINDOW)  # the next member of the same file
                continue
            if not packed and len(block) < BLOCK:
                packed = self._next(_PACKED_BLOCK)
                if not packed:
                    raise BrokenStream("gzip data ends before its end mark")


def open_blocks(source: str | Path | BinaryIO) -> ByteBlocks:
    """Open a path, `-` for standard input, or a binary stream.

    Raises:
        UnreadableSource: no such file, a folder, no permission.
    """
    if not isinstance(source, (str, Path)):
        return ByteBlocks(source, None, is_live=True)
    if str(source) == "-":
        return ByteBlocks(sys.stdin.buffer, None, is_live=True)
    path = Path(source)
    try:
        stream = path.open("rb", buffering=0)
        size = path.stat().st_size
        if not path.is_file():  # a named pipe or a device
            return ByteBlocks(io.BufferedReader(stream), None, is_live=True)
    except OSError as error:
        raise UnreadableSource(f"{path}: cannot be read: {error.strerror or error}") from error
    return ByteBlocks(io.BufferedReader(stream, _PACKED_BLOCK), size, is_live=False)


def file_digest(path: str | Path) -> str:
    """32 hex digits of a file's content: the part of a transaction id that says which file it came from.

    Raises:
        UnreadableSource: the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise UnreadableSource(f"{path}: cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()
