"""Errors for users: each is one line that says what happened and what to do next.

All of them derive from `SoiError`; the command line prints the line and exits with status 2. A message names the file
(or row, or id), what was found, what was expected and the next step, in that order, so that no traceback is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches


class SoiError(Exception):
    """A one-line message: `where: what; found ..., expected .... Next: ...`."""

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        self.what, self.where, self.found, self.expected, self.hint = what, where, found, expected, hint
        parts = [] if where is None else [f"{where}: "]
        parts.append(what)
        if found is not None:
            parts.append(f"; found {found}")
        if expected is not None:
            parts.append(f", expected {expected}" if found is not None else f"; expected {expected}")
        parts.append("." if hint is None else f". Next: {hint}")
        super().__init__(" ".join("".join(parts).split()))


class FormatError(SoiError):
    """A dynamics file or an array does not follow schema 1."""


class SchemaError(FormatError):
    """The file has another schema version, or is not a dynamics file."""


class ChecksumError(FormatError):
    """A stored file has changed since it was written."""


class DuplicateIdError(FormatError):
    """Two examples have the same id."""


class RangeError(FormatError):
    """A stored value is outside its valid range."""


class AlignmentError(SoiError):
    """Two sets of dynamics cannot be compared (no common ids, or different gold labels)."""


class SelectionError(SoiError):
    """A requested subset cannot be drawn."""


class FetchError(SoiError):
    """A package of data or weights could not be downloaded, or does not match its pinned hash."""


class CorpusError(SoiError):
    """A corpus cannot be built or split as requested."""


class EncoderError(SoiError):
    """A pretrained encoder cannot be read, converted or trimmed."""


class ProfileError(SoiError):
    """A profile, or one of its fields, is invalid."""


class StoreError(SoiError):
    """A stored run is damaged, locked or not writable."""


class OutputExistsError(SoiError):
    """Writing would replace an existing file or folder."""


@contextmanager
def located(where: object) -> Iterator[None]:
    """Set the location of every SoiError raised inside; keep its class and its other parts."""
    try:
        yield
    except SoiError as error:
        raise type(error)(
            error.what, where=where, found=error.found, expected=error.expected, hint=error.hint
        ) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the hint for a misspelt name: the closest known name and the full list."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    listing = ", ".join(known)
    return f"did you mean {close[0]!r}? Known: {listing}" if close else f"choose one of: {listing}"


def raise_all(problems: Sequence[SoiError]) -> None:
    """Raise the only problem, or one error that lists them all; do nothing if there are none."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        kind = type(problems[0]) if len({type(one) for one in problems}) == 1 else SoiError
        listed = " ".join(f"({number}) {one}" for number, one in enumerate(problems, start=1))
        raise kind(f"{len(problems)} problems: {listed.removesuffix('.')}")
