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
from tiny_tokenizers import TEXTS, TOKENIZERS, byte_level_tokenizer, sentencepiece_tokenizer, word_level_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from repro_trl.method import token_text
from repro_trl.method.segments import find_segment_starts, select_boundaries

DATA = Path(__file__).parents[3] / "shared" / "data" / "math_cot_100.jsonl"
DELIMITERS = [
    "\n\n",
    "\n",
    " ",
    "a",
    "é",
    "。\n\n",
    "😀",
    "\n\n\n",
    ". ",
    "the ",
    "\n\nWait",
    "\ufeff",
    "of apples.\n\n",
]
MARKERS = ["</think>", None, "。", "😀", "\n\n\n", "e"]


def tokenizer_of(tokens: list[str], decoder: decoders.Decoder | None = None) -> PreTrainedTokenizerFast:
    """One with exactly these tokens, whose ids are their places in the list."""
    backend = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=tokens[0]))
    backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def segment(tokens: list[str], **kwargs) -> tuple[list[int], int]:
    """Segment starts and end of a completion whose tokens are these texts, exactly."""
    vocabulary = sorted(set(tokens) | {"x"})
    tokenizer = tokenizer_of(vocabulary, decoders.Fuse())
    ids = [vocabulary.index(token) for token in tokens]
    assert tokenizer.decode(ids) == "".join(tokens)
    return find_segment_starts(tokenizer, ids, **kwargs)


def shared_length(a: str, b: str) -> int:
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return length


