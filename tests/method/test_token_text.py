"""Text of tokens, and where each ends in it: against brute force, on real completions; tables and caches."""

import gc
import json
import logging
import random
import weakref
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from segment_oracle import (
    brute_force,
    check_against_brute_force,
    random_completions,
    segment,
    tokenizer_of,
    uses_table,
)
from tiny_tokenizers import TEXTS, TOKENIZERS, byte_level_tokenizer, sentencepiece_tokenizer, word_level_tokenizer
from tokenizers import AddedToken, Regex, decoders
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from repro_trl.method import token_text
from repro_trl.method.segments import find_segment_starts

DATA = Path(__file__).parents[3] / "shared" / "data" / "math_cot_100.jsonl"


@pytest.mark.parametrize("think_end", [False, True], ids=["spelled", "added"])
@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_random_tokens_agree_with_brute_force(make, think_end):
    tokenizer = make(think_end=think_end)
    found = check_against_brute_force(tokenizer, random_completions(tokenizer, count=60, seed=0))
    assert uses_table(tokenizer)
    assert found > 100


@pytest.mark.parametrize("make", [byte_level_tokenizer, sentencepiece_tokenizer, word_level_tokenizer])
def test_decoding_reader_agrees_with_brute_force(make, without_table):
    tokenizer = make()
    found = check_against_brute_force(tokenizer, random_completions(tokenizer, count=30, seed=1))
    assert not uses_table(tokenizer)
    assert found > 100


def test_decoding_reader_in_the_middle_of_a_long_run_of_bytes(without_table):
    # What a byte decodes to depends on a run that may be longer than the window that is decoded.
    tokenizer = sentencepiece_tokenizer()
    newline, broken, letter = tokenizer.convert_tokens_to_ids(["<0x0A>", "<0xE2>", "a"])
    text = [letter, letter, newline, newline, letter]
    ids = [*text * 8, broken, *[newline] * 60, *text, *text]
    assert find_segment_starts(tokenizer, ids) == brute_force(tokenizer, ids)("\n\n", None)
    assert find_segment_starts(tokenizer, ids)[0][-2:] == [len(ids) - 6, len(ids) - 1]


def test_python_tokenizer_agrees_with_brute_force():
    tokenizer = ByT5Tokenizer()
    found = check_against_brute_force(tokenizer, random_completions(tokenizer, count=20, seed=2))
    assert not uses_table(tokenizer)
    assert found > 100


@pytest.mark.parametrize(
    "decoder",
    [
        decoders.CTC(pad_token="\n", word_delimiter_token="e"),
        decoders.Sequence([decoders.Fuse(), decoders.Replace(Regex("e +"), "e")]),
        decoders.Sequence([decoders.Fuse(), decoders.Replace("ne", " ")]),
        decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]),
    ],
    ids=["ctc", "pattern across tokens", "word across tokens", "bytes first"],
)
def test_other_decoders_agree_with_brute_force(decoder, caplog):
    tokens = ["a", "\n", " ", "e", "n", "Wait", "</think>", ".", "the", "a\n", "\n\n", "é", "▁a"]
    tokens += ["<0x0A>", "<0xC3>", "<0xA9>"]
    tokenizer = tokenizer_of(tokens, decoder)
    rng = random.Random(3)
    weights = [4 if token in ("n", "e") else 1 for token in tokens]
    completions = [rng.choices(range(len(tokens)), weights, k=rng.randint(0, 25)) for _ in range(30)]
    with caplog.at_level(logging.WARNING, logger="repro_trl.method.token_text"):
        check_against_brute_force(tokenizer, completions)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "decoder" in caplog.text


def test_stripping_at_the_edges_moves_no_boundary(tmp_path):
    # This tokenizer strips white space at both ends of what it decodes, so prefixes do not show where tokens end.
    (tmp_path / "texts.txt").write_text("\n".join(line for text in TEXTS for line in text.splitlines()))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "texts.txt"),
        model_prefix=str(tmp_path / "model"),
        vocab_size=150,
        user_defined_symbols=["\n", "\n\n"],
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    tokenizer = SentencePieceBackend(vocab_file=str(tmp_path / "model.model"), unk_token="<unk>")
    rng = random.Random(4)
    found = 0
    for _ in range(40):
        parts = ["so x", "\n", "\n\n", "   ", "\n" * 20, "Wait", ".", "</think>", "é"]
        text = "".join(rng.choice(parts) for _ in range(60))
        ids = tokenizer.encode("x" + text + "x", add_special_tokens=False)
        pieces = [piece.replace("▁", " ") for piece in tokenizer.convert_ids_to_tokens(ids)]
        for marker in ("</think>", None):
            assert find_segment_starts(tokenizer, ids, "\n\n", marker) == segment(pieces, think_end=marker)
            found += len(find_segment_starts(tokenizer, ids, "\n\n", marker)[0])
    assert not uses_table(tokenizer)
    assert found > 100


def test_space_that_ends_a_word_belongs_to_it(caplog):
    # The suffix becomes a space, but not at the end of what is decoded.
    tokens = ["x", "a</w>", ".</w>", "b", "\n\n</w>", "c</w>"]
    tokenizer = tokenizer_of(tokens, decoders.BPEDecoder(suffix="</w>"))
    rng = random.Random(7)
    for _ in range(20):
        ids = [rng.randrange(len(tokens)) for _ in range(rng.randint(1, 60))] + [0]
        pieces = [tokens[token_id].replace("</w>", " ") for token_id in ids]
        for delimiter in (". ", " ", "\n\n", "b."):
            assert find_segment_starts(tokenizer, ids, delimiter) == segment(pieces, delimiter=delimiter)
    assert "BPEDecoder" in caplog.text


