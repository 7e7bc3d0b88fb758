"""The Cypher of the wallet graph: its constraints, what writes it, what reads it back.

Rows travel as lists, not maps: half the bytes. A statement names their columns once and says `row.tx_id`; the position
replaces the name when the module is read, so nothing but our own constants is ever put into the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, LiteralString

UNIT: Final = 10**18  # smallest parts of a whole unit, and whole units of a high one: both fit in an int64 with room for a carry
HIGH_SCORE: Final = 0.5  # a score from here on paints a wallet; alerts have their own threshold


@dataclass(frozen=True, slots=True)
class Statement:
    """A bulk write: Cypher over `$rows`, and the columns of a row in order."""

    columns: tuple[str, ...]
    cypher: LiteralString


@dataclass(frozen=True, slots=True)
class TransactionsStatement:
    """The bulk write of transactions: Cypher over `$wallets`, `$sent` and `$flows`, and the columns of each in order.

    `source` and `target` of a row are places in `$wallets`.
    """

    wallets: tuple[str, ...]
    sent: tuple[str, ...]
    flows: tuple[str, ...]
    cypher: LiteralString


def _placed(names: tuple[str, ...], cypher: str) -> LiteralString:
    return re.sub(r"\brow\.(\w+)", lambda found: f"row[{names.index(found[1])}]", cypher)


def _statement(columns: str, cypher: str) -> Statement:
    names = tuple(columns.split())
    return Statement(names, _placed(names, "UNWIND $rows AS row\n" + cypher))


def _time(name: str) -> str:
    # Microseconds since 1970 become a datetime in the server: the driver's own conversion costs ten times as much.
    return f"datetime({{epochSeconds: {name} / 1000000, nanosecond: ({name} % 1000000) * 1000}})"


def _micros(name: str) -> str:
    return f"{name}.epochSeconds * 1000000 + {name}.nanosecond / 1000"


CONSTRAINTS: Final[tuple[LiteralString, ...]] = (
    "CREATE CONSTRAINT wallet_id IF NOT EXISTS FOR (w:Wallet) REQUIRE w.wallet_id IS UNIQUE",
    "CREATE CONSTRAINT sent_tx_id IF NOT EXISTS FOR ()-[r:SENT]-() REQUIRE r.tx_id IS UNIQUE",
    "CREATE CONSTRAINT alert_case_id IF NOT EXISTS FOR (a:Alert) REQUIRE a.case_id IS UNIQUE",
    "DROP CONSTRAINT unplaced_score_tx_id IF EXISTS",  # of a graph from before transactions could be taken back
    "CREATE CONSTRAINT unplaced_score IF NOT EXISTS FOR (s:UnplacedScore) REQUIRE (s.tx_id, s.score_seq) IS UNIQUE",
    "CREATE INDEX void_tx_id IF NOT EXISTS FOR (v:Void) ON (v.tx_id)",
    "CREATE INDEX voided_tx_id IF NOT EXISTS FOR ()-[r:VOIDED]-() ON (r.tx_id)",
    "CREATE CONSTRAINT checkpoint IF NOT EXISTS FOR (c:Checkpoint) REQUIRE (c.projection, c.topic, c.partition) IS UNIQUE",
    # No dimensions: the index takes each vector as long as it is, so another model needs no other index.
    "CREATE VECTOR INDEX wallet_embedding IF NOT EXISTS FOR (w:Wallet) ON w.embedding"
    " OPTIONS {indexConfig: {`vector.similarity_function`: 'cosine', `vector.quantization.enabled`: false}}",
)

# Compare-and-set in two statements. Neo4j reads committed data without a lock, so the first one takes the locks (a
# write is a lock) and only the second one compares: `WHERE c.next_offset = … SET` in one step lets two writers win.
LOCK_CHECKPOINTS = _statement(
    "topic partition",
    "MERGE (c:Checkpoint {projection: $projection, topic: row.topic, partition: row.partition})\nSET c.locked = true",
)
MOVE_CHECKPOINTS = _statement(
    "topic partition before after",
    "MATCH (c:Checkpoint {projection: $projection, topic: row.topic, partition: row.partition})\n"
    "WHERE coalesce(c.next_offset, 0) = row.before\n"
    "SET c.next_offset = row.after REMOVE c.locked\n"
    "RETURN count(c) AS moved",
)
LOAD_CHECKPOINTS: Final[LiteralString] = (
    "MATCH (c:Checkpoint {projection: $projection}) WHERE c.next_offset IS NOT NULL"
    " RETURN c.topic AS topic, c.partition AS partition, c.next_offset AS next_offset"
)

_NAME_WALLET = "MERGE (w:Wallet {wallet_id: row.wallet_id})\nON CREATE SET w.network = row.network, w.caption = row.caption, w.degree = 0\n"
# The first write of a batch, for every wallet that no transaction of it names: it merges the placeholder and holds the
# wallet's lock to the end, so that what follows may read and then write (scores) beside another writer.
MERGE_WALLETS = _statement("wallet_id network caption", _NAME_WALLET + "SET w.degree = w.degree + 0")

_WALLET_COLUMNS = ("wallet_id", "network", "caption", "degree")
_SENT_COLUMNS = (
    "source", "target", "tx_id", "seq", "amount", "amount_float", "asset", "status", "kind", "occurred_at", "topic",
    "partition", "offset",
)  # fmt: skip
_FLOW_COLUMNS = ("source", "target", "asset", "transactions", "high", "whole", "parts", "first_at", "last_at")
_ENDS = "row, wallets[row.source] AS a, wallets[row.target] AS b"
_IS_NEW = "had[row.source] = 0 OR had[row.target] = 0"
_FLOAT = f"{{high}} * {float(UNIT)!r} + {{whole}} + {{parts}} / {float(UNIT)!r}"
# What stands at an arrow: rounded, for eyes only.
_FLOW_CAPTION = (
    "CASE WHEN {high} > 0 OR {whole} > 0 OR {parts} >= 10000000000000000\n"
    f"    THEN toString(round({_FLOAT}, 2)) ELSE '<0.01' END + ' ' + left(row.asset, 12)"
)
_OF_ROW = {"high": "row.high", "whole": "row.whole", "parts": "row.parts"}
_OF_SUM = {"high": "high", "whole": "whole", "parts": "parts"}
_SEND = (
    f"UNWIND $sent AS row WITH {_ENDS}\n"
    "CREATE (a)-[:SENT {tx_id: row.tx_id, seq: row.seq, amount: row.amount, amount_float: row.amount_float,\n"
    f"  asset: row.asset, status: row.status, kind: row.kind, occurred_at: {_time('row.occurred_at')},\n"
    "  topic: row.topic, partition: row.partition, offset: row.offset}]->(b)"
)
_CREATE_FLOWS = (
    f"UNWIND $flows AS row WITH row WHERE {_IS_NEW} WITH {_ENDS}\n"
    "CREATE (a)-[:FLOW {asset: row.asset, transactions: row.transactions,\n"
    "  sum_high: row.high, sum_whole: row.whole, sum_parts: row.parts,\n"
    f"  amount_float: {_FLOAT.format(**_OF_ROW)},\n"
    f"  caption: {_FLOW_CAPTION.format(**_OF_ROW)},\n"
    f"  first_at: {_time('row.first_at')}, last_at: {_time('row.last_at')}}}]->(b)"
)
_ADD_FLOWS = (
    f"UNWIND $flows AS row WITH row WHERE NOT ({_IS_NEW}) WITH {_ENDS}\n"
    "MERGE (a)-[f:FLOW {asset: row.asset}]->(b)\n"
    f"WITH f, row, {_time('row.first_at')} AS first_at, {_time('row.last_at')} AS last_at,\n"
    "  coalesce(f.sum_parts, 0) + row.parts AS parts\n"
    f"WITH f, row, first_at, last_at, parts % {UNIT} AS parts,\n"
    f"  coalesce(f.sum_whole, 0) + row.whole + parts / {UNIT} AS whole\n"
    f"WITH f, row, first_at, last_at, parts, whole % {UNIT} AS whole,\n"
    f"  coalesce(f.sum_high, 0) + row.high + whole / {UNIT} AS high\n"
    "SET f.transactions = coalesce(f.transactions, 0) + row.transactions,\n"
    "  f.sum_parts = parts, f.sum_whole = whole, f.sum_high = high,\n"
    f"  f.amount_float = {_FLOAT.format(**_OF_SUM)},\n"
    f"  f.caption = {_FLOW_CAPTION.format(**_OF_SUM)},\n"
    "  f.first_at = CASE WHEN f.first_at <= first_at THEN f.first_at ELSE first_at END,\n"
    "  f.last_at = CASE WHEN f.last_at >= last_at THEN f.last_at ELSE last_at END"
)
# A chunk of transactions in one statement: each wallet is looked up once, and relationships name it by its place in the
# list. A wallet that had no relationship has no FLOW, so those of new wallets are created without a search. `SET w.degree
# = w.degree + …` takes the lock before it reads; a degree read any earlier could be another writer's to change.
WRITE_TRANSACTIONS = TransactionsStatement(
    _WALLET_COLUMNS,
    _SENT_COLUMNS,
    _FLOW_COLUMNS,
    _placed(_WALLET_COLUMNS, "UNWIND $wallets AS row\n" + _NAME_WALLET + "SET w.degree = w.degree + row.degree\n")
    + _placed(_WALLET_COLUMNS, "WITH collect(w) AS wallets, collect(w.degree - row.degree) AS had\n")
    + "CALL (wallets) {\n" + _placed(_SENT_COLUMNS, _SEND) + "\n}\n"
    + "CALL (wallets, had) {\n" + _placed(_FLOW_COLUMNS, _CREATE_FLOWS) + "\n}\n"
    + "CALL (wallets, had) {\n" + _placed(_FLOW_COLUMNS, _ADD_FLOWS) + "\n}",
)  # fmt: skip

_SCORE = (
    "score = row.score, {0}.source_score = row.source_score, {0}.target_score = row.target_score,\n"
    "  {0}.score_seq = row.tx_seq, {0}.model_version = row.model_version,\n"
    "  {0}.score_topic = row.topic, {0}.score_partition = row.partition, {0}.score_offset = row.offset"
)
_SCORE_COLUMNS = "tx_id tx_seq score source_score target_score model_version topic partition offset"
SCORE_SENT = _statement(
    _SCORE_COLUMNS,
    "MATCH ()-[r:SENT {tx_id: row.tx_id}]->() WHERE r.seq = row.tx_seq\nSET r."
    + _SCORE.format("r") + "\nRETURN row.tx_id AS tx_id, row.tx_seq AS tx_seq",
)  # fmt: skip
SCORE_VOIDED = _statement(
    _SCORE_COLUMNS,
    "MATCH ()-[r:VOIDED {tx_id: row.tx_id}]->() WHERE r.seq = row.tx_seq\nSET r."
    + _SCORE.format("r") + "\nRETURN row.tx_id AS tx_id, row.tx_seq AS tx_seq",
)  # fmt: skip
KEEP_SCORES = _statement(_SCORE_COLUMNS, "MERGE (s:UnplacedScore {tx_id: row.tx_id, score_seq: row.tx_seq})\nSET s." + _SCORE.format("s"))
COUNT_UNPLACED: Final[LiteralString] = "MATCH (s:UnplacedScore) RETURN count(s) AS unplaced"
_PLACE = (
    "MATCH (s:UnplacedScore {{tx_id: row.tx_id, score_seq: row.seq}})\n"
    "MATCH ()-[r:{0} {{tx_id: row.tx_id}}]->() WHERE r.seq = row.seq\n"
    "SET r += s {{.score, .source_score, .target_score, .score_seq, .model_version, .score_topic, .score_partition,"
    " .score_offset}}\nDELETE s"
)
PLACE_SCORES = _statement("tx_id seq", _PLACE.format("SENT"))
PLACE_VOIDED_SCORES = _statement("tx_id seq", _PLACE.format("VOIDED"))
SCORE_WALLETS = _statement(
    "wallet_id seq score",
    "MATCH (w:Wallet {wallet_id: row.wallet_id})\n"
    "WHERE w.last_score_seq IS NULL OR w.last_score_seq < row.seq\n"
    "  OR (w.last_score_seq = row.seq AND w.last_score < row.score)\n"
    "SET w.last_score = row.score, w.last_score_seq = row.seq\n"
    f"FOREACH (_ IN CASE WHEN row.score >= {HIGH_SCORE} THEN [1] ELSE [] END | SET w:HighScore)\n"
    f"FOREACH (_ IN CASE WHEN row.score >= {HIGH_SCORE} THEN [] ELSE [1] END | REMOVE w:HighScore)",
)

DESCRIBE_WALLETS = _statement(
    "wallet_id kind name country source caption",
    "MATCH (w:Wallet {wallet_id: row.wallet_id})\n"
    "SET w.kind = row.kind, w.name = row.name, w.country = row.country, w.described_by = row.source,\n"
    "  w.caption = row.caption\n"
    "FOREACH (_ IN CASE WHEN row.kind = 'exchange' THEN [1] ELSE [] END | SET w:Exchange)\n"
    "FOREACH (_ IN CASE WHEN row.kind = 'exchange' THEN [] ELSE [1] END | REMOVE w:Exchange)",
)
LABEL_WALLETS = _statement(
    "wallet_id label source",
    "MATCH (w:Wallet {wallet_id: row.wallet_id})\n"
    "SET w.label = row.label, w.label_source = row.source\n"
    "REMOVE w:Illicit:Licit\n"
    "FOREACH (_ IN CASE WHEN row.label = 'illicit' THEN [1] ELSE [] END | SET w:Illicit)\n"
    "FOREACH (_ IN CASE WHEN row.label = 'licit' THEN [1] ELSE [] END | SET w:Licit)",
)
FREEZE_WALLETS = _statement(
    "wallet_id is_frozen reason",
    "MATCH (w:Wallet {wallet_id: row.wallet_id})\n"
    "SET w.is_frozen = row.is_frozen, w.freeze_reason = row.reason\n"
    "FOREACH (_ IN CASE WHEN row.is_frozen THEN [1] ELSE [] END | SET w:Frozen)\n"
    "FOREACH (_ IN CASE WHEN row.is_frozen THEN [] ELSE [1] END | REMOVE w:Frozen)",
)
EMBED_WALLETS = _statement(
    "wallet_id vector model_version seq",
    "MATCH (w:Wallet {wallet_id: row.wallet_id})\n"
    "WHERE w.embedding_seq IS NULL OR w.embedding_seq <= row.seq\n"
    "SET w.embedding_seq = row.seq, w.embedding_model = row.model_version\n"
    # Stored as float32, as it stands in the event: half the room and the same numbers back.
    "WITH w, row CALL db.create.setNodeVectorProperty(w, 'embedding', row.vector)",
)

RAISE_ALERTS = _statement(
    "case_id wallet_id reason score threshold tx_id tx_seq explanation model_version known_at topic partition offset",
    "MERGE (a:Alert {case_id: row.case_id})\n"
    "SET a.reason = row.reason, a.score = row.score, a.threshold = row.threshold, a.tx_id = row.tx_id,\n"
    "  a.tx_seq = row.tx_seq, a.explanation = row.explanation, a.model_version = row.model_version,\n"
    f"  a.known_at = {_time('row.known_at')}, a.status = coalesce(a.status, 'alerted'),\n"
    "  a.topic = row.topic, a.partition = row.partition, a.offset = row.offset\n"
    "WITH a, row MATCH (w:Wallet {wallet_id: row.wallet_id})\n"
    "MERGE (a)-[:ALERTS_ON]->(w) SET w:Alerted",
)
JOIN_ALERTS = _statement(
    "case_id wallet_id tx_id tx_seq score known_at topic partition offset",
    "MERGE (a:Alert {case_id: row.case_id})\n"
    "WITH a, row MATCH (w:Wallet {wallet_id: row.wallet_id})\n"
    "CREATE (a)-[:JOINED {tx_id: row.tx_id, tx_seq: row.tx_seq, score: row.score,\n"
    f"  known_at: {_time('row.known_at')}, topic: row.topic, partition: row.partition, offset: row.offset}}]->(w)",
)
MOVE_CASES = _statement(
    "case_id status assignee verdict verdict_reason",
    "MERGE (a:Alert {case_id: row.case_id})\n"
    "SET a.status = coalesce(row.status, a.status), a.assignee = coalesce(row.assignee, a.assignee),\n"
    "  a.verdict = coalesce(row.verdict, a.verdict), a.verdict_reason = coalesce(row.verdict_reason, a.verdict_reason)",
)

# Taking back. A transaction that was voided is VOIDED instead of SENT: whoever walks SENT or reads FLOW does not meet it. Each void stays
# as a node, for a topic that lags may bring its transaction later, and a node's label is counted by the store.
COUNT_VOIDS: Final[LiteralString] = "MATCH (v:Void) RETURN count(v) AS voids"
KEEP_VOIDS = _statement(
    "tx_id seq reason replaced_by known_at topic partition offset",
    "CREATE (:Void {tx_id: row.tx_id, seq: row.seq, reason: row.reason, replaced_by: row.replaced_by,\n"
    f"  known_at: {_time('row.known_at')}, topic: row.topic, partition: row.partition, offset: row.offset}})",
)
FIND_VOIDS = _statement(
    "tx_id",
    f"MATCH (v:Void {{tx_id: row.tx_id}})\nRETURN v.tx_id AS tx_id, v.seq AS seq, v.reason AS reason, {_micros('v.known_at')} AS known_at",
)
FIND_SENT = _statement("tx_id", "MATCH ()-[r:SENT {tx_id: row.tx_id}]->()\nRETURN r.tx_id AS tx_id, r.seq AS seq")
_MARK = (
    "{0}.void_seq = row.void_seq, {0}.void_reason = row.void_reason,\n"
    f"  {{0}}.voided_at = CASE WHEN row.voided_at IS NULL THEN null ELSE {_time('row.voided_at')} END"
)
_MARK_COLUMNS = "void_seq void_reason voided_at"
# The degrees are written first: that takes the locks under which the flows are read.
VOID_SENT = _statement(
    f"tx_id seq {_MARK_COLUMNS}",
    "MATCH (a)-[r:SENT {tx_id: row.tx_id}]->(b) WHERE r.seq <= row.seq\n"
    "SET a.degree = a.degree - 1 SET b.degree = b.degree - 1\n"
    "CREATE (a)-[v:VOIDED]->(b)\n"
    f"SET v = properties(r) SET {_MARK.replace('{0}', 'v')}\n"
    "DELETE r\n"
    "RETURN a.wallet_id AS source, b.wallet_id AS target, v.asset AS asset, v.amount AS amount, v.status AS status",
)
EXPLAIN_VOIDED = _statement(
    f"tx_id seq {_MARK_COLUMNS}",
    f"MATCH ()-[v:VOIDED {{tx_id: row.tx_id}}]->() WHERE v.seq <= row.seq AND v.void_seq IS NULL\nSET {_MARK.replace('{0}', 'v')}",
)
CREATE_VOIDED = _statement(
    " ".join(_SENT_COLUMNS) + " " + _MARK_COLUMNS,
    "MATCH (a:Wallet {wallet_id: row.source}) MATCH (b:Wallet {wallet_id: row.target})\n"
    "CREATE (a)-[v:VOIDED {tx_id: row.tx_id, seq: row.seq, amount: row.amount, amount_float: row.amount_float,\n"
    f"  asset: row.asset, status: row.status, kind: row.kind, occurred_at: {_time('row.occurred_at')},\n"
    "  topic: row.topic, partition: row.partition, offset: row.offset}]->(b)\n"
    f"SET {_MARK.replace('{0}', 'v')}",
)
READ_FLOWS = _statement(
    "source target asset",
    "MATCH (a:Wallet {wallet_id: row.source})-[f:FLOW {asset: row.asset}]->(b:Wallet {wallet_id: row.target})\n"
    "RETURN row.source AS source, row.target AS target, row.asset AS asset, f.transactions AS transactions,\n"
    "  f.sum_high AS high, f.sum_whole AS whole, f.sum_parts AS parts",
)
# What is left of a flow. Its first and last time are looked for among the transactions of the pair that stand.
LOWER_FLOWS = _statement(
    "source target asset transactions high whole parts moved_nothing",
    "MATCH (a:Wallet {wallet_id: row.source})-[f:FLOW {asset: row.asset}]->(b:Wallet {wallet_id: row.target})\n"
    "CALL (a, b, row) {\n"
    "  OPTIONAL MATCH (a)-[s:SENT {asset: row.asset}]->(b) WHERE NOT s.status IN row.moved_nothing\n"
    "  RETURN min(s.occurred_at) AS first_at, max(s.occurred_at) AS last_at\n"
    "}\n"
    "SET f.transactions = row.transactions, f.sum_high = row.high, f.sum_whole = row.whole, f.sum_parts = row.parts,\n"
    f"  f.amount_float = {_FLOAT.format(**_OF_ROW)},\n"
    f"  f.caption = {_FLOW_CAPTION.format(**_OF_ROW)},\n"
    "  f.first_at = first_at, f.last_at = last_at",
)
DROP_FLOWS = _statement(
    "source target asset",
    "MATCH (:Wallet {wallet_id: row.source})-[f:FLOW {asset: row.asset}]->(:Wallet {wallet_id: row.target})\nDELETE f",
)

_SCORE_FIELDS = (
    "tx_id AS tx_id, {0}.score_seq AS tx_seq, {0}.score AS score, {0}.source_score AS source_score,"
    " {0}.target_score AS target_score, {0}.model_version AS model_version, {0}.score_topic AS _topic,"
    " {0}.score_partition AS _partition, {0}.score_offset AS _offset"
)
_SENT_FIELDS = (
    "r.tx_id AS tx_id, r.seq AS seq, a.wallet_id AS source_wallet_id,"
    " b.wallet_id AS target_wallet_id, r.amount AS amount, r.amount_float AS amount_float, r.asset AS asset,"
    f" r.status AS status, r.kind AS kind, {_micros('r.occurred_at')} AS occurred_at,"
    " r.topic AS _topic, r.partition AS _partition, r.offset AS _offset"
)
READ_BACK: Final[dict[str, tuple[LiteralString, ...]]] = {
    "wallet": (
        "MATCH (w:Wallet) RETURN w.wallet_id AS wallet_id, w.network AS network, w.caption AS caption,"
        " w.degree AS degree, w.kind AS kind, w.name AS name, w.country AS country, w.described_by AS described_by,"
        " w.label AS label, w.label_source AS label_source, w.is_frozen AS is_frozen,"
        " w.freeze_reason AS freeze_reason, w.last_score AS last_score, w.last_score_seq AS last_score_seq,"
        " w.embedding_seq AS embedding_seq, w.embedding_model AS embedding_model, w.embedding AS embedding,"
        " [name IN labels(w) WHERE name <> 'Wallet'] AS marks",
    ),
    "sent": ("MATCH (a)-[r:SENT]->(b) RETURN " + _SENT_FIELDS,),
    "voided": (
        f"MATCH (a)-[r:VOIDED]->(b) RETURN {_SENT_FIELDS}, r.void_seq AS void_seq, r.void_reason AS void_reason,"
        f" {_micros('r.voided_at')} AS voided_at",
    ),
    "void": (
        f"MATCH (v:Void) RETURN v.tx_id AS tx_id, v.seq AS seq, v.reason AS reason, v.replaced_by AS replaced_by,"
        f" {_micros('v.known_at')} AS known_at, v.topic AS _topic, v.partition AS _partition, v.offset AS _offset",
    ),
    "score": (
        "MATCH ()-[r:SENT]->() WHERE r.score IS NOT NULL RETURN r." + _SCORE_FIELDS.format("r"),
        "MATCH ()-[r:VOIDED]->() WHERE r.score IS NOT NULL RETURN r." + _SCORE_FIELDS.format("r"),
        "MATCH (s:UnplacedScore) RETURN s." + _SCORE_FIELDS.format("s"),
    ),
    "flow": (
        "MATCH (a)-[f:FLOW]->(b) RETURN a.wallet_id AS source_wallet_id, b.wallet_id AS target_wallet_id,"
        " f.asset AS asset, f.transactions AS transactions, f.sum_high AS high, f.sum_whole AS whole,"
        f" f.sum_parts AS parts, {_micros('f.first_at')} AS first_at, {_micros('f.last_at')} AS last_at",
    ),
    "alert": (
        "MATCH (a:Alert) OPTIONAL MATCH (a)-[:ALERTS_ON]->(w) RETURN a.case_id AS case_id,"
        " w.wallet_id AS wallet_id, a.reason AS reason, a.score AS score, a.threshold AS threshold,"
        " a.tx_id AS tx_id, a.tx_seq AS tx_seq, a.explanation AS explanation, a.model_version AS model_version,"
        f" {_micros('a.known_at')} AS known_at, a.status AS status, a.assignee AS assignee, a.verdict AS verdict,"
        " a.verdict_reason AS verdict_reason, a.topic AS _topic, a.partition AS _partition, a.offset AS _offset",
    ),
    "joined": (
        "MATCH (a:Alert)-[r:JOINED]->(w) RETURN a.case_id AS case_id, w.wallet_id AS wallet_id,"
        f" r.tx_id AS tx_id, r.tx_seq AS tx_seq, r.score AS score, {_micros('r.known_at')} AS known_at,"
        " r.topic AS _topic, r.partition AS _partition, r.offset AS _offset",
    ),
}
