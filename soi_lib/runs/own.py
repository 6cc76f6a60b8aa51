"""Training on rows of one's own: a folder that holds its profile, its rows, its runs, and an index of them.

What is special: nothing about it is. A person's files become a profile with corpora of its own and the comparison
`user`, and everything after that (plan, keys, store, workers) is what the paper's comparisons use. The folder holds
copies of the rows, so runs can be continued and reported when the original files have moved; with other rows or other
settings it is refused rather than mixed.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from soi_lib import atomic
from soi_lib.data.own import Given, OwnMember, hub_name, pinned, read_own
from soi_lib.data.places import Source
from soi_lib.errors import EncoderError, OutputExistsError, ProfileError, SoiError, StoreError, nearest
from soi_lib.models.encoder import ENCODERS, encoder_card, encoder_dir, fingerprint
from soi_lib.models.hub import EncoderSource, bring
from soi_lib.runs.config import ComparisonPlan, DataSizes, Profile, Setting, Training, load_profile
from soi_lib.runs.results import Results
from soi_lib.runs.scheduler import run_all
from soi_lib.runs.spec import RunSpec, plan
from soi_lib.runs.store import RunStore, StoredRun, open_run
from soi_lib.training.device import cards, default_jobs, kind_of, resolve_device, resolve_precision

if TYPE_CHECKING:
    import pandas as pd

PROFILE, INDEX, README, DATA, RUNS = "profile.yaml", "runs.json", "README.md", "data", "runs"
_TOKENS_A_SECOND = 1900.0  # of MiniLM on one core, trained once; measured, see the book's page on running again
_MINILM = 22_565_376 - 30_522 * 384  # its parameters without the vocabulary
_START = 8.0  # seconds before a run's first update


@dataclass(frozen=True)
class Wish:
    """What a person asks `soi train` for; see `soi_lib.data.own.Given` for the members."""

    members: tuple[Given, ...]
    model: str = "minilm"
    epochs: int = 10
    seeds: tuple[int, ...] = (0,)
    batch_size: int = 16
    learning_rate: float | None = None
    max_length: int = 128
    device: str = "auto"
    precision: str | None = None


@dataclass(frozen=True)
class Undertaking:
    """All that is needed to train: the folder, its profile, its members, and what the profile was before."""

    folder: Path
    profile: Profile
    members: tuple[OwnMember, ...]
    encoder: Path
    said: tuple[str, ...]
    begun: bool
    device: str = "cpu"

    @property
    def store(self) -> RunStore:
        """Where the runs are."""
        return RunStore(self.folder / RUNS)

    def specs(self) -> list[RunSpec]:
        """The runs; the folder must hold the rows."""
        return plan(self.profile, device=self.device)

    def finished(self) -> int:
        """How many of the runs are done already."""
        try:
            return sum(spec.found(self.store) is not None for spec in self.specs()) if self.begun else 0
        except SoiError:  # the rows are not all there yet
            return 0

    @property
    def settings(self) -> list[Setting]:
        """The member sets that are trained."""
        return self.profile.comparisons["user"].member_sets()


def prepare(wish: Wish, folder: str | Path, *, force: bool = False) -> Undertaking:
    """Read and check everything that was asked for, and the folder it would go to; writes nothing there.

    Raises a SoiError for whatever cannot be trained, OutputExistsError when the folder holds something else and `force`
    is not given.
    """
    folder = Path(folder).expanduser()
    _check_sizes(wish)
    device = resolve_device(wish.device)
    cards(device)  # a GPU that is not there is told before anything is read
    precision = resolve_precision(wish.precision or "auto", kind_of(device))
    begun = _begun(folder, force)
    old = own_profile(folder) if begun else None
    name, source, path = _encoder(wish.model, old)
    notes = " ".join(source.note for source in old.corpora.values()) if old else ""
    commits = dict(re.findall(r"([\w.-]+/[\w.-]+)@([0-9a-f]{7,40})", notes))  # as pinned when the folder was made
    members = tuple(read_own(given, known_commit=commits.get(given.train)) for given in wish.members)
    rate = wish.learning_rate or (1e-4 if source is None else 5e-5)
    sizes = [{split: len(rows) for split, rows in member.rows.items()} for member in members]
    profile = Profile(
        name=folder.resolve().name or "own",
        description="made by soi train",
        seeds=wish.seeds,
        data=DataSizes(
            train=max(size["train"] for size in sizes),
            evaluate=max(n for size in sizes for split, n in size.items() if split != "train"),
        ),
        training=Training(
            epochs=wish.epochs,
            batch_size=wish.batch_size,
            learning_rate=rate,
            max_length=wish.max_length,
            precision=precision,
        ),
        comparisons={
            "user": ComparisonPlan(encoder=name, members=tuple(m.name for m in members), settings=("single", "all"))
        },
        corpora={m.name: _source(m, folder) for m in members},
        encoders={} if source is None else {name: source},
    )
    found = Undertaking(folder, profile, members, path, _told(profile, members), begun, device)
    if old is not None and not force and (differences := _differences(found, old)):
        raise OutputExistsError(
            "the folder was made with other settings",
            where=folder,
            found="; ".join(differences),
            hint="choose another --out, or pass --force (finished runs stay in it)",
        )
    return found


def train(todo: Undertaking, *, command: str = "", jobs: int | None = None, quiet: bool = False) -> list[StoredRun]:
    """Write the folder and do the runs that are missing; all runs in the order of the plan. Raises SoiError.

    Stopped at any time, the same call continues. `command` is what to type to do so, for the folder's README.
    """
    profile = yaml.safe_dump(json.loads(todo.profile.model_dump_json()), sort_keys=False, allow_unicode=True)
    _write(todo.folder / PROFILE, f"# Made by soi train; the runs in {RUNS}/ depend on it.\n{profile}".encode())
    for member in todo.members:
        place = todo.folder / DATA / member.name
        for split, rows in member.rows.items():
            _write(place / f"{split}.parquet", _parquet(rows))
        for file in place.glob("*.parquet"):
            if file.stem not in member.rows:
                file.unlink()
    specs = todo.specs()
    for member in todo.members:
        held = next(dict(s.fingerprints)[f"corpus/{member.name}"] for s in specs if member.name in s.setting)
        if held != member.corpus.fingerprint:
            raise StoreError("the rows do not read back as they were written", where=todo.folder / DATA / member.name)
    _write_index(todo, specs, command)
    runs = run_all(specs, todo.store, jobs=jobs, quiet=quiet)
    _write_index(todo, specs, command)
    return runs


def own_profile(folder: str | Path) -> Profile:
    """The profile of a folder that `soi train` made, its rows looked for in the folder, wherever it lies now.

    Raises ProfileError when there is none or it is damaged.
    """
    folder = Path(folder)
    profile = load_profile(folder / PROFILE)
    if "user" not in profile.comparisons:
        raise ProfileError("is no profile of soi train", where=folder / PROFILE, hint="give a folder that it made")
    corpora = {
        name: source.model_copy(update={"path": str((folder / DATA / name).resolve())})
        for name, source in profile.corpora.items()
    }
    return profile.model_copy(update={"corpora": corpora})


def is_own(folder: str | Path) -> bool:
    """Whether `soi train` made this folder."""
    return (Path(folder) / PROFILE).is_file() and (Path(folder) / INDEX).is_file()


def open_own(folder: str | Path) -> tuple[Results, dict[str, Any]]:
    """The finished runs of a folder and its index. Seeds that lack a run are left out. Raises StoreError."""
    folder = Path(folder)
    index, profile = read_index(folder), own_profile(folder)
    runs = [open_run(folder / row["folder"]) for row in index["runs"] if (folder / row["folder"]).is_dir()]
    settings = {tuple(row["setting"]) for row in index["runs"]}
    whole = [s for s in profile.seeds if {run.setting for run in runs if run.seed == s} >= settings]
    if not whole:
        raise StoreError(
            "the runs are not finished",
            where=folder,
            found=f"{len(runs)} of {len(index['runs'])}",
            hint=index.get("command") or "give the soi train command again",
        )
    return Results("user", profile, tuple(run for run in runs if run.seed in whole)), index


def read_index(folder: str | Path) -> dict[str, Any]:
    """The index of a folder: its runs by setting and seed. Raises StoreError."""
    path = Path(folder) / INDEX
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        for row in value["runs"]:
            row["folder"], row["setting"], row["dynamics"]
    except FileNotFoundError:
        raise StoreError("soi train did not make this folder", where=folder, expected=f"{PROFILE}, {INDEX}") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StoreError("cannot be read", where=path, found=error, hint="give the soi train command again") from error
    return dict(value)


def rows_of(folder: str | Path, member: str) -> pd.DataFrame:
    """The training rows of a member: id (as in its dynamics), text, [text_pair], label. Raises StoreError."""
    import pandas as pd

    path = Path(folder) / DATA / member / "train.parquet"
    try:
        rows = pd.read_parquet(path)
        return rows.assign(id="train/" + rows["id"])
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            "the training rows cannot be read", where=path, found=error, hint="give the soi train command again"
        ) from error


def minutes(todo: Undertaking, *, finished: int = 0, jobs: int | None = None) -> float:
    """About how long the runs take on this machine's cores, in minutes; a GPU is quicker."""
    card = encoder_card(todo.encoder)
    speed = _TOKENS_A_SECOND * _MINILM / max(1, card.parameters - card.embedding_parameters)
    seconds = {}
    for member in todo.members:
        words = {row["split"]: (row["n"], row["mean_words"]) for row in member.corpus.summary()}
        tokens = {s: n * min(1.35 * mean + 3, todo.profile.training.max_length) for s, (n, mean) in words.items()}
        others = sum(n for split, n in tokens.items() if split in ("test", "ood"))
        seconds[member.name] = (tokens["train"] * todo.profile.training.epochs + others / 3) / speed
    every = [_START + sum(seconds[m] for m in s) for s in todo.settings for _ in todo.profile.seeds]
    left = sum(every) * (1 - finished / len(every))
    return left / min(jobs or default_jobs("cpu"), len(every)) / 60


