"""A profile: one YAML file that defines the data, models and hyperparameters of a reproduction.

Training values can be overridden per comparison but not per setting, so that compared runs differ only in their
setting. Members are datasets that a program registered, and encoders ship with the library. A profile can also define
datasets and encoders of its own, under new names or the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from soi_lib.analysis.datamap import REGIONS
from soi_lib.analysis.soi import SOI
from soi_lib.data.places import DatasetSpec
from soi_lib.errors import ProfileError, nearest
from soi_lib.models.encoder import EncoderSource

NAME = r"\w[\w.-]*"
"""Valid names of datasets and encoders, in any script; they become file names."""
Comparison = Literal["task", "source", "lingual", "user"]
"""How the members of a setting differ; "user" is for your own members, which may differ in any way."""
Budget = Literal["full", "equal"]
"""How many examples each dataset of a setting contributes; see `Setting`."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Setting(tuple[str, ...]):
    """The datasets that are trained together, and how much of each is used.

    With the budget "full", a setting equals the plain tuple of names. With "equal", each of k datasets contributes 1/k
    of its training examples, so that together they have as many as a run on one dataset has on average; such a setting
    does not equal a plain tuple.
    """

    budget: Budget

    def __new__(cls, names: Iterable[str], budget: Budget | None = None) -> Setting:
        """Create the setting of the datasets `names`; the budget is by default that of `names`, or "full"."""
        made = super().__new__(cls, names)
        made.budget = budget or (names.budget if isinstance(names, Setting) else "full")
        return made

    def __eq__(self, other: object) -> bool:
        return tuple.__eq__(self, other) is True and self.budget == getattr(other, "budget", "full")

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return tuple.__hash__(self) if self.budget == "full" else hash((tuple(self), self.budget))

    def __reduce__(self) -> tuple[type[Setting], tuple[tuple[str, ...], Budget]]:
        return Setting, (tuple(self), self.budget)

    def __str__(self) -> str:
        """Return a readable name: `entailment+sentiment`, or `entailment+sentiment at equal budget`."""
        return "+".join(self) + ("" if self.budget == "full" else " at equal budget")


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = [value for value in values if values.count(value) > 1]
    if repeated:
        raise ValueError(f"{repeated[0]!r} is given twice")
    return values


Seeds = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(_distinct)]
"""Seeds of runs: at least one, none negative, no duplicates."""


def parts_of(subset: str) -> tuple[str, ...]:
    """Return the categories or map regions in a subset: `UNE+FRGE` is UNE, FRGE_1 and FRGE_2."""
    both = ("FRGE_1", "FRGE_2")
    return tuple(name for part in subset.split("+") for name in (both if part == "FRGE" else (part,)))


def _subset(name: str) -> str:
    known = ["FRGE", *(soi.name for soi in SOI), *REGIONS]
    for part in name.split("+"):
        if part not in known:
            raise ValueError(f"unknown category {part!r}; {nearest(part, known)}")
    return name


class DataSizes(_Strict):
    """Numbers of examples per dataset; a smaller split is used whole.

    `train`: for training; `evaluate`: in the test set; `ood`: in each OOD set (None for all rows); `validation`: for
    the training curves (none by default).
    """

    train: PositiveInt
    evaluate: PositiveInt
    ood: PositiveInt | None = None
    validation: int = Field(ge=0, default=0)


class Training(_Strict):
    """Hyperparameters of every run of a comparison; see `soi_lib.training.engine.TrainConfig`."""

    epochs: int = Field(ge=1, le=64)
    batch_size: PositiveInt = 16
    learning_rate: float = Field(gt=0, default=5e-5)
    head_learning_rate_factor: float = Field(gt=0, default=1.0)
    warmup: float = Field(ge=0, lt=1, default=0.1)
    weight_decay: float = Field(ge=0, default=0.0)
    clip: float = Field(gt=0, default=1.0)
    dropout: float = Field(ge=0, lt=1, default=0.1)
    max_length: int = Field(ge=8, le=512, default=128)
    pooling: Literal["mean", "cls", "pooler"] = "mean"
    record: Literal["train", "eval", "both"] = "train"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    keep_logits: bool = False


