"""Scoring through TRL's log-probability pass, with images and without, against the naive way."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import trl
from accelerate import Accelerator
from packaging.version import Version
from tiny_models import tiny_model
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from trl import GRPOTrainer

from repro_trl.config import ReproConfigMixin
from repro_trl.method.completions import AnswerTokens, CompletionReader, ScoringRow
from repro_trl.method.measure import score_rows
from repro_trl.trainers.images import score_rows_with_images

if Version(trl.__version__) < Version("1.15"):
    pytest.skip("before TRL 1.15, a model was prepared for the pass elsewhere", allow_module_level=True)

VOCAB_SIZE, IMAGE_TOKEN, PATCHES, TEMPERATURE, TOP_K, BOUNDARIES = 61, 60, 4, 0.8, 2, 5


class Settings(ReproConfigMixin):
    repro_top_k = TOP_K


READER = CompletionReader(SimpleNamespace(eos_token_id=1), Settings.__new__(Settings))


def batch_and_rows():
    generator = torch.Generator().manual_seed(0)
    prompt_mask = torch.arange(9) >= torch.tensor([[0], [3], [0], [2]])
    completion_mask = torch.arange(20) < torch.tensor([[20], [7], [12], [5]])
    tokens = partial(torch.randint, 2, VOCAB_SIZE - 1, generator=generator)
    batch = {
        "prompt_ids": tokens(prompt_mask.shape) * prompt_mask,
        "prompt_mask": prompt_mask.long(),
        "completion_ids": tokens(completion_mask.shape) * completion_mask,
        "completion_mask": completion_mask.long(),
    }
    short, long = AnswerTokens([5, 6], [False, True]), AnswerTokens([7, 8, 9], [True] * 3)
    rows = [
        ScoringRow(2, [3, 5, 9], 12, long, long),
        ScoringRow(0, [2, 4, 8, 15], 18, long, short),
        ScoringRow(1, [], 7, short, short),
    ]
    return batch, rows


def trl_pass(model):
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model, temperature=TEMPERATURE, outputs=("log_probs", "entropy"))
    trainer = SimpleNamespace(accelerator=Accelerator(cpu=True))
    inner = GRPOTrainer._get_per_token_logps_and_entropies

    def no_grad(*args, **kwargs):
        with torch.no_grad():
            return inner(trainer, *args, **kwargs)

    return no_grad


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_text_alone_is_scored_as_by_replay(batch_size):
    model = tiny_model("qwen3", vocab_size=VOCAB_SIZE)
    batch, rows = batch_and_rows()
    found = score_rows_with_images(trl_pass(model), model, batch, rows, READER, BOUNDARIES, batch_size)
    expected = score_rows(model, batch, rows, TOP_K, BOUNDARIES, TEMPERATURE, method="replay")
    index = [row.index for row in rows]
    mask = found.boundary_mask
    assert torch.equal(mask[index], expected.boundary_mask) and not mask[3].any()
    assert torch.equal(found.boundaries[index], expected.boundaries)
    torch.testing.assert_close(found.objective[index], expected.objective, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.entropies[index], expected.entropies, atol=1e-5, rtol=0)
    assert found.entropies.any()


def tiny_llava():
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {**text, "image_size": 8, "patch_size": 4, "projection_dim": 32}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision),
        text_config=LlamaConfig(vocab_size=VOCAB_SIZE, initializer_range=0.3, **text),
        image_token_id=IMAGE_TOKEN,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config).eval()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_images_are_seen(batch_size):
    model = tiny_llava()
    batch, rows = batch_and_rows()
    batch["prompt_ids"][:, -PATCHES - 1 : -1] = IMAGE_TOKEN  # one image per prompt
    batch["pixel_values"] = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    batch["num_images"] = [1, 1, 1, 1]
    found = score_rows_with_images(trl_pass(model), model, batch, rows, READER, BOUNDARIES, batch_size)
    boundaries, mask, objective = found.boundaries, found.boundary_mask, found.objective

    def forward(row, tokens):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()].tolist()
        with torch.no_grad():
            logits = model(torch.tensor([prompt + tokens]), pixel_values=batch["pixel_values"][row : row + 1]).logits
        return len(prompt), (logits[0] / TEMPERATURE).log_softmax(-1)

    for row in rows:
        completion = batch["completion_ids"][row.index].tolist()
        prompt_length, log_probs = forward(row.index, completion[: row.end])
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        by_entropy = sorted(row.starts, key=lambda start: -entropy[prompt_length + start - 1].item())
        chosen = sorted({0, row.end, *by_entropy[:TOP_K]})
        assert boundaries[row.index][mask[row.index]].tolist() == chosen
        for t, boundary in enumerate(chosen):
            answer = row.last_answer if boundary == row.end else row.answer
            prompt_length, log_probs = forward(row.index, completion[:boundary] + answer.ids)
            first = prompt_length + boundary - 1
            terms = [
                log_probs[first + j, token].item()
                for j, (token, scored) in enumerate(zip(answer.ids, answer.scored, strict=True))
                if scored
            ]
            assert objective[row.index, t].item() == pytest.approx(sum(terms) / len(terms), abs=1e-4)
    other = {**batch, "pixel_values": batch["pixel_values"].flip(0)}
    swapped = score_rows_with_images(trl_pass(model), model, other, rows, READER, BOUNDARIES, batch_size)
    assert not torch.allclose(swapped.objective[0], objective[0], atol=1e-2)


def test_images_from_tools_are_named():
    batch, rows = batch_and_rows()
    batch["mm_token_type_ids"] = torch.ones(4, 29, dtype=torch.long)
    with pytest.raises(ValueError, match="A tool returned an image"):
        score_rows_with_images(lambda: None, None, batch, rows, READER, BOUNDARIES, 4)
