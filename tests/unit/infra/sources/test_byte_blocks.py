"""Bytes in bounded blocks, whatever they are packed in."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest

from infra.sources.byte_blocks import BLOCK, BrokenStream, file_digest, open_blocks
from infra.sources.errors import UnreadableSource
from infra.sources.pseudonyms import Pseudonyms


def test_members_of_one_gzip_file_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two") + b"\0" * 512)
    assert b"".join(open_blocks(tmp_path / "a.bin")) == b"one two"


def test_no_block_is_larger_than_the_bound(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"0" * (3 * BLOCK)))
    blocks = open_blocks(tmp_path / "a.gz")
    sizes = [len(block) for block in blocks]
    assert sum(sizes) == 3 * BLOCK
    assert max(sizes) <= BLOCK
    assert blocks.bytes_read == blocks.size


def test_what_follows_a_gzip_file_and_is_none_breaks_the_stream() -> None:
    blocks = open_blocks(io.BufferedReader(io.BytesIO(gzip.compress(b"one") + b"junk")))
    with pytest.raises(BrokenStream, match="damaged"):
        list(blocks)


def test_a_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "b").write_bytes(b"same")
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")
    with pytest.raises(UnreadableSource, match="cannot be read"):
        file_digest(tmp_path / "c")


def test_pseudonyms_depend_on_key_and_purpose() -> None:
    one = Pseudonyms(b"k" * 16)
    names = {one.of("card", "7"), one.of("device", "7"), one.of("card", "8"), Pseudonyms(b"q" * 16).of("card", "7")}
    assert len(names) == 4
    assert one.of("card", "7") == Pseudonyms(b"k" * 16).of("card", "7")
    with pytest.raises(ValueError, match="16 to 64 bytes"):
        Pseudonyms(b"short")
