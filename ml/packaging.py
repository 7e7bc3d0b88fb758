"""A model package: model.tar.gz as SageMaker expects it, the same bytes for the same model, and nothing in it that can
run by being read.

Layout: model_card.json, encoder.safetensors, head_<i>.txt (LightGBM text), code/inference.py,
code/requirements.txt. The hash of the whole file stands in `ModelDeployed` and is checked before anything is read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from ml.errors import PackageError
from ml.head import Head, Mix

if TYPE_CHECKING:
    from ml.encoder import Encoder
    from ml.serving_encoder import ServingEncoder
    from ml.training import TrainedModel

PACKAGE_FORMAT: Final = 1
CARD: Final = "model_card.json"
ENCODER: Final = "encoder.safetensors"
MOST_BYTES: Final = 512 * 1024 * 1024  # unpacked; a package of ours is a few MB, so more is an attack or a mistake
MOST_FILES: Final = 200
_REQUIREMENTS: Final = "lightgbm>=4\nnumpy>=1.26\nuvicorn>=0.30\n"
# SageMaker's container imports code/inference.py; the endpoint's code itself is installed in the image.
_INFERENCE: Final = '''"""SageMaker entry point: the endpoint's code is the installed package's."""

from ml.inference import input_fn, model_fn, output_fn, predict_fn

__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]
'''


@dataclass(frozen=True, slots=True)
class Package:
    """A model package's bytes, its hash and the version derived from them."""

    data: bytes
    sha256: str
    model_version: str


@dataclass(frozen=True, slots=True)
class ServingModel:
    """What the endpoint needs: the head and the card. The encoder stays with the scorer."""

    head: Head
    card: dict[str, Any]
    model_version: str


def package(model: TrainedModel) -> Package:
    """Pack a trained model. Its version is `m-` and the first 12 hex digits of its content's hash."""
    from safetensors.torch import save

    files = {ENCODER: save({name: value.contiguous() for name, value in sorted(model.encoder.state_dict().items())})}
    for i, booster in enumerate(model.head.boosters):
        files[f"head_{i}.txt"] = booster.model_to_string().encode()
    files["code/inference.py"] = _INFERENCE.encode()
    files["code/requirements.txt"] = _REQUIREMENTS.encode()
    content = hashlib.sha256()
    for name, data in sorted(files.items()):
        content.update(f"{name}\0{len(data)}\0".encode() + data)
    card = {
        **model.card,
        "package_format": PACKAGE_FORMAT,
        "model_version": f"m-{content.hexdigest()[:12]}",
        "head": {
            "columns": list(model.head.columns),
            "boosters": len(model.head.boosters),
            "mix": asdict(model.head.mix),
        },
    }
    files[CARD] = (json.dumps(card, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()
    data = _tar(files)
    return Package(data, hashlib.sha256(data).hexdigest(), str(card["model_version"]))


def read_package(data: bytes, sha256: str | None = None) -> dict[str, bytes]:
    """The files of a package, checked before a byte is believed.

    Raises PackageError where the hash differs, the archive is damaged, too large, or holds anything but plain files
    inside itself.
    """
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        found = hashlib.sha256(data).hexdigest()
        raise PackageError(f"model package: expected sha256 {sha256}, found {found}; fetch it again or deploy another")
    files: dict[str, bytes] = {}
    size = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if member.isdir():
                    continue
                if not member.isfile() or path.is_absolute() or ".." in path.parts:
                    raise PackageError(f"model package: {member.name!r} is no plain file inside the package")
                size += member.size
                if size > MOST_BYTES or len(files) >= MOST_FILES:
                    raise PackageError(f"model package: more than {MOST_BYTES} bytes or {MOST_FILES} files unpacked")
                held = archive.extractfile(member)
                files[str(path)] = held.read() if held is not None else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise PackageError(f"model package: not a readable tar.gz: {error}") from error
    return files


def serving_model(data: bytes, sha256: str | None = None) -> ServingModel:
    """The head and the card from a package's bytes; imports no torch.

    Raises PackageError as `read_package` does, and where a part is missing or of another format.
    """
    return serving_model_of(read_package(data, sha256))


def serving_model_of(files: dict[str, bytes]) -> ServingModel:
    """The same from the unpacked files by name."""
    import lightgbm as lgb

    card = _card(files)
    try:
        texts = [files[f"head_{i}.txt"].decode() for i in range(card["head"]["boosters"])]
        boosters = tuple(lgb.Booster(model_str=text) for text in texts)
        head = Head(tuple(card["head"]["columns"]), boosters, Mix(**card["head"]["mix"]))
    except (KeyError, TypeError, UnicodeDecodeError, lgb.basic.LightGBMError) as error:
        raise PackageError(f"model package: the head is missing or unreadable: {error}") from error
    return ServingModel(head, card, str(card["model_version"]))


def load_encoder(data: bytes, sha256: str | None = None) -> tuple[Encoder, dict[str, Any]]:
    """The encoder and the card from a package's bytes, for whoever goes on training.

    Raises PackageError as `read_package` does, and where the weights do not fit this code's encoder.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from ml.encoder import Encoder

    files = read_package(data, sha256)
    card = _card(files)
    encoder = Encoder()
    try:
        encoder.load_state_dict(load(files[ENCODER]))
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise PackageError(f"model package: {ENCODER} is missing or of another shape: {error}") from error
    return encoder.eval(), card


def load_serving_encoder(data: bytes, sha256: str | None = None) -> tuple[ServingEncoder, dict[str, Any]]:
    """The encoder as the scorer runs it and the card from a package's bytes; imports no torch.

    Raises PackageError as `read_package` does, and where the weights do not fit this code's encoder.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    from ml.serving_encoder import ServingEncoder

    files = read_package(data, sha256)
    card = _card(files)
    try:
        return ServingEncoder(load(files[ENCODER])), card
    except (KeyError, ValueError, SafetensorError) as error:
        raise PackageError(f"model package: {ENCODER} is missing or of another shape: {error}") from error


def unpack(data: bytes, folder: Path, sha256: str | None = None) -> None:
    """Write a package's files below `folder`, which SageMaker calls model_dir.

    Raises PackageError as `read_package` does.
    """
    for name, content in read_package(data, sha256).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of an unpacked package."""
    return dict(_walk(folder))


def _walk(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _card(files: dict[str, bytes]) -> dict[str, Any]:
    try:
        card = json.loads(files[CARD])
        found = card["package_format"]
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(f"model package: {CARD} is missing or unreadable: {error}") from error
    if found != PACKAGE_FORMAT:
        raise PackageError(f"model package: expected format {PACKAGE_FORMAT}, found {found}; train with this version")
    return dict(card)


def _tar(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(files[name]), 0o644, 0
            archive.addfile(member, io.BytesIO(files[name]))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0, compresslevel=6) as stream:
        stream.write(raw.getvalue())
    return packed.getvalue()
