"""
METHOD §3: the proxy objective J, the answer's mean log-probability after the first tokens of a completion.

Two ways give the same J. `replay` runs one plain forward per boundary and is the reference to read. The shared way
(`shared_prefix`, METHOD §8) runs two forwards whatever the number of boundaries.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .lm_head import log_probs_of, reduce_logits
from .padding import check_prompt, flat_index, per_boundary
from .shared_prefix import branch_pass, prefix_pass

METHODS = ("shared", "replay")


def answer_log_probs(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    boundaries: Tensor,
    boundary_mask: Tensor,
    answer_ids: Tensor,
    answer_mask: Tensor,
    scored_mask: Tensor | None = None,
    temperature: float = 1.0,
    method: str = "shared",
) -> Tensor:
    """
    J_t at every boundary (METHOD §3): mean log-probability of the answer right after the first b_t completion tokens.

    Shapes alone decide how often the model is called (shared: 1 + ⌈M / 32⌉, replay: M, none if M = 0), so processes
    whose texts differ stay in step.

    Args:
        model: causal language model, possibly inside PEFT or a distributed wrapper. Its own forward is called.
        prompt_ids: (B, P) left-padded, P ≥ 1.
        prompt_mask: (B, P) bool, real tokens.
        completion_ids: (B, L) right-padded.
        completion_mask: (B, L) bool, real tokens; boundaries lie among or right after them.
        boundaries: (B, M) int, completion tokens before the answer, 0 ≤ b ≤ L.
        boundary_mask: (B, M) bool, left-aligned.
        answer_ids: (B, A), or (B, M, A) where the text differs by boundary; right-padded.
        answer_mask: real tokens, bool, shaped as `answer_ids`.
        scored_mask: tokens of the answer that are averaged, bool, shaped as `answer_ids`; default `answer_mask`.
        temperature: by which logits are divided.
        method: "shared" or "replay".

    Returns:
        (B, M) float32, nats per token, ≤ 0; 0 at masked boundaries and where no token is scored.

    Raises:
        ValueError: unknown method, a model that `method="shared"` cannot score exactly, or an empty prompt.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    if boundaries.shape[1] == 0:
        return torch.zeros(boundaries.shape, device=boundaries.device)
    answers = (boundaries, boundary_mask, answer_ids, answer_mask, scored_mask)
    if method == "replay":
        return replay(model, prompt_ids, prompt_mask, completion_ids, completion_mask, *answers, temperature)
    # No branch reads past the last boundary.
    end = int(boundaries.masked_fill(~boundary_mask, 0).max())
    nowhere = (boundaries[:, :0], boundary_mask[:, :0])  # no entropies are asked
    prefix = prefix_pass(
        model, prompt_ids, prompt_mask, completion_ids[:, :end], completion_mask[:, :end], *nowhere, temperature
    )
    return branch_pass(model, prefix, *answers, temperature)


@torch.no_grad()
def replay(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    boundaries: Tensor,
    boundary_mask: Tensor,
    answer_ids: Tensor,
    answer_mask: Tensor,
    scored_mask: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """
    J_t at every boundary from one plain forward per boundary over prompt, first b_t completion tokens, and answer.

    The reference for the shared way, and the way for models that cannot share a prefix. Arguments, result and errors
    are those of `answer_log_probs`.
    """
    check_prompt(prompt_ids)

    def read(text_ids: Tensor, text_mask: Tensor, boundary: Tensor, answer: Tensor, scored: Tensor) -> Tensor:
        input_ids = torch.cat([prompt_ids, text_ids], dim=1)
        before_answer = prompt_ids.shape[1] - 1 + boundary
        rows = flat_index(before_answer + torch.arange(answer.shape[1], device=boundary.device), input_ids.shape[1])
        return reduce_logits(
            lambda logits, kept: log_probs_of(logits, answer.flatten()[kept], temperature),
            model,
            rows,
            scored,
            input_ids=input_ids,
            attention_mask=torch.cat([prompt_mask.bool(), text_mask], dim=1).long(),
            use_cache=False,
        )

    return replay_texts(
        read, completion_ids, completion_mask, boundaries, boundary_mask, answer_ids, answer_mask, scored_mask
    )


def replay_texts(
    read: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor],
    completion_ids: Tensor,
    completion_mask: Tensor,
    boundaries: Tensor,
    boundary_mask: Tensor,
    answer_ids: Tensor,
    answer_mask: Tensor,
    scored_mask: Tensor | None = None,
) -> Tensor:
    """
    The loop of `replay`: at each boundary in turn, the first b_t completion tokens and the answer after them.

    Args:
        read: runs the policy once. Takes text_ids and text_mask (B, W), the cut completion and its answer; boundary
            (B, 1), where in the text the answer begins; answer (B, A), its ids; and scored (B, A) bool, those that
            count. Returns their log-probabilities (B, A), 0 where not scored.

    All other arguments, and the result, are those of `answer_log_probs`.
    """
    answer_ids, answer_mask, scored_mask = per_boundary(boundary_mask, answer_ids, answer_mask, scored_mask)
    objectives = torch.zeros(boundaries.shape, device=boundaries.device)
    length = completion_ids.shape[1]
    for t in range(boundaries.shape[1]):
        boundary = boundaries[:, t, None].masked_fill(~boundary_mask[:, t, None], 0)
        answer, scored = answer_ids[:, t], scored_mask[:, t]
        # The answer replaces what the completion holds after the boundary; one column of padding follows it.
        width = max(int((boundary + answer_mask[:, t].sum(-1, keepdim=True)).max()), 1)
        index = torch.arange(width, device=boundary.device)
        source = torch.where(index < boundary, index, length + index - boundary).clamp(max=length + answer.shape[1])
        text_ids = torch.cat([completion_ids, nn.functional.pad(answer, (0, 1))], dim=1).gather(1, source)
        text_mask = torch.cat([completion_mask.bool(), nn.functional.pad(answer_mask[:, t], (0, 1))], dim=1)
        log_probs = read(text_ids, text_mask.gather(1, source), boundary, answer, scored)
        objectives[:, t] = log_probs.sum(-1) / scored.sum(-1).clamp(min=1)
    return objectives
