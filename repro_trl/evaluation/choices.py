r"""
The letter of the option that a reply chooses.

Published checkers read one fixed form each. What they agree on is the core here: the words for "answer" in many
languages from OpenAI's simple-evals (`common.py`, `MULTILINGUAL_ANSWER_REGEXES`), boxes and the bounds of a letter
from NeMo-Skills (`evaluator/mcq.py`), a letter that stands first in the reply from lighteval
(`IndicesExtractionConfig`), the last marker that a label follows and lists of labels from evalscope
(`multi_choices.py`). docs/evaluation.md says where each was read, where it errs, and what is done instead.

A reply makes statements. The last clear one counts; where the last one names several letters, there is no answer.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..verifier_forms import closing_brace
from .plain_text import plain_characters, plain_text

_OPTION_WORD = (
    r"(?:options?|choices?|letter|(?:a\s+)?letra|(?:la\s+)?lettre|(?:la\s+)?lettera|alternative|answer|opción|opção"
    r"|opzione|antwort|вариант|选项|選項|選択肢|보기|خيار|विकल्प|pilihan|phương án)"
)
# Words for "answer": simple-evals' list, and more of the same kind.
_ANSWER_WORDS = (
    r"উত্তর|उत्तर|antwort|lösung|답변|정답|답|答案|答复|答曰|答|الإجابة|الجواب|إجابة|جواب|respuesta|risposta|答え|正解|正答|正确选项|正確選項|回答|"
    r"解答|jawaban(?:nya)?|réponse|resposta|jibu|ìdáhùn|idáhùn|idahun|àmọ̀nà|àdáhùn|ànúgọ|àṣàyàn|"
    r"ответ|правильный вариант|richtig|alternativa correta|відповідь|odpowiedź|odpověď|"
    r"antwoord|cevap|đáp án|câu trả lời|คำตอบ|svaret|svar|vastaus|răspuns|răspunsul|válasz|απάντηση|תשובה|پاسخ|sagot|"
    r"respuesta correcta|opción correcta|bonne réponse|opção correta|opzione corretta"
)
_ADVERB = (
    r"(?:therefore|thus|hence|clearly|indeed|definitely|certainly|simply|actually|really|most\s+likely|very\s+likely|"
    r"likely|probably|then|now|still|again|instead|rather|obviously|in\s+fact|of\s+course|unambiguously|donc|also"
    r"|daher|somit|portanto|quindi|dunque|pues|logo|por\s+(?:lo\s+)?tanto|entonces)"
)
_NOT_BUT = (
    rf"not\s+(?:{_OPTION_WORD}\s+)?[(\[]?[A-Z][)\]]?\s*[,;]?\s*[-–—]*\s*"
    r"(?:but|rather|instead|it'?s|it\s+is)\s+(?:rather\s+|instead\s+|it\s+is\s+|it'?s\s+)?"
)
# What may stand between the words and the letter, on one line.
_LEAD = re.compile(
    rf"(?:[ \t:：=\-–—>→⇒]|{_ADVERB}\b,?|{_OPTION_WORD}(?![^\W\d_])"
    rf"|(?:the|number|with|la|le|el|die|der|das|o|l')(?=[ \t])|{_NOT_BUT})*",
    re.IGNORECASE,
)
_OPENERS, _CLOSERS = "([{<【（「『", ")]}>】）」』"
_LETTER = re.compile(r"[(\[{<【（「『\s]*(?P<letter>[A-Za-z])(?![A-Za-zÀ-ɏͰ-ӿ0-9_^'′°\\{])")
_END = r"(?=\s*(?:$|[\n.。;；!！?？,，:：、)\]}>】）」』|]))"
_GOES_ON = re.compile(
    r"\s*(?:$|\n|[.。](?![A-Za-z]\.)|[;；!！?？,，:：、|}\]>)✓✔✅☑]|\(|\*|[（【]"
    r"|[是项項选選对對因でだがはと가이를입번은는]"
    r"|[ \t]+[-–—]{1,3}[ \t]+(?!\w{1,2}\s*$)"
    r"|[ \t]+(?:because|since|as|due|with|over|which|where|that|for|given|based|by|from|after|only|alone|but|not"
    r"|rather|instead|in|on|here|and|or|too|when|so|then|satisf\w+|remains|works|fits|matches|agrees|holds|survives|meets"
    r"|(?:is|was|as)(?!\s+(?:not|in?correct|wrong|false))|"
    r"porque|ya|parce|car|weil|da|denn|perché|pois|потому|так)\b)",
    re.IGNORECASE,
)
_OPTION_TEXT = re.compile(r"[ \t]+(?:[A-Z][a-z]|\d)")
_CONNECTIVE = r"(?:&|/|\+|、|\b(?:and|or|y|o|e|ou|et|und|oder|или|и)\b|和|或|及|または|또는|أو)"
_MORE = re.compile(
    rf"\s*[)\]]?\s*\(?(?:(?:,\s*)?{_CONNECTIVE}\s*(?:also\s+|maybe\s+|possibly\s+|perhaps\s+)?"
    rf"(?:{_OPTION_WORD}\s*)?[(\[]?(?P<loose>[A-Z])(?![A-Za-z0-9_^'])"
    rf"|[,，、]\s*[(\[]?(?P<strict>[A-Z])[)\]]?(?:{_END}|(?=\s*{_CONNECTIVE})))",
    re.IGNORECASE,
)
_BOX = re.compile(r"\\+(?:boxed|fbox|framebox)\s*(?:\{|(?P<bare>[A-Z])(?![A-Za-z0-9_^]))")
_JOINS_BOXES = re.compile(rf"[\s$.,;]*(?:{_CONNECTIVE}[\s$]*(?:{_OPTION_WORD}\s*)?)?", re.IGNORECASE)

# Statements. After each of these comes an option, read by `_read_option`.
_NOUN = r"(?:answers?|ans\b\.?|choice|option|selection|pick)"
_VERB = r"(?:(?:is|are|(?:would|must|should|has\s+to|will)\s+be|remains|becomes)(?![A-Za-z])|:=|=|:|->|→|⇒|-|–|—)"
_STATED = re.compile(
    rf"(?<![A-Za-z]){_NOUN}(?:\s+(?:option|choice|letter|number))?(?P<middle>(?:\s+(?!{_NOUN})[^\s.:=!?;]+){{0,9}}?)\s*"
    rf"(?P<verb>{_VERB})(?:[ \t]*(?:is|:|：))?",
    re.IGNORECASE,
)
_STATED_BARE = re.compile(
    r"(?<![A-Za-z])(?:answer|ans\b\.?)[ \t]+(?=[(\[]?[A-Z][)\]]?\s*(?:$|[\n.;!,)\]}]))", re.IGNORECASE
)
_HEADED = re.compile(
    rf"(?<![A-Za-z])(?:{_NOUN}|{_ANSWER_WORDS})(?:\s+(?:is|choice|option))?[ \t]*[:：]?[ \t]*\n\s*", re.IGNORECASE
)
_STATED_ELSEWHERE = re.compile(
    rf"(?:{_ANSWER_WORDS})(?P<middle>(?:[ \t]+(?!(?:no|nicht|não|non|не|pas)\b)[^\s.:：=!?;,]+){{0,5}}?)[ \t]*"
    r"(?:】?[:=]|】|是|为|為|选|選|应选|應選|应为|ঃ|は|은|는|が|"
    r"[ \t]*(?:es|est|ist|lautet|è|é|jest|je|är|er|on|este|is|adalah|là|คือ|هو|هي|है|হলো|—|–|-)"
    r"(?=[\s(\[:])|[ \t]+(?=[A-Z][ \t]*(?:है|।)))",
    re.IGNORECASE,
)
_CHOSEN_ELSEWHERE = re.compile(
    r"(?:故选|故選|因此选|所以选|应选|應選|选择|選擇|选|選|而是)[ \t]*(?:答案|项|項)?[:：]?"
)
_CHOSEN = re.compile(
    r"\b(?:I|we|I'?ll|we'?ll|I'd|let'?s|let me)\s+(?:will\s+|would\s+|shall\s+|must\s+|should\s+|therefore\s+|thus\s+|"
    r"now\s+|finally\s+|then\s+)*(?:choose|pick|select|go\s+(?:with|for)|settle\s+(?:on|for)|answer|opt\s+for|say)\b"
    r"|\b(?:I'm|I\s+am|we're|we\s+are)\s+going\s+(?:with|for)\b"
    r"|\b(?:change|changing|revise|revising|correct|update|updating|switch|switching|amend)\b[^.\n]{0,40}?\bto\b",
    re.IGNORECASE,
)
# A sentence that is nothing but a conclusion.
_CONCLUDED = re.compile(
    r"(?:(?<![A-Za-z])(?:so|thus|therefore|hence|consequently|correction|actually|wait|no|sorry|final|edit|ergo|finally"
    r"|rather|conclusion|verdict|(?:in\s+)?summary|in\s+conclusion)\b|[∴⇒→])[ \t]*[,:.—–-]*[ \t]*"
    r"(?:no,?\s+)?(?:(?:it'?s|it\s+is|that'?s|that\s+is|this\s+is|make\s+(?:that|it)|it\s+must\s+be|it\s+should\s+be|"
    r"must\s+be|i\s+mean)\b)?"
    rf"(?=[ \t]*(?:{_ADVERB}[ \t]+)*(?:{_OPTION_WORD}[ \t]*)?[(\[]?[A-Z][)\]]?\s*(?:$|[\n.;!)]|,|:))",
    re.IGNORECASE,
)
_CORRECTED = re.compile(
    rf"(?:\bnot|n't)\s+(?:{_OPTION_WORD}\s+)?[(\[]?[A-Z][)\]]?\s*[,;.—–-]+\s*(?:but\s+)?(?:it'?s|it\s+is|rather)\b"
    rf"|(?<![A-Za-z])[A-Z]\s*,?\s*(?:sino|sondern|mais|mas|ma)\b(?:\s+(?:sim|la|die|que\s+es))*"
    rf"|\bbut\s+(?:{_ADVERB}\s+)*(?:it'?s|it\s+is|that'?s|it\s+must\s+be)\b"
    rf"(?=\s*(?:{_ADVERB}\s+)*(?:{_OPTION_WORD}\s*)?[(\[]?[A-Z][)\]]?\s*(?:$|[\n.;!]))",
    re.IGNORECASE,
)
_WEAKLY_STATED = re.compile(
    r"\b(?:corresponds?\s+to|match(?:es|ing)?|agrees?\s+with|consistent\s+with|which\s+is|that\s+is|this\s+is|gives|"
    r"points?\s+to|leads?\s+to|leav(?:es|ing)(?:\s+(?:only|us\s+with))*|must\s+be|closest\s+to|fits?|only|it'?s|it\s+is|that'?s|probably|definitely|certainly|"
    r"likely|select|pick|choose|think|believe"
    r"|(?:correct|right)\s+\w+\s+is)\s+(?:the\s+)?"
    rf"(?=(?:{_OPTION_WORD}[ \t]*[(\[]?[A-Z][)\]]?(?![A-Za-z]))|[(\[]?[A-Z][)\]]?\s*(?:$|[\n.;!]|satisf|remains"
    rf"|works|fits|matches|agrees|holds|survives|meets))"
    rf"|^[ \t]*(?:correct|solution|result|conclusion)[ \t]*:(?=[ \t]*(?:{_OPTION_WORD}[ \t]*)?[(\[]?[A-Z][)\]]?{_END})"
    rf"|(?<=[.?!])(?=\s+(?:{_OPTION_WORD}\s*)?[(\[]?[A-Z][)\]]?[.!]?\s*\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_BEFORE_OPTIONS = (
    *(_STATED, _STATED_BARE, _STATED_ELSEWHERE, _CHOSEN_ELSEWHERE, _CHOSEN, _CONCLUDED, _CORRECTED),
    *(_HEADED, _WEAKLY_STATED),
)
_CORRECT = r"(?:(?:only|single|most|one)\s+)*(?:correct|right|best|proper)"
_CALLED_CORRECT = re.compile(
    rf"(?P<word>{_OPTION_WORD}\s*)?(?<![A-Za-z0-9_°\\'’-])[(\[]?(?P<letter>[A-Z])[)\]]?(?![A-Za-z0-9_^'’-])"
    rf"(?:[.:)]?\s*\([^()\n]{{1,60}}\))?,?\s+(?:is|must\s+be|should\s+be|seems)\s+(?:{_ADVERB}\s+)*"
    rf"(?:(?:the|our|my)\s+)?(?:(?P<noun>(?:{_CORRECT}\s+|final\s+)*(?:answer|option|choice))|{_CORRECT})\b"
    r"(?!-)(?=\s*(?:$|[.,;:!)\n—–-]|because|since|as\b|and\b|for\s+this|here|to\s+(?:this|the)))"
)
_ALL_CORRECT = re.compile(
    r"(?<![A-Za-z])[(\[]?(?P<one>[A-Z])[)\]]?\s*(?:,|and|&|or)\s*[(\[]?(?P<two>[A-Z])[)\]]?\s+"
    r"(?:are|could|might|both)\s+(?:both\s+|all\s+|be\s+)*(?:the\s+)?(?:correct|right|possible|plausible|answers?)"
)
_CORRECT_ELSEWHERE = re.compile(
    r"(?<![A-Za-z])[(\[]?(?P<letter>[A-Z])[)\]]?[ \t]*(?:项|項)?"
    r"(?:是正确|是正確|正确|正確|为正确|が正解|が正しい|[가이] ?정답|[ \t]+(?:es|est|ist|è|é)[ \t]+(?:la |die |a )?"
    r"(?:respuesta|bonne|réponse|richtig|korrekt|risposta|resposta|corrett|corret|correct))"
)
_MARKED = re.compile(
    r"^[ \t>#-]*[(\[]?(?P<letter>[A-Z])[)\].:](?:\s*(?:this is\s+)?(?:correct|right)\b[ .!]*$|[^\n]*?(?:[✓✔✅☑]|←"
    r"|<-+|\((?:correct|right)[^()\n]{0,20}\)"
    r"|[-–—:]\s*(?:this is\s+)?(?:correct|right|true)\b(?!\s+(?:that|but|about))))",
    re.MULTILINE | re.IGNORECASE,
)

# Sentences whose words before a statement take it back.
_TAKEN_BACK = re.compile(
    r"\b(?:incorrect|wrong|mistake|mistaken|mistakenly|erroneous|erroneously|thought|initially|originally|previously|"
    r"at first|my first|guessed|tempting|tempted|trap|distractors?|eliminated?|rule[sd]? out|reject(?:ed)?|false|"
    r"not|never|cannot|isn't|wasn't|aren't|doesn't|can't|unless|whether|suppose|possible|"
    r"some (?:might|may|would|people)|"
    r"(?:one|you|students?|people|many) (?:might|may|could|would)?\s*(?:think|say|argue|answer|choose|believe)|"
    r"supposed|alleged|example|e\.g\.|format|instructed|asked)\b|n't\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\b(?:if|had|were|unless|suppose|supposing|assuming|otherwise)\b", re.IGNORECASE)
_MODAL = re.compile(r"\b(?:would|could|might|may|can)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?。！？](?=\s|$)|\n|;|(?<=[。！？])")
_CLAUSE = re.compile(r"[,:—(]|\b(?:so|therefore|thus|hence|but|and|then|because|since)\b", re.IGNORECASE)
_FORMULA = re.compile(r"\s*[=<>+*/^_|]|\s+-\s")
_OPTION_LINE = re.compile(
    rf"[ \t>•∴⇒⟹→=-]*(?P<word>{_OPTION_WORD}\s*:?\s*)?[(\[{{<【（「]*(?P<letter>[A-Za-z])"
    r"(?P<mark>[)\]}>】）」.:、]*)(?![A-Za-z0-9_^'])(?P<rest>.*)",
    re.IGNORECASE,
)
# The last statement counts, and what goes on for longer behind it is no reply.
_MAX_LENGTH = 30_000
_BOX_START, _BOX_END = "\ue000", "\ue001"
_MARKED_BOX = re.compile(f"{_BOX_START}(?P<letters>[A-Z]*){_BOX_END}")


@dataclass(frozen=True)
class _Statement:
    """What is said at a place: one letter, or several, which is no answer; weak ones count where no other is."""

    start: int
    end: int
    letters: frozenset[str]
    weak: bool = False


def choice_letter(conclusion: str, letters: str) -> str | None:
    """
    The letter of the option that a reply (what follows the thought) chooses in its last clear statement; `None` where
    it makes none, or where the last one names several letters. The options' `letters` are upper case.
    """
    text = plain_text(_mark_boxes(plain_characters(conclusion[-_MAX_LENGTH:]), letters))
    named = _strongest(text, letters)
    return next(iter(named)) if named is not None and len(named) == 1 else None


def _strongest(text: str, letters: str) -> frozenset[str] | None:
    """The letters that count in plain text: those of the last statement, or those that all weak ones name."""
    found = [said for said in _statements(text, letters) if said.letters and said.letters != frozenset(letters)]
    strong = [statement for statement in found if not statement.weak]
    if strong:
        return max(strong, key=lambda statement: (statement.end, len(statement.letters))).letters
    weak = frozenset().union(*(statement.letters for statement in found))
    if len(weak) > 1:
        last_paragraph = text.rstrip().rfind("\n\n")
        weak = frozenset().union(*(statement.letters for statement in found if statement.start > last_paragraph))
    return weak or None


def _mark_boxes(text: str, letters: str) -> str:
    """The text with a mark and the letters in place of each box; what else is in boxes is no letter of an option."""
    parts, position = [], 0
    while box := _BOX.search(text, position):
        end = box.end() - 1 if box["bare"] else closing_brace(text, box.end() - 1)
        if end is None:
            break
        content = box["bare"] or text[box.end() : end]
        parts += [text[position : box.start()], _BOX_START, *sorted(_letters_in_box(content, letters)), _BOX_END]
        position = end + 1
    return "".join([*parts, text[position:]])


def _letters_in_box(content: str, letters: str) -> frozenset[str]:
    text = plain_text(content).strip()
    if re.fullmatch(rf"[{letters}]{{2,}}", text):
        return frozenset(text)
    option = _read_option(text, 0, letters)
    if option is not None and not _FORMULA.match(text, option.end):
        return option.letters
    stated = _strongest(text, letters)
    return stated if stated is not None else frozenset()


def _read_option(text: str, position: int, letters: str) -> _Statement | None:
    """The option, or the several ones, named at a place in plain text."""
    lead = _LEAD.match(text, position).end()
    match = _LETTER.match(text, lead)
    if match is None or match["letter"].upper() not in letters:
        return None
    letter, end = match["letter"], match.end()
    wrapped = any(character in _OPENERS for character in match[0]) and text[end : end + 1] in tuple(_CLOSERS)
    if wrapped:
        if re.match(r".(?:\s*[=<>+*/^_]|[A-Za-z0-9])", text[end : end + 8]):
            return None
    elif letter.islower():
        # At the very end, behind a word, "a" may be an article that was cut off from its noun.
        cut_off = letter == "a" and not text[end:].strip() and text[: match.start("letter")].rstrip()[-1:].isalpha()
        if cut_off or not re.match(_END, text[end:]):
            return None
    elif not _GOES_ON.match(text, end) and not (letter != "A" and _OPTION_TEXT.match(text, end)):
        return None
    end += wrapped
    named = {letter.upper()}
    while more := _MORE.match(text, end):
        other = more["loose"] or more["strict"]
        if other not in letters:
            break
        named.add(other)
        end = more.end()
    return _Statement(position, end, frozenset(named))


def _statements(text: str, letters: str) -> Iterator[_Statement]:
    """Whatever the text says about the answer, in no order."""
    yield from _boxed(text, letters)
    for pattern in _BEFORE_OPTIONS:
        for anchor in pattern.finditer(text):
            option = _read_option(text, anchor.end(), letters)
            if option is None and pattern is _STATED:
                option = _named_in_brackets(text, anchor.end(), letters)
            repeated = pattern is _HEADED and _begins_list(text, anchor.end(), letters)
            if option is not None and not repeated and _is_meant(text, anchor, option.end):
                yield replace(option, start=anchor.start(), weak=pattern is _WEAKLY_STATED)
    for pattern in (_CALLED_CORRECT, _CORRECT_ELSEWHERE):
        for match in pattern.finditer(text):
            if match["letter"] in letters and _is_meant(text, match, match.end()):
                weak = pattern is _CALLED_CORRECT and not (match["word"] or match["noun"])
                yield _Statement(match.start(), match.end(), frozenset(match["letter"]), weak)
    for match in _ALL_CORRECT.finditer(text):
        yield _Statement(match.start(), match.end(), frozenset((match["one"], match["two"])) & frozenset(letters))
    for match in _MARKED.finditer(text):
        if match["letter"] in letters:
            yield _Statement(match.start(), match.end(), frozenset(match["letter"]), weak=True)
    yield from _lone_lines(text, letters)


def _boxed(text: str, letters: str) -> Iterator[_Statement]:
    last: _Statement | None = None
    for box in _MARKED_BOX.finditer(text):
        if not box["letters"] or re.search(r"(?:\bnot|n't)\s*$", text[max(0, box.start() - 20) : box.start()]):
            last = None
            continue
        named = set(box["letters"])
        if last is not None and _JOINS_BOXES.fullmatch(text, last.end, box.start()):
            named |= last.letters
        more = _MORE.match(text, box.end())
        if more is not None and (more["loose"] or more["strict"]) in letters:
            named.add(more["loose"] or more["strict"])
        last = _Statement(box.start(), box.end(), frozenset(named))
        yield last


def _named_in_brackets(text: str, position: int, letters: str) -> _Statement | None:
    """The letter in brackets behind an answer that is given in other words: "the answer is 5 m/s (B)"."""
    end = _sentence_end(text, position)
    named = re.findall(rf"[(\[](?:i\.e\.,?\s*)?(?:{_OPTION_WORD}\s*)?([{letters}])[)\]]", text[position:end])
    return _Statement(position, end, frozenset(named)) if len(set(named)) == 1 else None


def _is_meant(text: str, anchor: re.Match[str], end: int) -> bool:
    """Whether a statement is no question, no condition, and not taken back by the words around it."""
    reach = max(0, anchor.start() - 500)
    start = max((match.end() for match in _SENTENCE_END.finditer(text, reach, anchor.start())), default=reach)
    before, after = text[start : anchor.start()], text[end : _sentence_end(text, end)]
    if text[_sentence_end(text, end) :][:1] == "?":
        return False
    middle = anchor.groupdict().get("middle") or ""
    if re.search(r"(?<!\w)[A-Z](?!\w)|\b(?:choices|options|could|might|may|can)\b", middle):
        return False
    clause = _CLAUSE.split(before)[-1]
    if _TAKEN_BACK.search(clause) or _TAKEN_BACK.search(middle):
        return False
    if re.match(r"\s*(?:is|was|are)\s+(?:not|in?correct|wrong|false)\b", after):
        return False
    return not (_MODAL.search(anchor[0]) and (_CONDITION.search(before) or _CONDITION.search(after)))


def _sentence_end(text: str, position: int) -> int:
    reach = min(len(text), position + 500)
    match = _SENTENCE_END.search(text, position, reach)
    return match.start() if match else reach


def _begins_list(text: str, position: int, letters: str) -> bool:
    """Whether lines of other options follow the one at a place: the options are repeated."""
    lines = [line for line in text[position:].splitlines()[1:] if line.strip()][:1]
    return any(_line_option(line, letters) is not None for line in lines)


def _line_option(line: str, letters: str) -> tuple[str, bool] | None:
    """The letter that a line begins with, and whether nothing follows it."""
    match = _OPTION_LINE.match(line)
    if match is None or match["letter"].upper() not in letters:
        return None
    rest = match["rest"].strip()
    if not rest.strip(" .!)]}✓✔✅☑"):
        return match["letter"].upper(), True
    labelled = match["letter"].isupper() and match["mark"]
    return (match["letter"].upper(), False) if labelled else None


def _lone_lines(text: str, letters: str) -> Iterator[_Statement]:
    """A letter alone on the last line; one with its option's text there, or on the first line, where no list is."""
    lines = [(match.start(), match.end(), match[0]) for match in re.finditer(r"[^\n]*\S[^\n]*", text)]
    options = [(start, end, _line_option(line, letters)) for start, end, line in lines]
    for index in {0, len(options) - 1} if options else ():
        start, end, option = options[index]
        if option is None:
            continue
        letter, alone = option
        last = index == len(options) - 1
        neighbours = options[:index][::-1] if last else options[1:]
        run = [other[0] for _, _, other in itertools.takewhile(lambda line: line[2] is not None, neighbours)]
        if not run or (last and (letter in run or alone)) or set(run) == {letter}:
            yield _Statement(start, end, frozenset(letter), weak=not (last and alone))
