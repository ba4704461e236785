"""The study behind docs/results.md: the paper's claims on two small tasks. See README.md beside this file."""