@cache
def real_completions() -> list[str]:
    if not DATA.exists():
        pytest.skip(f"{DATA} is not here")
    rows = [json.loads(line) for line in DATA.read_text().splitlines()]
    return [completion for row in rows for completion in row["code"]]


def character_level(tokenizer: PreTrainedTokenizerFast, text: str, delimiter: str, think_end: str):
    """Ids of a text, and METHOD §2 on its characters, with the spans that the tokenizer reports when it encodes."""
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = encoding["offset_mapping"]
    last_token = {}
    for index, (begin, end) in enumerate(spans):
        last_token |= dict.fromkeys(range(begin, end), index)
    marker = text.find(think_end)
    end = len(spans) if marker < 0 else last_token[marker + len(think_end) - 1] + 1
    starts = {
        last_token[i] + 1
        for i in range(len(text))
        if text.endswith(delimiter, 0, i + 1) and (marker < 0 or spans[last_token[i]][1] <= marker)
    }
    return encoding["input_ids"], (sorted(start for start in starts if start < len(spans)), end)


@pytest.mark.parametrize("added", [False, True], ids=["spelled", "added"])
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "unigram"])
def test_real_completions_agree_with_brute_force(kind, added):
    completions = real_completions()
    tokenizer = TOKENIZERS[kind](texts=[*TEXTS, *completions[:80]], vocab_size=1000, think_end=added)
    rng = random.Random(5)
    found = 0
    for index, text in enumerate(completions):
        paragraphs = text.split("\n\n")
        paragraphs.insert(rng.randint(0, len(paragraphs)), "</think>")
        for variant in (text, "\n\n".join(paragraphs)):
            ids, expected = character_level(tokenizer, variant, "\n\n", "</think>")
            assert find_segment_starts(tokenizer, ids) == expected, index
            found += len(expected[0])
    assert uses_table(tokenizer)
    assert found > 3000


def test_tokens_added_later_are_noticed():
    tokenizer = byte_level_tokenizer()
    ids = tokenizer.encode("so </think> it is")
    assert find_segment_starts(tokenizer, [*ids, len(tokenizer)]) == ([], find_segment_starts(tokenizer, ids)[1])
    tokenizer.add_tokens([AddedToken("\n\nHmm</think>", normalized=False)])
    assert find_segment_starts(tokenizer, [5, len(tokenizer) - 1, 5]) == ([], 2)
    assert find_segment_starts(tokenizer, [5, len(tokenizer) - 1, 5], think_end=None) == ([2], 3)


def test_added_tokens_are_read_as_the_decoder_reads_them():
    # "é" is in the byte-level alphabet, so the decoder takes a token "éé" for two bytes, but not one with a space.
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens([AddedToken("éé", normalized=False), AddedToken("é é", normalized=False)])
    two_bytes, written = len(tokenizer) - 2, len(tokenizer) - 1
    assert tokenizer.decode([two_bytes, written]) == "\ufffd\ufffdé é"
    assert find_segment_starts(tokenizer, [two_bytes, written, 5], "é") == ([2], 3)
    assert uses_table(tokenizer)


def test_tokenizers_are_not_kept_alive():
    for make in (byte_level_tokenizer, ByT5Tokenizer):
        tokenizer = make()
        find_segment_starts(tokenizer, [5, 6])
        alive = weakref.ref(tokenizer)
        assert tokenizer in token_text._READERS
        del tokenizer
        gc.collect()
        assert alive() is None


def test_table_that_fails_its_check_is_not_used(caplog):
    class ShoutingTokenizer(PreTrainedTokenizerFast):
        def _decode(self, *args, **kwargs):
            return super()._decode(*args, **kwargs).replace("so", "SO")

    tokenizer = ShoutingTokenizer(tokenizer_object=byte_level_tokenizer().backend_tokenizer)
    ids = tokenizer.encode("Let x.\n\nso it\n\n is </think>")
    with caplog.at_level(logging.WARNING, logger="repro_trl.method.token_text"):
        starts, end = find_segment_starts(tokenizer, ids)
        find_segment_starts(tokenizer, ids, delimiter="SO")
    assert not uses_table(tokenizer)
    assert (starts, end) == find_segment_starts(byte_level_tokenizer(), ids)
    assert len(caplog.records) == 1
    assert "does not reproduce how it decodes" in caplog.text


def test_known_tokenizers_do_not_warn(caplog):
    with caplog.at_level(logging.WARNING, logger="repro_trl.method.token_text"):
        for make in TOKENIZERS.values():
            find_segment_starts(make(), [5, 6])
    assert not caplog.records


def test_random_state_is_left_alone():
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    find_segment_starts(byte_level_tokenizer(), [5, 6])
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_long_completions():
    tokenizer = byte_level_tokenizer(think_end=True)
    paragraph = tokenizer.encode("Wait, let me check 12 + 30 = 42.\n\n")
    copies = 32768 // len(paragraph)
    ids = [*paragraph * copies, tokenizer.convert_tokens_to_ids("</think>"), *paragraph * 3]
    starts, end = find_segment_starts(tokenizer, ids)
    assert starts == [len(paragraph) * n for n in range(1, copies + 1)]
    assert end == len(paragraph) * copies + 1
