"""Imports for the CPU workers, done once for all of them.

Importing torch and transformers takes longer than a small training run. `soi_lib.runs.scheduler` forks its workers from
a process that has imported this module. Nothing here starts a thread except Arrow's allocator, which is fork-safe.
"""

from __future__ import annotations

import importlib

from soi_lib.training.device import one_thread_no_hub

one_thread_no_hub()  # before the imports, which read these settings
MODULES = (
    "pandas", "pyarrow.dataset", "sklearn.feature_extraction.text", "sklearn.linear_model", "sklearn.metrics",
    "soi_lib.data.baselines", "soi_lib.runs.second_stage", "soi_lib.training.engine", "tokenizers",
    "transformers.models.bert.modeling_bert",
)  # fmt: skip
for name in MODULES:
    importlib.import_module(name)
