"""
The program that a reply gives: the last whole one in Python, and not a sample of its output, its use or its parts.

Replies are parsed, and never run here.
"""

import ast
import builtins
import re
import textwrap
import warnings
from collections.abc import Collection
from dataclasses import dataclass

from .code_blocks import CodeBlock, code_blocks

_READS = frozenset({"input", "stdin", "fileinput", "raw_input"})
_PRINTS = frozenset({"print", "stdout", "write", "writelines"})
_BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__", "__annotations__"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_VALUES = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.UnaryOp)
_BEGINS_CODE = re.compile(
    r"(?:import|from|def|class|async def|@|if __name__|[A-Za-z_][\w, ]*=(?!=)|print\(|for .*:$|while .*:$)"
)
# A line of words behind code: three words or more, a heading, or another script.
_WORDS = re.compile(
    r"\s*(?:[-*>\d.]+ )*(?:\*\*|</?\w+>|[A-Z][\w'’]*(?:[,:]? +[\w'’`\"*(]\S*){2,}|[^\x00-\x7f]|[A-Z]\w*[.:!]$)"
)
_SKETCH = re.compile(r"^[ \t]*(?:def|class)[ \t]+\w+|\binput[ \t]*\(|\bstdin\b", re.MULTILINE)
_FILE_NAME = "<reply>"
# Parsing may warn about what is in a reply (an invalid escape); that is the model's matter.
warnings.filterwarnings("ignore", category=SyntaxWarning, module=re.escape(_FILE_NAME))
warnings.filterwarnings("ignore", category=DeprecationWarning, module=re.escape(_FILE_NAME))


@dataclass(frozen=True)
class _Candidate:
    """
    A block that parses, and what can be said of it without running it.

    Attributes:
        functions: that it defines, at the top level or as methods, and names bound at the top level.
        defines: names bound at the top level.
        missing: names that it uses and never binds.
        definitions: it has functions or classes.
        reads, prints: its input is asked for somewhere; something is printed somewhere.
        acts: statements at the top level read, print, or call what is defined here or before.
    """

    code: str
    functions: frozenset[str]
    defines: frozenset[str]
    missing: frozenset[str]
    definitions: bool
    reads: bool
    prints: bool
    acts: bool


def program(conclusion: str, functions: Collection[str] = ()) -> str | None:
    """
    The program of a reply, what follows the thought: of the blocks that are Python (code_blocks.py), the last that is
    a whole program. `None` where there is none.

    - A whole program defines one of `functions`, the names that the tests call, or, where none are given, reads,
      prints and does both by itself, or at least defines something. Values, printed results and lone calls count only
      where nothing else is there.
    - Blocks that show lines of an earlier one again, or only use what earlier ones define, are explanations and usage.
      What a block needs of those before it is put before it.
    - A last program that is broken, or was cut off, is the reply's program, and no draft before it.
    - Without any fence, lines that are Python count as a block.
    """
    blocks = code_blocks(conclusion) or _unfenced(conclusion)
    candidates: list[_Candidate] = []
    broken: tuple[int, str] | None = None  # with the number of candidates before it
    for block in blocks:
        code, tree = (block.code, _parse(block.code)) if block.closed else _before_words(block.code)[:2]
        if tree is not None:
            candidates.append(_candidate(code, tree))
        elif (
            (block.marked or not block.closed)
            and _is_sketch(code, functions)
            and not any(_repeats(code, c.code) for c in candidates)
        ):
            broken = len(candidates), code
    best = _best(candidates, functions)
    if broken is not None and (best is None or broken[0] > best[0]):
        return broken[1]
    if best is not None:
        return best[1]
    return next((block.code for block in reversed(blocks) if block.marked and _is_code(block.code)), None)


def called_names(code: str) -> frozenset[str]:
    """Names that trusted statements use and do not bind: what a program has to define for them."""
    return _candidate(code, ast.parse(code)).missing


def _best(candidates: list[_Candidate], functions: Collection[str]) -> tuple[int, str] | None:
    """Place and code of the last candidate of the highest rank, with what it needs of those before it."""
    ranked: list[tuple[int, int, str]] = []
    for place, candidate in enumerate(candidates):
        earlier = candidates[:place]
        rank = _rank(candidate, earlier, functions)
        if 0 < rank < 3 and any(_repeats(candidate.code, other.code) for other in earlier):
            rank = 0
        if rank:
            parts = [*_needed(candidate, earlier), candidate]
            ranked.append((rank, place, "\n".join(part.code for part in parts)))
    if not ranked:
        return None
    _, place, code = max(ranked, key=lambda item: item[:2])
    return place, code


def _rank(candidate: _Candidate, earlier: list[_Candidate], functions: Collection[str]) -> int:
    """3: a whole program. 2, 1: what may be one. 0: no program."""
    users_of = [other for other in earlier if not other.defines.isdisjoint(candidate.missing)]
    if functions:
        if not candidate.functions.isdisjoint(functions):
            return 3
        return 1 if candidate.definitions and not users_of else 0
    if users_of:
        # The end of a program in parts, if the parts read and do nothing by themselves; else it shows their use.
        reads = candidate.reads or any(other.reads for other in users_of)
        return 3 if reads and candidate.acts and not any(other.reads and other.acts for other in users_of) else 0
    if candidate.acts and candidate.reads and candidate.prints:
        return 3
    return 2 if candidate.definitions else 1 if candidate.acts and candidate.prints else 0


