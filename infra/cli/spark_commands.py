"""Commands of the Spark road: logistic regression on the stream, and the curated table built by Spark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli import exits, output
from infra.cli.app import MODEL, group
from infra.cli.app import command as declare
from infra.cli.context import Context
from infra.cli.interruption import told_to_end, until_interrupted
from infra.cli.stack_commands import Json

if TYPE_CHECKING:
    from infra.spark.models import JudgedModel
    from infra.spark.run import SparkRunner

spark = group("spark", "The stream scored by Spark's logistic regression, and the curated table built by Spark.", MODEL)
NEEDS = ("kafka", "registry", "s3", "postgres", "aws")
WORKER = "spark-score"
Threshold = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Score from which a transaction is an alert; by default the promoted model's.")
]
Batch = Annotated[int, typer.Option(min=100, max=1_000_000, help="Records of a micro-batch at most.")]


@declare("train", of=spark, examples=["tidemark spark train", "tidemark spark train --share 0.3 --tolerance 0.01 --json"])
def spark_train(
    share: Annotated[float, typer.Option(min=0.05, max=0.5, help="Of the transactions, the last, that it is judged on.")] = 0.2,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How much average precision it may lack beside the one that scores now.")
    ] = 0.01,
    gate_only: Annotated[bool, typer.Option("--gate-only", help="Judge, and promote nothing.")] = False,
    json: Json = False,
) -> int:
    """Train logistic regression on the archive, judge it on the last part, and promote it where it holds. Exit status 6 where the gate
    held it back."""
    from infra.spark.models import train

    runner = _runner(Context(), "kafka", "registry", "s3")
    with output.errors.status("starting Spark") as waiting:

        def say(stage: str) -> None:
            waiting.update(output.safe(stage))
            if not output.errors.is_terminal:
                output.say(f"spark train: {output.safe(stage)}")

        result = train(runner, share, tolerance, say, promotes=not gate_only)
    status = exits.OK if result.has_passed else exits.HELD_BACK
    if json:
        output.print_json(result.as_json())
        return status
    output.result(
        f"Judged on {output.count(result.judged_on)} labelled transactions from seq {output.count(result.cut_seq)} on;"
        f" {output.count(result.trained_on)} in all, {output.count(result.fraud)} of them fraud"
    )
    models = [("challenger", result.challenger), *([("scores now", result.champion)] if result.champion is not None else [])]
    _figures(models)
    if result.champion_knew:
        output.result("[yellow]What scores now was trained on part of what it is judged on here: the comparison favours it.[/]")
    if not result.has_passed:
        output.result(f"[yellow]Held back[/]: it lacks more than {result.tolerance} of average precision. Nothing was promoted.")
    elif gate_only:
        output.result(
            f"[green]It would pass.[/] Nothing was promoted: `tidemark spark promote {output.safe(result.model_version)}` does it."
        )
    else:
        output.result(
            f"[green]{output.safe(result.model_version)} is promoted[/], trained on all of it. Score with `tidemark spark score`."
        )
    return status


@declare("promote", of=spark, examples=["tidemark spark promote lr-3f2a91c07b5e"])
def spark_promote(
    model_version: Annotated[str, typer.Argument(help="A version that `tidemark spark train` has saved.")], json: Json = False
) -> int:
    """Let a trained regression score from the next start of the job on: one that was only judged, or an earlier one again."""
    from infra.spark.models import promote

    promote(Context().need("s3"), model_version)
    if json:
        output.print_json({"model_version": model_version})
        return exits.OK
    output.result(f"[green]{output.safe(model_version)} is promoted.[/] A job that runs takes it up with `tidemark spark up`.")
    return exits.OK


@declare("score", of=spark, examples=["tidemark spark score --once", "tidemark spark score --threshold 0.3 --batch 20000"])
def spark_score(
    once: Annotated[bool, typer.Option("--once", help="Up to the head as it is now, then end.")] = False,
    threshold: Threshold = None,
    batch: Batch = 200_000,
    model: Annotated[str | None, typer.Option(help="A version that was saved; by default the promoted one.")] = None,
    json: Json = False,
) -> int:
    """Score the stream with the promoted regression, exactly once into Postgres and DynamoDB, until Ctrl-C. Started again it goes on."""
    import signal

    from infra.cli.progress import Track
    from infra.spark.scores import score_stream

    runner = _runner(Context(), *NEEDS)
    with until_interrupted("Stopping after this micro-batch.") as stop, Track("starting Spark", "records") as track:
        signal.signal(signal.SIGTERM, lambda *_: stop.set())  # as the supervisor asks

        def told(line: dict[str, Any]) -> None:
            if line["kind"] == "batch":
                track.update(line["total"], what="scoring")

        result = score_stream(runner, threshold=threshold, once=once, batch=batch, model_version=model, told=told, stop=stop)
    if json:
        output.print_json(result)
        return exits.OK
    output.result(
        f"[green]{output.count(result['scored'])} scored[/] of {output.count(result['records'])} records,"
        f" {output.count(result['refused'])} refused, {output.count(result['alerts'])} alerts."
    )
    output.result("Look with `tidemark spark show`.")
    return exits.OK


@declare("spec", of=spark, examples=["tidemark spark spec --out score.json"])
def spark_spec(
    out: Annotated[Path, typer.Option(help="File to write, readable by you alone: it holds the secrets that the job needs.")],
    threshold: Threshold = None,
) -> int:
    """Write what the scoring job must know, for one that runs elsewhere: the text of the secret that its argument names."""
    import json

    from infra.spark.run import LOCAL
    from infra.spark.scores import scoring_spec
    from infra.stack.state import write_private

    runner = _runner(Context(), *NEEDS)
    spec = {name: value for name, value in scoring_spec(runner, threshold).items() if name not in LOCAL}
    write_private(out, json.dumps(spec, separators=(",", ":")))
    output.result(f"Written to {output.safe(str(out))}: put it into a secret, and remove the file.")
    return exits.OK


@declare("up", of=spark, examples=["tidemark spark up", "tidemark spark up --threshold 0.3"])
def spark_up(threshold: Threshold = None, json: Json = False) -> int:
    """Keep the scoring job running beside the other workers, on the promoted model, and the function that tells of its alerts."""
    import sys

    from infra.lambdas.stream_alerts import STREAM_ALERTS
    from infra.spark.models import serving

    context = Context()
    version = serving(_runner(context, *NEEDS).composition)[0]["model_version"]
    # The version stands in the command: another one replaces the job, the same one leaves it as it is.
    given = ["--model", version, *(["--threshold", repr(threshold)] if threshold is not None else [])]
    context.stack.start_worker(WORKER, [sys.executable, "-m", "infra.cli", "spark", "score", *given])
    context.stack.start_worker(STREAM_ALERTS, [sys.executable, "-m", "infra.cli", "spark", "alerts-function"])
    if json:
        output.print_json({"model_version": version, "workers": [WORKER, STREAM_ALERTS]})
        return exits.OK
    output.result(f"{WORKER} and the function {STREAM_ALERTS} are coming up. Look with `tidemark spark show`.")
    return exits.OK


@declare("down", of=spark, examples=["tidemark spark down"])
def spark_down() -> int:
    """Stop both; the next start goes on with the first record that is not scored."""
    from infra.lambdas.stream_alerts import STREAM_ALERTS

    stack = Context().stack
    for name in (WORKER, STREAM_ALERTS):
        stack.stop_worker(name)
    output.result(f"{WORKER} and {STREAM_ALERTS} are stopped.")
    return exits.OK


@declare("alerts-function", of=spark, examples=["tidemark spark alerts-function", "tidemark spark alerts-function --once"])
def spark_alerts_function(
    once: Annotated[bool, typer.Option("--once", help="Tell of what there is, then end.")] = False,
) -> int:
    """Run the function on the alerts' DynamoDB stream in the foreground until Ctrl-C, fed as Lambda feeds it; it tells of them by SNS."""
    from infra import logs
    from infra.lambdas.stream_alerts_function import serve

    context = Context()
    logs.configure(context.given.log_level, is_json=not output.errors.is_terminal)
    stop = told_to_end()
    done = serve(context.need("aws"), stop, once=once)
    output.say(f"Stopped: {output.count(done.records)} alerts in {output.count(done.batches)} calls.")
    return exits.OK


