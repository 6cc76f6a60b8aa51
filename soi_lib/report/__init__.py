"""The page of one's own training."""
