"""Profiles, the list of runs, where runs live, doing one, doing all."""
