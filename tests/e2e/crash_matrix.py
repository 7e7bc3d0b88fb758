"""The crash matrix: real workers ended with SIGKILL at every step of the engine, real servers killed and paused under load, and the
network between them refused, reset, slowed, swallowed and cut.

    python -m tests.e2e.crash_matrix --kills 150 --seed 7      (`make crash-test` calls this)

Whatever was killed wherever: afterwards every store must equal the log, and no effect may be there twice. The seed is printed;
the same seed gives the same kills in the same order.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from threading import Event
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from domain.commands import FreezeWallet
from domain.log import NewRecord
from domain.policy import AlertPolicy, Policy, Rule
from infra.composition import Composition
from infra.policy_files import change
from infra.settings import Settings
from infra.simulator.delivery import commands
from infra.simulator.generator import SimulatorOptions, simulate
from infra.stack import PartDown
from projections import failpoints as at
from projections.runner import FlushPolicy, Runner
from projections.verify import Proof
from schema_registry.contracts import CASE_EVENTS, COMMANDS, SCORE_EVENTS, TRANSACTION_EVENTS, WALLET_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.e2e.network import SERVERS as NETWORKED
from tests.e2e.network import Network, closing
from tests.fault_proxy import FAULTS, Fault
from tests.integration.infra.own_log import OwnLog, own_servers

_TRANSFORMER = (at.FETCHED, at.DECIDED, at.PRODUCED, at.OFFSETS_SENT, at.COMMITTED, at.INDEXED, at.ACKNOWLEDGED)
_SINK = (at.FETCHED, at.DECODED, at.SET_ASIDE, at.APPLIED, at.COMMITTED, at.ACKNOWLEDGED)
STEPS: Final[Mapping[str, tuple[str, ...]]] = {
    "command-handler": _TRANSFORMER,
    "archive": (at.FETCHED, at.ENCODED, at.UPLOADED, at.COMMITTED, at.ACKNOWLEDGED),
    "warehouse": _SINK,
    "graph": _SINK,
    "curated": _SINK,
    "scorer": _TRANSFORMER,
    "alerts": _TRANSFORMER,
    "rules": _TRANSFORMER,
    "notifier": (at.FETCHED, at.SENT, at.MARKED, at.ACKNOWLEDGED),
}
"""Every step at which each worker can die."""
STORES: Final = ("archive", "warehouse", "graph", "curated")
WITHOUT_MODEL: Final = ("command-handler", *STORES, "rules", "notifier")
"""Workers that need no deployed model."""
WORKERS: Final = ("command-handler", *STORES, "scorer", "alerts", "rules", "notifier")
"""All of them, in the order of the stream through them."""
SERVERS: Final = ("kafka", "s3", "postgres", "neo4j", "registry", "aws")
FLUSH_RECORDS: Final = 60  # so that a backlog of some thousand records has many flushes to die in
BURST: Final = 1_500  # transactions sent before a round
MOST_PASSES: Final = 3
RUN_S: Final = 240.0
SETTLE_S: Final = 600.0  # more than a worker that stands still is given
PAUSE_S: Final = (0.3, 2.0)
POLICY: Final = Policy(
    "crash", 1, AlertPolicy(),
    (Rule("often", "{count} within a day", "source_wallet_id", {}, per="source_wallet_id", within_s=86_400, count_at_least=3),),
)  # fmt: skip
"""So that the rules have something to ask for, and something to remember."""
_PRELOADED: Final = [
    "infra.composition",
    "infra.command_handler",
    "infra.rule_alerts",
    "projections.warehouse",
    "projections.wallet_graph",
    "projections.curated",
    "ml.packaging",
    "ml.scorer",
    "tests.e2e.warm",
]


@dataclass(frozen=True, slots=True)
class Kill:
    """One death: of whom, at which step, and at which pass of that step."""

    victim: str
    step: str
    passes: int = 1

    def __str__(self) -> str:
        return f"{self.victim} at {self.step}, pass {self.passes}"


@dataclass(slots=True)
class Outcome:
    """What a run of the matrix showed. `missed` are kills whose step was never reached: a hole in the proof, not in the engine."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: list[Kill] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def is_green(self) -> bool:
        """Whether every kill took place and nothing was lost or doubled."""
        return not self.missed and not self.problems


