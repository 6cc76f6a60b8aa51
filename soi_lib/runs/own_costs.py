"""What a training on one's own data costs, said before it starts: time, memory and disk."""

from __future__ import annotations

from soi_lib.models.encoder import encoder_card
from soi_lib.runs.costs import BYTES_A_PARAMETER, CORE_RATE, flop
from soi_lib.runs.own import TrainingJob
from soi_lib.training.device import default_jobs

_START = 8.0  # seconds before a run's first update


def cost_lines(todo: TrainingJob, *, finished: int, jobs: int | None, models: bool) -> list[str]:
    """The runs that are to do, and what they take; `models` says whether the trained models are kept."""
    seeds, encoder = todo.profile.seeds, todo.profile.comparisons["user"].encoder
    total = len(todo.settings) * len(seeds)
    what = f"runs: {total} run{'s' if total > 1 else ''} of {todo.profile.training.epochs} epochs with {encoder}, "
    what += f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    if finished == total:
        return [f"{what}; all done"]
    if finished:
        what += f"; {finished} done already"
    time, parameters = _time(todo, finished / total, jobs), encoder_card(todo.encoder).parameters
    lines = [f"{what}; {time if todo.device == 'cpu' else 'how long a GPU takes has not been measured'}"]
    # an upper bound: rows of the vocabulary that no text uses are left out of the training
    gigabytes = BYTES_A_PARAMETER * parameters / 1e9
    lines.append(f"memory: up to {gigabytes:.1f} GB a run for its parameters, and what its batches take")
    if models:  # the model with its whole vocabulary, and the weights that a second stage starts from
        lines.append(f"disk: up to {2 * 4 * parameters / 1e6:.0f} MB a run for its model (--no-model keeps none)")
    return lines


def _time(todo: TrainingJob, done: float, jobs: int | None) -> str:
    """About how long the runs take on this machine's cores."""
    card, longest = encoder_card(todo.encoder), todo.profile.training.max_length
    seconds = {}
    for dataset in todo.datasets:
        splits = dataset.corpus.splits.items()
        tokens = {split: len(part) * min(1.35 * part.mean_words + 3, longest) for split, part in splits}
        others = sum(n for split, n in tokens.items() if split in ("test", "ood"))
        operations = flop(
            card.parameters - card.embedding_parameters, tokens["train"] * todo.profile.training.epochs, others
        )
        seconds[dataset.name] = operations / CORE_RATE
    every = [_START + sum(seconds[m] for m in s) for s in todo.settings for _ in todo.profile.seeds]
    cores = default_jobs("cpu")
    minutes = sum(every) * (1 - done) / min(jobs or cores, len(every)) / 60
    words = "a minute or two" if minutes < 1.5 else f"about {minutes:.0f} minutes"
    words = words if minutes < 90 else f"{minutes / 60:.1f} hours"
    return f"{words} on {cores} core{'s' if cores > 1 else ''} (a rough estimate)"
