"""Redshift's SQL as Postgres takes it, and the refusal of what Redshift has not, so that nobody leans on it."""

from __future__ import annotations

import re

import psycopg
import sqlglot
from sqlglot import exp

VERSION = "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 (Red Hat 3.4.2-6.fc3), Redshift 1.0.77467"
_PARSED = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "WITH", "TRUNCATE")
_REWRITES = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), text)
    for pattern, text in (
        (r"\sENCODE \w+", ""),
        (r"\sDISTSTYLE \w+", ""),
        (r"\sDISTKEY \(.*?\)", ""),
        (r"\sSORTKEY \(.*?\)", ""),
        (r",\s*PRIMARY KEY \([^)]*\)", ""),  # Redshift enforces none: what is written twice must show
        (r"\sAUTO REFRESH NO\b", ""),
        (r"\bVARBYTE\(\d+\)", "bytea"),
        (r"\bSUPER\b", "jsonb"),
        (r"\b(JSON_PARSE|JSON_SERIALIZE|FROM_HEX|TO_HEX)\(", r"public.\1("),
        (r"\bsvv_table_info\b", "public.svv_table_info"),
        (r"\b(pg_catalog\.)?version\(\)", f"'{VERSION}'::text"),
    )
)
FUNCTIONS = """
CREATE FUNCTION public.json_parse(text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT $1::jsonb';
CREATE FUNCTION public.json_serialize(jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1::text';
CREATE FUNCTION public.from_hex(text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$SELECT decode($1, 'hex')$$;
CREATE FUNCTION public.to_hex(bytea) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT encode($1, 'hex')$$;
CREATE VIEW public.svv_table_info AS
SELECT schemaname::text AS "schema", relname::text AS "table", n_live_tup AS tbl_rows FROM pg_stat_user_tables;
"""


def prepare(dsn: str) -> None:
    """Make a database of Postgres know Redshift's functions that the loader uses."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(FUNCTIONS)


def to_postgres(statement: str, *, has_conflict: bool = False) -> str:
    """The statement for Postgres; one that raises where Redshift would refuse it."""
    if has_conflict:
        return _raising("1023", "XX000", "Serializable isolation violation on table - 108263, transactions forming the cycle are: 1, 2")
    if statement.split(maxsplit=1)[0].upper() in _PARSED and (refused := refusal(statement)):
        return _raising(refused, "42601", "")
    for pattern, text in _REWRITES:
        statement = pattern.sub(text, statement)
    return statement


def refusal(statement: str) -> str:
    """Why Redshift would refuse it, empty if for none of the reasons known here."""
    try:
        tree = sqlglot.parse_one(statement, read="redshift")
    except sqlglot.errors.ParseError as error:
        return f"syntax error: {str(error)[:200]}"
    for kind, name in (
        (exp.OnConflict, "ON CONFLICT"),
        (exp.Returning, "RETURNING"),
        (exp.Lateral, "LATERAL"),
        (exp.Collate, "COLLATE"),
        (exp.TruncateTable, "TRUNCATE, which commits"),
    ):
        if tree.find(kind) is not None:
            return f"{name} is not supported"
    if any(distinct.args.get("on") is not None for distinct in tree.find_all(exp.Distinct)):
        return "SELECT DISTINCT ON is not supported"
    if any(select.args.get("windows") for select in tree.find_all(exp.Select)):
        return "WINDOW is not supported"
    if isinstance(tree, exp.Create) and tree.kind == "INDEX":
        return "CREATE INDEX is not supported"
    return ""


def _raising(message: str, state: str, detail: str) -> str:
    quoted = [text.replace("'", "''").replace("%", "%%") for text in (message, detail)]
    return f"DO $$ BEGIN RAISE EXCEPTION '{quoted[0]}' USING ERRCODE = '{state}', DETAIL = '{quoted[1]}'; END $$"
