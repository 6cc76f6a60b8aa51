"""The claims of the paper: their rules, the power of the rules, and the verdicts."""
