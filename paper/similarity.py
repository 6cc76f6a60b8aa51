"""Measure how similar two members are before any training, to compare with the gain from training them together.

There are three measures, each with an interval over several disjoint draws of training examples. Each is also computed
between two halves of the same member: the most that so few examples can show, and so the ceiling for a pair's value.

gradient:
    the cosine between the mean gradients of two members' losses with respect to the layers of the shared
    encoder, at its pretrained weights: does the first update for one also help the other? The sign of a gradient
    depends on the head through which it flows. "Initial heads" are those that a run with this seed starts from; members
    with different labels have independent ones, so that the cosine is 0 on average for any tasks, and only pairs with
    equal labels, which share the head, are included. With "aligned heads", each member's head points to the mean
    pretrained sentence vector of each class, as a head does after a few updates, so that signs are meaningful for all
    pairs. (With a fully fitted head, a mean gradient is nearly zero and its direction is random.)

representation:
    how closely the main directions of the pretrained sentence vectors of two members agree: the mean squared
    cosine of the angles between their first DIRECTIONS principal components (0 to 1; DIRECTIONS / width for two random
    subspaces). Linear CKA would need the same inputs for both, which two data sets do not have.

words:
    1 minus the Jensen-Shannon divergence (base 2) between the distributions of words, 0 to 1;
    needs no model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from paper.datasets import load
from paper.recorded import CHECKSUMS, Results
from soi_lib import files
from soi_lib.analysis.statistics import mean_effect
from soi_lib.data.dataset import Split
from soi_lib.errors import CorpusError, StoreError
from soi_lib.models.encoder import encoder_card, encoder_dir, fingerprint
from soi_lib.runs.spec import key_of

if TYPE_CHECKING:
    import torch

    from soi_lib.training.batching import Encoded

COLUMNS = ("first", "second", "measure", "value", "low", "high", "ceiling", "draws", "n")
DIRECTIONS = 8
SEED = 0
VERSION = 2
"""Increased whenever a change here changes the numbers, so that stored ones are computed again."""


def task_similarity(
    members: Sequence[str],
    encoder: str = "minilm",
    *,
    n: int = 64,
    draws: int = 5,
    max_length: int = 128,
    pooling: str = "mean",
) -> pd.DataFrame:
    """Return one row per pair of `members` (each also with itself) and measure, with the columns `COLUMNS`.

    value is the mean over `draws` disjoint draws of `n` training examples per member, with its 95 % t interval over the
    draws; ceiling is the geometric mean of the two members' own values (halves of a draw), NaN if one is negative. A
    draw and each of its halves have equally many examples of every class: otherwise a gradient would say little more
    than which class is more frequent. Raises CorpusError if a class has too few examples for that.
    """
    corpora = [load(member) for member in members]
    parts: list[list[Split]] = []
    for corpus in corpora:
        train, each = corpus.splits["train"], max(2, n // len(corpus.labels)) // 2 * 2
        rng = np.random.default_rng([SEED, *corpus.name.encode()])
        orders = [rng.permutation(np.flatnonzero(train.label == c)) for c in range(len(corpus.labels))]
        if min(map(len, orders)) < each * draws:
            raise CorpusError(
                "a class has too few training examples for the draws",
                where=corpus.name,
                found=min(map(len, orders)),
                expected=each * draws,
                hint="use fewer draws or examples",
            )
        parts.append([_halves(train, [o[d * each : (d + 1) * each] for o in orders]) for d in range(draws)])
    measured = _gradients(corpora, parts, encoder, max_length=max_length, pooling=pooling)
    measured["words"] = np.stack([_words([part[d] for part in parts]) for d in range(draws)])
    rows: list[dict[str, Any]] = []
    for measure, values in measured.items():  # (draws, M, M): pairs off the diagonal, halves of one member on it
        mean = values.mean(axis=0)
        for a, second in enumerate(members):
            for b, first in enumerate(members[: a + 1]):
                if "initial" in measure and corpora[a].labels != corpora[b].labels:
                    continue
                found = mean_effect(values[:, a, b, None]).interval()
                own = (mean[a, a], mean[b, b])
                row = {"first": first, "second": second, "measure": measure, **asdict(found), "draws": draws, "n": n}
                rows.append(row | {"ceiling": float(np.sqrt(own[0] * own[1])) if min(own) > 0 else np.nan})
    return pd.DataFrame(rows, columns=COLUMNS).round(4)


def similarity_path(comparison: str, runs: str | Path = "") -> Path:
    """Return the file beside the runs that stores the similarities of a comparison."""
    return Path(runs or "runs") / f"similarity-{comparison}.json"


def open_similarity(results: Results, runs: str | Path = "", *, n: int = 64, draws: int = 5) -> pd.DataFrame:
    """Return `task_similarity` of the members of `results`, stored beside their runs; recorded ones are only read.

    `runs` is the folder that the results came from. Raises StoreError if a recorded folder has no similarities.
    """
    path = similarity_path(results.comparison, runs)
    if (path.parent / CHECKSUMS).exists():
        if not path.exists():
            raise StoreError("no similarities were recorded", where=path, hint="record the runs again, with this file")
        return pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))["rows"], columns=COLUMNS)
    part = results.profile.comparisons[results.comparison]  # type: ignore[index]
    training = results.profile.training_of(results.comparison)  # type: ignore[arg-type]
    settings = {"max_length": training.max_length, "pooling": training.pooling, "n": n, "draws": draws}
    prints = {member: load(member).fingerprint for member in part.members}
    key = key_of({"version": VERSION, **settings, **prints, "encoder": fingerprint(encoder_dir(part.encoder))})
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if known.get("key") != key:
        table = task_similarity(part.members, part.encoder, **settings)  # type: ignore[arg-type]
        known = {"key": key, "rows": json.loads(table.to_json(orient="records"))}
        files.write_json(path, known)
    return pd.DataFrame(known["rows"], columns=COLUMNS)


def _halves(split: Split, classes: list[np.ndarray]) -> Split:
    """Return the examples at the indices `classes` (an even number each), ordered so that both halves are balanced."""
    index = np.concatenate([*(c[0::2] for c in classes), *(c[1::2] for c in classes)])
    pair = None if split.text_pair is None else [split.text_pair[i] for i in index]
    return Split(split.ids[index], [split.text[i] for i in index], pair, split.label[index], split.group[index])


def _gradients(
    corpora: Sequence[Any], parts: list[list[Split]], encoder: str, *, max_length: int, pooling: str
) -> dict[str, np.ndarray]:
    """Compute the measures that need the encoder, each (draws, M, M).

    One function, because its steps share the network, its layers and the encoded texts.
    """
    import torch
    from torch.nn.functional import cross_entropy
    from tqdm.auto import tqdm

    from soi_lib.models.multitask import Heads, MultiTaskModel
    from soi_lib.training.batching import collate

    network, data = _encoded(parts, encoder, max_length)
    labels, draws, count = [c.labels for c in corpora], len(parts[0]), len(corpora)
    shape: Any = network.config
    sentence = MultiTaskModel(network, lambda pooled, member: pooled, pooling=pooling).eval()  # type: ignore[arg-type]
    layers = [parameter for name, parameter in network.named_parameters() if not name.startswith("embeddings.")]

    def batches(batch: Encoded, index: np.ndarray) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield the rows and sentence vectors (B, H) of small batches of similar lengths."""
        ordered = index[np.argsort(batch.lengths[index], kind="stable")]
        for rows in np.split(ordered, range(16, len(ordered), 16)):
            inputs = collate(batch, rows, pad=int(shape.pad_token_id))
            yield rows, sentence(inputs, inputs["member"])

    def vectors(batch: Encoded) -> np.ndarray:
        """Return the sentence vectors (N, H) of all examples."""
        rows, found = zip(*batches(batch, np.arange(len(batch))), strict=True)
        return np.concatenate(found)[np.argsort(np.concatenate(rows), kind="stable")]

    def gradient(batch: Encoded, index: np.ndarray, loss: Callable[..., torch.Tensor]) -> np.ndarray:
        """Return the gradient (P,) of a summed loss with respect to `layers`."""
        summed = []
        for rows, pooled in batches(batch, index):
            gold, member = torch.from_numpy(batch.gold[rows]), torch.from_numpy(batch.member[rows])
            summed.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss(pooled, gold, member), layers)]))
        return torch.stack(summed).sum(0).numpy()

    with torch.no_grad():
        sentences = [[vectors(d) for d in member] for member in data]
    kinds = ("initial", "aligned") if len(set(labels)) < count else ("aligned",)
    out = {f"gradient, {kind} heads": np.zeros((draws, count, count)) for kind in kinds}
    out["representation"] = np.zeros((draws, count, count))
    with tqdm(total=draws * count, desc="similarity", unit=" draws", leave=False) as bar:
        for d in range(draws):
            heads = Heads(shape.hidden_size, labels, dropout=0.0, seed=SEED + d).eval()
            halves: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
            for m in range(count):
                weight = torch.from_numpy(_aligned(sentences[m], data[m], d, len(labels[m])))
                losses: dict[str, Callable[..., torch.Tensor]] = {
                    "initial": lambda x, gold, member, heads=heads: cross_entropy(
                        heads(x, member), gold + heads.offset[member], reduction="sum"
                    ),
                    "aligned": lambda x, gold, member, weight=weight: cross_entropy(
                        x @ weight.T, gold, reduction="sum"
                    ),
                }
                for half in np.array_split(np.arange(len(data[m][d])), 2):
                    for kind in kinds:
                        halves[kind].append(gradient(data[m][d], half, losses[kind]))
                bar.update()
            for kind, gradients in halves.items():
                out[f"gradient, {kind} heads"][d] = _cosines(np.stack(gradients))
            out["representation"][d] = _overlaps([s[d] for s in sentences])
    return out