def _needed(candidate: _Candidate, earlier: list[_Candidate]) -> list[_Candidate]:
    """The earlier blocks that define what the candidate uses, and what those use, in their order."""
    missing, parts = candidate.missing, []
    for other in reversed(earlier):
        if not other.defines.isdisjoint(missing):
            parts.append(other)
            missing = (missing - other.defines) | other.missing
    return parts[::-1]


def _candidate(code: str, tree: ast.Module) -> _Candidate:
    nodes = list(ast.walk(tree))
    bound = {name for node in nodes for name in _bound(node)}
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    missing = frozenset() if "*" in bound else frozenset(loaded - bound - _BUILTINS)
    defines = {name for statement in tree.body for name in _bound_at_top(statement)}
    classes = [statement for statement in tree.body if isinstance(statement, ast.ClassDef)]
    methods = {node.name for owner in classes for node in owner.body if isinstance(node, _FUNCTIONS)}
    own = {statement.name for statement in tree.body if isinstance(statement, _DEFINITIONS)}
    actions = [node for node in tree.body if not isinstance(node, (*_DEFINITIONS, *_IMPORTS)) and _calls(node)]
    opened = any(map(_opens_standard_input, nodes))
    used = {name for statement in actions for node in ast.walk(statement) for name in _used(node)}
    everywhere = {name for node in nodes for name in _used(node)}
    return _Candidate(
        code,
        functions=frozenset(defines | methods),
        defines=frozenset(defines),
        missing=missing,
        definitions=bool(own),
        reads=opened or not everywhere.isdisjoint(_READS),
        prints=not everywhere.isdisjoint(_PRINTS),
        acts=not used.isdisjoint(own | missing | _READS | _PRINTS) or any(map(_opens_standard_input, actions)),
    )


def _bound(node: ast.AST) -> list[str]:
    """Names that a node binds, in whatever scope."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [alias.asname or alias.name.split(".")[0] for alias in aliases]
    return []


def _bound_at_top(statement: ast.stmt) -> list[str]:
    """Names that a statement at the top level binds there."""
    nodes = [statement] if isinstance(statement, (*_DEFINITIONS, *_IMPORTS)) else ast.walk(statement)
    return [name for node in nodes if not isinstance(node, ast.arg) for name in _bound(node)]


def _used(node: ast.AST) -> set[str]:
    return {node.id} if isinstance(node, ast.Name) else {node.attr} if isinstance(node, ast.Attribute) else set()


def _calls(statement: ast.AST) -> bool:
    return any(isinstance(node, ast.Call) for node in ast.walk(statement))


def _opens_standard_input(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="open") | ast.Attribute(attr="open" | "read" | "fdopen"), args=[first, *_]):
            return isinstance(first, ast.Constant) and first.value in (0, "/dev/stdin")
    return False


def _repeats(code: str, earlier: str) -> bool:
    """Whether code shows lines of earlier code again, to explain them."""
    lines, there = _code_lines(code), _code_lines(earlier)
    return len(lines) < len(there) and set(lines) <= set(there)


def _code_lines(code: str) -> list[str]:
    return [line.strip() for line in code.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _is_sketch(code: str, functions: Collection[str]) -> bool:
    """Whether code that does not parse was to be a program, and no session, call or outline."""
    if code.lstrip().startswith((">>>", "$ ")) or "..." in code:
        return False
    if functions:
        return any(re.search(rf"\bdef[ \t]+{re.escape(name)}\b", code) for name in functions)
    return _SKETCH.search(code) is not None


def _is_code(code: str) -> bool:
    """Whether a block, where there is nothing better, holds more than values and remarks."""
    tree = _parse(code)
    return bool(_code_lines(code)) and not (
        tree is not None and all(isinstance(node, ast.Expr) and isinstance(node.value, _VALUES) for node in tree.body)
    )


def _parse(code: str) -> ast.Module | None:
    try:
        return ast.parse(code, _FILE_NAME)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _before_words(code: str) -> tuple[str, ast.Module | None, int]:
    """
    Code without the words that follow it where the fence is missing, and how many lines were looked at. Code that was
    cut off does not parse.
    """
    code = code.rstrip() + "\n"
    lines = code.splitlines()
    while lines:
        source = "\n".join(lines).rstrip() + "\n"
        try:
            return source, ast.parse(source, _FILE_NAME), len(lines)
        except SyntaxError as error:
            place = error.lineno or 0
            if not 0 < place <= len(lines) or not _WORDS.match(lines[place - 1]):
                return code, None, place
            lines = lines[: place - 1]
        except (ValueError, RecursionError, MemoryError):
            return code, None, len(lines)
    return code, None, 0


def _unfenced(text: str) -> list[CodeBlock]:
    """Lines of a reply without fences that are Python: from one that begins code to the words behind it."""
    lines = textwrap.dedent(text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
    blocks, number = [], 0
    while number < len(lines):
        if _BEGINS_CODE.match(lines[number]):
            code, tree, seen = _before_words("\n".join(lines[number:]))
            if tree is not None and (_calls(tree) or any(isinstance(node, _DEFINITIONS) for node in tree.body)):
                blocks.append(CodeBlock(code, marked=True, closed=True))
            number += max(seen - 1, 0)
        number += 1
    return blocks
