"""The feature set: every feature's name and what it says, in the order of the vector; and the longer list that the
writers fill.

Amounts are in the asset's own unit (its median, frozen early), `log_amount` is log10 of that, `relative` is log10 of
the amount over the asset's running median. Times are log1p of seconds. A value that does not exist is a negative
sentinel below its range; a block that does not apply to the transaction at all (no wallet, no card columns) is NaN.
Neither calendar time nor block number is a feature.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from graph.features_party import OUTLINE_NAMES, PARTY_NAMES, WITHOUT_NAMES

FEATURE_SET_VERSION: Final = 1

N_CARD: Final = 28
PAYMENT_FIELDS: Final = ("merchant_category", "location", "country", "payment_method", "device_id")


class Feature(NamedTuple):
    """One column of the vector."""

    name: str
    doc: str


def _features(prefix: str, text: str) -> list[Feature]:
    pairs = (line.split(":", 1) for line in text.strip().splitlines())
    return [Feature(f"{prefix}{name.strip()}", doc.strip()) for name, doc in pairs]


TRANSACTION: Final = _features(
    "tx_",
    """
    out: 1 where this wallet sends, 0 where it receives
    log_amount: log10 of the amount in the asset's unit
    relative: log10 of the amount over the asset's running median
    rank: share of the asset's recent amounts below this one
    decimals: decimals in use, 0 to 18
    digits: significant digits
    fee_mark: 1 where the amount is round but for a transfer's gas, 0.5 but for a usual flat fee
    failed: 1 where the transaction moved no value
    new_party: 1 where the counterparty had never been seen
    repeat: 1 where this sender had paid this receiver before
    party_surprise: log amount less the counterparty's mean log amount in that role
    burst: 1 where the sender had paid out within the last minute
    gap: time since this wallet's previous transaction
    drain: share of the holding that leaves, for a sender
    kind: position of the kind in the schema's enum
    """,
)
PAYMENT: Final = [
    Feature(f"pay_{field}", f"log10 of the share of earlier payments with the same {field.replace('_', ' ')}") for field in PAYMENT_FIELDS
]
CARD: Final = [Feature(f"card_v{i}", f"anonymised card feature V{i}, as delivered") for i in range(1, N_CARD + 1)]
TOTALS: Final = _features(
    "",
    """
    n: transactions of the wallet, this one included
    n_in: received
    n_out: sent
    value_in: log1p of the sum received
    value_out: log1p of the sum sent
    out_share: share of sent among all
    forwarded: sent over received, at most 10
    held: log1p of what it holds of this asset, from what was seen
    held_peak: log1p of the most it held of this asset
    parties_in: distinct senders to it
    parties_out: distinct receivers from it
    parties_in_ratio: distinct senders over receipts
    parties_out_ratio: distinct receivers over payments
    reciprocal: pairs that paid in both directions, over all pairs
    failed: share that moved no value
    log_amount_in: mean log amount received
    log_amount_in_max: largest
    log_amount_in_min: smallest
    log_amount_in_std: standard deviation
    log_amount_out: mean log amount sent
    log_amount_out_max: largest
    log_amount_out_min: smallest
    log_amount_out_std: standard deviation
    gap: mean time between two transactions
    gap_max: longest
    gap_min: shortest
    gap_std: standard deviation
    gap_in: mean time between two receipts
    gap_out: mean time between two payments
    dwell: mean time from the last receipt to a payment
    dwell_max: longest
    dwell_min: shortest
    dwell_std: standard deviation
    sweeps: payments that emptied the holding
    sweep_share: the same over all payments
    in_before_out: receipts before the first payment
    wait_before_out: time from the first transaction to the first payment
    value_before_out: log1p of the sum received before the first payment
    first_out_share: share of the holding that the first payment took
    turns: changes of direction over transactions
    life: time from the first to the last transaction
    rate: log1p of transactions per day of life
    within_1h: share within an hour of the first
    within_1d: share within a day of the first
    within_7d: share within a week of the first
    active_days: distinct days with a transaction
    round_in: share of round amounts received
    round_out: share of round amounts sent
    bursts: share of payments within a minute of another
    funded: share of payments to wallets never seen before
    """,
)
_PATTERN: Final = """
    relative: mean relative amount
    relative_max: largest relative amount
    decimals: mean decimals in use
    decimals_min: fewest decimals
    decimals_max: most decimals
    digits: mean significant digits
    fee_mark: mean fee mark
    new_party: share with a counterparty never seen before
    repeat: share within a pair seen before
    surprise: mean of log amount less the counterparty's mean
    surprise_max: largest of those
    burst: share of burst payouts
"""
_PATTERN_END: Final = """
    same_amount_ratio: the same over legs
    distinct_amounts: distinct amounts over legs
    party_entropy: entropy of legs over counterparties
