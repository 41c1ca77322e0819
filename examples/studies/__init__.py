"""Studies of hours, resumable, from a configuration to a page: what they share, and a package for each."""
