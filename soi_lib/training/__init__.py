"""The training loop, batches, the optimizer, checkpoints and devices."""

ENGINE_VERSION = 2
"""Part of every run's key: increased whenever a change to training changes the result of a run."""