class CrashMatrix:
    """Kills on one log. Its stack runs Kafka, registry and the stores; for scorer and alerts a model must be deployed.

    Args:
        workers: names of `STEPS` to kill.
        rng: decides passes, moments and order.
        say: told of each kill before it is made.
        network: lies between supervised workers and servers, where one is given.
    """

    def __init__(
        self,
        log: OwnLog,
        workers: Sequence[str],
        rng: random.Random,
        say: Callable[[str], None] = lambda text: None,
        network: Network | None = None,
    ) -> None:
        self._log, self._workers, self._rng, self._say, self._network = log, tuple(workers), rng, say, network
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(_PRELOADED)
        self._bursts = self._burst_seeds()
        if "rules" in self._workers:
            change(log.composition, POLICY, "crash matrix")
            log.drive("rules")  # it speaks of what comes after its first start
        self.outcome = Outcome()

    def sweep(self, steps: Mapping[str, Sequence[str]] = STEPS) -> None:
        """One round: new work, then each worker dies once at each of its steps, in the order of the stream through them.

        Noise stands at the ends of partitions. Who dies of it has read the whole backlog by then, where a partition's turn comes so, and
        would leave nothing to die of at other steps: it comes last.
        """
        self.send(BURST)
        for worker in self._workers:
            for step in sorted(self._rng.sample(list(steps[worker]), len(steps[worker])), key=lambda step: step == at.SET_ASIDE):
                is_rare = step == at.SET_ASIDE or worker == "notifier"
                if step == at.SET_ASIDE:
                    self.send_noise()
                if worker == "notifier":
                    self.send_alarm()
                self.kill(Kill(worker, step, 1 if is_rare else self._rng.randint(1, MOST_PASSES)))
            self.run(worker)

    def kill(self, kill: Kill) -> None:
        """Run a worker until it dies of the kill; note it as missed where it reached the head alive.

        Who died late before has taken much of the backlog along: where it was not enough to die of, more work comes, once.
        """
        self._say(str(kill))
        for more in (False, True):
            if more:
                self.send(BURST)
                for earlier in self._workers[: self._workers.index(kill.victim)]:
                    self.run(earlier)
            code = self._process(kill.victim, kill.step, kill.passes)
            if code == -signal.SIGKILL:
                self.outcome.kills[(kill.victim, kill.step)] += 1
                return
            if code != 0:
                break
        self.outcome.missed.append(kill)

    def run(self, worker: str) -> None:
        """Run a worker to the head without a kill."""
        code = self._process(worker, None, 0)
        if code != 0:
            self.outcome.problems.append(f"{worker} ended with {code} where nothing was killed")

    def strike_server(self, name: str, is_pause: bool) -> None:
        """Kill or pause a server while every worker runs under the supervisor and work comes in."""
        self._say(f"{name} {'paused' if is_pause else 'killed'} under load")
        self.send(BURST // 10)
        time.sleep(self._rng.uniform(0.0, 0.5))
        if is_pause:
            seconds = self._rng.uniform(*PAUSE_S)
            self._until(lambda: self._is_paused(name, seconds), f"{name} runs, to be paused")
        else:
            self._until(lambda: self._is_killed(name), f"{name} runs, to be killed")
        self.outcome.kills[(name, "paused" if is_pause else "killed")] += 1

    def strike_network(self, name: str, fault: Fault) -> None:
        """Let the network to a server fail while every worker runs under the supervisor and work comes in."""
        assert self._network is not None
        self._say(f"the network to {name}: {fault}")
        if self._network.strike(name, fault, self._rng, self._ask_the_registry if name == "registry" else lambda: self.send(BURST // 10)):
            self.outcome.kills[(f"network to {name}", fault)] += 1
        else:
            self.outcome.missed.append(Kill(f"network to {name}", fault))

    def _ask_the_registry(self) -> None:
        """Kill a worker: only one that starts asks the registry."""
        self.send(BURST // 10)
        worker = self._rng.choice(self._workers)
        self._until(lambda: self._is_killed(worker), f"{worker} runs, to be killed")

    def send(self, transactions: int) -> None:
        """Send new transactions as commands, every tenth of them twice."""
        producer = self._log.composition.producer
        simulation = simulate(SimulatorOptions(count=transactions, seed=next(self._bursts)))
        for chunk in commands(simulation, self._log.composition.clients.catalog):
            producer.send(COMMANDS, chunk.keys, chunk.values)
            producer.send(COMMANDS, chunk.keys[::10], chunk.values[::10])
        producer.flush()

    def send_noise(self) -> None:
        """Append records that no code can read to event topics."""
        noise = [NewRecord(topic, None, self._rng.randbytes(30)) for topic in (TRANSACTION_EVENTS, WALLET_EVENTS) for _ in range(3)]
        self._log.composition.producer.append(noise)

    def send_alarm(self) -> None:
        """Freeze wallets and let them move: alerts that need no model. The handler has recorded them when this returns."""
        composition = self._log.composition
        codec = RecordCodec(composition.clients.catalog)
        simulation = simulate(SimulatorOptions(count=100, seed=next(self._bursts), card_share=0.0))
        wallets = [wallet for wallet in simulation.table["source_wallet_id"].unique().to_pylist() if wallet][:3]
        now = simulation.table["occurred_at"][0].as_py()
        composition.producer.send(
            COMMANDS, [w.encode() for w in wallets], [codec.encode_event(FreezeWallet(w, "crash test", "matrix", now)) for w in wallets]
        )
        for chunk in commands(simulation, composition.clients.catalog):
            composition.producer.send(COMMANDS, chunk.keys, chunk.values)
        composition.producer.flush()
        if "command-handler" in self._workers:
            self.run("command-handler")
        else:
            self._until(lambda: self._is_at_head("command-handler"), "the handler records the alarm")

    def supervised(self) -> None:
        """Let the supervisor keep every worker running from here on."""
        for name in self._workers:
            environment = self._network.environment() if self._network is not None else {}
            self._log.stack.start_worker(name, [sys.executable, "-m", "infra.cli", "run", name], environment)

    def settle(self) -> None:
        """Wait until every supervised worker has reached the head, then stop them."""
        for name in self._workers:
            self._until(lambda name=name: self._is_at_head(name), f"{name} reaches the head")  # type: ignore[misc]
        for name in self._workers:
            self._log.stack.stop_worker(name)

    def judge(self) -> None:
        """Compare every store with the log, and look for effects that are there twice."""
        composition = self._log.fresh()
        verifier = composition.verifier()
        proofs: list[Proof] = [verifier.log(), verifier.archive(composition.archive())]
        proofs += [verifier.projection(store) for store in self._stores(composition)]
        self.outcome.problems += [f"{proof.store}: {problem}" for proof in proofs for problem in proof.problems[:3]]
        self.outcome.problems += [f"{proof.store} is {proof.lag_records} records behind" for proof in proofs if proof.lag_records]
        for name, topic, key in (("TransactionScored", SCORE_EVENTS, "tx_seq"), ("AlertRaised", CASE_EVENTS, "case_id")):
            found = Counter(record[key] for kind, record, *_ in composition.log.events(topic) if kind == name)
            doubles = [value for value, times in found.items() if times > 1]
            if doubles:
                self.outcome.problems.append(f"{name} {doubles[0]} is there {found[doubles[0]]} times")
            if name == "TransactionScored" and found and len(found) != max(found) - min(found) + 1:
                self.outcome.problems.append(f"{max(found) - min(found) + 1 - len(found)} transactions have no score")

    def _stores(self, composition: Composition) -> list[Any]:
        stores = [composition.warehouse(), composition.graph()]
        return [*stores, composition.curated()] if "curated" in self._workers else stores

    def _process(self, worker: str, step: str | None, passes: int) -> int | None:
        settings = self._log.stack.settings()
        # A real process with its own clients; forked from one that has imported everything, which saves seconds a kill.
        child = self._processes.Process(target=_run_armed, args=(settings, worker, step, passes))
        child.start()
        child.join(RUN_S)
        if child.exitcode is None:
            child.kill()
            child.join()
            self.outcome.problems.append(f"{worker} hung for {RUN_S:.0f} s on the way to {step or 'the head'}")
            return None
        return child.exitcode

    def _is_killed(self, name: str) -> bool:
        with suppress(PartDown):
            self._log.stack.kill(name)
            return True
        return False

    def _is_paused(self, name: str, seconds: float) -> bool:
        """Pause a server for so long; false where it does not run just now: the strike before may have killed it."""
        pid = self._log.stack.status()[name].pid
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:
            return False
        try:
            time.sleep(seconds)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        return True

    def _is_at_head(self, name: str) -> bool:
        from infra.status import read_position

        try:
            composition = self._log.fresh()
            topics, position = read_position(composition, name, composition.log.generations())
            ends = self._log.ends(topics)
        except Exception:  # a server is just coming back
            return False
        return all(position.get(tp, 0) >= end for tp, end in ends.items())

    def _until(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SETTLE_S
        while not reached():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {SETTLE_S:.0f} s")
            time.sleep(0.2)

    def _burst_seeds(self) -> Iterator[int]:
        first = self._rng.randrange(1_000_000)
        return count(first)


def _run_armed(settings: Settings, name: str, step: str | None, passes: int) -> None:
    """A worker's life: built as the composition root builds it, armed, run to the head as it is at its start."""
    composition = Composition(settings)
    worker = composition.worker(name)
    until = composition.log.ends(worker.work.topics)
    if step is not None:
        at.arm(step, passes)
    Runner(worker.source, worker.work, FlushPolicy(FLUSH_RECORDS, 0.0)).run(Event(), until)
    sys.stdout.flush()
    os._exit(0)  # threads of client libraries must not hold the process


def run_matrix(kills: int, seed: int, console: Console) -> Outcome:
    """Kill at least `kills` times, servers and network included, and judge."""
    from tests.e2e.small_model import deploy_small_model  # torch takes seconds to import, and each worker's process imports this module

    rng = random.Random(seed)
    networks: list[Network] = []
    with closing(networks), own_servers(list(SERVERS), lambda stack: networks.append(Network(stack))) as log:
        deploy_small_model(log)
        matrix = CrashMatrix(log, WORKERS, rng, lambda text: console.print(f"  {text}", style="dim", highlight=False), networks[0])
        while matrix.outcome.kills.total() < kills * 2 // 3 and not matrix.outcome.problems:
            matrix.sweep()
        matrix.supervised()
        faults = [(name, fault) for name in NETWORKED for fault in FAULTS]
        while matrix.outcome.kills.total() < kills:
            if faults and rng.random() < 0.5:
                matrix.strike_network(*faults.pop(rng.randrange(len(faults))))
            else:
                matrix.strike_server(rng.choice(SERVERS), is_pause=rng.random() < 0.5)
            faults = faults or [(name, fault) for name in NETWORKED for fault in FAULTS]
        matrix.settle()
        matrix.judge()
    return matrix.outcome


def table(outcome: Outcome) -> Table:
    """Kills by victim and step."""
    found = Table(title="Kills", title_justify="left")
    for name in ("victim", "step", "kills"):
        found.add_column(name, justify="right" if name == "kills" else "left")
    for (victim, step), times in sorted(outcome.kills.items()):
        found.add_row(victim, step, str(times))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Kill workers at every step, servers and network under load; verify afterwards.")
    parser.add_argument("--kills", type=int, default=150, help="how many at least")
    parser.add_argument("--seed", type=int, default=None, help="repeat a run")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    console = Console()
    console.print(f"Seed {seed}")
    started = time.monotonic()
    outcome = run_matrix(options.kills, seed, console)
    console.print(table(outcome))
    for kill in outcome.missed:
        console.print(f"missed: {kill}", style="yellow", highlight=False)
    for problem in outcome.problems:
        console.print(problem, style="red", markup=False, highlight=False)
    verdict = "every store equals the log, nothing is double" if outcome.is_green else "NOT GREEN"
    console.print(f"{outcome.kills.total()} kills in {time.monotonic() - started:.0f} s, seed {seed}: {verdict}", highlight=False)
    return 0 if outcome.is_green else 1


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["STEPS", "CrashMatrix", "Kill", "Outcome", "run_matrix"]