"""
PATTERNS: Final = [
    *_features("in_", _PATTERN + "same_amount: legs with the most common amount" + _PATTERN_END),
    *_features("out_", _PATTERN + "drain: mean share of the holding that left" + _PATTERN_END),
]
ORDER: Final = _features(
    "",
    """
    first_out: direction of the first transaction
    first_log_amount: its log amount
    first_relative: its relative amount
    first_decimals: its decimals
    first_digits: its significant digits
    first_fee_mark: its fee mark
    first_surprise: its log amount less the counterparty's mean
    first_new_party: 1 where its counterparty was new
    first_burst: 1 where it was part of a burst
    second_out: direction of the second transaction
    second_log_amount: its log amount
    second_gap: time before it
    third_out: direction of the third transaction
    third_log_amount: its log amount
    third_gap: time before it
    drift: mean log amount of the last three less that of the first three
    """,
)
PARTIES: Final = [
    *(Feature(f"first_party_{name}", f"first counterparty before that transaction: {name}") for name in PARTY_NAMES),
    *(
        Feature(f"{side}_party_{name}{how}", f"counterparties {side}, before each transaction: {name}, {words}")
        for side in ("in", "out")
        for how, words in (("", "mean"), ("_max", "max"))
        for name in PARTY_NAMES
    ),
    *(
        Feature(f"{side}_now_{name}{how}", f"distinct counterparties {side}, now, without this wallet: {name}, {words}")
        for side in ("in", "out")
        for how, words in (("", "mean"), ("_max", "max"))
        for name in WITHOUT_NAMES
    ),
    *(Feature(f"first_now_{name}", f"first counterparty now, without this wallet: {name}") for name in WITHOUT_NAMES),
]
TWO_HOPS: Final = [
    *_features(
        "hop_",
        """
        n: wallets seen that share a counterparty
        most: most counterparties shared with one of them
        twice: how many share at least two
        per_party: wallets per counterparty
        same_role: share of them in this wallet's own role
        """,
    ),
    *(Feature(f"peer_{name}", f"wallets in the same role to a shared counterparty: mean {name}") for name in OUTLINE_NAMES),
    *(Feature(f"cross_{name}", f"wallets in the other role to a shared counterparty: mean {name}") for name in OUTLINE_NAMES),
    *(Feature(f"peer_{name}_std", f"wallets in the same role: standard deviation of {name}") for name in OUTLINE_NAMES),
]

GROUPS: Final = (TRANSACTION, PAYMENT, CARD, TOTALS, PATTERNS, ORDER, PARTIES, TWO_HOPS)
# All that the writers write, and the part that pays. Of patterns, counterparties and two hops these carried nearly all
# gain on the training wallets of the validation span; without the others AUROC stays within .001 and the vector half
# as long.
WRITTEN: Final[tuple[Feature, ...]] = tuple(feature for group in GROUPS for feature in group)
_WHOLE: Final = frozenset(feature.name for group in (TRANSACTION, PAYMENT, CARD, TOTALS, ORDER) for feature in group)
_PAYS: Final = frozenset(
    [
        "in_relative",
        "in_relative_max",
        "in_decimals",
        "in_decimals_max",
        "in_digits",
        "in_fee_mark",
        "in_new_party",
        "in_repeat",
        "in_surprise",
        "in_surprise_max",
        "in_same_amount_ratio",
        "in_party_entropy",
        "out_decimals",
        "out_decimals_max",
        "out_digits",
        "out_fee_mark",
        "out_surprise",
        "out_surprise_max",
        "out_drain",
        "out_same_amount_ratio",
        "first_party_parties_in",
        "first_party_log_amount_out",
        "first_party_idle",
        "first_party_round_in",
        "in_party_parties_in",
        "in_party_value_out",
        "in_party_log_amount_out",
        "in_party_log_amount_out_std",
        "in_party_age",
        "in_party_out_share",
        "in_party_funded_share",
        "in_party_burst_share",
        "in_party_log_amount_max",
        "in_party_n_in_max",
        "in_party_parties_in_max",
        "in_party_log_amount_out_max",
        "in_party_round_out_max",
        "in_party_funded_share_max",
        "in_party_log_amount_max_max",
        "in_party_rate_max",
        "out_party_out_share_max",
        "out_party_round_out_max",
        "out_party_funded_share_max",
        "in_now_parties_in",
        "in_now_value_out",
        "in_now_log_amount_in",
        "in_now_log_amount_out",
        "in_now_age",
        "in_now_idle",
        "in_now_out_share",
        "in_now_funded",
        "in_now_parties_in_max",
        "in_now_parties_out_max",
        "in_now_log_amount_out_max",
        "in_now_age_max",
        "in_now_idle_max",
        "in_now_out_share_max",
        "out_now_idle_max",
        "first_now_parties_in",
        "first_now_log_amount_out",
        "first_now_age",
        "first_now_idle",
        "hop_n",
        "peer_n_in",
        "peer_n_out",
        "peer_log_amount_in",
        "peer_parties_in",
        "peer_forwarded",
        "peer_age",
        "peer_idle",
        "peer_life",
        "peer_value_in",
        "peer_round_in",
        "peer_first_log_amount",
        "cross_out_share",
        "cross_parties_out",
        "cross_forwarded",
        "cross_round_in",
        "cross_round_out",
        "cross_first_out",
        "cross_first_log_amount",
        "peer_life_std",
        "peer_value_in_std",
        "peer_first_log_amount_std",
    ]
)
KEPT_COLUMNS: Final[tuple[int, ...]] = tuple(
    column for column, feature in enumerate(WRITTEN) if feature.name in _WHOLE or feature.name in _PAYS
)
FEATURES: Final[tuple[Feature, ...]] = tuple(WRITTEN[column] for column in KEPT_COLUMNS)
FEATURE_NAMES: Final[tuple[str, ...]] = tuple(feature.name for feature in FEATURES)
