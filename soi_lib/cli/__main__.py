"""Run `soi` as `python -m soi_lib.cli`."""

from soi_lib.cli import main

main()
