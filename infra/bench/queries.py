"""`tidemark bench --queries`: the analysts' queries on a large warehouse, and what its block range indexes cost a load.

Facts are made by the server itself, in order of time over `DAYS` days, with wallets of very different activity. Each query is asked
`ASKS` times, each time about other wallets, cases or days.
"""

from __future__ import annotations

import random
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import psycopg
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from infra.bench.measure import Stage
from infra.bench.own_stack import own_servers
from infra.composition import Composition
from infra.settings import Settings
from projections.warehouse.connection import run
from projections.warehouse.generations import WarehouseGenerations
from projections.warehouse.queries import PostgresAnalyst, queries
from projections.warehouse.tables import warehouse_metadata
from schema_registry.column_codec import DECIMAL

ASKS = 20
REACH_S = 1.0
DAYS = 90
START = datetime(2026, 1, 1, tzinfo=UTC)
CHUNK = 500_000
LOADED = 200_000  # rows of one load where the indexes' cost is measured
BATCH = 50_000  # rows in one transaction there, as the worker has them behind a backlog
REPETITIONS = 5
WALLETS = 200_000
MERCHANTS = 2_000
CASES = 5_000
# The square makes a few wallets busy and most of them rare.
FACTS = f"""
INSERT INTO fact_transaction (tx_id, network, kind, status, source_wallet_id, target_wallet_id, amount, asset, occurred_at,
    occurred_hour, merchant_category, country, payment_method, origin_source, origin_mapping, origin_ingest_id, origin_row, seq,
    ingested_at, log_partition, log_offset)
SELECT 'bank:' || md5(n::text) || ':0', 'bank', CASE WHEN is_payment THEN 'payment' ELSE 'transfer' END,
       CASE WHEN chance < 0.95 THEN 'settled' WHEN chance < 0.99 THEN 'declined' ELSE 'failed' END,
       'bank:' || md5((({WALLETS} * source * source)::bigint)::text),
       'bank:' || md5(CASE WHEN is_payment THEN 'm' || ({MERCHANTS} * target)::bigint
                      ELSE (({WALLETS} * target * target)::bigint)::text END),
       round((10000 * value * value)::numeric, 2), CASE WHEN asset < 0.8 THEN 'EUR' ELSE 'USD' END, at, date_trunc('hour', at),
       CASE WHEN is_payment THEN 'retail' END, 'DE', CASE WHEN is_payment THEN 'card' END, 'bench', 'bench@1', 'bench', n, n,
       at, mod(n, 6), n / 6
FROM (
    SELECT n, %(start)s::timestamptz + (n::float8 / %(total)s) * INTERVAL '{DAYS} days' AS at, random() < 0.25 AS is_payment,
           random() AS chance, random() AS source, random() AS target, random() AS value, random() AS asset
    FROM generate_series(%(first)s::bigint, %(end)s::bigint - 1) AS n
) drawn
"""
HOURS = """
INSERT INTO dim_time (hour_start, year, quarter, month, day, hour, iso_year, iso_week, iso_weekday, is_weekend)
SELECT at, 2026, 1, 1, 1, 0, 2026, 1, 1, false FROM (SELECT DISTINCT occurred_hour AS at FROM fact_transaction) hours
"""
ALERTS = f"""
INSERT INTO fact_alert (case_id, wallet_id, reason, score, threshold, tx_id, tx_seq, explanation, model_version, known_at, seq,
    ingested_at, log_partition, log_offset)
SELECT 'case-' || n, t.source_wallet_id, 'score', 0.5 + random() / 2, 0.5, t.tx_id, t.seq, '', 'm-' || mod(n, 3), t.occurred_at, NULL,
       t.occurred_at, mod(n, 6), n / 6
FROM generate_series(0, {CASES} - 1) AS n JOIN fact_transaction t ON t.seq = n * (%(total)s / {CASES})
"""
ALERT_TRANSACTIONS = """
INSERT INTO fact_alert_transaction (case_id, wallet_id, tx_id, tx_seq, score, known_at, seq, ingested_at, log_partition, log_offset)
SELECT a.case_id, a.wallet_id, t.tx_id, t.seq, a.score, a.known_at, NULL, a.known_at, a.log_partition, a.log_offset * 5 + later
FROM generate_series(0, 4) AS later CROSS JOIN fact_alert a JOIN fact_transaction t ON t.seq = a.tx_seq + later * 97
"""
CASE_EVENTS = """
INSERT INTO fact_case_event (event_type, case_id, wallet_id, verdict, assignee, reason, actor, known_at, seq, ingested_at,
    log_partition, log_offset)
SELECT kind, a.case_id, a.wallet_id, CASE WHEN kind = 'VerdictReached' THEN CASE WHEN a.score > 0.8 THEN 'fraud' ELSE 'not_fraud' END END,
       CASE WHEN kind = 'CaseAssigned' THEN 'analyst-' || mod(a.tx_seq, 9) END, NULL, 'analyst-' || mod(a.tx_seq, 9),
       a.known_at + place * INTERVAL '2 hours', NULL, a.known_at, a.log_partition, a.log_offset * 4 + place
FROM fact_alert a
CROSS JOIN (VALUES (0, 'CaseOpened'), (1, 'CaseAssigned'), (2, 'VerdictReached'), (3, 'CaseClosed')) AS steps (place, kind)
WHERE place <= mod(a.tx_seq, 5)
"""


