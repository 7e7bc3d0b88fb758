"""Drafts a mapping for a header that no shipped one fits: a start for a person, what could not be guessed marked."""

from __future__ import annotations

import re

import yaml

# Words of a column's name that give it away, the surest first; matched on the name in lower case without punctuation.
_HINTS: dict[str, tuple[str, ...]] = {
    "transaction_id": ("transactionid", "txid", "txhash", "transactionhash", "hash", "paymentid", "orderid", "id"),
    "source_wallet": (
        "sourcewalletid", "fromaddress", "fromaccount", "sender", "source", "from", "nameorig", "payer", "userid",
        "customerid", "account", "cardid", "user", "customer",
    ),
    "target_wallet": (
        "targetwalletid", "toaddress", "toaccount", "receiver", "recipient", "target", "namedest", "payee",
        "merchantid", "beneficiary", "to", "merchant",
    ),
    "amount": ("amount", "valueeth", "value", "amountpaid", "transactionamt", "sum", "total"),
    "occurred_at": ("occurredat", "timestamp", "blocktimestamp", "datetime", "createdat", "time", "date", "step"),
    "asset": ("asset", "currency", "paymentcurrency", "token", "symbol"),
    "block": ("blocknumber", "block", "blockheight"),
    "merchant_category": ("merchantcategory", "category", "mcc"),
    "location": ("location", "city"),
    "country": ("country", "countrycode"),
    "payment_method": ("paymentmethod", "paymentformat", "method"),
    "device_id": ("deviceid", "device"),
    "label": ("isfraud", "fraud", "class", "islaundering", "label"),
}  # fmt: skip
_PEOPLE = re.compile(r"user|customer|card|client|name|mail|iban", re.IGNORECASE)


def suggest(header: tuple[str, ...], name: str = "my_source") -> str:
    """A mapping's YAML for a header. What it could not guess is a column named `?`, which reading reports as missing.

    Args:
        header: column names as `header_of` gives them.
        name: the mapping's name.
    """
    columns = _guessed(header)

    def column(field: str) -> str:
        return columns.get(field, "?")

    draft: dict[str, object] = {
        "name": name, "mapping_version": 1, "describes": "transactions", "network": "my_network",
    }  # fmt: skip
    if "transaction_id" in columns:
        draft["transaction_id"] = {"template": "{" + column("transaction_id") + "}:0"}
    else:
        draft["transaction_id"] = {"template": "{@file}-{@row}:0"}
    for field in ("source_wallet", "target_wallet"):
        if field in columns:
            draft[field] = _wallet(columns[field])
    is_step = column("occurred_at").lower() in ("step", "time")
    step = {"format": "step", "base": "2020-01-01T00:00:00Z", "step_s": 1}
    draft["occurred_at"] = {"column": column("occurred_at"), **(step if is_step else {"format": "iso"})}
    draft["amount"] = {"column": column("amount"), "unit": "whole"}
    draft["asset"] = {"column": columns["asset"]} if "asset" in columns else {"constant": "EUR"}
    if "block" in columns:
        draft["block"] = columns["block"]
    payment: dict[str, object] = {
        field: {"column": columns[field]} for field in ("merchant_category", "location", "country", "payment_method") if field in columns
    }
    if "device_id" in columns:
        payment["device_id"] = {"column": columns["device_id"], "pseudonym": "device"}
    if payment:
        draft["payment"] = payment
    if {f"V{n}" for n in range(1, 29)} <= set(header):
        draft["card_features"] = "V{n}"
    if "label" in columns:
        draft["label"] = {
            "column": columns["label"], "illicit": ["1", "true"], "licit": ["0", "false"], "source": name,
        }  # fmt: skip
    unused = [title for title in header if title not in columns.values() and not re.fullmatch(r"V\d+", title)]
    notes = [
        "# A draft from the header alone: check every line, above all the network, units, zone and pseudonyms.",
        "# A time may be unix_s, unix_ms, unix_us, iso, pattern or step.",
    ]
    notes += [f"# not used: {', '.join(repr(title[:60]) for title in unused)}"] if unused else []
    return "\n".join(notes) + "\n" + yaml.safe_dump(draft, sort_keys=False, allow_unicode=True)


def _wallet(column: str) -> dict[str, str]:
    # Better a pseudonym too many than a person in clear.
    return {"column": column, "pseudonym": "customer"} if _PEOPLE.search(column) else {"column": column}


def _guessed(header: tuple[str, ...]) -> dict[str, str]:
    plain = {title: re.sub(r"[^a-z0-9]", "", title.lower()) for title in header}
    found: dict[str, str] = {}
    for field, hints in _HINTS.items():
        for hint in hints:
            title = next((t for t in header if plain[t] == hint and t not in found.values()), None)
            if title is not None and "{" not in title and "}" not in title:
                found[field] = title
                break
    return found
