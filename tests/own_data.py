"""Files as users have them, commands in this process, and a folder as `soi train` writes it."""

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from authors_data import COMMON, words

HOSTILE = '<img src=x onerror="window.owned=1"><script>window.owned=2</script> &amp; "quoted" %{x} $a$'
LABELS = ("negative", "<b>positive</b>")
PAPER = {"plan", "run", "reproduce", "results", "book", "notebooks"}
"""Commands of `python -m paper`; all others are commands of `soi`."""


def rows(n: int, *, member: str = "twitter", start: int = 0, labels: Sequence[object] = (0, 4)) -> pd.DataFrame:
    """Generate texts with words of their label, in the columns text and sentiment."""
    out = []
    for i in range(start, start + n):
        draw = random.Random(f"{member} {i}")
        text = " ".join(draw.choices(COMMON, k=4) + draw.choices(words(member, 4 * (i % 2)), k=3)) + f" {i}"
        out.append({"text": text, "sentiment": labels[i % 2]})
    return pd.DataFrame(out)


def csv(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index=False, encoding="utf-8")
    return path


def main_of(words: Sequence[object]) -> Callable[[], None]:
    if words and words[0] in PAPER:
        from paper.cli import main
    else:
        from soi_lib.cli import main
    return main


def run_main(*words: object) -> int:
    """Run a command in this process; return its exit code."""
    before, sys.argv = sys.argv, ["soi", *map(str, words)]
    try:
        main_of(words)()
        return 0
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the bytes and modification time of every file below a folder."""
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def made_folder(folder: Path, members: Sequence[str] = ("tweets", "reviews"), seeds: Sequence[int] = (0, 1)) -> Path:
    """Write a folder as `soi train` does, with generated dynamics; some texts and labels contain markup."""
    from dataclasses import replace
    from functools import partial
    from itertools import product

    import numpy as np
    import yaml
    from synthetic import learn

    from soi_lib import categorize
    from soi_lib.analysis.soi import soi_counts
    from soi_lib.data.cache import write
    from soi_lib.data.load import load_dataset
    from soi_lib.data.places import DatasetSpec
    from soi_lib.dynamics import TrainingDynamics
    from soi_lib.files import write_json
    from soi_lib.runs.own_folder import readme
    from soi_lib.runs.store import RunStore

    gold, base = np.arange(60) % 2, {"test": {"n": 60, "accuracy": 0.5, "macro_f1": 0.33}}
    test = pd.DataFrame({"split": "test", "id": [f"{i:06d}" for i in range(60)], "gold": gold.astype(np.int16)})

    def fill(out: Path, number: int, setting: Sequence[str], right: int) -> None:
        """Write a run; of its test rows, the first `right` and four fifths of the others are right."""
        metrics = {}
        for k, member in enumerate(setting):
            gain, corpus = 1.2 + 0.5 * len(setting), 7 + members.index(member)
            made = learn(240, 10, seed=number, gain=gain, corpus=corpus, member=member, setting=tuple(setting))
            ids = np.array([f"{i:06d}" for i in range(len(made))], dtype=object)
            meta = replace(made.meta, comparison="user", seed=number % len(seeds), label_names=LABELS)
            dynamics = TrainingDynamics(ids, made.gold, made.p_gold, made.correct, meta)
            dynamics.save(out / "dynamics" / f"{member}.parquet")
            wrong = (np.random.default_rng([number, k]).random(60) < 0.2) & (np.arange(60) >= right)
            answers = test.assign(predicted=np.where(wrong, 1 - gold, gold).astype(np.int16), p_gold=np.float32(0.7))
            (out / "predictions").mkdir(exist_ok=True)
            answers.to_parquet(out / "predictions" / f"{member}.parquet")
            score = {"n": 60, "accuracy": float(1 - wrong.mean()), "macro_f1": float(1 - wrong.mean()), "loss": 0.5}
            metrics[member] = {"n": 240, "soi": soi_counts(categorize(dynamics)), "test": score}
            metrics[member] |= {"majority": base, "bag_of_words": base, "tokens": {"train": 12.0}}
        write_json(out / "metrics.json", metrics)

    settings = [(m,) for m in members] + ([tuple(members)] if len(members) > 1 else [])
    store, index = RunStore(folder / "runs"), []
    for number, (setting, seed) in enumerate(product(settings, seeds)):
        key = f"{number:020d}"
        identity = {"comparison": "user", "setting": list(setting), "seed": seed, "fingerprints": {}}
        identity |= {"training": {"learning_rate": 5e-5}}
        about = {"identity": identity, "machine": {"device": "cpu"}, "precision": "fp32", "seconds": {"total": 30.0}}
        store.write(key, about, partial(fill, number=number, setting=setting, right=0))
        for control in (None, "random", "all"):
            stage = {"subset": "UNE+FRGE_1+FRGE_2", "control": control}
            stage |= {"training": {"epochs": 4, "learning_rate": 5e-6}}
            left = {"tested": True, "n": dict.fromkeys(setting, 40), "left": {m: [0.6, 0.3] for m in setting}}
            about |= {"identity": identity | {"base": key, "stage": stage}, "stage": left}
            store.write(f"{key[1:]}{control or 'x'}", about, partial(fill, number=number, setting=setting, right=10))
        row = {"key": key, "setting": list(setting), "seed": seed, "state": "done", "folder": f"runs/{key}"}
        files = {m: f"runs/{key}/dynamics/{m}.parquet" for m in setting}
        index.append(row | {"dynamics": files, "scores": store.get(key).metrics})
    for member in members:
        frame = rows(240, member=member)
        frame.loc[::7, "text"] = [f"{HOSTILE} {i}" for i in range(len(frame.loc[::7]))]
        frame.loc[1, "text"] = "a very long text " * 900
        train, tests = csv(folder / "train.csv", frame), csv(folder / "test.csv", rows(20, member=member, start=900))
        loaded = load_dataset(member, DatasetSpec(path=str(train), test=str(tests)))
        write(folder / "data" / f"{member}.parquet", loaded.corpus)
        train.unlink(), tests.unlink()
    profile = {
        "name": "made", "seeds": list(seeds), "data": {"train": 240, "evaluate": 60}, "training": {"epochs": 10},
        "comparisons": {"user": {"encoder": "minilm", "members": list(members)}},
        "corpora": {m: {"path": "elsewhere"} for m in members},
    }  # fmt: skip
    (folder / "profile.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    value = {"command": "soi train --train '<script>'", "members": list(members), "model": "minilm", "epochs": 10}
    value |= {"runs": index, "decided": ['label column: "<i>x</i>" (guessed; give --label to choose)']}
    write_json(folder / "runs.json", value)
    (folder / "README.md").write_text(readme(value), encoding="utf-8")
    return folder