class QueryBench:
    """One run, in a Postgres of its own that is removed afterwards.

    Args:
        facts: transactions in the warehouse.
    """

    def __init__(self, settings: Settings, facts: int, console: Console) -> None:
        self._settings, self._facts, self._console = settings, facts, console
        self._random = random.Random(7)

    def run(self) -> dict[str, Any]:
        """Measure everything; returns the figures as plain values."""
        started = time.monotonic()
        with own_servers(self._settings, ["postgres"]) as (composition, _):
            warehouse = composition.warehouse(1)
            warehouse.load_position()
            self._fill(composition.warehouse_dsn)
            WarehouseGenerations(composition.warehouse_dsn).publish(1)
            answered = self._answers(composition.warehouse_dsn)
            load = self._load(composition)
            warehouse.close()
        seconds = round(time.monotonic() - started, 1)
        return {"facts": self._facts, "asks": ASKS, "seconds": seconds, "queries": answered, "load": load.as_json()}

    def _fill(self, dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True, options="-c search_path=warehouse_g1 -c synchronous_commit=off") as connection:
            connection.execute("SELECT setseed(0.5)")
            for first in range(0, self._facts, CHUNK):
                self._console.print(f"  {first:,} of {self._facts:,} facts", style="dim", highlight=False)
                end = min(first + CHUNK, self._facts)
                connection.execute(FACTS.encode(), {"first": first, "end": end, "total": self._facts, "start": START})
            connection.execute("VACUUM (ANALYZE) fact_transaction")
            for statement in (HOURS, ALERTS, ALERT_TRANSACTIONS, CASE_EVENTS):
                connection.execute(statement.encode(), {"total": self._facts} if "%(" in statement else None)
            connection.execute("VACUUM (ANALYZE)")

    def _answers(self, dsn: str) -> dict[str, dict[str, float]]:
        analyst = PostgresAnalyst(dsn)
        found = {}
        for name, query in queries().items():
            self._console.print(f"  {name}", style="dim")
            seconds, rows = [], []
            for _ in range(ASKS):
                given = self._given(dsn, name)
                began = time.perf_counter()
                rows.append(len(analyst.ask(query, given).rows))
                seconds.append(time.perf_counter() - began)
            cuts = statistics.quantiles(seconds, n=20, method="inclusive")
            found[name] = {"p50_ms": round(cuts[9] * 1000, 1), "p95_ms": round(cuts[18] * 1000, 1), "rows": statistics.median(rows)}
        return found

    def _given(self, dsn: str, name: str) -> dict[str, str]:
        """Parameters of one call: another wallet, case or day."""
        at = START + timedelta(days=self._random.uniform(DAYS / 2, DAYS))
        given = {"at": at.isoformat()} if "at" in queries()[name].parameters else {}
        if name in ("wallet-history", "wallet-flows"):
            with psycopg.connect(dsn) as connection:
                place = self._random.randrange(self._facts)
                found = connection.execute("SELECT source_wallet_id FROM warehouse_g1.fact_transaction WHERE seq = %s", (place,)).fetchone()
            assert found is not None
            given["wallet_id"] = found[0]
        elif name == "case-transactions":
            given["case_id"] = f"case-{self._random.randrange(CASES)}"
        elif name == "structuring":
            given |= {"bound": str(self._random.choice((1_000, 5_000, 9_000))), "asset": "EUR"}
        return given

    def _load(self, composition: Composition) -> Stage:
        """Loads of the same rows with and without the block range indexes, in turn, into generations of their own.

        Rates are by the processor time of the server's session: a busy machine does not stretch it.
        """
        stage = Stage("load with block range indexes", "the same load without them", "1")
        source = composition.warehouse(1)
        with source._transaction("reading rows to load") as cursor:
            cursor.execute("SELECT * FROM fact_transaction WHERE seq < $1", (LOADED,))
            rows = cursor.fetch_arrow_table()
        rows = rows.set_column(rows.column_names.index("amount"), "amount", rows["amount"].cast(pa.string()).cast(DECIMAL))
        rows = rows.drop_columns([name for name in rows.column_names if rows[name].null_count == len(rows)])
        for repetition in range(REPETITIONS):
            self._console.print(f"  loading {repetition + 1} of {REPETITIONS}", style="dim")
            rates = {}
            for place, is_bare in enumerate((False, True) if repetition % 2 else (True, False)):
                target = composition.warehouse(10 + 2 * repetition + place)
                target.load_position()
                rates[is_bare] = len(rows) / _cpu_s(target, rows, is_bare=is_bare)
                target.close()
            stage.add(rates[False], rates[True])
        source.close()
        return stage


