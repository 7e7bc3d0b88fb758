#!/usr/bin/env bash
# Stops every local stack (`down`), or stops and removes its state (`clean`). Works where nothing was ever installed or run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

state="${TIDEMARK_STATE_DIR:-.tidemark}"
if [[ ! -d "$state" ]]; then
    echo "Nothing to do: there is no state in $state."
    exit 0
fi
if [[ ! -x .venv/bin/python ]]; then
    # Stopping needs the installation; without it a stack could still run, and removing its files would orphan it.
    for lock in "$state"/*/supervisor.lock; do
        if [[ -e "$lock" ]] && ! flock --nonblock --shared "$lock" true; then
            echo "A stack still runs in ${lock%/*}, but .venv is gone: run 'make setup' first." >&2
            exit 1
        fi
    done
    if [[ "$1" == clean ]]; then
        rm -rf "$state"
        echo "Removed $state."
    else
        echo "Nothing runs."
    fi
    exit 0
fi
exec .venv/bin/python -m infra.stack "$1" "$state"
