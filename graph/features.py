"""The streaming features: one state that observes transactions in the order of seq and gives each wallet's vector as
of each.

Training replays history through it and the scorer runs it live: the same code, so the same bits. Work per transaction
is bounded. It knows no label. What a transaction does to the state is in graph/features_update.py, what a vector holds
in graph/features_vector.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from graph import features_state
from graph.features_amount import amount_to_float, amount_words, digit_pattern
from graph.features_names import (
    CARD,
    FEATURE_NAMES,
    FEATURE_SET_VERSION,
    FEATURES,
    KEPT_COLUMNS,
    N_CARD,
    PAYMENT,
    PAYMENT_FIELDS,
    TRANSACTION,
    WRITTEN,
)
from graph.features_state import N_EDGE, N_IN, N_OUT, N_PARTY, SEQ, VALUES, WALLETS, Arrays, grown
from graph.features_update import relative_amount, update
from graph.features_vector import (
    kept_legs,
    write_order,
    write_parties,
    write_patterns,
    write_totals,
    write_two_hops,
)
from graph.neighbourhood import Neighbourhoods, blank, concatenate, write_neighbourhood

__all__ = ["FEATURES", "FEATURE_NAMES", "FEATURE_SET_VERSION", "FeatureState", "Snapshot", "TransactionColumns"]

N_FEATURES: Final = len(FEATURES)
KINDS: Final = ("unknown", "transfer", "trade", "deposit", "withdrawal", "payment", "refund")
NOT_MOVED: Final = ("failed", "declined")
CHUNK: Final = 1024  # transactions per call of the compiled loop: bounds its scratch memory, changes no result
_NO_VALUE: Final = -1


@dataclass(frozen=True, slots=True)
class TransactionColumns:
    """A run of transactions as plain arrays of one length n, in the order of seq.

    source, target: wallet ids or None; asset: names; amount_low, amount_high: words of decimal128(38, 18);
    occurred_at_s: Unix s;
    kind: int64 position in KINDS; is_failed: bool; card: float32 [n, 28], NaN where absent; payment: one sequence of
    text or None per name in PAYMENT_FIELDS, or None where the source has no such column at all.
    """

    source: Sequence[str | None]
    target: Sequence[str | None]
    asset: Sequence[str | None]
    amount_low: NDArray[np.uint64]
    amount_high: NDArray[np.int64]
    occurred_at_s: NDArray[np.int64]
    kind: NDArray[np.int64]
    is_failed: NDArray[np.bool_]
    card: NDArray[np.float32] | None = None
    payment: Sequence[Sequence[str | None]] | None = None

    def __len__(self) -> int:
        return len(self.amount_low)

    @classmethod
    def from_arrow(cls, table: pa.Table) -> TransactionColumns:
        """The columns of `TransactionRecorded` that features use; absent optional columns are absent values.

        Raises KeyError naming the columns that are missing, TypeError where an amount is no decimal128.
        """
        needed = ("source_wallet_id", "target_wallet_id", "asset", "amount", "occurred_at", "kind", "status")
        missing = [name for name in needed if name not in table.column_names]
        if missing:
            raise KeyError(f"transactions: missing columns {', '.join(missing)}")
        low, high = amount_words(table["amount"])
        kinds = pc.fill_null(pc.index_in(table["kind"].cast(pa.string()), value_set=pa.array(KINDS)), 0)
        failed = pc.fill_null(pc.is_in(table["status"].cast(pa.string()), value_set=pa.array(NOT_MOVED)), False)
        micros = pc.fill_null(table["occurred_at"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()), 0)
        card_names = [f"card_features.v{i}" for i in range(1, N_CARD + 1)]
        payment_names = [f"payment.{field}" for field in PAYMENT_FIELDS]
        return cls(
            source=table["source_wallet_id"].to_pylist(),
            target=table["target_wallet_id"].to_pylist(),
            asset=table["asset"].to_pylist(),
            amount_low=low,
            amount_high=high,
            occurred_at_s=micros.to_numpy() // 1_000_000,
            kind=kinds.to_numpy().astype(np.int64),
            is_failed=failed.to_numpy().astype(np.bool_),
            card=_card(table, card_names),
            payment=_texts(table, payment_names),
        )


def _card(table: pa.Table, names: list[str]) -> NDArray[np.float32] | None:
    present = [name for name in names if name in table.column_names]
    if not present or all(table[name].null_count == len(table) for name in present):
        return None
    card = np.full((len(table), len(names)), np.nan, np.float32)
    for name in present:
        card[:, names.index(name)] = pc.fill_null(table[name].cast(pa.float64()), np.nan).to_numpy()
    return card


def _texts(table: pa.Table, names: list[str]) -> list[list[str | None]] | None:
    present = [name for name in names if name in table.column_names and table[name].null_count < len(table)]
    if not present:
        return None
    empty: list[str | None] = [None] * len(table)
    return [table[name].cast(pa.string()).to_pylist() if name in present else empty for name in names]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Vectors for the chosen (transaction, side) pairs, in the order of seq, source before target.

    transaction: int64 [m], row in the observed run; side: int64 [m], 0 source, 1 target; wallet: int64 [m], node
    index, -1 for a transaction that names no wallet (it has one row, side 0, of its own columns alone); k: int64 [m],
    how many transactions the wallet has then; features: float32 [m, F]; neighbourhoods: for the same m rows, or None
    where not asked for.
    """

    transaction: NDArray[np.int64]
    side: NDArray[np.int64]
    wallet: NDArray[np.int64]
    k: NDArray[np.int64]
    features: NDArray[np.float32]
    neighbourhoods: Neighbourhoods | None

    def partner(self) -> NDArray[np.int64]:
        """int64 [m]: the row of the same transaction's other side, -1 where it is not in the snapshot."""
        partner = np.full(len(self.transaction), -1, np.int64)
        both = np.flatnonzero(self.transaction[1:] == self.transaction[:-1]) if len(partner) else np.zeros(0, np.int64)
        partner[both], partner[both + 1] = both + 1, both
        return partner


