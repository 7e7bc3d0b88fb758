"""The servers' jars: resolved by Maven from the poms beside this module, once, into the virtual environment.

A part's folder carries the hash of its poms, appears in one step when complete, and is never changed afterwards.
Needs nothing but the standard library, so that set-up can run it before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

POMS = Path(__file__).parent / "jars"
# Module of the Maven build that each part's jars come from.
MODULES = {"kafka": "kafka", "registry": "registry", "neo4j": "neo4j", "s3": "s3proxy"}


def jar_folder(part: str, prefix: Path) -> Path:
    """Return where a part's jars belong below a virtual environment."""
    module = MODULES[part]
    digest = hashlib.sha256((POMS / "pom.xml").read_bytes() + (POMS / f"{module}.xml").read_bytes()).hexdigest()[:12]
    return prefix / "share" / "tidemark" / "jars" / f"{module}-{digest}"


def missing(prefix: Path) -> list[str]:
    """Name the parts whose jars are not there."""
    return [part for part in MODULES if not jar_folder(part, prefix).is_dir()]


def download(prefix: Path) -> list[str]:
    """Fetch the jars that are missing, all in one Maven run; return the parts that were fetched.

    Maven keeps what it has downloaded in its own repository, so an interrupted run resumes.

    Raises:
        FileNotFoundError: there is no Maven.
        subprocess.CalledProcessError: Maven failed; its last lines are on standard error.
    """
    parts = missing(prefix)
    if not parts:
        return []
    # Absolute: Maven would read a relative folder from each pom's own.
    prefix = prefix.absolute()
    root = prefix / "share" / "tidemark" / "jars"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".staging-", dir=root) as staging:
        _maven(POMS / "pom.xml", Path(staging), [MODULES[part] for part in parts])
        for part in parts:
            target = jar_folder(part, prefix)
            if not target.is_dir():
                (Path(staging) / MODULES[part]).rename(target)
    return parts


def resolve(pom: Path, target: Path) -> None:
    """Fetch the jars of a pom that is no part of the stack into a folder that appears in one step when complete. Errors as `download`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".staging-", dir=target.parent) as staging:
        _maven(pom, Path(staging))
        (folder,) = Path(staging).iterdir()
        if not target.is_dir():
            folder.rename(target)


def _maven(pom: Path, staging: Path, modules: Sequence[str] = ()) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise FileNotFoundError("Maven is not installed: run `apt-get install maven`")
    command = [maven, "-B", "-ntp", "-q", "-T", "4", "-f", str(pom)]
    if modules:
        command += ["-pl", ",".join(f":{module}" for module in modules)]
    command += [f"-Dtidemark.jars={staging}", "process-resources"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.stderr.write("\n".join(done.stdout.splitlines()[-15:]) + "\n")
        raise subprocess.CalledProcessError(done.returncode, command)


def main() -> int:
    """Download what is missing; print one line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--prefix", type=Path, default=Path(sys.prefix), help="virtual environment to fill")
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        fetched = download(arguments.prefix)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        print(f"servers: {error}", file=sys.stderr)
        return 1
    print(f"servers: {', '.join(fetched) or 'nothing new'} ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
