"""Where segments start and thinking ends: worked cases, and which starts become boundaries."""

import random

import pytest
import torch
from segment_oracle import segment, uses_table
from tiny_tokenizers import TOKENIZERS, byte_level_tokenizer, sentencepiece_tokenizer

from repro_trl.method.segments import find_segment_starts, select_boundaries

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
