"""
The way of the authors' released code, written anew from its description (METHOD §8).

Each rollout is copied once per boundary with the answer behind its first tokens, every copy is padded to the full
length, and log-probabilities of all its completion tokens are computed from full logits; those of the answer are used.
"""

import torch
from torch import Tensor, nn


@torch.no_grad()
def released_objective(
    model: nn.Module, batch: dict[str, Tensor], boundaries: Tensor, answer_ids: Tensor, micro_batch_size: int
) -> Tensor:
    """
    J_t at every boundary.

    Args:
        batch: `prompt_ids`, `prompt_mask` (B, P) left-padded; `completion_ids` (B, L).
        boundaries: (B, M) int.
        answer_ids: (A,) one answer for all.
        micro_batch_size: copies per forward.

    Returns:
        (B, M) float32, nats per token.
    """
    rows, num_boundaries = boundaries.shape
    length, answer = batch["completion_ids"].shape[1], len(answer_ids)
    copies = batch["completion_ids"].repeat_interleave(num_boundaries, dim=0)
    copies = torch.cat([copies, copies.new_zeros(len(copies), answer)], dim=1)
    index = torch.arange(length + answer, device=copies.device)
    start = boundaries.reshape(-1, 1)
    is_answer = (index >= start) & (index < start + answer)
    copies[is_answer] = answer_ids.repeat(len(copies))
    mask = (index < start + answer).long()
    copies = copies * mask

    prompts = batch["prompt_ids"].repeat_interleave(num_boundaries, dim=0)
    input_ids = torch.cat([prompts, copies], dim=1)
    attention_mask = torch.cat([batch["prompt_mask"].repeat_interleave(num_boundaries, dim=0), mask], dim=1)
    objectives = []
    for part in torch.arange(len(input_ids)).split(micro_batch_size):
        logits = model(
            input_ids[part], attention_mask=attention_mask[part], logits_to_keep=length + answer + 1, use_cache=False
        ).logits[:, :-1]
        log_probs = torch.stack([_log_probs(*row) for row in zip(logits, copies[part], strict=True)])
        objectives.append((log_probs * is_answer[part]).sum(dim=1) / answer)
    return torch.cat(objectives).view(rows, num_boundaries)


def _log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    return logits.float().log_softmax(dim=-1).gather(-1, ids[:, None]).squeeze(-1)
