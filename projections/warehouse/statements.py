"""The warehouse's named SQL. Names of tables are unqualified: the connection's search path decides the generation."""

from __future__ import annotations

# The checkpoint moves first: the row locks make a second writer wait here, and find that it is too late. They are taken in one order by
# all, so that two writers cannot wait for each other in a circle. Whoever waited sees an older row than it has locked, so the offset is
# compared in the UPDATE, which looks at the row again. A partition of which nothing was read may have no row yet.
ADVANCE_CHECKPOINTS = """
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[]) AS w (topic, partition, before, after)
),
locked AS MATERIALIZED (
    SELECT c.topic, c.partition FROM checkpoints c JOIN wanted w ON c.topic = w.topic AND c.partition = w.partition
    ORDER BY c.topic COLLATE "C", c.partition
    FOR UPDATE OF c
),
moved AS (
    UPDATE checkpoints c SET next_offset = w.after
    FROM wanted w JOIN locked l ON l.topic = w.topic AND l.partition = w.partition
    WHERE c.topic = w.topic AND c.partition = w.partition AND c.next_offset = w.before
    RETURNING c.topic, c.partition
),
started AS (
    INSERT INTO checkpoints (topic, partition, next_offset)
    SELECT w.topic, w.partition, w.after FROM wanted w
    WHERE w.before = 0 AND NOT EXISTS (SELECT 1 FROM locked l WHERE l.topic = w.topic AND l.partition = w.partition)
    ORDER BY w.topic COLLATE "C", w.partition
    ON CONFLICT (topic, partition) DO NOTHING
    RETURNING topic, partition
)
SELECT topic, partition FROM moved UNION ALL SELECT topic, partition FROM started
"""
"""Topics, partitions, offsets before and after, as arrays → the places that it moved. All or it must be rolled back."""
LOCK_TIMEOUT_S = 10
"""How long a writer waits for rows that another one holds: longer than any batch, shorter than the patience of whoever waits for it."""
BOUND_WAITING = "SELECT set_config('lock_timeout', $1, false)"
# Whoever waited that long waits for a writer that stands still in its transaction: frozen, or cut off from a server that does not know
# it yet. It has moved a checkpoint, which each writer does first, and the server waits for its next word.
END_STALLED = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
WHERE a.pid <> pg_backend_pid() AND a.datname = current_database() AND a.wait_event_type = 'Client'
  AND a.xact_start < now() - make_interval(secs => $1)
  AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.relation = 'checkpoints'::regclass AND l.mode = 'RowExclusiveLock')
"""
LOAD_CHECKPOINTS = "SELECT topic, partition, next_offset FROM checkpoints"

STAGES = """
CREATE TEMPORARY TABLE IF NOT EXISTS stage_wallet (wallet_id text) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_described_wallet (wallet_id text) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_asset (network text, asset text) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_hour (hour_start timestamptz) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_model (model_version text) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_trained_model (model_version text) ON COMMIT DELETE ROWS
"""
"""Keys met in a batch; they hold rows only inside a transaction."""

# Inserts into dimensions are anti-joins; ON CONFLICT is for a second worker that meets the same key at the same moment.
# The order of keys is fixed so that two such workers cannot wait for each other in a circle.
_ADD_WALLETS = """
INSERT INTO dim_wallet (wallet_id, description_number, network, kind, is_current)
SELECT s.wallet_id, 0, split_part(s.wallet_id, ':', 1), 'unknown', true
FROM stage_wallet s
WHERE NOT EXISTS (SELECT 1 FROM dim_wallet d WHERE d.wallet_id = s.wallet_id AND d.description_number = 0)
ORDER BY s.wallet_id COLLATE "C"
"""
# Wallets are the one dimension of many rows, and ON CONFLICT takes 1.7 times as long for each: here only where it turns out to be needed.
ADD_WALLETS = f"""
DO $$ BEGIN
{_ADD_WALLETS};
EXCEPTION WHEN unique_violation THEN
{_ADD_WALLETS} ON CONFLICT DO NOTHING;
END $$
"""
ADD_ASSETS = """
INSERT INTO dim_asset (network, asset)
SELECT s.network, s.asset FROM stage_asset s
WHERE NOT EXISTS (SELECT 1 FROM dim_asset d WHERE d.network = s.network AND d.asset = s.asset)
ORDER BY s.network COLLATE "C", s.asset COLLATE "C"
ON CONFLICT DO NOTHING
"""
ADD_HOURS = """
INSERT INTO dim_time (hour_start, year, quarter, month, day, hour, iso_year, iso_week, iso_weekday, is_weekend)
SELECT s.hour_start,
       extract(year FROM u.at), extract(quarter FROM u.at), extract(month FROM u.at), extract(day FROM u.at),
       extract(hour FROM u.at), extract(isoyear FROM u.at), extract(week FROM u.at), extract(isodow FROM u.at),
       extract(isodow FROM u.at) >= 6
