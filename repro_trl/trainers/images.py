"""METHOD §3 for prompts with images: replay through TRL's own log-probability pass, which hands them to the model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from ..method.score import AnswerTokens, ScoringRow
from ..method.segments import select_boundaries

# What TRL's pass takes besides token ids: what belongs to images, and what runs along the tokens.
IMAGE_INPUTS = (
    "pixel_values image_grid_thw num_images pixel_attention_mask spatial_shapes num_tiles image_sizes "
    "image_position_ids"
).split()
TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")
# Of these, what only says how many rows of pixels belong to a prompt; models do not take it.
_COUNTS = ("num_images", "num_tiles")


def has_image(example: dict[str, Any]) -> bool:
    """Whether a dataset row holds an image, in a column of its own or in its prompt."""
    if example.get("images") or example.get("image") is not None:
        return True
    prompt = example.get("prompt")  # an environment may write it
    messages = prompt if isinstance(prompt, list) else []
    contents = [message.get("content") for message in messages]
    return any(part["type"] == "image" for content in contents if isinstance(content, list) for part in content)


def image_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    """What TRL's log-probability pass takes of a batch besides token ids and masks; empty without images."""
    return {name: batch[name] for name in (*IMAGE_INPUTS, *TOKEN_TYPES) if name in batch}


def model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    """What a model takes of a batch besides token ids and masks; empty without images."""
    return {name: value for name, value in image_inputs(batch).items() if name not in _COUNTS}


def select_rows(batch: dict[str, Any], rows: slice) -> dict[str, Any]:
    """Tokens and images of some rows of a batch, in whose tensors of pixels the rows' images follow each other."""
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    batch = split_pixel_values_by_grid({**{name: batch[name] for name in names}, **image_inputs(batch)})
    return unsplit_pixel_values_by_grid({name: value[rows] for name, value in batch.items()})


def score_rows_with_images(
    log_probs_and_entropies: Callable[..., tuple[Tensor, Tensor | None, Any]],
    model: nn.Module,
    batch: dict[str, Any],
    rows: list[ScoringRow],
    top_k: int,
    num_boundaries: int,
    batch_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    Choose the boundaries of completions and compute the objective at each (METHOD §2.3 to §3).

    One pass over the rollouts, and one for each boundary over prompt, first b_t completion tokens and answer. All B
    rows take part in every pass, because images cannot be told apart by row: the number of forwards depends on
    B, `batch_size` and `num_boundaries` alone.

    Args:
        log_probs_and_entropies: TRL's `_get_per_token_logps_and_entropies`.
        model: the policy, wrapped or not.
        batch: B rollouts as TRL hands them to the loss.
        rows: those to be scored.
        top_k: segment starts kept per completion.
        num_boundaries: M, at least the number of boundaries of any row.
        batch_size: rows per forward.

    Returns:
        boundaries (B, M) int64, boundary_mask (B, M) bool, objective (B, M) float32, entropies (B, M) float32: H_s
        where a boundary is a segment start s, else 0; masked in rows not asked for.

    Raises:
        ValueError: a completion holds images itself, from a tool.
    """
    prompt_ids, prompt_mask = batch["prompt_ids"], batch["prompt_mask"]
    completion_ids, completion_mask = batch["completion_ids"], batch["completion_mask"]
    count, device, prompt_length = len(completion_ids), completion_ids.device, prompt_ids.shape[1]
    token_types = {name: batch[name] for name in TOKEN_TYPES if name in batch}
    if any(types[:, prompt_length:].any() for types in token_types.values()):
        raise ValueError(
            "A tool returned an image: RePro cannot cut completions that hold images. Set repro_alpha=0, or let tools "
            "return text."
        )
    images = {name: batch[name] for name in IMAGE_INPUTS if name in batch}

    def run(text_ids: Tensor, text_mask: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:
        text_types = {
            name: torch.cat([types[:, :prompt_length], types.new_zeros(text_ids.shape)], dim=1)
            for name, types in token_types.items()
        }
        log_probs, entropies, _ = log_probs_and_entropies(
            model,
            torch.cat([prompt_ids, text_ids], dim=1),
            torch.cat([prompt_mask, text_mask], dim=1),
            text_ids.shape[1],
            batch_size=batch_size,
            **options,
            **images,
            **text_types,
        )
        return log_probs, entropies

    _, entropies = run(completion_ids, completion_mask, compute_entropy=True)
    boundaries = torch.zeros(count, num_boundaries, dtype=torch.long, device=device)
    boundary_mask = torch.zeros(count, num_boundaries, dtype=torch.bool, device=device)
    kept_entropies = torch.zeros(count, num_boundaries, device=device)
    nothing = AnswerTokens([], [])
    answers = [[nothing] * num_boundaries for _ in range(count)]
    for row in rows:
        chosen = select_boundaries(row.starts, entropies[row.index, row.starts].tolist(), row.end, top_k)
        boundaries[row.index, : len(chosen)] = torch.tensor(chosen, device=device)
        boundary_mask[row.index, : len(chosen)] = True
        kept_entropies[row.index, 1 : len(chosen) - 1] = entropies[row.index, chosen[1:-1]].float()
        answers[row.index][: len(chosen)] = [row.answer] * (len(chosen) - 1) + [row.last_answer]

    objective = torch.zeros(count, num_boundaries, device=device)
    for t in range(num_boundaries):
        places = boundaries[:, t].tolist()
        ends = [place + len(answers[i][t].ids) for i, place in enumerate(places)]
        width = max(*ends, 1)
        text_ids, text_mask = completion_ids.new_zeros(count, width), completion_mask.new_zeros(count, width)
        scored = torch.zeros(count, width, device=device)
        for i, (place, end) in enumerate(zip(places, ends, strict=True)):
            text_ids[i, :place], text_mask[i, :place] = completion_ids[i, :place], completion_mask[i, :place]
            text_ids[i, place:end] = torch.tensor(answers[i][t].ids, dtype=torch.long, device=device)
            text_mask[i, place:end] = 1
            scored[i, place:end] = torch.tensor(answers[i][t].scored, dtype=torch.float, device=device)
        log_probs, _ = run(text_ids, text_mask)
        objective[:, t] = (log_probs.float() * scored).sum(dim=1) / scored.sum(dim=1).clamp(min=1)
    return boundaries, boundary_mask, objective, kept_entropies
