"""The report on a training of your own."""
