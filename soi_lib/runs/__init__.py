"""Profiles, run keys, the store of runs, and training one run or all of them."""
