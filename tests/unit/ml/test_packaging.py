"""Packages: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ml.encoder import embed
from ml.errors import PackageError
from ml.head import ROW_WIDTH
from ml.inference import load
from ml.packaging import load_encoder, package, read_package, serving_model, unpack
from ml.training import TrainedModel


def test_a_package_gives_back_encoder_and_head(model: TrainedModel, tmp_path: Path) -> None:
    packed = package(model)
    encoder, card = load_encoder(packed.data, packed.sha256)
    near = model.state.neighbourhoods_now(np.arange(50))
    assert embed(encoder, near).tobytes() == embed(model.encoder, near).tobytes()
    rows = np.random.default_rng(0).normal(size=(20, ROW_WIDTH)).astype(np.float32)
    served = serving_model(packed.data, packed.sha256)
    assert np.array_equal(served.head.scores(rows), model.head.scores(rows))
    assert served.model_version == card["model_version"] == packed.model_version
    unpack(packed.data, tmp_path)
    assert (tmp_path / "code" / "inference.py").exists()
    assert np.array_equal(load(tmp_path, None).head.scores(rows), model.head.scores(rows))


def test_another_hash_is_refused(model: TrainedModel) -> None:
    with pytest.raises(PackageError, match="expected sha256 0000, found"):
        serving_model(package(model).data, "0000")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil"])
def test_a_path_out_of_the_package_is_refused(name: str) -> None:
    with pytest.raises(PackageError, match="is no plain file inside the package"):
        read_package(archive(tarfile.TarInfo(name)))


def test_a_link_is_refused() -> None:
    link = tarfile.TarInfo("head_0.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(PackageError, match="is no plain file"):
        read_package(archive(link))


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml.packaging.MOST_BYTES", 10)
    big = tarfile.TarInfo("big")
    big.size = 1000
    with pytest.raises(PackageError, match="more than 10 bytes"):
        read_package(archive(big))


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08\x00"], ids=["empty", "text", "cut gzip"])
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(PackageError, match=r"not a readable tar\.gz"):
        read_package(data)


def test_a_missing_part_is_named() -> None:
    with pytest.raises(PackageError, match=r"model_card\.json is missing"):
        serving_model(archive(tarfile.TarInfo("other")))


def archive(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"\0" * member.size))
    return out.getvalue()
