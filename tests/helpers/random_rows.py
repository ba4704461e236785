"""Rows of numbers with masks, for tests that compare with brute force."""

import random

import torch

NAN = torch.nan


def random_mask(rng: random.Random, batch: int, columns: int) -> torch.Tensor:
    """Padding at the right, holes in the middle, full and empty rows."""
    mask = torch.zeros(batch, columns, dtype=torch.bool)
    for row in mask:
        row[: rng.choice([0, columns, rng.randint(0, columns)])] = True
        if rng.random() < 0.5:
            row &= torch.tensor([rng.random() < 0.7 for _ in range(columns)], dtype=torch.bool)
    return mask


def random_values(rng: random.Random, mask: torch.Tensor, ties: bool = False) -> torch.Tensor:
    """Random values where unmasked, NaN elsewhere."""
    values = torch.full(mask.shape, NAN, dtype=torch.float64)
    for index in mask.nonzero().tolist():
        values[tuple(index)] = float(rng.randint(-1, 1)) if ties else rng.gauss(0.3, 2)
    return values
