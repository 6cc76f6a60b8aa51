"""Texts and labels: datasets, splits and the loader."""
