"""Evaluation of checkpoints on the paper's benchmarks: `repro-trl eval`, and during training."""
