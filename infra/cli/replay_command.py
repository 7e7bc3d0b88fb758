"""The command that replays history in a sandbox."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli import exits, output
from infra.cli.app import CASES, command
from infra.cli.context import Context
from infra.cli.interruption import until_interrupted
from infra.cli.progress import Track
from infra.cli.stack_commands import Json
from infra.cli.times import EARLIEST, bound_of

if TYPE_CHECKING:
    from infra.replay.run import ReplayResult

MAX = "max"
_SPEED = re.compile(r"([0-9]+(?:\.[0-9]+)?)x")
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@command(
    "replay",
    panel=CASES,
    examples=[
        "tidemark replay --policy standard --policy mine.yaml",
        "tidemark replay --from 2020-03-01 --to 2020-03-08 --speed 1000x --scale 5",
        "tidemark replay --inject docs/examples/replay/schemes.yaml --react 10m",
        "tidemark replay --model deployed --model m-3f2a91c07b5e --json",
        "tidemark replay --model none --strategy docs/examples/replay/momentum.py --quote USD",
    ],
)
def replay(
    from_: Annotated[
        str, typer.Option("--from", help="First transaction: a seq, the time (UTC) when it occurred, or `earliest`.")
    ] = EARLIEST,
    to: Annotated[str | None, typer.Option(help="Up to this seq or time, which is left out; by default all that is archived.")] = None,
    speed: Annotated[str, typer.Option(help="How much faster than it happened, as 100x; `max` is as fast as it can be judged.")] = MAX,
    scale: Annotated[int, typer.Option(min=1, max=100, help="Copies of the population: so many times the load.")] = 1,
    inject: Annotated[Path | None, typer.Option(help="YAML file of schemes to plant; their members count as fraud.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="A policy's YAML file or shipped name; repeatable. By default the one that holds.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A trained model's version, `deployed`, or `none` for no scores; repeatable. By default deployed."),
    ] = None,
    strategy: Annotated[
        list[Path] | None,
        typer.Option(help="Python file with a class Strategy that trades on paper; repeatable. It runs with your rights."),
    ] = None,
    react: Annotated[str, typer.Option(help="From a transaction to what is done about its alert: 0s, 10m, 2h, 1d.")] = "1h",
    quote: Annotated[str, typer.Option(help="The asset in which several are added up, by the log's prices.")] = "USD",
    out: Annotated[Path | None, typer.Option(help="Folder for the report; by default replays/<run> in the stack's folder.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the sandbox's topics, with scores and case events, in Kafka.")] = False,
    json: Json = False,
) -> int:
    """Replay history from the archive in a sandbox, under other policies, models, load and planted schemes: one report that compares. The
    log sees nothing of it."""
    from infra.policy_files import read_policy
    from infra.replay import report
    from infra.replay.errors import ReplayError
    from infra.replay.run import DEPLOYED, ReplayRequest
    from infra.replay.run import replay as run
    from infra.replay.schemes import read_schemes
    from infra.replay.strategy import load_strategy

    request = ReplayRequest(
        since=bound_of(from_, "--from"),
        until=None if to is None else bound_of(to, "--to"),
        speed=_speed(speed),
        scale=scale,
        schemes=None if inject is None else read_schemes(inject),
        policies=tuple(read_policy(name) for name in policy or ()),
        models=tuple(model or (DEPLOYED,)),
        strategies=tuple(load_strategy(path) for path in strategy or ()),
        react=_react(react),
        quote=quote,
        is_kept=keep,
    )
    context = Context()
    composition = context.need("kafka", "registry", "s3")
    folder = context.stack.state.folder / "replays"
    with until_interrupted("Stopping; nothing is left behind.") as stop, Track("replay", "transactions") as track:

        def progress(stage: str, done: int, total: int) -> None:
            track.update(done, total or None, what=stage)

        result = run(composition, request, folder=folder, progress=progress, stopped=stop.is_set)
        if result.is_stopped:
            output.say("Stopped: a replay that does not end has no outcome.")
            return exits.STOPPED
        track.say("drawing")
        target = out or folder / result.run_id
        try:
            page = report.write(result, target)
        except OSError as error:
            if json:  # what came of it is not lost with the disk
                output.print_json(result.as_json())
            raise ReplayError(f"{target}: the report cannot be written: {error.strerror}; run it again with another --out") from error
    if json:
        output.print_json({**result.as_json(), "report": str(page.absolute())})
    else:
        _show(result, page)
    for failed in result.failed:
        output.fail(f"strategy {failed}: it took no further part; the rest of the report holds")
    return exits.FAILED if result.failed else exits.OK


def _show(result: ReplayResult, page: Path) -> None:
    outcome, measured = result.outcome, result.measured
    output.result(
        f"[green]{output.count(outcome['transactions'])} transactions replayed[/] in {output.duration(measured['seconds'])},"
        f" {output.count(measured['transactions_per_s'])}/s; the log saw nothing of it."
    )
    rows = [
        (
            one["variant"],
            *(output.count(one[name]) for name in ("alerts", "true_alerts", "false_alarms", "alerts_without_label")),
            f"{one['fraud_wallets_alerted']} of {one['fraud_wallets']}",
            f"{one['prevented']['transactions']} of {one['at_stake']['transactions']}",
            output.count(one["stopped_for_nothing"]["transactions"]),
        )
        for one in outcome["variants"]
    ]
    columns = ("policy, model", "alerts", "on fraud", "false", "no label", "fraud wallets", "fraud stopped", "for nothing")
    output.print_table("", columns, rows, right=columns[1:])
    if outcome["strategies"]:
        names = ("strategy", "began with", "ended with", "fills", "fees")
        traded = [
            (one["strategy"], one["started_with"], _short(one["ended_with"]), one["filled"], _short(one["fees"]))
            for one in outcome["strategies"]
        ]
        output.print_table(f"\nStrategies, in {output.safe(result.inputs['quote'])}", names, traded, right=names[1:])
    for version in result.learned_from:
        output.result(
            f"[yellow]{output.safe(version)} was trained up to seq {output.count(result.inputs['trained_to'][version])}[/]: it has learned"
            " from part of what was replayed, so its figures flatter it (--from)."
        )
    if latency := measured["latency"]:
        output.result(f"\nFrom append to score: p50 {latency['p50_ms']} ms, p99 {latency['p99_ms']} ms")
    output.result(f"Outcome {result.outcome_sha256[:16]}: the same inputs give the same.")
    output.result(f"Report: {output.safe(page.absolute())}")
    for topic in result.topics:
        output.result(f"Kept: {output.safe(topic)}")


def _short(text: Any) -> str:
    return f"{float(text):,.2f}"


def _speed(text: str) -> float | None:
    if text == MAX:
        return None
    found = _SPEED.fullmatch(text)
    if found is None or float(found[1]) <= 0:
        raise typer.BadParameter(f"expected {MAX} or a speed like 100x, found {text!r}", param_hint="--speed")
    return float(found[1])


def _react(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"expected a time as 0s, 10m, 2h or 1d, found {text!r}", param_hint="--react")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