FROM stage_hour s
CROSS JOIN LATERAL (SELECT s.hour_start AT TIME ZONE 'UTC' AS at) u
WHERE NOT EXISTS (SELECT 1 FROM dim_time d WHERE d.hour_start = s.hour_start)
ORDER BY s.hour_start
ON CONFLICT DO NOTHING
"""
ADD_MODELS = """
INSERT INTO dim_model (model_version, is_described)
SELECT s.model_version, false FROM stage_model s
WHERE NOT EXISTS (SELECT 1 FROM dim_model d WHERE d.model_version = s.model_version)
ORDER BY s.model_version COLLATE "C"
ON CONFLICT DO NOTHING
"""

# A described wallet's history is folded again from all its descriptions: a late one takes its place by known_at.
CLOSE_PLACEHOLDERS = """
UPDATE dim_wallet d
SET valid_to = f.first_known_at, is_current = false
FROM (
    SELECT wallet_id, min(known_at) AS first_known_at
    FROM fact_wallet_description WHERE wallet_id IN (SELECT wallet_id FROM stage_described_wallet)
    GROUP BY wallet_id
) f
WHERE d.wallet_id = f.wallet_id AND d.description_number = 0
"""
DROP_WALLET_HISTORY = """
DELETE FROM dim_wallet
WHERE description_number > 0 AND wallet_id IN (SELECT wallet_id FROM stage_described_wallet)
"""
FOLD_WALLET_HISTORY = """
INSERT INTO dim_wallet
    (wallet_id, description_number, network, kind, name, country, source, valid_from, valid_to, is_current)
SELECT wallet_id, row_number() OVER history, split_part(wallet_id, ':', 1), kind, name, country, source, known_at,
       lead(known_at) OVER history, lead(known_at) OVER history IS NULL
FROM fact_wallet_description
WHERE wallet_id IN (SELECT wallet_id FROM stage_described_wallet)
WINDOW history AS (PARTITION BY wallet_id ORDER BY known_at, log_partition, log_offset)
"""
DESCRIBE_MODELS = """
UPDATE dim_model d
SET is_described = true, package_sha256 = t.package_sha256, package_uri = t.package_uri,
    trained_to_seq = t.trained_to_seq, labels = t.labels, metrics = t.metrics, trained_at = t.known_at
FROM (
    SELECT DISTINCT ON (model_version) *
    FROM fact_model_training WHERE model_version IN (SELECT model_version FROM stage_trained_model)
    ORDER BY model_version, known_at DESC, log_partition DESC, log_offset DESC
) t
WHERE d.model_version = t.model_version
"""

# Of two workers that fold one wallet's history each would miss what the other has not committed: one after the other. A wallet's
# descriptions are in one partition and so in one worker's hands; but not those of before a change of the producers' partitioner.
FOLD_LOCK = 7_413_202
LOCK_FOLD = "SELECT pg_advisory_xact_lock($1::integer, hashtext(current_schema()))"

LAYOUT_LOCK = 7_413_201  # a number of our own: who makes, swaps or drops a generation waits for whoever does so
LOCK_LAYOUT = "SELECT pg_advisory_xact_lock($1)"
HAS_LAYOUT = "SELECT count(*) FROM pg_class WHERE oid = to_regclass($1)"
LIST_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1) ORDER BY nspname"
LIST_RELATIONS = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'v', 'm')
ORDER BY c.relname
"""
LIST_VIEWS = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'v'
ORDER BY c.relname
"""
READ_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