# --- what a wish means ----------------------------------------------------------------------------------------------


def _check_sizes(wish: Wish) -> None:
    if not 2 <= wish.epochs <= 64:
        why = "dynamics need at least two epochs" if wish.epochs < 2 else "a history holds at most 64 epochs"
        raise ProfileError(why, where="--epochs", found=wish.epochs, expected="2 to 64", hint="10 is a good start")
    if not wish.seeds or len(set(wish.seeds)) < len(wish.seeds) or min(wish.seeds) < 0:
        found = ", ".join(map(str, wish.seeds)) or "none"
        raise ProfileError(
            "the seeds are not as they should be", where="--seed", found=found, expected="each once, 0 up"
        )
    names = [given.name for given in wish.members]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise ProfileError(
                "this cannot be the name of a member",
                found=repr(name),
                expected="letters, digits, '-', '_' and '.'",
                hint="name it: --member NAME=FILE",
            )
        if names.count(name) > 1:
            raise ProfileError("two members have one name", found=repr(name), hint="name them: --member NAME=FILE")


def _begun(folder: Path, force: bool) -> bool:
    """Whether `soi train` was here before; refuses a file, and a folder of other things unless forced."""
    if folder.exists() and not folder.is_dir():
        raise SoiError("a file stands where a folder should be written", where=folder, hint="choose another --out")
    if (folder / PROFILE).is_file():
        return True
    there = sorted(p.name for p in folder.iterdir() if not p.name.startswith(atomic.PREFIX)) if folder.is_dir() else []
    if there and not force:
        raise OutputExistsError(
            "the folder holds something else",
            where=folder,
            found=", ".join(there[:4]) + (" ..." if len(there) > 4 else ""),
            expected="a new or an empty folder",
            hint="choose another --out, or pass --force to write beside it",
        )
    return False


