"""Recording inside other frameworks, and reading and writing their files."""
