"""How tokens become text: the UTF-8 text of a completion, and where each of its tokens ends in it."""

import json
import logging
import random
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

logger = logging.getLogger(__name__)

# UTF-8 is self-synchronising: a search for the bytes of a text finds exactly its occurrences as characters. So all
# positions are byte offsets, and a character that is split over tokens needs no special care.


def read_tokens(tokenizer: PreTrainedTokenizerBase, completion_ids: list[int]) -> tuple[bytes, np.ndarray]:
    """The completion's text as UTF-8, and (L,) the byte offset at which each token ends in it."""
    reader = _reader_of(tokenizer)
    ids = np.asarray(completion_ids, dtype=np.int64)
    unknown_id = len(reader.known) - 1
    ids = np.where((ids < 0) | (ids > unknown_id), unknown_id, ids)
    known = reader.known[ids]
    text, known_sizes = reader.read(tokenizer, ids[known])
    sizes = np.zeros(len(ids), dtype=np.int64)
    sizes[known] = known_sizes
    return text, np.cumsum(sizes)


def readable_text(tokenizer: PreTrainedTokenizerBase, completion_ids: list[int], think_end: str | None) -> str:
    """
    A completion as people and rewards read it: without special tokens, but with every end-of-thinking marker.

    Decoding without special tokens drops a marker that is one, and with it the border between thought and answer.
    """
    text = tokenizer.decode(completion_ids, skip_special_tokens=True)
    if think_end is None or think_end in text or not completion_ids:
        return text
    data, ends = read_tokens(tokenizer, completion_ids)
    marker, parts, begin, position = think_end.encode(), [], 0, data.find(think_end.encode())
    while position >= 0:
        first = int(np.searchsorted(ends, position, side="right"))
        stop = int(np.searchsorted(ends, position + len(marker))) + 1
        parts.append(tokenizer.decode(completion_ids[begin:first], skip_special_tokens=True))
        begin, position = stop, data.find(marker, position + len(marker))
    return think_end.join([*parts, tokenizer.decode(completion_ids[begin:], skip_special_tokens=True)])


