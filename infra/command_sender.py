"""Sends one command and waits for what the command handler decided."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from domain.commands import Command
from domain.errors import CommandRefused
from domain.log import NewRecord
from infra.composition import Composition, NotReady
from schema_registry.contracts import COMMAND_RESULTS, COMMANDS
from schema_registry.record_codec import RecordCodec

ANSWER_TIMEOUT_S = 15.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Accepted:
    """A command that was decided: its offset in the command topic, and how long the answer took."""

    offset: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The answer as plain values."""
        return {"accepted": True, "offset": self.offset, "seconds": round(self.seconds, 3)}


def send(composition: Composition, key: str, command: Command, timeout_s: float = ANSWER_TIMEOUT_S) -> Accepted:
    """Append a command and wait for its result.

    Raises:
        CommandRefused: with the handler's reason.
        NotReady: no handler answered in time; the command is in the log and will be decided when one runs.
        LogError: Kafka does not answer.
    """
    codec = RecordCodec(composition.clients.catalog)
    value = codec.encode_event(command)
    log = composition.log
    admin = composition.clients.admin
    before, results = admin.ends([COMMANDS]), admin.ends([COMMAND_RESULTS])
    started = time.monotonic()
    composition.producer.append([NewRecord(COMMANDS, key.encode(), value)])
    offset = next(
        int(place)
        for batch in log.read([COMMANDS], before)
        for place, found in zip(batch.offsets.tolist(), batch.values, strict=True)
        if found == value
    )
    while time.monotonic() - started < timeout_s:
        for batch in log.read([COMMAND_RESULTS], results):
            results.update(batch.next_offsets())
            for text in batch.values:
                _, result = codec.decode(text)
                if result["first_offset"] <= offset < result["next_offset"]:
                    for refusal in result["refusals"]:
                        if refusal["offset"] == offset:
                            raise CommandRefused(refusal["reason"], refusal["message"])
                    return Accepted(offset, time.monotonic() - started)
        time.sleep(_POLL_S)
    raise NotReady(
        f"the command is in the log at offset {offset}, but no command handler decided it in {timeout_s:.0f} s:"
        " is one running (`tidemark status`)? Do not send it again"
    )
