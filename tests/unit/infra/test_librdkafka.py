"""The C library that confluent-kafka brings: found, of the same version, or named as what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import confluent_kafka
import pytest

from domain.errors import LogError
from infra import librdkafka


def test_the_library_is_the_one_that_confluent_kafka_runs_on() -> None:
    assert librdkafka.library().rd_kafka_version() == confluent_kafka.libversion()[1]


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("confluent_kafka.libversion", lambda: ("1.0.0", 0x010000FF))
    with pytest.raises(LogError, match="expected version 0x10000ff, which confluent-kafka runs on, found 0x"):
        librdkafka.library.__wrapped__()


def test_without_a_copy_of_its_own_the_system_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("confluent_kafka.__file__", str(tmp_path / "confluent_kafka" / "__init__.py"))
    monkeypatch.setattr(librdkafka, "find_library", lambda name: f"lib{name}.so.1")
    assert librdkafka.library_path() == "librdkafka.so.1"
    monkeypatch.setattr(librdkafka, "find_library", lambda name: None)
    with pytest.raises(LogError, match="librdkafka is not there"):
        librdkafka.library_path()