def brute_force(tokenizer: PreTrainedTokenizerBase, ids: list[int]):
    """METHOD §2 by decoding every prefix and walking over the characters; returns a function of the two texts."""
    prefixes = [
        tokenizer.decode(ids[:n], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for n in range(len(ids) + 1)
    ]
    text = prefixes[-1]
    # How much of the text is complete after n tokens; a character whose bytes are not all there is not.
    complete = [shared_length(prefix, text) for prefix in prefixes]

    def find(delimiter: str, think_end: str | None) -> tuple[list[int], int]:
        def tokens_until(character: int) -> int:
            return next(n for n in range(len(complete)) if complete[n] >= character)

        begin = -1 if think_end is None else text.find(think_end)
        end = len(ids) if begin < 0 else tokens_until(begin + len(think_end))
        starts = set()
        for character in range(1, len(text) + 1):
            if not text.endswith(delimiter, 0, character):
                continue
            s = tokens_until(character)
            into_marker = begin >= 0 and (complete[s] > begin or (complete[s] == begin and len(prefixes[s]) > begin))
            if 1 <= s < len(ids) and not into_marker:
                starts.add(s)
        return sorted(starts), end

    return find


def random_completions(tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> list[list[int]]:
    """Id sequences of snippets full of delimiters, mixed with random ids, with tokens dropped, doubled and swapped."""
    rng = random.Random(seed)
    snippets = [*DELIMITERS, "</think>", "</thi", "nk>", " 😀", "é", "因此", "Wait", " so", "  ", "\t", "\r\n", *TEXTS]
    completions = []
    for _ in range(count):
        ids: list[int] = []
        for _ in range(rng.randint(0, 6)):
            if rng.random() < 0.3:
                ids += [rng.randrange(len(tokenizer)) for _ in range(rng.randint(1, 4))]
            else:
                ids += tokenizer.encode(rng.choice(snippets), add_special_tokens=False)[: rng.randint(1, 30)]
        ids = [token_id for token_id in ids for _ in range(rng.choices([0, 1, 2], [1, 20, 1])[0])]
        completions.append(ids)
    return completions


def check_against_brute_force(tokenizer: PreTrainedTokenizerBase, completions: list[list[int]]) -> int:
    found = 0
    for ids in completions:
        find = brute_force(tokenizer, ids)
        for delimiter in DELIMITERS:
            for marker in MARKERS:
                expected = find(delimiter, marker)
                assert find_segment_starts(tokenizer, ids, delimiter, marker) == expected, (ids, delimiter, marker)
                found += len(expected[0])
    return found


def uses_table(tokenizer: PreTrainedTokenizerBase) -> bool:
    return isinstance(token_text._reader_of(tokenizer), token_text._TableReader)


# --------------------------------------------------------------------------------------------------- worked by hand


@pytest.mark.parametrize(
    ("tokens", "starts", "end"),
    [
        ([], [], 0),
        (["a"], [], 1),
        (["a", "\n\n", "b"], [2], 3),
        (["a", ".\n\n", "b", ":\n\n", "c"], [2, 4], 5),
        (["a", "\n", "\n", "b"], [3], 4),  # split over two tokens: it ends in the second
        (["a.\n", "\nb", "c"], [2], 3),  # ends inside a token: that token is the last of its segment
        (["\n\n", "a"], [1], 2),
        (["a", "\n\n"], [], 2),  # nothing follows
        (["a", "\n\n\n", "b"], [2], 3),  # two occurrences end in the same token
        (["a", "\n", "\n", "\n", "b"], [3, 4], 5),  # two that overlap
        (["a", "\n\n", "\n\n", "b"], [2, 3], 4),
        (["a\n\nb\n\nc", "d"], [1], 2),
        (["a", "\n\n", "</think>", "\n\n", "b"], [2], 3),  # a delimiter after the marker counts no more
        (["a", "\n\n</think>", "b"], [], 2),  # ends in a token that reaches into the marker
        (["a", "\n\n", "</", "think", ">\n\n", "b", "\n\n", "c"], [2], 5),
        (["a", "\n\n", "b</think>c", "</think>"], [2], 3),
        (["</think>", "a", "\n\n", "b"], [], 1),
        (["a", "\n\n", "b", "</think"], [2], 4),  # not the whole marker
        (["a", "\n\n", "b", "</think>"], [2], 4),
    ],
)
def test_worked_cases(tokens, starts, end):
    assert segment(tokens) == (starts, end)


def test_other_delimiters_and_markers():
    assert segment(["a; b", "; ", "c;", " d"], delimiter="; ") == ([1, 2], 4)
    assert segment(["one two three", " four", " five"], delimiter="three fo") == ([2], 3)
    assert segment(["x", "…", "y…", "z"], delimiter="…") == ([2, 3], 4)
    assert segment(["a\n\n", "b", "</think>", "\n\n", "c"], think_end=None) == ([1, 4], 5)
    assert segment(["a\n\n", "b", "◁end", "▷", "\n\n"], think_end="◁end▷") == ([1], 4)


def test_delimiter_inside_the_marker_is_no_start():
    assert segment(["a", "<e", "nd>", "b"], delimiter="<e", think_end="<end>") == ([], 3)


@pytest.fixture
def without_table(monkeypatch):
    """Every tokenizer is read by decoding, as one whose decoder is not understood."""
    monkeypatch.setattr(token_text, "_build_table_reader", lambda tokenizer: (None, "the test says so"))


@pytest.mark.parametrize("table", [True, False])
def test_characters_split_over_tokens(table, request):
    if not table:
        request.getfixturevalue("without_table")
    tokenizer = byte_level_tokenizer()
    ids = tokenizer.convert_tokens_to_ids(list("aâĤ¬bâĤ¬c"))  # the three bytes of €, each a token
    assert tokenizer.decode(ids) == "a€b€c"
    assert find_segment_starts(tokenizer, ids, "€") == ([4, 8], 9)
    assert find_segment_starts(tokenizer, ids, "b€") == ([8], 9)
    # A token that holds a part of the marker's first character reaches into the marker.
    assert find_segment_starts(tokenizer, ids, "a", "€") == ([1], 4)
    assert find_segment_starts(tokenizer, ids, "b", "€") == ([], 4)
    ids = tokenizer.convert_tokens_to_ids(["s", "ĠðŁ", "ĺ", "Ģ", "s"])
    assert tokenizer.decode(ids) == "s 😀s"
    assert find_segment_starts(tokenizer, ids, " ") == ([2], 5)
    assert find_segment_starts(tokenizer, ids, " ", "😀") == ([], 4)
    assert uses_table(tokenizer) == table


def test_broken_characters_match_nothing_and_hide_nothing():
    tokenizer = byte_level_tokenizer()
    byte, newline = tokenizer.convert_tokens_to_ids(["â", "Ċ"])
    ids = [byte, newline, newline, byte, byte, newline, newline, byte]
    assert find_segment_starts(tokenizer, ids) == ([3, 7], 8)


def test_byte_fallback_gives_up_a_whole_run_of_bytes():
    tokenizer = sentencepiece_tokenizer()
    newline, broken, letter = tokenizer.convert_tokens_to_ids(["<0x0A>", "<0xE2>", "a"])
    assert tokenizer.decode([letter, newline, newline, broken, letter]) == "a\ufffd\ufffd\ufffda"
    assert find_segment_starts(tokenizer, [letter, newline, newline, broken, letter]) == ([], 5)
    assert find_segment_starts(tokenizer, [letter, newline, newline, letter, broken, letter]) == ([3], 6)
    euro = tokenizer.convert_tokens_to_ids(["<0xE2>", "<0x82>", "<0xAC>"])
    assert find_segment_starts(tokenizer, [newline, newline, *euro, newline, newline, letter]) == ([2, 7], 8)


def test_special_tokens_are_part_of_the_text():
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think_over>"]})
    ids = tokenizer.encode("a\n\nb<eos>c<think_over>\n\nd")
    starts, end = find_segment_starts(tokenizer, ids, think_end="<think_over>")
    assert end == ids.index(tokenizer.convert_tokens_to_ids("<think_over>")) + 1
    assert len(starts) == 1
    assert find_segment_starts(tokenizer, ids, delimiter="<eos>")[0] == [ids.index(tokenizer.eos_token_id) + 1]


@pytest.mark.parametrize("think_end", [False, True], ids=["spelled", "added"])
@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_end_is_just_past_the_token_that_completes_the_marker(make, think_end):
    tokenizer = make(think_end=think_end)
    marker = tokenizer.decode(tokenizer.encode("</think>"))  # as this tokenizer writes it: "< / think >", for one
    ids = tokenizer.encode("Let x = 4.\n\nWait, so x.\n\n</think>\n\nThe answer </think>")
    _, end = find_segment_starts(tokenizer, ids, think_end=marker)
    assert marker in tokenizer.decode(ids[:end])
    assert marker not in tokenizer.decode(ids[: end - 1])


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_unknown_ids_have_no_text(make):
    tokenizer = make(think_end=True)
    ids = tokenizer.encode("Let x = 4.\n\nWait 😀\n\n\nso </think>\n\nThen")
    starts, end = find_segment_starts(tokenizer, ids)
    rng = random.Random(1)
    padded, place = [], []  # place[i]: where token i went
    for token_id in ids:
        padded += rng.choices([-1, len(tokenizer), len(tokenizer) + 1000, 2**40], k=rng.randint(0, 2))
        place.append(len(padded))
        padded.append(token_id)
    expected = [place[start - 1] + 1 for start in starts], place[end - 1] + 1
    assert find_segment_starts(tokenizer, padded) == expected
    assert find_segment_starts(tokenizer, [len(tokenizer)] * 3) == ([], 3)


def test_empty_texts_are_refused():
    tokenizer = byte_level_tokenizer()
    with pytest.raises(ValueError, match="delimiter=''"):
        find_segment_starts(tokenizer, [5, 6], delimiter="")
    with pytest.raises(ValueError, match="think_end=''"):
        find_segment_starts(tokenizer, [5, 6], think_end="")


# ------------------------------------------------------------------------------------------------ against brute force


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


# --------------------------------------------------------------------------------------------------- tables and caches


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
    assert "does not reproduce its decoding" in caplog.text


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


# ----------------------------------------------------------------------------------------------------------- selection


def test_select_boundaries_by_hand():
    assert select_boundaries([3, 5, 6, 8], [0.1, 0.9, 0.2, 0.5], end=11, k=2) == [0, 5, 8, 11]
    assert select_boundaries([3, 5, 6, 8], [0.1, 0.9, 0.2, 0.5], end=11, k=9) == [0, 3, 5, 6, 8, 11]
    assert select_boundaries([3, 5, 6, 8], [0.1, 0.9, 0.2, 0.5], end=11, k=0) == [0, 11]
    assert select_boundaries([3, 5, 6, 8], [0.5, 0.7, 0.5, 0.5], end=11, k=2) == [0, 3, 5, 11]
    assert select_boundaries([], [], end=11, k=10) == [0, 11]
    assert select_boundaries([], [], end=0, k=10) == [0]
    assert select_boundaries([4], [1.0], end=4, k=1) == [0, 4]


def test_select_boundaries_ranks_nan_last():
    nan, inf = float("nan"), float("inf")
    assert select_boundaries([3, 5, 6], [nan, 0.0, 0.1], end=9, k=2) == [0, 5, 6, 9]
    assert select_boundaries([3, 5, 6], [nan, -inf, nan], end=9, k=2) == [0, 3, 5, 9]
    assert select_boundaries([3, 5, 6], [nan, inf, nan], end=9, k=1) == [0, 5, 9]


def test_select_boundaries_takes_tensors_and_gives_ints():
    entropies = torch.tensor([0.1, 0.9, 0.2], dtype=torch.bfloat16)
    chosen = select_boundaries([3, 5, 6], entropies, end=9, k=1)
    assert chosen == [0, 5, 9]
    assert all(type(boundary) is int for boundary in chosen)


def test_select_boundaries_agrees_with_brute_force():
    rng = random.Random(6)
    for _ in range(2000):
        length = rng.randint(0, 40)
        starts = sorted(rng.sample(range(1, max(length, 1)), rng.randint(0, max(length - 1, 0))))
        entropies = [rng.choice([0.0, 0.25, 0.5, 1.0, rng.random()]) for _ in starts]
        k = rng.randint(0, 12)
        left, kept = list(range(len(starts))), []
        while left and len(kept) < k:
            best = left[0]
            for index in left:
                if entropies[index] > entropies[best]:
                    best = index
            left.remove(best)
            kept.append(starts[best])
        assert select_boundaries(starts, entropies, length, k) == sorted({0, length, *kept})


def test_select_boundaries_refuses_bad_input():
    with pytest.raises(ValueError, match="2 starts have 1 entropies"):
        select_boundaries([1, 2], [0.5], end=3, k=1)
    with pytest.raises(ValueError, match="k=-1"):
        select_boundaries([1], [0.5], end=3, k=-1)
