"""Analysis of dynamics: categories, data maps, transitions, subsets and intervals. Never imports torch."""