def _encoded(parts: list[list[Split]], encoder: str, max_length: int) -> tuple[Any, list[list[Encoded]]]:
    """Return the encoder with the vocabulary of these texts, and the encoded texts."""
    from soi_lib.models.vocabulary import load_trimmed, tokenize
    from soi_lib.training.batching import encode

    folder, prefix = encoder_dir(encoder), encoder_card(encoder).prefix
    tokens = [[tokenize(folder, s.text, s.text_pair, max_length=max_length, prefix=prefix) for s in p] for p in parts]
    network, id_map = load_trimmed(folder, [t.ids for p in tokens for t in p])
    data = [
        [encode(t, id_map, s.label, member=m) for t, s in zip(*both, strict=True)]
        for m, both in enumerate(zip(tokens, parts, strict=True))
    ]
    return network, data


def _aligned(vectors: list[np.ndarray], data: list[Encoded], held_out: int, classes: int) -> np.ndarray:
    """Return the weight (C, H) float32 of a head that points from the mean of all sentence vectors to each class mean.

    Means are over all draws except `held_out`; rows have the mean length of those of an initial head, so that no class
    is much likelier than another.
    """
    others = [d for d in range(len(data)) if d != held_out] or [held_out]
    x = np.concatenate([vectors[d] for d in others])
    y = np.concatenate([data[d].gold for d in others])
    weight = np.stack([x[y == c].mean(axis=0) for c in range(classes)])
    weight -= weight.mean(axis=0)
    scale = 0.02 * weight.shape[1] ** 0.5 / np.linalg.norm(weight, axis=1).mean()
    return (weight * scale).astype(np.float32)


