#!/usr/bin/env bash
# Every test, as `make test` runs them: those that need no server run beside the others, which wait for servers most of their time; after
# them, on servers of their own, the extended roads (Spark, Airflow). Whole roads come last: they are busy, and have both cores by then.
# Usage: tests/run.sh <python>
set -uo pipefail

log="$(mktemp)"
set -m # a group of its own, to be ended whole
{
    nice -n 10 "$1" -m pytest tests/unit
    without=$?
    nice -n 10 "$1" -m pytest tests/extended
    extended=$?
    [[ $without -eq 0 && $extended -eq 0 ]]
} > "$log" 2>&1 &
beside=$!
set +m
trap 'exit 130' INT
trap 'kill -- -"$beside" 2> /dev/null; rm -f "$log"' EXIT

"$1" -m pytest tests/contracts tests/integration tests/e2e
with_servers=$?
wait "$beside"
without=$?
printf '\nTests without servers, and the extended roads, which ran beside them:\n'
cat "$log"
[[ $with_servers -eq 0 && $without -eq 0 ]]
