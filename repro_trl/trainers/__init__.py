"""One short file per algorithm."""
