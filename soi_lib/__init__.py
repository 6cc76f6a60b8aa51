"""Record training dynamics and sort examples into Subsets of Interest."""
