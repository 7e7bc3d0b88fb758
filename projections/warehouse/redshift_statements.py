"""The Redshift loader's SQL. No ON CONFLICT, RETURNING, DISTINCT ON, LATERAL or named windows: Redshift has none of them.

Dimensions are read from the staging tables themselves, so that their keys need no files of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from projections.warehouse.redshift_columns import columns_of, staged_columns
from projections.warehouse.tables import CHECKPOINTS

# Before anything that takes the transaction's snapshot. Redshift enforces no unique key, so this lock and the comparison under it
# are all that stands between two writers; the second waits here and then finds that it is too late.
LOCK_CHECKPOINTS = f"LOCK {CHECKPOINTS}"
LOAD_CHECKPOINTS = f"SELECT topic, partition, next_offset FROM {CHECKPOINTS}"
START_CHECKPOINT = f"INSERT INTO {CHECKPOINTS} (topic, partition, next_offset) VALUES (:topic, :partition, :after)"
ADVANCE_CHECKPOINT = (
    f"UPDATE {CHECKPOINTS} SET next_offset = :after WHERE topic = :topic AND partition = :partition AND next_offset = :before"
)

LIST_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE substring(nspname, 1, 11) = 'warehouse_g'"
LIST_RELATIONS = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema
"""
# Redshift takes comments on tables, not on schemas.
READ_LAYOUT = """
SELECT d.description FROM pg_description d
JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relname = 'checkpoints' AND d.objsubid = 0
"""
STORED_COUNTS = """
SELECT "table", tbl_rows FROM svv_table_info WHERE "schema" = :schema AND "table" <> 'checkpoints' AND tbl_rows > 0
"""
CHECK = "SELECT version(), current_user, has_database_privilege(current_database(), 'CREATE')"
USE_UTC = "SET timezone TO 'UTC'"

_SAFE_ROLE = re.compile(r"default|arn:[a-z-]+:iam::\d{12}:role/[\w+=,.@/-]+(,arn:[a-z-]+:iam::\d{12}:role/[\w+=,.@/-]+)*")


def stage_of(table: str) -> str:
    """The temporary table that a table's files are copied into."""
    return f"stage_{table}"


def create_stage(table: str) -> str:
    columns = ", ".join(f"{column.name} {column.stage_type}" for column in staged_columns(table))
    return f"CREATE TEMP TABLE {stage_of(table)} ({columns})"


def drop_stage(table: str) -> str:
    return f"DROP TABLE {stage_of(table)}"


def is_role(text: str) -> bool:
    """Whether this names IAM roles as COPY takes them: `default`, or ARNs joined by commas."""
    return _SAFE_ROLE.fullmatch(text) is not None


def copy(table: str, manifest: str, iam_role: str) -> str:
    """COPY binds no values: the address is of our own making, the role was checked by `is_role`; quotes are doubled all the same."""
    role = "default" if iam_role == "default" else _quoted(iam_role)
    return f"COPY {stage_of(table)} FROM {_quoted(manifest)} IAM_ROLE {role} FORMAT AS PARQUET MANIFEST"


def insert_facts(table: str) -> Iterator[str]:
    """Delete-insert: rows past the checkpoint are there only if someone else wrote them, and there is no key that would refuse them."""
    stage = stage_of(table)
    yield (
        f"DELETE FROM {table} USING {stage} s WHERE {table}.log_partition = s.log_partition AND {table}.log_offset = s.log_offset"
        f" AND {table}.log_offset BETWEEN :low AND :high"  # constants: they spare the blocks of older rows
    )
    names = ", ".join(column.name for column in staged_columns(table))
    values = ", ".join(column.into for column in staged_columns(table))
    yield f"INSERT INTO {table} ({names}) SELECT {values} FROM {stage}"


def add_wallets(columns: Iterable[tuple[str, str]]) -> str:
    """Args: columns: (fact table, wallet column) of what is staged."""
    met = " UNION ".join(f"SELECT {column} AS wallet_id FROM {stage_of(table)}" for table, column in columns)
    return f"""
INSERT INTO dim_wallet (wallet_id, description_number, network, kind, is_current)
SELECT m.wallet_id, 0, split_part(m.wallet_id, ':', 1), 'unknown', true
FROM ({met}) m LEFT JOIN dim_wallet d ON d.wallet_id = m.wallet_id AND d.description_number = 0
WHERE m.wallet_id IS NOT NULL AND d.wallet_id IS NULL
"""