class FeatureState:
    """What the features remember. Feed it every transaction once, in the order of seq.

    The result does not depend on how the stream is cut into batches: vectors are bit-identical. Not safe for two
    threads.
    """

    def __init__(self) -> None:
        self._arrays = features_state.empty()
        self._wallets: dict[str, int] = {}
        self._assets: dict[str, int] = {}
        self._values: dict[str, int] = {}
        self._wallet_ids: list[str] = []

    def forget(self) -> None:
        """Become a state that has seen nothing."""
        self._arrays = features_state.empty()
        for known in (self._wallets, self._assets, self._values):
            known.clear()
        self._wallet_ids = []

    def skip_to(self, seq: int) -> None:
        """Let the next transaction have this seq: those between were left out."""
        self._arrays.clock[SEQ] = seq

    @property
    def seq(self) -> int:
        """The seq of the next transaction: how many were observed or left out, where seq starts at 0."""
        return int(self._arrays.clock[SEQ])

    @property
    def wallet_ids(self) -> Sequence[str]:
        """Wallet ids by node index, in the order of first appearance."""
        return self._wallet_ids

    def wallet_index(self, wallet_id: str) -> int:
        """The wallet's node index, -1 where it has not appeared."""
        return self._wallets.get(wallet_id, -1)

    def transaction_count(self, wallet: int) -> int:
        """How many transactions the wallet (a node index) has so far."""
        return int(self._arrays.counts[wallet, N_IN] + self._arrays.counts[wallet, N_OUT])

    def observe(
        self,
        transactions: TransactionColumns,
        emit: Literal["all", "none"] | NDArray[np.bool_] = "all",
        neighbourhoods: bool = True,
    ) -> Snapshot:
        """Count a run of transactions and give the vectors as of each.

        Arguments: emit: "all" sides that name a wallet, "none" to warm up cheaply, or bool [n, 2] by transaction and
        side;
        neighbourhoods: also the encoder's input. A self-transfer emits both sides, with the same wallet and vector.
        Raises ValueError where `emit` has another shape.
        """
        n = len(transactions)
        source, target = self._indexes(transactions.source), self._indexes(transactions.target)
        chosen = self._chosen(emit, source, target, n)
        asset = self._codes(self._assets, transactions.asset)
        payment = np.full((n, len(PAYMENT_FIELDS)), _NO_VALUE, np.int64)
        for i, texts in enumerate(transactions.payment or ()):
            payment[:, i] = self._codes(self._values, [None if text is None else f"{i}:{text}" for text in texts])
        card = transactions.card if transactions.card is not None else np.full((1, N_CARD), np.nan, np.float32)
        parts: list[Snapshot] = []
        for start in range(0, n, CHUNK):
            cut = slice(start, min(start + CHUNK, n))
            parts.append(
                self._observe_chunk(
                    start,
                    source[cut],
                    target[cut],
                    asset[cut],
                    transactions.amount_low[cut],
                    transactions.amount_high[cut],
                    transactions.occurred_at_s[cut],
                    transactions.kind[cut],
                    transactions.is_failed[cut],
                    card[cut] if transactions.card is not None else card,
                    payment[cut],
                    chosen[cut],
                    neighbourhoods,
                )
            )
        return _joined(parts, neighbourhoods)

    def neighbourhoods_now(self, wallets: NDArray[np.int64]) -> Neighbourhoods:
        """The encoder's input for wallets (int64 [m], node indexes) as of everything observed, at each one's last
        transaction.
        """
        room = blank(len(wallets))
        _gather(self._arrays, wallets, room.roots, room.legs, room.leg_root, room.hops, room.hop_leg, room.used)
        return room.trimmed(len(wallets))

    def to_bytes(self) -> bytes:
        """The whole state as an npz archive without pickles."""
        used = self._arrays
        wallets, top = int(used.clock[WALLETS]), int(used.clock[features_state.ARENA_TOP])
        short: dict[str, Any] = used._asdict()
        for name in ("counts", "totals"):
            short[name] = short[name][:wallets]
        for name in ("leg_time", "leg_party", "leg_edge", "leg_party_state"):
            short[name] = short[name][:top]
        names = {
            f"text_{key}": np.frombuffer(json.dumps(list(words)).encode(), np.uint8)
            for key, words in (("wallets", self._wallets), ("assets", self._assets), ("values", self._values))
        }
        out = io.BytesIO()
        arrays: dict[str, Any] = {"feature_set_version": np.array(FEATURE_SET_VERSION), **short, **names}
        np.savez(out, allow_pickle=False, **arrays)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> FeatureState:
        """The state that `to_bytes` wrote.

        Raises ValueError where it was written by another feature set: replay history instead.
        """
        state = cls()
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            found = int(archive["feature_set_version"])
            if found != FEATURE_SET_VERSION:
                raise ValueError(f"feature state: expected feature set {FEATURE_SET_VERSION}, found {found}; delete it and replay the log")
            state._arrays = Arrays(**{name: archive[name] for name in Arrays._fields})
            for key, words in (("wallets", state._wallets), ("assets", state._assets), ("values", state._values)):
                words.update({word: i for i, word in enumerate(json.loads(archive[f"text_{key}"].tobytes()))})
        state._wallet_ids = list(state._wallets)
        return state

    def _indexes(self, ids: Sequence[str | None]) -> NDArray[np.int64]:
        known, names = self._wallets, self._wallet_ids
        indexes = np.empty(len(ids), np.int64)
        for i, wallet_id in enumerate(ids):
            if wallet_id is None:
                indexes[i] = -1
                continue
            index = known.get(wallet_id)
            if index is None:
                index = known[wallet_id] = len(known)
                names.append(wallet_id)
            indexes[i] = index
        return indexes

    @staticmethod
    def _codes(known: dict[str, int], words: Sequence[str | None]) -> NDArray[np.int64]:
        codes = [_NO_VALUE if word is None else known.setdefault(word, len(known)) for word in words]
        return np.array(codes, np.int64)

    @staticmethod
    def _chosen(
        emit: Literal["all", "none"] | NDArray[np.bool_], source: NDArray[np.int64], target: NDArray[np.int64], n: int
    ) -> NDArray[np.bool_]:
        named = np.stack([source >= 0, target >= 0], axis=1)
        named[:, 0] |= ~named[:, 1]  # a transaction without wallets is scored on its own columns
        if isinstance(emit, str):
            return named if emit == "all" else np.zeros((n, 2), np.bool_)
        if emit.shape != (n, 2):
            raise ValueError(f"emit: expected shape ({n}, 2), found {emit.shape}")
        return named & emit

    def _observe_chunk(
        self,
        start: int,
        source: NDArray[np.int64],
        target: NDArray[np.int64],
        asset: NDArray[np.int64],
        low: NDArray[np.uint64],
        high: NDArray[np.int64],
        occurred_at_s: NDArray[np.int64],
        kind: NDArray[np.int64],
        is_failed: NDArray[np.bool_],
        card: NDArray[np.float32],
        payment: NDArray[np.int64],
        chosen: NDArray[np.bool_],
        neighbourhoods: bool,
    ) -> Snapshot:
        self._arrays = grown(self._arrays, len(self._wallets), len(self._assets), len(self._values), len(source))
        self._arrays.clock[WALLETS] = len(self._wallets)
        where = np.argwhere(chosen)
        rows = len(where)
        features = np.full((rows, N_FEATURES), np.nan, np.float32)
        k = np.zeros(rows, np.int64)
        room = blank(rows if neighbourhoods else 0)
        _observe(
            self._arrays, source, target, asset, low, high, occurred_at_s, kind, is_failed, card, payment,
            chosen, _KEPT, features, k,
            neighbourhoods, room.roots, room.legs, room.leg_root, room.hops, room.hop_leg, room.used,
        )  # fmt: skip
        side = where[:, 1]
        return Snapshot(
            transaction=where[:, 0] + start,
            side=side,
            wallet=np.where(side == 0, source[where[:, 0]], target[where[:, 0]]),
            k=k,
            features=features,
            neighbourhoods=room.trimmed(rows) if neighbourhoods else None,
        )


