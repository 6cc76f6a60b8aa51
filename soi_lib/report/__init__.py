"""The HTML report on a training: `soi report`."""