@declare("wait", of=spark, examples=["tidemark spark wait", "tidemark spark wait --timeout 60 --json"])
def spark_wait(
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait at most.")] = 600.0,
    json: Json = False,
) -> int:
    """Wait until the scores include the head as it is now, and every alert is told of. Exit status 5 where that does not come in time."""
    from infra.spark.scores import wait

    with output.errors.status("waiting"):
        found = wait(Context().need(*NEEDS), timeout)
    if json:
        output.print_json(found.as_json())
    else:
        output.result(
            f"{'[green]Reached[/]' if found.is_reached else '[yellow]Not reached[/]'} after {output.duration(found.seconds)}:"
            f" {output.count(found.scored)} scored, {output.count(found.alerts)} alerts, {output.count(found.told)} told of."
        )
    return exits.OK if found.is_reached else exits.NOT_READY


@declare("show", of=spark, examples=["tidemark spark show", "tidemark spark show --json"])
def spark_show(json: Json = False) -> int:
    """Hold the scores against the log record by record, and DynamoDB against the alerts; then regression and graph network side by side.

    Exit status 3 where a record has no row, or a row no record, or an alert no item.
    """
    from infra.spark.scores import beside, held

    context = Context()
    composition = context.need(*NEEDS)
    found = held(composition)
    compared = beside(composition)
    status = exits.OK if found.is_whole else exits.RED
    if json:
        output.print_json({**found.as_json(), "beside": None if compared is None else compared.as_json()})
        return status
    whole = "[green]each record once[/]" if not (found.missing or found.extra) else f"[red]{found.missing} missing, {found.extra} extra[/]"
    output.result(
        f"{output.count(found.scored)} scored and {output.count(found.refused)} refused up to the position: {whole};"
        f" {output.count(found.behind)} records lie after it."
    )
    lacking = found.delivered - found.items
    same = (
        f"[red]{lacking} of those delivered are not there[/]"
        if lacking > 0
        else f"{found.alerts - found.delivered} wait for their delivery"
    )
    output.result(f"Alerts: {output.count(found.alerts)} in Postgres, {output.count(found.items)} in DynamoDB; {same}.")
    if compared is None:
        output.result("Beside the graph network: no labelled transaction that both have scored and neither was trained on.")
        return status
    output.result(
        f"From seq {output.count(compared.from_seq)} on, which neither was trained on: {output.count(compared.transactions)} labelled"
        f" transactions, {output.count(compared.fraud)} of them fraud"
    )
    _figures([("regression by Spark", compared.regression), ("graph network", compared.graph)])
    return status


def _runner(context: Context, *needs: str) -> SparkRunner:
    from infra.spark.environment import spark_environment
    from infra.spark.run import SparkRunner

    composition = context.need(*needs)
    return SparkRunner(composition, spark_environment(output.say))


def _figures(models: list[tuple[str, JudgedModel]]) -> None:
    rows = []
    for who, one in models:
        recall = [f"{found['recall']:.3f}" if found["recall"] is not None else "–" for found in one.at_budget]
        rows.append((who, one.model_version, _figure(one.average_precision), _figure(one.auroc), *recall))
    shares = [f"recall at {found['share']:.1%}" for found in models[0][1].at_budget]
    columns = ("", "model", "average precision", "AUROC", *shares)
    output.print_table("", columns, rows, right=columns[2:])


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
