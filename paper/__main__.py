"""Entry point of `python -m paper`."""

from paper.cli import app
from soi_lib.cli import run

run(app, "python -m paper")
