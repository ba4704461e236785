"""METHOD §2 by brute force: every prefix of a completion is decoded anew."""

import random

from tiny_tokenizers import TEXTS
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from repro_trl.method import token_text
from repro_trl.method.segments import find_segment_starts

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
