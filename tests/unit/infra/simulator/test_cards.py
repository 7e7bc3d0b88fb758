"""Simulated card payments: the file's shape, repeatable, rare fraud that overlaps with the rest, and read by the shipped mapping."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from domain.errors import InvalidValue
from infra.simulator.cards import CARD_FRAUDS, CARD_ROWS, COLUMNS, FEATURES, SPAN_S, CardOptions, card_payments, write_card_payments
from infra.sources.cut import cut_of
from infra.sources.reading import read
from infra.sources.shipped import detect, header_of, transaction_mapping
from ml.evaluation import auroc
from schema_registry.catalog import SchemaCatalog

SMALL = CardOptions(20_000, 200, 3)


@pytest.fixture(scope="module")
def payments() -> pa.Table:
    return card_payments(SMALL)


def features_of(table: pa.Table) -> np.ndarray:
    return np.stack([table[name].to_numpy() for name in FEATURES], axis=1)


def test_by_default_it_has_the_shape_of_the_file() -> None:
    table = card_payments(CardOptions())
    assert table.column_names == list(COLUMNS) and len(COLUMNS) == 31
    assert (table.num_rows, int(table["Class"].to_numpy().sum())) == (CARD_ROWS, CARD_FRAUDS) == (284_807, 492)


def test_the_same_options_give_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for path, seed in zip(paths, (3, 3, 4), strict=True):
        write_card_payments(CardOptions(500, 20, seed), path)
    first, second, other = (path.read_bytes() for path in paths)
    assert first == second != other
    write_card_payments(CardOptions(500, 20, 3), tmp_path / "d.csv.gz")
    assert gzip.decompress((tmp_path / "d.csv.gz").read_bytes()) == first


def test_times_begin_at_0_and_rise_over_two_days(payments: pa.Table) -> None:
    times = payments["Time"].to_numpy()
    assert times[0] == 0 and (np.diff(times) >= 0).all() and 0.95 * SPAN_S < times[-1] <= SPAN_S
    by_hour = np.bincount(times // 3600 % 24, minlength=24)
    assert by_hour[3] < by_hour[14] / 3, "people sleep"


def test_components_are_uncorrelated_and_their_variance_falls(payments: pa.Table) -> None:
    genuine = features_of(payments)[payments["Class"].to_numpy() == 0]
    spread = genuine.std(axis=0)
    assert spread[0] > 1.7 and spread[-1] < 0.45 and (spread[:-4] > spread[4:]).all()
    correlation = np.corrcoef(genuine, rowvar=False)
    assert np.abs(correlation[~np.eye(len(FEATURES), dtype=bool)]).max() < 0.05


def test_fraud_is_neither_trivial_nor_hopeless(payments: pa.Table) -> None:
    label, features = payments["Class"].to_numpy(), features_of(payments)
    alone = [auroc(label, sign * features[:, i]) or 0.5 for i in range(len(FEATURES)) for sign in (1, -1)]
    assert 0.75 < max(alone) < 0.95, "no component tells it alone"
    assert sum(value > 0.6 for value in alone) >= 5
    hidden = np.abs(features[label == 1] / features[label == 0].std(axis=0))[:, 13] < 1.0
    assert 0.1 < hidden.mean() < 0.6, "part of it looks like anybody"


def test_amounts_have_two_decimals_and_a_heavy_tail(payments: pa.Table) -> None:
    amounts = payments["Amount"].to_numpy()
    assert (np.round(amounts, 2) == amounts).all() and amounts.min() > 0
    assert np.median(amounts) < 30 and amounts.mean() > 2 * np.median(amounts) and amounts.max() > 2_000


def test_the_shipped_mapping_reads_every_row_and_its_class(tmp_path: Path) -> None:
    path = tmp_path / "creditcard.csv"
    write_card_payments(CardOptions(2_000, 40, 5), path)
    found = detect(header_of(path))
    assert found is not None and found.name == "kaggle_card"
    chunks = list(read(path, transaction_mapping("kaggle_card"), ingest_id="i", catalog=SchemaCatalog.numbered()))
    assert sum(len(chunk.values) for chunk in chunks) == 2_000 and not any(chunk.rejected for chunk in chunks)
    cut = cut_of(path, transaction_mapping("kaggle_card"), by="rows")
    assert cut.is_sorted and cut.labels_are_of == "transactions" and (len(cut.training), len(cut.test)) == (1_600, 400)
    assert sum(label == "illicit" for label in (*cut.training.values(), *cut.test.values())) == 40


@pytest.mark.parametrize(
    ("count", "frauds", "message"), [(99, 1, "at least 100"), (100, 51, "0 to 50 of 100"), (100, -1, "0 to 50 of 100")]
)
def test_what_cannot_be_drawn_is_refused(count: int, frauds: int, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        CardOptions(count, frauds)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.csv or \.csv\.gz, found cards\.parquet"):
        write_card_payments(CardOptions(100, 1), tmp_path / "cards.parquet")
