"""Builds a function's zip: our modules that it imports, their schemas, and its requirements as installed here, which is as locked.

The same sources and versions give the same bytes. Wheels are copied as they are: build on the system and processor that the function
runs on (Linux, x86_64 or arm64 alike).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from domain.errors import TidemarkError
from infra.lambdas.functions import RUNTIME, Function
from infra.settings import process_environment

_OURS = ("domain", "schema_registry", "graph", "projections", "ml", "infra")
_ROOT = Path(__file__).resolve().parents[2]
_SPOIL = {"__pycache__", "tests", "test"}
_UNZIPPED_MOST = 250 << 20  # Lambda's limit, layers and all
_TIME = (2020, 1, 1, 0, 0, 0)
LAMBDA_PYTHON = (3, 12)
"""The first Python whose image on Lambda (Amazon Linux 2023) has the C library that the lock's wheels ask for, glibc 2.34."""
# Prints what of ours the handler has imported, as JSON.
_TRACE = (
    "import importlib, json, sys; importlib.import_module(sys.argv[1]);"
    f"print(json.dumps(sorted(n for n in sys.modules if n.split('.')[0] in {_OURS!r})))"
)


class PackageTooLarge(TidemarkError):
    """A function's code is more than Lambda takes."""


def build(function: Function, out: Path) -> Path:
    """Write `<name>.zip` into the folder `out`.

    Raises:
        PackageTooLarge: it would be more than Lambda takes.
        metadata.PackageNotFoundError: a requirement is not installed.
    """
    files = dict(sorted({**dict(_our_files(function.module)), **dict(_installed(function.requirements, leave_out=RUNTIME))}.items()))
    size = sum(path.stat().st_size for path in files.values())
    if size > _UNZIPPED_MOST:
        raise PackageTooLarge(f"{function.name}: {size >> 20} MiB unzipped, Lambda takes {_UNZIPPED_MOST >> 20}")
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{function.name}.zip"
    # Of this process alone: a worker and `tidemark lambda invoke` may build at once.
    partial = target.with_suffix(f".zip.{os.getpid()}.part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as package:
        for name, path in files.items():
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            package.writestr(entry, path.read_bytes())
    partial.replace(target)
    return target


def unfit() -> str | None:
    """Why a zip that was built here cannot run on Lambda; none where it can."""
    if sys.version_info < LAMBDA_PYTHON:
        here, wanted = (".".join(map(str, version[:2])) for version in (sys.version_info, LAMBDA_PYTHON))
        return f"built with Python {here}, whose image on Lambda has a C library too old for these wheels: build with {wanted} or later"
    return None


def unpacked(package: Path, folder: Path) -> Path:
    """The zip's content as a folder of its own below `folder`, made once for each content."""
    digest = hashlib.sha256(package.read_bytes()).hexdigest()[:16]
    target = folder / f"{package.stem}-{digest}"
    if not target.is_dir():
        partial = _partial(target)
        with zipfile.ZipFile(package) as content:
            content.extractall(partial)
        _settle(partial, target)
    return target


def runtime(folder: Path) -> Path:
    """A folder with what Lambda's image brings along, made once for each set of versions."""
    files = dict(_installed(RUNTIME))
    digest = hashlib.sha256("\n".join(sorted(files)).encode()).hexdigest()[:16]
    target = folder / f"runtime-{digest}"
    if not target.is_dir():
        partial = _partial(target)
        for name, path in files.items():
            place = partial / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        _settle(partial, target)
    return target


def _partial(target: Path) -> Path:
    found = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(found, ignore_errors=True)
    return found


def _settle(partial: Path, target: Path) -> None:
    """Give a finished folder its name; where another process was first, its content is the same."""
    try:
        partial.replace(target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        if not target.is_dir():
            raise


def _our_files(module: str) -> Iterator[tuple[str, Path]]:
    found = subprocess.run(
        [sys.executable, "-c", _TRACE, module], cwd=_ROOT, env=process_environment(), check=True, capture_output=True, text=True
    )
    for name in json.loads(found.stdout):
        base = _ROOT.joinpath(*name.split("."))
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        yield path.relative_to(_ROOT).as_posix(), path
    for path in (_ROOT / "schema_registry" / "avsc").glob("*.avsc"):
        yield path.relative_to(_ROOT).as_posix(), path


def _installed(requirements: Sequence[str], leave_out: Sequence[str] = ()) -> Iterator[tuple[str, Path]]:
    """The files of distributions and of all that they require, as installed here."""
    without = set(_closure(leave_out))
    for name in sorted(set(_closure(requirements)) - without):
        for file in metadata.distribution(name).files or ():
            if not _SPOIL & set(file.parts) and ".." not in file.parts and not file.is_absolute():
                path = Path(str(file.locate()))
                if path.is_file():
                    yield file.as_posix(), path


def _closure(requirements: Sequence[str]) -> Iterator[str]:
    todo = [Requirement(text) for text in requirements]
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement = todo.pop()
        for extra in ("", *sorted(requirement.extras)):
            name = requirement.name.lower().replace("_", "-")
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            yield name
            for text in metadata.requires(name) or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    todo.append(needed)
