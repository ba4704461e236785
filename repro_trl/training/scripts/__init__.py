"""The training scripts, one for each algorithm; `examples/` links to them, and the commands run them."""
