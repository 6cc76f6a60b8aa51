"""From packages to corpora with group splits: every text that the library trains or tests on."""
