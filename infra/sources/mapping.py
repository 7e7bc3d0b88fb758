"""Mappings: how the columns of a source become transactions or labels, declared in YAML and checked as a whole."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from domain.events import Label, TransactionKind, TransactionStatus, WalletKind
from infra.plain_yaml import MAX_BYTES, NotPlainYaml, plain_yaml
from infra.sources.errors import MappingError, UnreadableSource

UNITS = {"whole": 0, "wei": -18, "gwei": -9, "satoshi": -8, "cent": -2}
"""Powers of ten from a source's unit to whole units of the asset."""
FILE_FIELD, ROW_FIELD = "@file", "@row"
"""What a template can name besides columns: 32 hex digits of the file's content, and the row's place from 0."""
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


NetworkName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextField(_Model):
    """Text from a column, a constant or a template such as `{bank}-{account}`; empty text and null texts are null.

    `fold` changes case, `values` translates (what it does not name becomes `otherwise`, or refuses the row), and
    `pseudonym` replaces the text by a keyed pseudonym of that purpose; `is_pseudonym` says that it is one already.
    """

    column: str | None = None
    constant: str | None = None
    template: str | None = None
    fold: Literal["keep", "lower", "upper"] = "keep"
    values: dict[str, str] | None = None
    otherwise: str | None = None
    pseudonym: str | None = Field(None, pattern=r"^[a-z0-9_-]{1,16}$")
    is_pseudonym: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> TextField:
        if sum(value is not None for value in (self.column, self.constant, self.template)) != 1:
            raise ValueError("expected exactly one of column, constant and template")
        if self.template is not None and not _PLACEHOLDER.search(self.template):
            raise ValueError("expected a template with at least one {column}; use constant otherwise")
        if self.otherwise is not None and self.values is None:
            raise ValueError("otherwise needs values")
        return self

    def parts(self) -> list[tuple[str, bool]]:
        """The text's pieces in order, each with whether it names a column."""
        if self.column is not None:
            return [(self.column, True)]
        if self.constant is not None:
            return [(self.constant, False)]
        pieces = _PLACEHOLDER.split(self.template or "")
        return [(piece, index % 2 == 1) for index, piece in enumerate(pieces) if piece or index % 2 == 1]


class IdField(TextField):
    """An id: `<network>:` is put before it unless it `is_full` already."""

    is_full: bool = False


class AmountField(_Model):
    """An exact decimal: the column's number times 10^exponent, or the unit's own power."""

    column: str
    unit: Literal["whole", "wei", "gwei", "satoshi", "cent"] = "whole"
    exponent: int | None = Field(None, ge=-36, le=36)

    @property
    def power(self) -> int:
        return UNITS[self.unit] if self.exponent is None else self.exponent

    @model_validator(mode="after")
    def _one_scale(self) -> AmountField:
        if self.exponent is not None and self.unit != "whole":
            raise ValueError("expected unit or exponent, found both")
        return self


class MoneyField(_Model):
    """An amount with its asset; with `only_if_asset_differs` left out where its asset is that of the transaction."""

    amount: AmountField
    asset: TextField
    only_if_asset_differs: bool = False


