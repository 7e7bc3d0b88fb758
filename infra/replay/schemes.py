"""Schemes planted into a replay: a YAML file says which, when and how large; members and truth are known."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from infra.plain_yaml import MAX_BYTES, NotPlainYaml, plain_yaml
from infra.replay.errors import SchemesError
from infra.simulator.movements import KIND_NAMES
from infra.simulator.schemes import TYPOLOGIES, drawn
from schema_registry.column_codec import DECIMAL, TIME

MOST_SCHEMES = 10_000
EXCHANGES = 3  # of a scheme's own: bystanders, not members
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_SHARE = re.compile(r"([0-9]{1,2}(?:\.[0-9]+)?)%")


class PlantedScheme(BaseModel):
    """What to plant: `count` schemes of a typology, the first at `at`, each next one `every` later.

    `at` is a time, a time after the replay's start (6h), or a share of its span (30%); `size` is what one movement is around.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    typology: str
    at: str
    within: str = "2h"
    every: str = "1h"
    count: int = Field(1, ge=1, le=1_000)
    wallets: int = Field(8, ge=3, le=100)
    size: float = Field(1.0, gt=0, lt=1e9)
    asset: str = Field("ETH", min_length=1, max_length=32)
    network: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")] = "ethereum"
    seed: int = Field(0, ge=0)

    @field_validator("typology")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in TYPOLOGIES:
            raise ValueError(f"expected one of {', '.join(TYPOLOGIES)}, found {value[:40]!r}")
        return value

    @field_validator("within", "every")
    @classmethod
    def _is_duration(cls, value: str) -> str:
        if not (found := _DURATION.fullmatch(value)) or not int(found[1]):
            raise ValueError(f"expected a time as 90s, 10m, 2h or 7d, found {value[:40]!r}")
        return value

    @field_validator("at", mode="before")
    @classmethod
    def _is_place(cls, value: Any) -> str:
        text = value.isoformat() if isinstance(value, datetime) else str(value)
        if not _DURATION.fullmatch(text) and not _SHARE.fullmatch(text):
            try:
                datetime.fromisoformat(text)
            except ValueError:
                raise ValueError(f"expected a time, a time after the start as 6h, or a share as 30%, found {text[:40]!r}") from None
        return text

    @model_validator(mode="after")
    def _enough_wallets(self) -> PlantedScheme:
        least = TYPOLOGIES[self.typology][1]
        if self.wallets < least:
            raise ValueError(f"wallets: a {self.typology} needs {least}, found {self.wallets}")
        return self

    def begins(self, start: datetime, end: datetime) -> datetime:
        """When the first one begins, in a replay from `start` to `end`."""
        if found := _DURATION.fullmatch(self.at):
            return start + timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
        if found := _SHARE.fullmatch(self.at):
            return start + (end - start) * (float(found[1]) / 100.0)
        at = datetime.fromisoformat(self.at)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class SchemeFile:
    """A file of schemes, read: what to plant, and the hash of the file's bytes."""

    schemes: tuple[PlantedScheme, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class Injection:
    """What is planted: transactions in order of time (columns of the flattened `TransactionRecorded`), the schemes' members."""

    table: pa.Table
    members: frozenset[str]
    schemes: int


_FILE: TypeAdapter[list[PlantedScheme]] = TypeAdapter(list[PlantedScheme])


def read_schemes(path: Path) -> SchemeFile:
    """A YAML list of schemes.

    Raises:
        SchemesError: no readable file, or mistakes, each by its place.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        content = plain_yaml(data.decode())
    except OSError as error:
        raise SchemesError(str(path), {"file": f"not readable: {error.strerror}"}) from error
    except UnicodeDecodeError as error:
        raise SchemesError(str(path), {"file": "expected UTF-8"}) from error
    except NotPlainYaml as error:
        raise SchemesError(str(path), {error.place: error.problem}) from error
    try:
        found = _FILE.validate_python(content)
    except ValidationError as error:
        mistakes = {".".join(map(str, one["loc"])) or "yaml": one["msg"].removeprefix("Value error, ") for one in error.errors()}
        raise SchemesError(str(path), mistakes) from error
    if not found or sum(one.count for one in found) > MOST_SCHEMES:
        raise SchemesError(str(path), {"yaml": f"expected 1 to {MOST_SCHEMES:,} schemes in all, found {sum(one.count for one in found):,}"})
    return SchemeFile(tuple(found), hashlib.sha256(data).hexdigest())


def injected(schemes: Sequence[PlantedScheme], start: datetime, end: datetime) -> Injection:
    """Draw the schemes of a replay from `start` to `end`: the same file and span give the same transactions.

    Raises:
        SchemesError: a scheme begins outside of the span.
    """
    rows: list[dict[str, Any]] = []
    members: set[str] = set()
    count = 0
    for place, planted in enumerate(schemes):
        rng = np.random.default_rng([planted.seed, place])
        begin = planted.begins(start, end)
        for turn in range(planted.count):
            at = begin + timedelta(seconds=turn * _seconds(planted.every))
            if not start <= at < end:
                found = f"found one at {at:%Y-%m-%d %H:%M:%S}"
                raise SchemesError("schemes", {f"{place}.at": f"expected {start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S}, {found}"})
            own, mine = _one(rng, planted, f"{place}.{turn}", at)
            rows += own
            members |= mine
            count += 1
    rows.sort(key=lambda row: (row["occurred_at"], row["tx_id"]))
    return Injection(_table(rows), frozenset(members), count)


def _one(rng: np.random.Generator, planted: PlantedScheme, name: str, at: datetime) -> tuple[list[dict[str, Any]], set[str]]:
    ids = [_id(planted, f"{name}.wallet.{number}") for number in range(planted.wallets + EXCHANGES)]
    span = _seconds(planted.within)
    rows: list[dict[str, Any]] = []
    edges = drawn(rng, planted.typology, planted.wallets, EXCHANGES, planted.size)
    for number, (source, target, when, amount, kind) in enumerate(edges):
        rows.append(
            {
                "tx_id": f"{_id(planted, f'{name}.transaction.{number}')}:0",
                "network": planted.network,
                "kind": KIND_NAMES[kind],
                "status": "settled",
                "source_wallet_id": ids[source],
                "target_wallet_id": ids[target],
                "amount": Decimal(max(1, round(amount * 1e6))).scaleb(-6),
                "asset": planted.asset,
                "occurred_at": at + timedelta(seconds=when * span),
                "origin.source": "replay",
                "origin.mapping": "",
                "origin.ingest_id": f"injected-{planted.typology}",
                "origin.row": number,
            }
        )
    taking_part = {str(row[side]) for row in rows for side in ("source_wallet_id", "target_wallet_id")}
    return rows, taking_part & set(ids[: planted.wallets])


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    schema = {
        **dict.fromkeys(
            ("tx_id", "network", "kind", "status", "source_wallet_id", "target_wallet_id", "asset", "origin.source", "origin.mapping",
             "origin.ingest_id"), pa.string()
        ),
        "amount": DECIMAL, "occurred_at": TIME, "origin.row": pa.int64(),
    }  # fmt: skip
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in schema.items()})


def _id(planted: PlantedScheme, name: str) -> str:
    digest = hashlib.blake2b(f"{planted.seed}\n{planted.typology}\n{name}".encode(), digest_size=20)
    return f"{planted.network}:0x{digest.hexdigest()}"


def _seconds(text: str) -> int:
    found = _DURATION.fullmatch(text)
    assert found is not None
    return int(found[1]) * _SECONDS[found[2]]