def _mark_known(ids: Iterable[int]) -> np.ndarray:
    """(V+1,) bool, V the largest of `ids` + 1: which ids these are. The last entry stands for all other ids."""
    ids = list(ids)
    known = np.zeros(max(ids) + 2, dtype=bool)
    known[ids] = True
    return known


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _agreement(a: str, b: str) -> int:
    """Length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class _TableReader:
    """
    Reads tokens by looking their texts up in a table.

    Args:
        texts: UTF-8 text of each token that the tokenizer knows, by id, as it is after another token.
        first_texts: the texts that differ at the front of a completion, by id.
        byte_values: the byte that each byte-fallback token stands for, by id.
    """

    def __init__(self, texts: dict[int, bytes], first_texts: dict[int, bytes], byte_values: dict[int, int]) -> None:
        self.known = _mark_known(texts)
        vocab_size = len(self.known)
        # Behind the entries of the ids come a byte that occurs in no valid text and the texts of first tokens.
        entries = [texts.get(token_id, b"") for token_id in range(vocab_size)] + [b"\xff", *first_texts.values()]
        self._broken_byte = vocab_size
        self._first_entries = dict(zip(first_texts, range(vocab_size + 1, len(entries)), strict=True))
        self._byte_values = np.full(vocab_size, -1, dtype=np.int64)
        self._byte_values[list(byte_values)] = list(byte_values.values())
        self._data = np.frombuffer(b"".join(entries), dtype=np.uint8)
        self._sizes = np.fromiter(map(len, entries), dtype=np.int64)
        self._offsets = np.cumsum(self._sizes) - self._sizes

    def read(self, tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> tuple[bytes, np.ndarray]:
        """Text of the known tokens `ids`, and (len(ids),) the bytes that each adds to it."""
        entries = ids.copy()
        if len(entries) > 0:
            entries[0] = self._first_entries.get(int(ids[0]), ids[0])
        self._mark_broken_bytes(entries, self._byte_values[ids])
        sizes = self._sizes[entries]
        ends = np.cumsum(sizes)
        places = np.arange(sizes.sum()) + np.repeat(self._offsets[entries] - (ends - sizes), sizes)
        return self._data[places].tobytes(), sizes

    def _mark_broken_bytes(self, entries: np.ndarray, values: np.ndarray) -> None:
        # A byte-fallback decoder gives up a whole run of bytes when any part of it is no UTF-8.
        if not (values >= 0x80).any():
            return
        is_byte = np.concatenate(([False], values >= 0, [False]))
        for begin, end in np.flatnonzero(is_byte[1:] != is_byte[:-1]).reshape(-1, 2).tolist():
            try:
                values[begin:end].astype(np.uint8).tobytes().decode()
            except UnicodeDecodeError:
                entries[begin:end] = self._broken_byte


@dataclass(eq=False)
class _DecodingReader:
    """
    Reads tokens by decoding, for tokenizers without a table: a token ends where the text decoded up to it stops
    agreeing with the text decoded as a whole.

    Attributes:
        known: as `_mark_known` gives it.
        guard: one token that is put on both sides of what is decoded, or none. Some tokenizers strip white space at
            the edges, which must not happen to what is an edge of the window only.
        guard_text: what the guard adds to the end of a text.
    """

    known: np.ndarray
    guard: list[int]
    guard_text: str

    # Decoding a window of tokens, not all up to the current one, keeps the time linear; it begins some tokens early,
    # for decoders that look at a token's neighbours.
    CONTEXT = 8
    WINDOW = 32

    def read(self, tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> tuple[bytes, np.ndarray]:
        """Text of the known tokens `ids`, and (len(ids),) the bytes that each adds to it."""
        ids = ids.tolist()
        text = _decode(tokenizer, ids)
        ends = np.full(len(ids), len(text))
        in_character = np.zeros(len(ids), dtype=bool)
        # The tokens from `start` decode to `settled`, which ends at `position` of the text; later ones are still open.
        start, settled, position = 0, "", 0
        settled_stops: deque[int] = deque(maxlen=self.CONTEXT)
        for index in range(len(ids)):
            if position == len(text):
                break
            stop = index + 1
            window = self._decode_window(tokenizer, ids, start, stop)
            expected = settled + text[position : position + len(window)]
            # Replacement characters at the end are an incomplete character. Any other disagreement means that this
            # decoder needs more context than the window has.
            if start > 0 and not expected.startswith(window.rstrip("\ufffd")):
                start, settled, position = 0, "", 0
                window = self._decode_window(tokenizer, ids, start, stop)
                expected = text[: len(window)]
            agreeing = _agreement(window, expected)
            ends[index] = position + max(agreeing - len(settled), 0)
            in_character[index] = agreeing < len(window)
            if len(settled) <= agreeing == len(window):
                settled, position = window, int(ends[index])
                settled_stops.append(stop)
                if stop - start > self.WINDOW:
                    start = settled_stops[0]
                    settled = self._decode_window(tokenizer, ids, start, stop)
        return self._to_bytes(text, ends, in_character)

    def _decode_window(self, tokenizer: PreTrainedTokenizerBase, ids: list[int], start: int, stop: int) -> str:
        before = self.guard if start > 0 else []
        return _decode(tokenizer, before + ids[start:stop] + self.guard).removesuffix(self.guard_text)

    @staticmethod
    def _to_bytes(text: str, ends: np.ndarray, in_character: np.ndarray) -> tuple[bytes, np.ndarray]:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        widths = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
        offsets = np.concatenate(([0], np.cumsum(widths)))
        # One byte into the character is enough to say that the token ends neither before nor after it.
        byte_ends = offsets[ends] + (in_character & (np.append(widths, 1)[ends] > 1))
        byte_ends = np.maximum.accumulate(byte_ends)
        return text.encode("utf-8", "surrogatepass"), np.diff(byte_ends, prepend=0)


# ----------------------------------------------------------------------------------------- one reader per tokenizer

_Reader = _TableReader | _DecodingReader

# With each reader the number of tokens it was built for: tokens may be added later.
_READERS: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, _Reader]] = WeakKeyDictionary()

# Decoders that turn each token into text by itself, or as the first one, up to what `_TableReader` knows of.
_UNDERSTOOD_STAGES = re.compile(r"((Replace|Metaspace|WordPiece|Strip) )*(ByteFallback )?(Fuse (Strip )?)?")
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def _reader_of(tokenizer: PreTrainedTokenizerBase) -> _Reader:
    size = len(tokenizer)
    cached_size, reader = _READERS.get(tokenizer, (None, None))
    if cached_size == size:
        return reader
    reader, problem = _build_table_reader(tokenizer)
    if reader is None:
        reader = _build_decoding_reader(tokenizer)
        if cached_size is None:
            logger.warning(
                "Segment boundaries of %s are found by decoding piece by piece, which is exact but slow: %s.",
                type(tokenizer).__name__,
                problem,
            )
    _READERS[tokenizer] = (size, reader)
    return reader


def _build_table_reader(tokenizer: PreTrainedTokenizerBase) -> tuple[_TableReader | None, str]:
    """A reader that has been checked against the tokenizer, or `None` and the reason."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None, "it is not backed by the tokenizers library"
    backend = tokenizer.backend_tokenizer
    stages = _decoder_stages(json.loads(backend.to_str())["decoder"])
    types = [stage["type"] for stage in stages]
    ids = sorted(set(tokenizer.get_vocab().values()))
    if types == ["ByteLevel"]:
        texts, first_texts, byte_values = _byte_level_texts(backend, ids), {}, {}
    else:
        # Stripping at most one character concerns the first token alone.
        strips_more = types[-2:] == ["Fuse", "Strip"] and (stages[-1]["start"] > 1 or stages[-1]["stop"] > 0)
        if strips_more or not _UNDERSTOOD_STAGES.fullmatch("".join(f"{name} " for name in types)):
            return None, f"its decoder, {' + '.join(types)}, does not decode token by token"
        byte_values = _byte_fallback_values(backend, ids) if "ByteFallback" in types else {}
        probed = _probed_texts(backend, ids, byte_values)
        if probed is None:
            return None, "no token of its vocabulary is a plain word to probe the decoder with"
        texts, first_texts = probed

    reader = _TableReader(texts, first_texts, byte_values)
    odd = [token_id for token_id in ids if not texts[token_id].isalnum()]
    empty = [token_id for token_id in ids if not texts[token_id]]
    pools = [ids, ids[:64], ids[-64:], list(first_texts), list(byte_values), odd, empty]
    for sample in _sample_sequences([pool for pool in pools if pool]):
        text, _ = reader.read(tokenizer, np.asarray(sample))
        if text.decode(errors="replace") != _decode(tokenizer, sample):
            return None, f"a table of token texts does not reproduce how it decodes the ids {sample}"
    return reader, ""