def _joined(parts: list[Snapshot], neighbourhoods: bool) -> Snapshot:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        none = np.zeros(0, np.int64)
        near = concatenate([]) if neighbourhoods else None
        return Snapshot(none, none, none, none, np.zeros((0, N_FEATURES), np.float32), near)
    near = concatenate([part.neighbourhoods for part in parts if part.neighbourhoods is not None])
    return Snapshot(
        transaction=np.concatenate([part.transaction for part in parts]),
        side=np.concatenate([part.side for part in parts]),
        wallet=np.concatenate([part.wallet for part in parts]),
        k=np.concatenate([part.k for part in parts]),
        features=np.concatenate([part.features for part in parts]),
        neighbourhoods=near if neighbourhoods else None,
    )


_AT_PAYMENT: Final = len(TRANSACTION)
_AT_CARD: Final = _AT_PAYMENT + len(PAYMENT)
_AT_WALLET: Final = _AT_CARD + len(CARD)
_N_PAYMENT: Final = len(PAYMENT)
_KIND: Final = len(TRANSACTION) - 1
_N_WRITTEN: Final = len(WRITTEN)
_KEPT: Final = np.array(KEPT_COLUMNS, np.int64)


@njit(cache=True, nogil=True)
def _observe(
    arrays: Arrays,
    source: NDArray[np.int64],
    target: NDArray[np.int64],
    asset: NDArray[np.int64],
    low: NDArray[np.uint64],
    high: NDArray[np.int64],
    occurred_at_s: NDArray[np.int64],
    kind: NDArray[np.int64],
    is_failed: NDArray[np.bool_],
    card: NDArray[np.float32],
    payment: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    kept_columns: NDArray[np.int64],
    features: NDArray[np.float32],
    k: NDArray[np.int64],
    neighbourhoods: bool,
    roots: NDArray[np.float32],
    legs: NDArray[np.float32],
    leg_root: NDArray[np.int64],
    hops: NDArray[np.float32],
    hop_leg: NDArray[np.int64],
    used: NDArray[np.int64],
) -> None:
    chunks = np.empty(5, np.int64)
    slots = np.empty(features_state.KEEP, np.int64)
    scratch = np.zeros((2, N_EDGE + N_PARTY), np.float32)
    amount = np.empty(4)
    out = np.empty(_N_WRITTEN, np.float32)
    shares = np.empty(_N_PAYMENT, np.float32)
    row = 0
    for i in range(len(source)):
        now = occurred_at_s[i]
        decimals, digits, fee_mark = digit_pattern(low[i], high[i], chunks)
        placed = relative_amount(arrays, asset[i], amount_to_float(low[i], high[i]))
        amount[0], amount[1], amount[2], amount[3] = placed[0], placed[1], placed[2], placed[3]
        seen = arrays.clock[VALUES] + 1
        has_payment = False
        for j in range(_N_PAYMENT):
            shares[j] = np.nan
            if payment[i, j] >= 0:
                has_payment = True
                shares[j] = np.log10((arrays.value_count[payment[i, j]] + 1) / seen)
                arrays.value_count[payment[i, j]] += 1
        arrays.clock[VALUES] += has_payment
        update(arrays, source[i], target[i], now, asset[i], is_failed[i], decimals, digits, fee_mark, amount, scratch)
        arrays.clock[SEQ] += 1
        for side in range(2):
            if not chosen[i, side]:
                continue
            wallet = source[i] if side == 0 else target[i]
            out[:] = np.nan
            out[1], out[2], out[3], out[4] = amount[0], amount[1], amount[2], decimals
            out[5], out[6], out[7] = digits, fee_mark, is_failed[i]
            out[_KIND] = kind[i]
            out[_AT_PAYMENT:_AT_CARD] = shares
            out[_AT_CARD:_AT_WALLET] = card[i if len(card) == len(source) else 0]
            if wallet >= 0:
                k[row] = arrays.counts[wallet, N_IN] + arrays.counts[wallet, N_OUT]
                kept = kept_legs(arrays, wallet, slots)
                # A self-transfer has one leg, its source's: both sides show it.
                out[:N_EDGE] = arrays.leg_edge[slots[kept - 1]]
                at = _AT_WALLET
                at += write_totals(arrays, wallet, asset[i], now, out[at:])
                at += write_patterns(arrays, slots, kept, out[at:])
                at += write_order(arrays, slots, kept, out[at:])
                at += write_parties(arrays, wallet, now, slots, kept, out[at:])
                write_two_hops(arrays, wallet, now, slots, kept, out[at:])
                if neighbourhoods:
                    write_neighbourhood(arrays, wallet, now, row, roots, legs, leg_root, hops, hop_leg, used)
            for j in range(len(kept_columns)):
                features[row, j] = out[kept_columns[j]]
            row += 1


@njit(cache=True)
def _gather(
    arrays: Arrays,
    wallets: NDArray[np.int64],
    roots: NDArray[np.float32],
    legs: NDArray[np.float32],
    leg_root: NDArray[np.int64],
    hops: NDArray[np.float32],
    hop_leg: NDArray[np.int64],
    used: NDArray[np.int64],
) -> None:
    for row in range(len(wallets)):
        now = arrays.counts[wallets[row], features_state.LAST_T]
        write_neighbourhood(arrays, wallets[row], now, row, roots, legs, leg_root, hops, hop_leg, used)