def add_models(tables: Iterable[str]) -> str:
    met = " UNION ".join(f"SELECT model_version FROM {stage_of(table)}" for table in tables)
    return f"""
INSERT INTO dim_model (model_version, is_described)
SELECT m.model_version, false
FROM ({met}) m LEFT JOIN dim_model d ON d.model_version = m.model_version
WHERE m.model_version IS NOT NULL AND d.model_version IS NULL
"""


ADD_ASSETS = """
INSERT INTO dim_asset (network, asset)
SELECT m.network, m.asset
FROM (
    SELECT network, asset FROM stage_fact_transaction
    UNION SELECT network, counter_asset FROM stage_fact_transaction
    UNION SELECT network, fee_asset FROM stage_fact_transaction
) m LEFT JOIN dim_asset d ON d.network = m.network AND d.asset = m.asset
WHERE m.asset IS NOT NULL AND d.asset IS NULL
"""
# Redshift's EXTRACT has no ISO year: it is the year of the week's Thursday.
ADD_HOURS = """
INSERT INTO dim_time (hour_start, year, quarter, month, day, hour, iso_year, iso_week, iso_weekday, is_weekend)
SELECT m.at AT TIME ZONE 'UTC', extract(year FROM m.at), extract(quarter FROM m.at), extract(month FROM m.at),
       extract(day FROM m.at), extract(hour FROM m.at), extract(year FROM date_trunc('week', m.at) + INTERVAL '3 days'),
       extract(week FROM m.at), CASE WHEN extract(dow FROM m.at) = 0 THEN 7 ELSE extract(dow FROM m.at) END,
       extract(dow FROM m.at) IN (0, 6)
FROM (SELECT DISTINCT occurred_hour AS at FROM stage_fact_transaction) m
LEFT JOIN dim_time d ON d.hour_start = m.at AT TIME ZONE 'UTC'
WHERE d.hour_start IS NULL
"""

# A described wallet's history is folded again from all its descriptions: a late one takes its place by known_at.
FOLD_DESCRIPTIONS = (
    """
UPDATE dim_wallet SET valid_to = f.first_known_at, is_current = false
FROM (
    SELECT wallet_id, min(known_at) AS first_known_at FROM fact_wallet_description
    WHERE wallet_id IN (SELECT wallet_id FROM stage_fact_wallet_description) GROUP BY wallet_id
) f
WHERE dim_wallet.wallet_id = f.wallet_id AND dim_wallet.description_number = 0
""",
    """
DELETE FROM dim_wallet
WHERE description_number > 0 AND wallet_id IN (SELECT wallet_id FROM stage_fact_wallet_description)
""",
    """
INSERT INTO dim_wallet
    (wallet_id, description_number, network, kind, name, country, source, valid_from, valid_to, is_current)
SELECT wallet_id, row_number() OVER (PARTITION BY wallet_id ORDER BY known_at, log_partition, log_offset),
       split_part(wallet_id, ':', 1), kind, name, country, source, known_at,
       lead(known_at) OVER (PARTITION BY wallet_id ORDER BY known_at, log_partition, log_offset),
       lead(known_at) OVER (PARTITION BY wallet_id ORDER BY known_at, log_partition, log_offset) IS NULL
FROM fact_wallet_description
WHERE wallet_id IN (SELECT wallet_id FROM stage_fact_wallet_description)
""",
)
FOLD_TRAININGS = """
UPDATE dim_model
SET is_described = true, package_sha256 = t.package_sha256, package_uri = t.package_uri,
    trained_to_seq = t.trained_to_seq, labels = t.labels, metrics = t.metrics, trained_at = t.known_at
FROM (
    SELECT model_version, package_sha256, package_uri, trained_to_seq, labels, metrics, known_at,
           row_number() OVER (PARTITION BY model_version ORDER BY known_at DESC, log_partition DESC, log_offset DESC) AS recency
    FROM fact_model_training WHERE model_version IN (SELECT model_version FROM stage_fact_model_training)
) t
WHERE dim_model.model_version = t.model_version AND t.recency = 1
"""


def select_rows(table: str) -> str:
    """Every row of a table, as `redshift_columns.read_rows` takes them."""
    return f"SELECT {', '.join(column.out for column in columns_of(table))} FROM {table}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
