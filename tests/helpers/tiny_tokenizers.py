"""
Small tokenizers of every common kind, trained on the spot: byte-level BPE, SentencePiece-like BPE with byte fallback,
Unigram, WordPiece and WordLevel. All of them have the tokens `<pad>` (id 0), `<eos>` (id 1) and `<unk>` (id 2).
"""

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

THINK_END = "</think>"
SPECIAL_TOKENS = ["<pad>", "<eos>", "<unk>"]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

# Prose, mathematics, several scripts; blank lines after all kinds of punctuation, so that they merge into tokens.
TEXTS = [
    "Let x be the number of apples.\n\nThen 2x + 3 = 11, so x = 4.\n\nWait, check:\n\n2 * 4 + 3 = 11.\n\n\nYes!",
    "First, we add the two numbers: 12 + 30 = 42.\n\nHmm, is that right? Let's see.\n\n  1. 12 + 30\n  2. = 42\n\n",
    "So the answer is \\boxed{42}.\n\n</think>\n\nThe answer is **42**.",
    "def add(a, b):\n    return a + b\n\n\n\nprint(add(12, 30))\r\n\r\nthe end",
    "Éléonore a déjà mangé trois crêpes; où est le café ? → ∑ over i ≤ n, π ≈ 3.14159 …\n\nMais oui…\n\n",
    "因此答案是四十二。\n\n我们再检查一遍：十二加三十等于四十二。\n\n所以答案正确。",
    "Ответ: сорок два.\n\nПроверим ещё раз. 😀🎉👩‍👩‍👧\n\nВерно!",
]

# The pre-tokenisation of Qwen and Llama 3: blank lines join the punctuation before them, or each other.
_BYTE_LEVEL_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_FIRST_BYTE_FALLBACK = "\u2000"
_WORD_PATTERN = r"\n+|\w+|[^\w\s]"


def byte_level_tokenizer(
    texts: Iterable[str] = TEXTS, vocab_size: int = 600, think_end: bool = False
) -> PreTrainedTokenizerFast:
    """
    Byte-level BPE as in Qwen and Llama 3: any text survives a round trip, `.\\n\\n` may be one token and a character
    several. Its chat template writes `<|role|>`, the message and, after an assistant's, `<eos>`.

    Args:
        texts: training texts.
        vocab_size: at least 259: 256 bytes and the special tokens.
        think_end: whether `</think>` is one added token; otherwise it is spelled over several.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_BYTE_LEVEL_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = _wrap(backend, think_end)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def sentencepiece_tokenizer(
    texts: Iterable[str] = TEXTS, vocab_size: int = 600, think_end: bool = False
) -> PreTrainedTokenizerFast:
    """
    BPE in the manner of SentencePiece and Llama 2: `▁` for a space, one put before the text and stripped on decoding,
    and byte tokens such as `<0x0A>` for characters outside the vocabulary: line breaks, and from U+2000 on.

    Args:
        texts: training texts.
        vocab_size: of the trained pieces; the 256 byte tokens come on top.
        think_end: whether `</think>` is one added token; otherwise it is spelled over several.
    """
    lines = (line for text in texts for line in text.splitlines())
    kept = ("".join(c for c in line if c < _FIRST_BYTE_FALLBACK) for line in lines)
    pieces, merges = _train_pieces(kept, vocab_size, pre_tokenizers.Metaspace())
    vocab = pieces | {f"<0x{byte:02X}>": len(pieces) + byte for byte in range(256)}
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _wrap(backend, think_end)


def unigram_tokenizer(
    texts: Iterable[str] = TEXTS, vocab_size: int = 600, think_end: bool = False
) -> PreTrainedTokenizerFast:
    """
    Unigram with `▁` for a space, as in T5 and XLM-R. Characters not in `texts` become `<unk>`.

    Args:
        texts: training texts.
        vocab_size: the most pieces that are kept.
        think_end: whether `</think>` is one added token; otherwise it is spelled over several.
    """
    pieces, _ = _train_pieces(texts, vocab_size, pre_tokenizers.Metaspace())
    # The trainer's own scores differ in their last digits from run to run. Any falling ones make a tokenizer.
    scored = [(piece, -5 - 0.01 * token_id) for piece, token_id in pieces.items()]
    backend = Tokenizer(models.Unigram(scored, unk_id=pieces["<unk>"]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return _wrap(backend, think_end)


def wordpiece_tokenizer(
    texts: Iterable[str] = TEXTS, vocab_size: int = 600, think_end: bool = False
) -> PreTrainedTokenizerFast:
    """
    WordPiece as in BERT, but line breaks are words of their own: decoding joins words with spaces and drops `##`.

    Args:
        texts: training texts.
        vocab_size: the most pieces that are kept.
        think_end: whether `</think>` is one added token; otherwise it is spelled over several.
    """
    # The trainer breaks ties differently from run to run, so the pieces are those of BPE, at both places in a word.
    pieces, _ = _train_pieces(texts, vocab_size // 2, _words())
    inner = [f"##{piece}" for piece in pieces if piece not in SPECIAL_TOKENS]
    vocab = {piece: token_id for token_id, piece in enumerate([*pieces, *inner])}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = _words()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return _wrap(backend, think_end)


def word_level_tokenizer(
    texts: Iterable[str] = TEXTS, vocab_size: int = 600, think_end: bool = False
) -> PreTrainedTokenizerFast:
    """
    One token per word, punctuation mark or run of line breaks, and no decoder: tokens are joined with spaces.

    Args:
        texts: training texts.
        vocab_size: the most words that are kept.
        think_end: whether `</think>` is one added token; otherwise it is spelled over several.
    """
    backend = Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = _words()
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return _wrap(backend, think_end)


TOKENIZERS = {
    "byte_level": byte_level_tokenizer,
    "sentencepiece": sentencepiece_tokenizer,
    "unigram": unigram_tokenizer,
    "wordpiece": wordpiece_tokenizer,
    "word_level": word_level_tokenizer,
}


def _train_pieces(
    texts: Iterable[str], vocab_size: int, pre_tokenizer: pre_tokenizers.PreTokenizer
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary, in the order of its ids, and merges of a BPE training."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    vocab = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    return vocab, [tuple(merge) for merge in model["merges"]]


def _words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Split(Regex(_WORD_PATTERN), "isolated"),
        ]
    )


def _wrap(backend: Tokenizer, think_end: bool) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    if think_end:
        # As in Qwen3 and DeepSeek-R1: a token of its own, but no special one, so that decoding keeps it.
        tokenizer.add_tokens([AddedToken(THINK_END, normalized=False, special=False)])
    return tokenizer
