"""The claims of the paper: their rules, what those rules can see, and their verdicts."""
