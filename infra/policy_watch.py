"""The policy that holds, for a worker that must not go on under an older one."""

from __future__ import annotations

import time
from collections.abc import Callable

from domain.policy import NO_POLICY, HeldPolicy, Policy
from infra.log_view import LogView
from schema_registry.contracts import CONTROL_EVENTS

LOOK_S = 1.0
"""How often the end of the control topic is asked for: so long may a worker go on after a change."""


class PolicyWatch:
    """Holds the policy as of when it was made, and tells when the log has another.

    Raises:
        PolicyError: what the log has is none: a newer Tidemark wrote it.
    """

    def __init__(self, log: LogView, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._log, self._monotonic = log, monotonic
        self._ends = log.ends([CONTROL_EVENTS])
        self._found = log.policy()
        self._looked_at = monotonic()
        self.held = HeldPolicy(Policy.from_json(self._found[0]), self._found[1]) if self._found is not None else NO_POLICY

    def is_replaced(self) -> bool:
        """Whether the log has had another policy since.

        Raises:
            LogError: Kafka does not answer.
        """
        if self._monotonic() - self._looked_at < LOOK_S:
            return False
        ends = self._log.ends([CONTROL_EVENTS])
        self._looked_at = self._monotonic()
        if ends == self._ends:
            return False
        self._ends = ends
        return self._log.policy() != self._found
