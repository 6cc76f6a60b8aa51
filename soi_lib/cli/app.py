"""The Typer application that every module of commands adds to."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="soi",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Record what every training example does while a language model is fine-tuned, and sort examples into six "
    "Subsets of Interest: unlearned (UNE), always correct (ACE), early learned (ELE), late learned (LLE), forgotten "
    "once (FRGE_1), forgotten at least twice (FRGE_2).\n\nA first tour: `soi doctor`, "
    "`soi train --train reviews.csv --out reviews`, `soi report reviews`, `soi second-stage reviews`.",
)