def _encoder(model: str, old: Profile | None) -> tuple[str, EncoderSource | None, Path]:
    """Name, source (None for one that ships with the library) and folder of an encoder. Raises EncoderError."""
    if model in ENCODERS:
        return model, None, encoder_dir(model)
    path = Path(model).expanduser()
    if path.exists():
        if not path.is_dir():
            raise EncoderError(
                "a file stands where the folder of a model is expected", where=path, hint="give the folder"
            )
        source = EncoderSource(path=str(path.resolve()))
    else:
        hub = hub_name(model) or ((model, None) if re.fullmatch(r"[A-Za-z0-9][\w-]+", model) else None)
        if hub is None or model[0] in "./~":
            raise EncoderError(
                "there is no such model folder", where=model, hint=f"{nearest(model, ENCODERS)}; or a path"
            )
        source = _hub_encoder(*hub, old)
    name = re.sub(r"[^\w.-]", "-", (source.hub or path.resolve().name).rpartition("/")[2]).lstrip(".-_") or "model"
    name = f"own-{name}" if name in ENCODERS else name
    return name, source, bring(name, source)


def _hub_encoder(hub: str, commit: str | None, old: Profile | None) -> EncoderSource:
    known = {s.hub: s.revision for s in old.encoders.values()} if old else {}
    try:
        revision = commit or known.get(hub) or pinned(hub, "model", EncoderError)
    except EncoderError as error:
        raise EncoderError(
            error.what, where=hub, found=error.found, hint=f"{error.hint}; {nearest(hub, ENCODERS)}"
        ) from error
    if not re.fullmatch(r"[0-9a-f]{7,40}", revision):
        raise EncoderError("a commit has 7 to 40 hex digits", where=hub, found=repr(revision))
    return EncoderSource(hub=hub, revision=revision)