def table(result: dict[str, Any]) -> Table:
    """The figures for a terminal."""
    title = f"{result['facts']:,} facts, {result['seconds']:,.0f} s, {result['asks']} asks each"
    shown = Table(title=title, title_justify="left")
    for name in ("query", "p50 ms", "p95 ms", "rows", "reach"):
        shown.add_column(name, justify="left" if name == "query" else "right")
    for name, found in result["queries"].items():
        is_slow = found["p95_ms"] > REACH_S * 1000
        p95 = f"[red]{found['p95_ms']:,.0f}[/]" if is_slow else f"{found['p95_ms']:,.0f}"
        shown.add_row(name, f"{found['p50_ms']:,.0f}", p95, f"{found['rows']:,.0f}", f"p95 < {REACH_S * 1000:,.0f}")
    ratio = result["load"]["ratio"]
    shown.add_row("load, with block range indexes beside without", f"{ratio['median']} ({ratio['min']}–{ratio['max']})", "", "", "1")
    return shown


def _cpu_s(target: Any, rows: pa.Table, *, is_bare: bool) -> float:
    """Seconds of the server's processor time for the rows, in batches as the worker writes them."""
    with target._transaction("preparing a load") as cursor:
        for index in warehouse_metadata().tables["fact_transaction"].indexes if is_bare else ():
            run(cursor, f"DROP INDEX {index.name}")
        ((pid,),) = run(cursor, "SELECT pg_backend_pid()")
    before = psutil.Process(pid).cpu_times()
    for at in range(0, len(rows), BATCH):
        with target._transaction("loading rows") as cursor:
            cursor.adbc_ingest("fact_transaction", rows.slice(at, BATCH), mode="append")
    after = psutil.Process(pid).cpu_times()
    return float(after.user + after.system - before.user - before.system)
