"""The engine's version, apart from the engine so that listing runs does not load torch."""

ENGINE_VERSION = 2
"""Part of every run's key: raised whenever a change to training changes what a run computes."""
