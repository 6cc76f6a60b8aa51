"""Corpora with flipped labels: a tenth of the training labels, nothing else."""

from paper.datasets import load


def test_a_tenth_of_the_training_labels_differ_and_nothing_else() -> None:
    clean, noisy = load("tweets"), load("tweets-flipped")
    wrong = clean.splits["train"].label != noisy.splits["train"].label
    assert abs(wrong.mean() - 0.1) < 0.001
    taken = noisy.splits["train"].take(500)
    of = dict(zip(clean.splits["train"].ids, clean.splits["train"].label, strict=True))
    assert 0.05 < (taken.label != [of[i] for i in taken.ids]).mean() < 0.15
    assert list(noisy.splits["train"].ids) == list(clean.splits["train"].ids)
    for split in ("validation", "test", "ood"):
        assert (noisy.splits[split].label == clean.splits[split].label).all()
    assert noisy.fingerprint != clean.fingerprint
