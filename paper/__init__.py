"""The reproduction of the paper: what it trains, how its claims are judged, and the pages that show it."""
