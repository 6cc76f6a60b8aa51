"""Every error that a user can cause or meet, as one line that says what happened and what to do next.

All of them derive from `SoiError`; the command line prints the line and exits with 2. A message names the
file (or row, or id), what was found, what was expected, and the next step, in that order, so that nobody has to
read a traceback to continue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches


class SoiError(Exception):
    """One line for a person: `where: what; found ..., expected .... Next: ...`."""

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
    """A dynamics file or an array does not hold what schema 1 says it holds."""


class SchemaError(FormatError):
    """The file is of another schema version, or not a dynamics file at all."""


class ChecksumError(FormatError):
    """The bytes of a stored file are not those that were written."""


class DuplicateIdError(FormatError):
    """Two examples carry the same id."""


class RangeError(FormatError):
    """A stored value lies outside the range that its meaning allows."""


class AlignmentError(SoiError):
    """Two sets of dynamics cannot be compared (no common ids, or different gold labels)."""


class SelectionError(SoiError):
    """A subset that was asked for cannot be drawn."""


class FetchError(SoiError):
    """A package of data or weights could not be brought, or is not the one that was pinned."""


class CorpusError(SoiError):
    """A corpus cannot be built or split as asked."""


class EncoderError(SoiError):
    """A pretrained encoder cannot be read, converted or trimmed."""


class ProfileError(SoiError):
    """A profile, or one of its fields, is not what it should be."""


class StoreError(SoiError):
    """A stored run is damaged, locked or not writable."""


class OutputExistsError(SoiError):
    """Writing would replace something that is already there."""


@contextmanager
def located(where: object) -> Iterator[None]:
    """Put the place in front of every SoiError that is raised inside; its class and the rest of it stay."""
    try:
        yield
    except SoiError as error:
        raise type(error)(
            error.what, where=where, found=error.found, expected=error.expected, hint=error.hint
        ) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint for a misspelt name: the closest known one, and the whole list."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    listing = ", ".join(known)
    return f"did you mean {close[0]!r}? Known: {listing}" if close else f"choose one of: {listing}"


def raise_all(problems: Sequence[SoiError]) -> None:
    """Raise the one problem there is, or one error that lists all of them; nothing when there are none."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        kind = type(problems[0]) if len({type(one) for one in problems}) == 1 else SoiError
        listed = " ".join(f"({number}) {one}" for number, one in enumerate(problems, start=1))
        raise kind(f"{len(problems)} problems: {listed.removesuffix('.')}")
