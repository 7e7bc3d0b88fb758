"""How a job speaks to whoever started it: one JSON document a line on standard output, and nothing else there."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

REFUSED = 2
"""Exit status of a job whose last line is a refusal: a sentence for a person."""


class Refused(Exception):
    """The job cannot do what it was asked; the message says what to do."""


def _spec(named: str) -> dict[str, Any]:
    """From a private file, which goes with it; or, where the job runs elsewhere, from a secret of Secrets Manager by its ARN."""
    if named.startswith("arn:"):
        import boto3

        secrets = boto3.client("secretsmanager", region_name=named.split(":")[3])
        found: dict[str, Any] = json.loads(secrets.get_secret_value(SecretId=named)["SecretString"])
        return found
    path = Path(named)
    found = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()  # it holds secrets, and is needed once
    return found


def _tethered() -> None:
    """Whoever started the job holds its standard input: when that ends, so does the job, Java and all."""
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


def run(work: Callable[[dict[str, Any], Callable[..., None]], dict[str, Any]]) -> None:
    """Read the spec, do the work, tell its result, and leave with an exit status.

    Args:
        work: given the spec and what tells of its progress; returns the result.
    """
    # Java and its libraries write where they like: what is read by a program gets a descriptor that they do not know.
    told = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    spec = _spec(sys.argv[1])

    if spec.get("is_tethered"):
        Thread(target=_tethered, daemon=True).start()

    def tell(kind: str, **fields: Any) -> None:
        told.write(json.dumps({"kind": kind, **fields}) + "\n")

    try:
        result = work(spec, tell)
    except Refused as error:
        tell("refused", message=str(error))
        sys.exit(REFUSED)
    tell("result", **result)