def _cosines(halves: np.ndarray) -> np.ndarray:
    """Return cosines (M, M) from vectors (2M, P) of half a draw each: of sums for pairs, of halves on the diagonal."""
    gram = (halves @ halves.T).astype(np.float64)
    pairs = gram.reshape(len(gram) // 2, 2, -1, 2).sum(axis=(1, 3))
    norm = np.sqrt(pairs.diagonal())
    out: np.ndarray = pairs / norm[:, None] / norm
    own = np.sqrt(gram.diagonal())
    np.fill_diagonal(out, (gram / own[:, None] / own)[0::2, 1::2].diagonal())
    return out


def _pairwise(members: Sequence[Any], describe: Callable[[Any], Any], alike: Callable[[Any, Any], float]) -> np.ndarray:
    """Return how much the descriptions of members are alike (M, M), and those of a member's halves on the diagonal."""
    every = [describe(member) for member in members]
    out = np.array([[alike(a, b) for b in every] for a in every])
    middle = [(len(member) + 1) // 2 for member in members]
    halves = [(member[:k], member[k:]) for member, k in zip(members, middle, strict=True)]
    np.fill_diagonal(out, [alike(*map(describe, pair)) for pair in halves])
    return out


def _overlaps(sentences: list[np.ndarray]) -> np.ndarray:
    """Return subspace overlaps of the sentence vectors (N, H) of each member."""

    def directions(x: np.ndarray) -> np.ndarray:
        return np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:DIRECTIONS]

    return _pairwise(sentences, directions, lambda a, b: float(((a @ b.T) ** 2).sum() / DIRECTIONS))


def _words(splits: list[Split]) -> np.ndarray:
    """Return 1 minus the Jensen-Shannon divergence of word distributions."""
    from scipy.spatial.distance import jensenshannon  # type: ignore[import-untyped]

    def alike(a: Counter[str], b: Counter[str]) -> float:
        words = sorted(a.keys() | b.keys())
        p, q = (np.array([c[w] for w in words]) / c.total() for c in (a, b))
        return float(1 - jensenshannon(p, q, base=2) ** 2)  # SciPy returns the square root

    return _pairwise([split.keys for split in splits], lambda texts: Counter(" ".join(texts).split()), alike)
