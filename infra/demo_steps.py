"""The list of steps that a demo has done: kept on disk after each, so that an interrupted one resumes and a second one reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class StepList:
    """Steps done with their results, in one file.

    Args:
        file: where the list is kept.
        identity: what the demo is about; a list of another identity is an error of the caller, who gives each its own state.
    """

    def __init__(self, file: Path, identity: dict[str, Any]) -> None:
        self._file = file
        kept: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
        is_same = kept.get("identity") == identity
        self._steps: dict[str, dict[str, Any]] = kept.get("steps", {}) if is_same else {}
        self._attempts: dict[str, int] = kept.get("attempts", {}) if is_same else {}
        self._identity = identity

    def is_done(self, name: str) -> bool:
        """Whether the step has ended."""
        return name in self._steps

    def result(self, name: str) -> dict[str, Any]:
        """What the step gave.

        Raises:
            KeyError: it has not ended.
        """
        found: dict[str, Any] = self._steps[name]["result"]
        return found

    def seconds(self) -> dict[str, float]:
        """Seconds that each step took when it ran."""
        return {name: step["seconds"] for name, step in self._steps.items()}

    def begin(self, name: str) -> None:
        """Note that the step is tried."""
        self._attempts[name] = self._attempts.get(name, 0) + 1
        self._write()

    def runs(self, name: str) -> list[str]:
        """What each attempt of the step calls its ingestion, the running or finished one last: no two attempts share a name, so that the
        log tells what each has sent."""
        return [name if n == 1 else f"{name}.{n}" for n in range(1, self._attempts.get(name, 0) + 1)]

    def done(self, name: str, seconds: float, result: dict[str, Any]) -> None:
        """Record a step, atomically."""
        self._steps[name] = {"seconds": round(seconds, 2), "result": result}
        self._write()

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".tmp")
        kept = {"identity": self._identity, "attempts": self._attempts, "steps": self._steps}
        fresh.write_text(json.dumps(kept, indent=1, default=str), "utf-8")
        fresh.replace(self._file)
