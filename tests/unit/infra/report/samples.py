"""Reports to test with: a full one, an empty one and a hostile one."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from infra.report.model import (
    Accounting,
    Alert,
    AlertBudget,
    AlertLabel,
    Cut,
    Data,
    Detection,
    Interval,
    Latency,
    Maturity,
    Memory,
    Percentiles,
    Report,
    Span,
    Stage,
    StoreProof,
    Verification,
    histogram,
    latency_bins,
)

MADE_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "[bold red]owned[/] [link=http://x]y[/link] :skull:",
    "\x1b[2J\x1b]0;owned\x07",
    '=HYPERLINK("http://x","y")',
    "{{ 7 * 7 }}{% raw %}",
    "line\nline\r\u202eevil\u2066",
    "' OR 1=1 --",
)


def full() -> Report:
    """Every part filled in, with figures of a plausible run."""
    chance = random.Random(7)
    labels: list[AlertLabel] = ["illicit", "licit", "unlabelled"]
    alerts = tuple(
        Alert(
            case_id=f"case:{i:04d}",
            wallet_id=f"ethereum:0x{chance.getrandbits(160):040x}",
            reason="score",
            score=round(0.999 - i * 0.0009, 6),
            explanation="received from 14 wallets within 2 h, forwarded 98 % at once",
            tx_id=f"ethereum:0x{chance.getrandbits(256):064x}:0",
            label=chance.choices(labels, [4, 1, 6])[0],
            known_at=datetime(2018, 8, 17, tzinfo=UTC) + timedelta(days=chance.triangular(0, 500, 60)),
            link="http://127.0.0.1:7474/browser/?cmd=edit&arg=MATCH%20(w)%20RETURN%20w" if i % 2 else None,
        )
        for i in range(120)
    )
    ours, plain, forest = (
        (0.887, 0.971, 0.979, 0.984, 0.991),
        (0.892, 0.970, 0.977, 0.982, 0.990),
        (0.837, 0.952, 0.966, 0.977, 0.985),
    )
    by_maturity = {
        name: Maturity(
            n=1200,
            n_positive=240,
            auroc=a,
            average_precision=a - 0.1,
            f1=a - 0.2,
            features_only_auroc=p,
            forest_auroc=f,
            forest_average_precision=f - 0.12,
            forest_f1=f - 0.21,
            forest_leaf=5,
            paired_difference=Interval(point=a - f, low=a - f - width, high=a - f + width),
            n_ge_k=900,
            auroc_n_ge_k=a - 0.02,
            forest_auroc_n_ge_k=f - 0.02,
        )
        for name, a, p, f, width in zip(("1", "3", "5", "10", "all"), ours, plain, forest, (0.02, 0.012, 0.01, 0.009, 0.008), strict=True)
    }
    waits = [18 + chance.lognormvariate(1.6, 0.9) for _ in range(12_000)]
    ordered = sorted(waits)
    scores: dict[AlertLabel, list[float]] = {
        "illicit": [chance.betavariate(5, 2) for _ in range(2000)],
        "licit": [chance.betavariate(1.2, 9) for _ in range(9000)],
        "unlabelled": [chance.betavariate(1, 4) for _ in range(80_000)],
    }
    return Report(
        made_at=MADE_AT,
        seed=7,
        data=Data(
            source="ethereum_labelled/transactions.csv.gz",
            rows=221_208,
            is_simulated=False,
            labels="5,500 wallets, 1,200 of them judged",
        ),
        span=Span(first_at=datetime(2015, 8, 7, tzinfo=UTC), last_at=datetime(2020, 1, 3, tzinfo=UTC)),
        cut=Cut(row=125_816, at=datetime(2018, 8, 17, 3, 12, tzinfo=UTC)),
        stages=(
            Stage.measured("file → commands", 125_816, 2.6),
            Stage.measured("commands → events", 125_816, 4.4, 74_000.0),
            Stage.measured("Kafka → raw archive", 127_950, 1.9, 121_000.0),
            Stage.measured("Kafka → warehouse", 127_950, 6.1, 38_000.0),
            Stage.measured("Kafka → wallet graph", 127_950, 21.0, 7_900.0),
            Stage.measured("scorer, streaming", 83_392, 61.0),
        ),
        latency_ms=Latency(
            p50=ordered[6000],
            p95=ordered[11_400],
            p99=ordered[11_880],
            n=11_998,
            offered=12_000,
            offered_per_s=200.0,
            echo=Percentiles(p50=14.2, p95=21.0, p99=39.5),
            bins=latency_bins(waits),
        ),
        detection=Detection(by_maturity=by_maturity),
        fresh_embedding_share=0.9987,
        scores=histogram(scores),
        alerts=alerts,
        alert_budget=AlertBudget.of(0.005, alerts, 0.912),
        accounting=Accounting(
            read=221_208,
            recorded=221_201,
            held=0,
            refused=4,
            duplicates=2,
            quarantined=1,
            reasons={"negative_amount": 4},
        ),
        verify=Verification(
            ok=True,
            stores=(
                StoreProof(
                    store="log",
                    ok=True,
                    records=226_700,
                    rows={"transactions": 221_201},
                    excluded={"recorded": 221_201, "decided": 5_492},
                ),
                StoreProof(
                    store="archive",
                    ok=True,
                    records=450_119,
                    rows={"transaction-events": 221_201, "score-events": 95_392},
                ),
                StoreProof(
                    store="warehouse",
                    ok=True,
                    records=326_710,
                    rows={"fact_transaction": 221_201, "fact_score": 95_392},
                    quarantined=1,
                ),
                StoreProof(
                    store="graph",
                    ok=True,
                    records=226_710,
                    rows={"sent": 219_020, "wallet": 148_114},
                    excluded={"no_receiver": 1_204, "failed": 977},
                ),
            ),
        ),
        lag={"command-handler": 0, "archive": 0, "warehouse": 0, "graph": 0, "scorer": 0, "alerts": None},
        memory_mib=Memory(
            total=5931.4,
            by_process={"kafka": 812.0, "neo4j": 1720.5, "postgres": 240.2, "scorer": 1410.7, "endpoint": 690.0},
            peak_total=6820.9,
        ),
        steps={
            "stack": 21.3,
            "ingest": 8.4,
            "archive": 2.0,
            "warehouse": 6.1,
            "graph": 21.0,
            "first_verify": 9.8,
            "train": 141.0,
            "stream": 61.0,
            "verify": 14.2,
        },
        model={
            "model_version": "m-3f9a",
            "encoder": "SAGE, 2 layers of 32",
            "features": 61,
            "trained_to_seq": 125_815,
            "best_epoch": 9,
            "threshold": 0.912,
        },
        links={
            "report": "http://127.0.0.1:8090/report.html",
            "Neo4j Browser": "http://127.0.0.1:7474/browser/?dbms=neo4j://127.0.0.1:7687&cmd=edit&arg=x",
            "login": "tidemark investigate --show-login",
            "endpoint": "http://127.0.0.1:4566",
        },
    )


def empty() -> Report:
    """Only what must be there."""
    return Report(made_at=MADE_AT, seed=1, data=Data(source="rows.csv", rows=0, is_simulated=True), verify=Verification(ok=True))


def red() -> Report:
    """A store that differs."""
    stores = (
        StoreProof(store="log", ok=True),
        StoreProof(store="graph", ok=False, problems=("sent: 3 rows implied, 2 stored",)),
    )
    return full().model_copy(update={"verify": Verification(ok=False, stores=stores)})


def hostile() -> Report:
    """Every text from outside is an attack, and every figure that may be missing is."""
    text = " ".join(HOSTILE)
    alerts = tuple(
        Alert(
            case_id=evil,
            wallet_id=evil,
            reason=evil,
            score=0.5,
            explanation=evil,
            tx_id=evil,
            known_at=MADE_AT,
            link="javascript:alert(3)",
        )
        for evil in (*HOSTILE, "x" * 200_000)
    )
    return Report(
        made_at=MADE_AT,
        seed=0,
        data=Data(source=text, rows=1, is_simulated=True, labels=text),
        stages=(Stage(name=text, events=0, seconds=0.0),),
        detection=Detection(by_maturity={"1": Maturity(n=0, n_positive=0)}, forest_note=text),
        alerts=alerts,
        alert_budget=AlertBudget.of(0.01, alerts),
        accounting=Accounting(read=2, recorded=1, held=0, refused=0, duplicates=0, quarantined=0, reasons={text: 1}),
        verify=Verification(ok=False, stores=(StoreProof(store=text, ok=False, excluded={text: 1}, problems=(text,)),)),
        lag={text: None},
        memory_mib=Memory(total=0.0, by_process={text: 0.0}),
        steps={text: 0.0},
        model={text: text, "none": None},
        links={text: "javascript:alert(4)", "sneaky": "http://x/\x1b[2J", "ok": "https://example.org/?a=1&b=<i>"},
    )
