"""Numbers from dynamics: categories, data maps, transitions, subsets, intervals. Never imports torch."""
