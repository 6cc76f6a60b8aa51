"""The training loop, batches, the optimizer, checkpoints and devices."""

ENGINE_VERSION = 2
"""Part of every run's key: raised whenever a change to training changes what a run computes."""
