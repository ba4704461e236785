"""The code blocks of a reply, as CommonMark has them, and as models write them."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

# A fence may stand in a list or a quotation, or behind words: "The program: ```python".
_FENCE = re.compile(r"(?P<before>(?:[ \t]|>|[-*+][ \t]|\d+[.)][ \t])*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")
_FENCE_BEHIND_WORDS = re.compile(r"[^`]*\S[ \t]*(?P<fence>```+)[ \t]*(?P<info>(?:python|py)3?)[ \t]*$", re.IGNORECASE)
_PYTHON = re.compile(
    r"\{?\.?(?:python|py|pypy|ipython|cpython|sage)[ ]?[23]?(?:\.\d+)*(?:$|[\s:,;{}=(#])|\S+\.py\b", re.IGNORECASE
)
_UNMARKED = re.compile(r"\{?\.?(?:text|txt|plaintext|plain|code|none|markdown|md|answer|solution)?\}?$", re.IGNORECASE)
_LANGUAGE_LINE = re.compile(r"(?:python|py)[23]?\s*$", re.IGNORECASE)
_LANGUAGES = re.compile(
    r"(?:text|txt|plaintext|code|markdown|md|bash|sh|shell|zsh|console|output|input|json|yaml|c|cpp|c\+\+|java|javascript|js|"
    r"typescript|ts|go|rust|ruby|r|sql|html|css|latex|diff|pycon|python-repl)$",
    re.IGNORECASE,
)
_MAX_DEPTH = 4  # of blocks in blocks
# What CodeLlama's and MBPP's own prompts ask for in place of fences.
_BRACKETS = re.compile(
    r"^[ \t]*\[(PYTHON|BEGIN)\][ \t]*\n(.*?)(?:^[ \t]*\[(?:/PYTHON|DONE)\]|\Z)", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class CodeBlock:
    """
    Lines of code, each with an end and without the indentation of the fence; `marked` if the fence says Python rather
    than nothing (blocks in other languages are left out), `closed` if there is a fence behind them.
    """

    code: str
    marked: bool
    closed: bool


def code_blocks(text: str) -> list[CodeBlock]:
    """
    Blocks that are or may be Python, in their order.

    Fences are CommonMark's (three or more backticks or tildes; closed by as many of the same, indented by up to three
    spaces more), and these besides: one that opens behind words or closes before words or behind code, any line end,
    a block in a block of Markdown, an opening fence where the last block was never closed.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    blocks = list(_fenced(lines))
    if not blocks:
        blocks = [CodeBlock(match[2], True, True) for match in _BRACKETS.finditer("\n".join(lines))]
    return blocks


def _fenced(lines: list[str], depth: int = 0) -> Iterator[CodeBlock]:
    position = 0
    while position < len(lines):
        opening = _FENCE.match(lines[position]) or _FENCE_BEHIND_WORDS.match(lines[position])
        position += 1
        if opening is None:
            continue
        info = opening["info"].strip()
        before = opening.groupdict().get("before") or ""
        marked, unmarked = bool(_PYTHON.match(info)), bool(_UNMARKED.match(info))
        end, rest, closed = _closing(lines, position, opening["fence"], len(before), marked)
        content = lines[position:end]
        if ">" in before:
            content = [line.removeprefix(">").removeprefix(" ") for line in content]
        inner = [] if marked or depth == _MAX_DEPTH else list(_fenced(content, depth + 1))
        if inner:
            yield from inner
        elif marked or unmarked:
            content = [*content, *rest]
            if not marked and content and _LANGUAGE_LINE.match(content[0]):
                content, marked = content[1:], True
            yield CodeBlock(_without_indentation(content, len(before)), marked, closed)
        position = end + 1 if closed else end


def _closing(lines: list[str], start: int, fence: str, indentation: int, marked: bool) -> tuple[int, list[str], bool]:
    """The line of the closing fence, the code that stands before the fence on it, and whether there is one."""
    own = re.compile(rf"[ \t>]{{0,{indentation + 3}}}{re.escape(fence[0])}{{{len(fence)},}}(?P<words>.*)")
    depth = 0
    for number in range(start, len(lines)):
        line = lines[number]
        match = own.match(line)
        if match is None:
            code, mark, behind = line.strip().partition(fence)
            if marked and mark and code and not behind and '"' not in code and "'" not in code:
                return number, [line.rstrip().removesuffix(fence)], True
            continue
        words = match["words"].strip()
        opens = bool(words) and bool(_PYTHON.match(words) or _LANGUAGES.match(words))
        if not opens and depth == 0:
            return number, [], True
        if opens and marked:
            return number, [], False  # the next block begins, and this one was never closed
        depth += 1 if opens else -1
    if len(fence) > 3:  # closed by fewer than it was opened with
        return _closing(lines, start, fence[:3], indentation, marked)
    return len(lines), [], False


def _without_indentation(lines: list[str], indentation: int) -> str:
    width = min(indentation, *(len(line) - len(line.lstrip(" \t")) for line in lines if line.strip()), 10**6)
    code = "".join(f"{line[width:] if line.strip() else ''}\n" for line in lines)
    return code if re.search(r"^\S", code, re.MULTILINE) else textwrap.dedent(code)