def _decoder_stages(decoder: dict | None) -> list[dict]:
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [stage for inner in decoder["decoders"] for stage in _decoder_stages(inner)]
    return [decoder]


def _byte_level_texts(backend: Tokenizer, ids: list[int]) -> dict[int, bytes]:
    alphabet = {character: byte for byte, character in bytes_to_unicode().items()}

    def text(token: str) -> bytes:
        # Added tokens are written as they are; the decoder takes those that fit the alphabet for encoded bytes, too.
        if all(character in alphabet for character in token):
            return bytes(alphabet[character] for character in token)
        return token.encode()

    return {token_id: text(backend.id_to_token(token_id)) for token_id in ids}


def _byte_fallback_values(backend: Tokenizer, ids: list[int]) -> dict[int, int]:
    tokens = {token_id: backend.id_to_token(token_id) for token_id in ids}
    return {token_id: int(token[3:5], 16) for token_id, token in tokens.items() if _BYTE_TOKEN.fullmatch(token)}


def _probed_texts(
    backend: Tokenizer, ids: list[int], byte_values: dict[int, int]
) -> tuple[dict[int, bytes], dict[int, bytes]] | None:
    """Each token's text after another token, and, where it differs, alone; learnt by decoding."""

    def decode(*sequence: int) -> str:
        return backend.decode(list(sequence), skip_special_tokens=False)

    alone = {token_id: decode(token_id) for token_id in ids}
    word = next((token_id for token_id, text in alone.items() if text.isascii() and text.isalnum()), None)
    if word is None:
        return None
    texts = {token_id: decode(word, token_id)[len(alone[word]) :].encode() for token_id in ids}
    first_texts = {token_id: text.encode() for token_id, text in alone.items()}
    for token_id, value in byte_values.items():
        if value >= 0x80:  # alone, a part of a character decodes to a replacement character
            texts[token_id] = first_texts[token_id] = bytes([value])
    return texts, {token_id: text for token_id, text in first_texts.items() if text != texts[token_id]}


def _sample_sequences(pools: list[list[int]], count: int = 400, longest: int = 24) -> list[list[int]]:
    """Random id sequences, each id from a random pool, each sequence with one id doubled."""
    rng = random.Random(0)
    samples = []
    for _ in range(count):
        sample = [rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, longest))]
        place = rng.randrange(len(sample))
        samples.append(sample[: place + 1] + sample[place:])
    return samples


def _build_decoding_reader(tokenizer: PreTrainedTokenizerBase) -> _DecodingReader:
    # Not every tokenizer names each of its ids in `get_vocab`: distinct ids may have the same text.
    ids = sorted({*range(len(tokenizer)), *tokenizer.get_vocab().values()})
    known = _mark_known(ids)
    guard = ([], "")
    for token_id in ids:
        text = _decode(tokenizer, [token_id])
        if text.isascii() and text.isalnum():
            twice = _decode(tokenizer, [token_id, token_id])
            if twice == text + text:
                return _DecodingReader(known, [token_id], text)
            if twice.startswith(text) and len(twice) > len(text):
                guard = ([token_id], twice[len(text) :])  # does where every word is set off with a space
    return _DecodingReader(known, *guard)
