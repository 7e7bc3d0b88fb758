"""The client that asks servers of this machine whether they answer."""

from __future__ import annotations

from functools import cache

import httpx

PROBE_TIMEOUT_S = 5.0


@cache
def client() -> httpx.Client:
    """One a process: each made anew reads every certificate authority of the system, which takes longer than what it is asked.

    No connection is kept: a server that was killed and started again is another one.
    """
    return httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
