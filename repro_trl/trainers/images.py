"""METHOD §3 for prompts with images: replay through TRL's own log-probability pass, which hands them to the model."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from ..method.completions import CompletionReader, ScoringRow
from ..method.measure import Objectives, read_objectives
from ..method.objective import replay_texts
from ..method.padding import pad_rows

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
    reader: CompletionReader,
    num_boundaries: int,
    batch_size: int,
) -> Objectives:
    """
    Choose the boundaries of completions and compute the objective at each (METHOD §2.3 to §3).

    One pass over the rollouts, and one for each boundary over prompt, first b_t completion tokens and answer. All B
    rows take part in every pass, because images cannot be told apart by row: the number of forwards depends on
    B, `batch_size` and `num_boundaries` alone.

    Args:
        log_probs_and_entropies: TRL's `_get_per_token_logps_and_entropies`.
        model, rows, reader, num_boundaries, batch_size: as in `score_batch`.
        batch: B rollouts as TRL hands them to the loss.

    Returns:
        Of the B completions, masked in rows not asked for.

    Raises:
        ValueError: a completion holds images itself, from a tool.
    """
    prompt_ids, prompt_mask = batch["prompt_ids"], batch["prompt_mask"]
    completion_ids, completion_mask = batch["completion_ids"], batch["completion_mask"]
    prompt_length = prompt_ids.shape[1]
    token_types = {name: batch[name] for name in TOKEN_TYPES if name in batch}
    if any(types[:, prompt_length:].any() for types in token_types.values()):
        raise ValueError(
            "A tool returned an image: RePro cannot cut completions that contain images. Set repro_alpha=0, or "
            "let tools return text."
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
            torch.cat([prompt_mask, text_mask.to(prompt_mask.dtype)], dim=1),
            text_ids.shape[1],
            batch_size=batch_size,
            **options,
            **images,
            **text_types,
        )
        return log_probs, entropies

    def read(text_ids: Tensor, text_mask: Tensor, boundary: Tensor, answer: Tensor, scored: Tensor) -> Tensor:
        log_probs, _ = run(text_ids, text_mask)
        places = boundary + torch.arange(answer.shape[1], device=boundary.device)
        log_probs = log_probs.float().gather(1, places.clamp(max=log_probs.shape[1] - 1))
        return log_probs.masked_fill(~scored, 0.0)

    _, entropies = run(completion_ids, completion_mask, compute_entropy=True)
    by_index = {row.index: row for row in rows}
    all_rows = [by_index.get(index) or reader.idle_row(index) for index in range(len(completion_ids))]
    starts, _ = pad_rows([row.starts for row in all_rows], completion_ids.device)
    results = read_objectives(
        partial(replay_texts, read, completion_ids, completion_mask),
        all_rows,
        entropies.float().gather(1, starts),
        reader.settings.repro_top_k,
        num_boundaries,
    )
    found = Objectives.empty((len(all_rows), num_boundaries), completion_ids.device)
    found.put(rows, results, [row.index for row in rows])
    return found
