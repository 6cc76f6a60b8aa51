"""Where a dataset or a model is, and how to read its rows: plain values, as given in a profile or command.

Any failure to download from the hub (no network, a wrong commit, a missing configuration) becomes a one-line error that
says what to do. Code from a repository is never run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from soi_lib.errors import CorpusError, SoiError

_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_HUB = re.compile(r"([\w.-]+/[\w.-]+)(?:@(\w+))?")

SplitName = Literal["train", "validation", "test", "ood"]
Drop = Literal["duplicates", "empty", "unknown-labels"]


class Place(BaseModel):
    """A dataset or a model: `hub` at a `revision` (a commit, 7 to 40 hex digits), or a `path`."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    hub: str | None = Field(default=None, pattern=r"^[\w.-]+(/[\w.-]+)?$")
    revision: str | None = None
    path: str | None = None

    @field_validator("revision", mode="before")
    @classmethod
    def _commit(cls, value: Any) -> str | None:
        # without quotes, YAML reads a commit of digits only as a number
        if value is not None and not (isinstance(value, str) and _COMMIT.fullmatch(value)):
            raise ValueError("a revision is a commit of 7 to 40 hex digits, in quotes")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Place:
        if self.hub and self.path:
            raise ValueError("give hub or path, not both")
        return self

    def __str__(self) -> str:
        return f"{self.hub} at {self.revision or 'its newest commit'}" if self.hub else str(self.path)


class DatasetSpec(Place):
    """Where a dataset is, and how to read it.

    `path` is a file or a folder; `test` and `ood` are further files. `splits` gives the names of the splits there (of
    several candidates, the first that exists is used); the usual names can be omitted. A named split must exist; an
    empty list leaves a split out. `text`, `text_pair`, `label`, `id` and `group` are columns, guessed if they are not
    named; ids are row numbers from 0 if there is no such column. `labels` gives names to the values of the label column
    (several values may share a name, and an empty name means "no label"). `strict` is for profiles: ids are not
    guessed, and if labels have names, every value must have one. `drop` leaves rows out instead of raising an error:
    texts that occur in an earlier split, rows without text or label, labels that the training data do not contain.
    `rows` is the maximum number of rows per split. `separator`, `encoding` and `header` are for text files, `config` is
    the configuration of a hub dataset, and `note` says why a place is missing.
    """

    test: str | None = None
    ood: str | None = None
    config: str | None = None
    splits: dict[SplitName, tuple[str, ...]] = Field(default_factory=dict)
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    id: str | None = None
    group: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    strict: bool = True
    drop: tuple[Drop, ...] = ()
    rows: PositiveInt | None = None
    separator: str | None = None
    encoding: str | None = None
    header: bool = True
    note: str = ""

    @field_validator("labels", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        if isinstance(value, dict) and any(isinstance(word, bool) for pair in value.items() for word in pair):
            raise ValueError("put yes, no, true and false in quotes: YAML reads them as truth values")
        return value

    @field_validator("splits", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return {k: (v,) if isinstance(v, str) else v for k, v in value.items()} if isinstance(value, dict) else value


def check_place(name: str, spec: DatasetSpec) -> None:
    """Raise CorpusError if a spec has neither hub nor path."""
    if spec.path is None and spec.hub is None:
        raise CorpusError(
            f"neither hub nor path is given{f' ({spec.note})' if spec.note else ''}",
            where=f"corpora.{name}",
            expected="hub and revision, or path",
            hint="add one of them to a copy of the profile, or leave the comparison out with --only",
        )


def hub_name(text: str) -> tuple[str, str | None] | None:
    """Return (name, commit or None) if `text` is `owner/name` or `owner/name@commit` and not a path, otherwise None."""
    path, found = Path(text).expanduser(), _HUB.fullmatch(text)
    looks_like_a_file = re.search(r"\.(csv|tsv|tab|txt|jsonl?|ndjson|parquet|xlsx|gz)$", text, re.IGNORECASE)
    if found is None or text.startswith(".") or path.exists() or path.parent.is_dir() or looks_like_a_file:
        return None
    return found[1], found[2]


def commit_of(hub: str, revision: str | None, kind: Literal["dataset", "model"], error: type[SoiError]) -> str:
    """Return the full hash of an (abbreviated) commit, or of the newest for None. Asks the hub; raises `error`."""
    if revision is not None and len(revision) == 40:
        return revision
    try:
        from huggingface_hub import HfApi

        found = str(HfApi().repo_info(hub, repo_type=kind, revision=revision).sha)
    except Exception as failure:  # huggingface_hub passes on anything that its libraries raise
        raise unreachable(Place(hub=hub, revision=revision), failure, error) from failure
    if not found.startswith(revision or ""):  # a branch whose name looks like a commit
        raise error("there is no such commit", where=hub, found=found[:12], expected=revision)
    return found


def unreachable(place: Place, failure: Exception, error: type[SoiError]) -> SoiError:
    """Return the one-line error for any failure to download from the hub."""
    from huggingface_hub import constants

    found = (str(failure).strip() or type(failure).__name__).splitlines()[0][:160].rstrip(".")
    hint = "check the name, the commit and the network, or give the `path` of a folder with the same content"
    if re.match(r"config name is missing|builderconfig .* not found", found, re.IGNORECASE):
        hint = "choose a configuration with --config (in a profile: config)"
        found = " ".join(str(failure).split())[:300]
    elif constants.HF_HUB_OFFLINE:
        found = "network access turned off (HF_HUB_OFFLINE)"
        hint = "on a machine with a network, set HF_HUB_OFFLINE=0, or give the `path` of a folder with the same content"
    return error("cannot be downloaded from the hub", where=str(place), found=found, hint=hint)
