"""`python -m soi_lib.cli` is `soi`."""

from soi_lib.cli import main

main()