class TimeField(_Model):
    """An event time. `step` counts steps of `step_s` seconds from `base`; a time without a zone is in `zone`.

    Where a zone's clock shows a time twice, the earlier one is meant; a time it never shows refuses the row.
    """

    column: str
    format: Literal["unix_s", "unix_ms", "unix_us", "iso", "pattern", "step"]
    pattern: str | None = None
    zone: str = "UTC"
    base: datetime | None = None
    step_s: int | None = Field(None, gt=0, le=366 * 86_400)

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"expected an IANA time zone such as Europe/Berlin, found {zone[:40]!r}") from None
        return zone

    @model_validator(mode="after")
    def _complete(self) -> TimeField:
        if (self.format == "pattern") != (self.pattern is not None):
            raise ValueError("pattern and format: pattern belong together")
        if (self.format == "step") != (self.base is not None and self.step_s is not None):
            raise ValueError("format: step needs base and step_s, and no other format has them")
        if self.base is not None and self.base.tzinfo is None:
            raise ValueError("base needs its zone, such as 2020-01-01T00:00:00Z")
        return self

    @property
    def base_micros(self) -> int:
        assert self.base is not None
        return int((self.base.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000


class LabelField(_Model):
    """Ground truth in a column: the texts that mean illicit and licit; any other means that nothing is known."""

    column: str
    illicit: list[str] = Field(min_length=1)
    licit: list[str]
    source: str = Field(max_length=200)

    def label(self, value: str | None) -> Label | None:
        if value in self.illicit:
            return Label.ILLICIT
        return Label.LICIT if value in self.licit else None


class PaymentFields(_Model):
    merchant_category: TextField | None = None
    location: TextField | None = None
    country: TextField | None = None
    payment_method: TextField | None = None
    device_id: TextField | None = None

    @field_validator("device_id")
    @classmethod
    def _device_is_a_pseudonym(cls, field: TextField | None) -> TextField | None:
        if field is not None and field.pseudonym is None and not field.is_pseudonym:
            raise ValueError("a device stands for a person: it needs pseudonym: device")
        return field


class _Named(_Model):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    mapping_version: int = Field(ge=1)
    doc: str = ""
    null_texts: list[str] = []
    delimiter: str = Field(",", min_length=1, max_length=1, pattern=r'^[^"\r\n\x80-\uffff]$')

    @property
    def title(self) -> str:
        """`name@version`, as it stands in a transaction's origin."""
        return f"{self.name}@{self.mapping_version}"


class TransactionMapping(_Named):
    """Columns → `TransactionRecorded`; what is not named is null."""

    describes: Literal["transactions"]
    network: NetworkName | TextField
    transaction_id: IdField
    occurred_at: TimeField
    amount: AmountField
    asset: TextField
    kind: TextField = TextField(constant="transfer")
    status: TextField = TextField(constant="settled")
    source_wallet: IdField | None = None
    target_wallet: IdField | None = None
    counter: MoneyField | None = None
    fee: MoneyField | None = None
    block: str | None = None
    payment: PaymentFields | None = None
    card_features: str | None = Field(None, pattern=r"^[^{}]*\{n\}[^{}]*$", description="column names, {n} from 1 to 28")
    label: LabelField | None = None

    @field_validator("kind", "status")
    @classmethod
    def _known_symbols(cls, field: TextField, info: Any) -> TextField:
        known = [m.value for m in (TransactionKind if info.field_name == "kind" else TransactionStatus)][1:]
        declared = [field.constant, field.otherwise, *(field.values or {}).values()]
        if wrong := sorted({value for value in declared if value is not None and value not in known}):
            raise ValueError(f"expected values among {known}, found {wrong}")
        return field

    def columns(self) -> list[str]:
        """Every source column that the mapping names, each once, in the order of its fields."""
        names: list[str] = []
        texts = [self.transaction_id, self.source_wallet, self.target_wallet, self.asset, self.kind, self.status]
        texts += [self.network] if isinstance(self.network, TextField) else []
        texts += [money.asset for money in (self.counter, self.fee) if money is not None]
        if self.payment is not None:
            texts += [getattr(self.payment, name) for name in PaymentFields.model_fields]
        names += [self.occurred_at.column, self.amount.column]
        for field in texts:
            if field is not None:
                names += [part for part, is_column in field.parts() if is_column and not part.startswith("@")]
        names += [money.amount.column for money in (self.counter, self.fee) if money is not None]
        names += [self.block] if self.block is not None else []
        names += self.feature_columns()
        names += [self.label.column] if self.label is not None else []
        return list(dict.fromkeys(names))

    def feature_columns(self) -> list[str]:
        """The columns of V1 to V28, none where the source has no card features."""
        return [self.card_features.replace("{n}", str(n)) for n in range(1, 29)] if self.card_features else []

    @property
    def needs_file(self) -> bool:
        """Whether ids are made from the file's content."""
        texts = (self.transaction_id, self.source_wallet, self.target_wallet)
        return any((FILE_FIELD, True) in field.parts() for field in texts if field is not None)

    @property
    def needs_key(self) -> bool:
        """Whether pseudonyms are made, so that a key must be given."""
        fields = [self.transaction_id, self.source_wallet, self.target_wallet]
        payment = [getattr(self.payment, name) for name in PaymentFields.model_fields] if self.payment else []
        return any(field.pseudonym is not None for field in [*fields, *payment] if field is not None)


class _WalletMapping(_Named):
    """Columns that say something of wallets: one row a wallet."""

    network: NetworkName | None = None
    wallet: IdField
    needs_file: bool = False

    @model_validator(mode="after")
    def _has_network(self) -> Self:
        if (self.network is None) != self.wallet.is_full:
            raise ValueError("expected a network, or a wallet that is_full, not both")
        return self

    def wallet_columns(self) -> list[str]:
        """The source columns that name the wallet."""
        return [part for part, is_column in self.wallet.parts() if is_column]

    @property
    def needs_key(self) -> bool:
        return self.wallet.pseudonym is not None


class LabelMapping(_WalletMapping):
    """Columns → `LabelWallet`."""

    describes: Literal["labels"]
    label: LabelField

    def columns(self) -> list[str]:
        """Every source column that the mapping names, each once."""
        return list(dict.fromkeys([*self.wallet_columns(), self.label.column]))


class DescriptionMapping(_WalletMapping):
    """Columns → `DescribeWallet`: reference data of wallets, each row valid from when it became known."""

    describes: Literal["descriptions"]
    kind: TextField
    public_name: TextField | None = None
    country: TextField | None = None
    known_at: TimeField | None = None
    source: str = Field(min_length=1, max_length=200)

    @field_validator("kind")
    @classmethod
    def _known_kinds(cls, field: TextField) -> TextField:
        known = [member.value for member in WalletKind][1:]
        declared = [field.constant, field.otherwise, *(field.values or {}).values()]
        if wrong := sorted({value for value in declared if value is not None and value not in known}):
            raise ValueError(f"expected values among {known}, found {wrong}")
        return field

    def columns(self) -> list[str]:
        """Every source column that the mapping names, each once."""
        texts = [field for field in (self.kind, self.public_name, self.country) if field is not None]
        names = [part for field in texts for part, is_column in field.parts() if is_column]
        return list(dict.fromkeys([*self.wallet_columns(), *names, *([self.known_at.column] if self.known_at is not None else [])]))


class PriceMapping(_Named):
    """Columns → `AssetPriced`: what one unit of an asset costs in another, each row from its time on."""

    describes: Literal["prices"]
    asset: TextField
    quote_asset: TextField
    price: str
    priced_at: TimeField
    source: str = Field(min_length=1, max_length=200)
    needs_file: bool = False
    needs_key: bool = False

    @field_validator("asset", "quote_asset")
    @classmethod
    def _no_pseudonym(cls, field: TextField) -> TextField:
        if field.pseudonym is not None:
            raise ValueError("an asset stands for nobody: expected no pseudonym")
        return field

    def columns(self) -> list[str]:
        """Every source column that the mapping names, each once."""
        names = [part for field in (self.asset, self.quote_asset) for part, is_column in field.parts() if is_column]
        return list(dict.fromkeys([*names, self.price, self.priced_at.column]))


AnyMapping = TransactionMapping | LabelMapping | DescriptionMapping | PriceMapping
_ANY: TypeAdapter[AnyMapping] = TypeAdapter(Annotated[AnyMapping, Field(discriminator="describes")])


def parse_mapping(text: str, where: str) -> AnyMapping:
    """A mapping from its YAML text.

    Args:
        text: plain YAML: tags, anchors and aliases are refused.
        where: what the error calls it.

    Raises:
        MappingError: with every mistake, keyed by field.
    """
    try:
        content = plain_yaml(text)
    except NotPlainYaml as error:
        raise MappingError(where, {error.place: error.problem}) from error
    if not isinstance(content, dict):
        raise MappingError(where, {"yaml": f"expected fields, found {type(content).__name__}"})
    try:
        return _ANY.validate_python(content)
    except ValidationError as error:
        mistakes: dict[str, str] = {}
        for mistake in error.errors():
            place = [str(step) for step in mistake["loc"] if step not in ("transactions", "labels")]
            field = ".".join(place) or "describes"
            mistakes[field] = mistake["msg"].removeprefix("Value error, ")
        raise MappingError(where, mistakes) from error


def read_mapping(path: str | Path) -> AnyMapping:
    """A mapping from a YAML file.

    Raises:
        UnreadableSource: the file cannot be read as text.
        MappingError: with every mistake, keyed by field.
    """
    try:
        with Path(path).open("rb") as stream:
            text = stream.read(MAX_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableSource(f"{path}: no readable mapping: {error}") from error
    return parse_mapping(text, str(path))