def _source(member: OwnMember, folder: Path) -> Source:
    return Source(
        path=str((folder / DATA / member.name).resolve()),
        text="text",
        text_pair="text_pair" if member.columns.text_pair is not None else None,
        label="label",
        id="id",
        note=f"rows of {member.origin}",
    )


def _told(profile: Profile, members: Sequence[OwnMember]) -> tuple[str, ...]:
    """What a person should know of the whole before it starts."""
    said = []
    values = profile.training
    said.append(
        f"batches of {values.batch_size}, learning rate {values.learning_rate:g}, {values.max_length} tokens at most"
    )
    first: dict[tuple[str, ...], str] = {}
    for member in members:
        other = first.setdefault(member.corpus.labels, member.name)
        if other != member.name:
            said.append(f"{other} and {member.name} have the same labels, so they share a head when trained together")
    return tuple(said)


def _differences(new: Undertaking, old: Profile) -> list[str]:
    """In what the folder's profile and rows differ from what is asked for; more seeds are no difference."""
    out = []
    if not set(old.seeds) <= set(new.profile.seeds):
        out.append(f"seeds {_words(old.seeds)}, now {_words(new.profile.seeds)}")
    parts = [(p.comparisons["user"].members, p.comparisons["user"].encoder) for p in (old, new.profile)]
    for what, a, b in zip(("members", "model"), *parts, strict=True):
        if a != b:
            out.append(f"{what} {_words(a)}, now {_words(b)}")
    before, now = old.training.model_dump(), new.profile.training.model_dump()
    out += [f"{name.replace('_', ' ')} {before[name]}, now {now[name]}" for name in before if before[name] != now[name]]
    try:
        index = read_index(new.folder)
    except StoreError:  # killed before it was written: the keys of the runs tell old rows from new ones
        return out
    for member in new.members:
        if index.get("corpora", {}).get(member.name, member.corpus.fingerprint) != member.corpus.fingerprint:
            out.append(f"other rows of {member.name}")
    if index.get("device") not in (None, kind_of(new.device)):
        out.append(f"device {index['device']}, now {kind_of(new.device)}")
    if not out and index.get("encoder") not in (None, fingerprint(new.encoder)):
        out.append("another model in the same folder")
    return out


def _words(values: Any) -> str:
    return values if isinstance(values, str) else ", ".join(map(str, values))


# --- what is written ------------------------------------------------------------------------------------------------


def _parquet(rows: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.astype(object).to_parquet(buffer, compression="zstd", index=False)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Write unless these very bytes are there."""
    try:
        same = path.read_bytes() == data
    except OSError:
        same = False
    if not same:
        atomic.write_bytes(path, data)


def _write_index(todo: Undertaking, specs: Sequence[RunSpec], command: str) -> None:
    """runs.json for programs and README.md for people."""
    from soi_lib.runs.own_index import index_of, readme

    said = [f"{m.name}: {sentence}" for m in todo.members for sentence in m.said] + list(todo.said)
    value = index_of(todo.profile, specs, todo.store, fingerprint(todo.encoder), command)
    value |= {"device": kind_of(todo.device), "precision": todo.profile.training.precision, "decided": said}
    _write(todo.folder / INDEX, atomic.json_text(value).encode())
    _write(todo.folder / README, readme(value).encode())