class ComparisonPlan(_Strict):
    """The encoder and members of a comparison, and the settings in which they are trained.

    `training`, `data` and `seeds` override the profile's values for this comparison, in all its settings. In
    `settings`, "equal" means all members at equal budget: as many examples and updates as one member alone.
    """

    encoder: str
    members: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)]
    settings: tuple[Literal["single", "pairs", "equal", "all"], ...] = ("single", "all")
    training: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, int | None] = Field(default_factory=dict)
    seeds: Seeds | None = None

    @field_validator("training", "data")
    @classmethod
    def _known(cls, values: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        fields = Training.model_fields if info.field_name == "training" else DataSizes.model_fields
        for name in values:
            if name not in fields:
                raise ValueError(f"unknown field {name!r}; {nearest(name, fields)}")
        return values

    def member_sets(self) -> list[Setting]:
        """Return the settings without duplicates, in this order: singles, pairs, all at equal budget, all."""
        every = len(self.members)
        sizes: dict[str, tuple[int, Budget]] = {
            "single": (1, "full"),
            "pairs": (2, "full"),
            "equal": (every, "equal" if every > 1 else "full"),
            "all": (every, "full"),
        }
        wanted = [size for kind, size in sizes.items() if kind in self.settings]
        return list(dict.fromkeys(Setting(c, b) for n, b in wanted for c in combinations(self.members, n)))


class Stages(_Strict):
    """Further training on subsets of finished runs, for every member alone and for all members together.

    `subsets` are unions of categories or map regions (`UNE+FRGE`, where FRGE is both kinds of forgotten; `ambiguous`).
    For each subset, a second stage continues from a run's final weights for `epochs` epochs with `learning_rate_factor`
    times the run's learning rate, linear decay and no warm-up. `balance` balances the classes of a subset. `controls`
    are trained for every subset: "random" uses as many random examples of the same classes, "all" makes as many updates
    on examples of all data.
    """

    subsets: Annotated[tuple[Annotated[str, AfterValidator(_subset)], ...], AfterValidator(_distinct)] = ("UNE+FRGE",)
    controls: Annotated[tuple[Literal["random", "all"], ...], AfterValidator(_distinct)] = ("random", "all")
    epochs: int = Field(ge=1, le=64, default=4)
    learning_rate_factor: float = Field(gt=0, default=0.1)
    balance: bool = True
    batch_size: None = None  # recorded profiles contain this field and the next two
    limit: None = None
    seeds: None = None


class Profile(_Strict):
    """The definition of a reproduction: data, models, seeds, epochs, hyperparameters."""

    name: str
    description: str = ""
    seeds: Seeds
    data: DataSizes
    training: Training
    comparisons: dict[Comparison, ComparisonPlan] = Field(min_length=1)
    stages: Stages | None = None
    corpora: dict[str, DatasetSpec] = Field(default_factory=dict)
    encoders: dict[str, EncoderSource] = Field(default_factory=dict)

    @field_validator("corpora", "encoders")
    @classmethod
    def _names(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name, place in given.items():
            if not re.fullmatch(NAME, name):
                raise ValueError(f"{name!r} cannot be used as a file name; use letters, digits, '-', '_' and '.'")
            if place.hub and not place.revision:
                raise ValueError(f"hub {place.hub} needs a revision (a commit), so that its content never changes")
        return given

    @model_validator(mode="after")
    def _overrides(self) -> Profile:
        for name in self.comparisons:
            self.training_of(name)
            self.data_of(name)
        return self

    def training_of(self, comparison: Comparison) -> Training:
        """Return the hyperparameters of a comparison, with its overrides applied."""
        part = self.comparisons[comparison]
        encoder = self.encoders.get(part.encoder)
        pooling = {"pooling": encoder.pooling} if encoder is not None and encoder.pooling is not None else {}
        return Training(**(self.training.model_dump() | pooling | part.training))

    def data_of(self, comparison: Comparison) -> DataSizes:
        """Return the data sizes of a comparison, with its overrides applied."""
        return DataSizes(**(self.data.model_dump(exclude_unset=True) | self.comparisons[comparison].data))

    def seeds_of(self, comparison: Comparison) -> tuple[int, ...]:
        """Return the seeds of a comparison: its own, or the profile's."""
        return self.comparisons[comparison].seeds or self.seeds


_folders: list[Path] = []


def add_profiles(folder: Path) -> None:
    """Let `load_profile` find the YAML files of `folder` by name."""
    if folder not in _folders:
        _folders.append(folder)


def profile_names() -> list[str]:
    """Return the names that `load_profile` finds."""
    return sorted(path.stem for folder in _folders for path in folder.glob("*.yaml"))


def load_profile(name: str | Path) -> Profile:
    """Read a profile by its name (`quick`) or from a YAML file. Raises ProfileError."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = next((p for folder in _folders if (p := folder / f"{name}.yaml").exists()), path)
        if path.suffix != ".yaml":
            raise ProfileError("unknown profile", found=repr(str(name)), hint=nearest(str(name), profile_names()))
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProfileError("no such profile", where=path, hint=f"use one of {', '.join(profile_names())}") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        found, hint = str(error).splitlines()[0], "compare it with paper/profiles/quick.yaml"
        raise ProfileError("cannot be read as YAML in UTF-8", where=path, found=found, hint=hint) from error
    if not isinstance(values, dict):
        raise ProfileError("contains no fields", where=path, expected="lines of the form `name: value`")
    try:
        return Profile(**values)
    except ValidationError as error:
        raise _explain(error, path) from None


def _explain(error: ValidationError, path: Path) -> ProfileError:
    """Turn pydantic's first error into one line with the field's name and, if it is misspelled, the nearest name."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])  # a misspelling may cause the others
    place = [str(part) for part in first["loc"]]
    where = f"{path}, field {'.'.join(place)}" if place else str(path)
    if first["type"] == "extra_forbidden":
        parts: dict[str, type[BaseModel]] = {
            "data": DataSizes, "training": Training, "comparisons": ComparisonPlan, "stages": Stages,
            "corpora": DatasetSpec, "encoders": EncoderSource,
        }  # fmt: skip
        model = parts.get(place[0], Profile) if len(place) > 1 else Profile
        return ProfileError("unknown field", where=where, hint=nearest(place[-1], model.model_fields))
    message = first["msg"].removeprefix("Value error, ")
    found = None if first["type"] == "missing" else repr(first["input"])[:80]
    return ProfileError(message, where=where, found=found, hint="correct the profile")
