"""Generated dynamics that look like those of fine-tuning: a latent ease per example, learning, and noise."""

import numpy as np

from soi_lib.dynamics import Meta, TrainingDynamics


def learn(
    n: int = 400,
    epochs: int = 6,
    *,
    seed: int = 0,
    gain: float = 1.5,
    noise: float = 0.9,
    corpus: int = 7,
    classes: int = 2,
    member: str = "tweets",
    setting: tuple[str, ...] = ("tweets",),
) -> TrainingDynamics:
    """Generate one run. `corpus` determines the examples and how hard they are, `seed` the noise of this run."""
    examples = np.random.default_rng(corpus)
    ease = examples.normal(1.0, 1.8, n)
    gold = examples.integers(0, classes, n)
    run = np.random.default_rng([seed, corpus])
    progress = gain * np.log1p(np.arange(epochs))[:, None]
    p = 1 / (1 + np.exp(-(ease - 1 + progress + run.normal(0, noise, (epochs, n)) + run.normal(0, noise / 2, n))))
    p = p.astype(np.float32)
    ids = np.array([f"{member}-{i:05d}" for i in range(n)], dtype=object)
    meta = Meta(comparison="source", member=member, setting=setting, seed=seed, classes=classes)
    return TrainingDynamics(ids, gold, p, p > 0.5, meta)
