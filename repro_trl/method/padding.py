"""Ragged rows as padded tensors."""

import torch
from torch import Tensor, nn


def pad_rows(rows: list[list[int]], device: torch.device, width: int = 0) -> tuple[Tensor, Tensor]:
    """Right-pad lists of integers with zeros: values (R, N) int64, mask (R, N) bool."""
    width = max(width, *(len(row) for row in rows))
    values = torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.long, device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return values.view(len(rows), width), torch.arange(width, device=device) < lengths.unsqueeze(1)


def per_boundary(
    boundary_mask: Tensor, answer_ids: Tensor, answer_mask: Tensor, scored_mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Answers as (B, M, A) with A ≥ 1; only real tokens at real boundaries are scored."""
    scored_mask = answer_mask if scored_mask is None else scored_mask
    # Batches without any answer must call the model as the others do.
    width = max(answer_ids.shape[-1], 1)
    answers = []
    for tensor in (answer_ids, answer_mask.bool(), scored_mask.bool()):
        tensor = nn.functional.pad(tensor, (0, width - tensor.shape[-1]))
        answers.append(tensor if tensor.dim() == 3 else tensor[:, None].expand(-1, boundary_mask.shape[1], -1))
    answer_ids, answer_mask, scored_mask = answers
    return answer_ids, answer_mask, scored_mask & answer_mask & boundary_mask[..., None]


def flat_index(index: Tensor, length: int) -> Tensor:
    """(B, N) indices into rows of `length` tokens → the same tokens' indices into the flattened batch."""
    return index + length * torch.arange(index.shape[0], device=index.device)[:, None]


def check_prompt(prompt_ids: Tensor) -> None:
    if prompt_ids.shape[1] == 0:
        raise ValueError("prompt_ids has no tokens: the first token of an answer or completion needs one before it.")
