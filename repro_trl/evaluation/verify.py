"""
Verdicts on completions, by helper processes that are killed when they take too long.

A timeout or a failure of the verifier is an outcome of its own: it counts as wrong, and is counted.
"""

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, InvalidOperation
from pathlib import Path

from ..thinking import split_thought
from ..verifier import answer_vote
from .choices import choice_letter
from .line_process import LineProcess, NoAnswer, TimeLimit
from .programs import called_names, program
from .records import Sample, Verdict
from .rows import LETTERS, AssertTest, CallTest, ChoiceTarget, InputTest, MathTarget, Problem, ProgramTarget, Test
from .sandbox import Run, Sandbox, SandboxError, usable_isolation

_MATH_WORKER = Path(__file__).with_name("math_worker.py")
_START_SECONDS = 120.0


class Verifier:
    """
    Verifies completions, `workers` at a time; a context manager. Works in any thread and process.

    Args:
        math_seconds: limit for one comparison of answers.
        think_end: text that ends the thought: what follows the first one is verified. `None`: all of the completion.
    """

    def __init__(self, workers: int = 1, math_seconds: float = 10.0, think_end: str | None = "</think>") -> None:
        if workers < 1 or not math_seconds > 0:
            raise ValueError(f"workers={workers} must be at least 1, math_seconds={math_seconds} above 0.")
        self.math_seconds, self.think_end = math_seconds, think_end
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="verifier")
        self._own = threading.local()
        self._math_workers: list[LineProcess] = []

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        for worker in self._math_workers:
            worker.kill()

    def verify(self, problems: Mapping[str, Problem], samples: Iterable[Sample]) -> Iterator[Verdict]:
        """Verdicts in the order of `samples`; a `SandboxError` if there are programs, and no sandbox works here."""
        samples = list(samples)
        if any(isinstance(problems[sample.problem].target, ProgramTarget) for sample in samples):
            usable_isolation()
        return self._threads.map(lambda sample: self._verdict(problems[sample.problem], sample), samples)

    def _verdict(self, problem: Problem, sample: Sample) -> Verdict:
        text = split_thought(sample.completion, self.think_end)[1]
        match problem.target:
            case MathTarget(answer=answer):
                outcome, vote, detail = self._math(text, answer)
            case ChoiceTarget(letter=letter):
                vote, detail = choice_letter(text, LETTERS), ""
                outcome = "no answer" if vote is None else "right" if vote == letter else "wrong"
            case ProgramTarget() as target:
                vote = None
                outcome, detail = verify_program(text, target)
        seconds = self.math_seconds if outcome == "timeout" else None
        return Verdict(sample.problem, sample.sample, outcome, vote, detail, seconds)

    def _math(self, text: str, answer: str) -> tuple[str, str | None, str]:
        if answer_vote(text) is None:
            return "no answer", None, ""  # most thoughts that were cut end here
        worker = self._math_worker()
        try:
            reply = worker.ask({"conclusion": text, "answer": answer}, self.math_seconds)
        except NoAnswer as error:
            self._own.worker = None
            timeout = isinstance(error, TimeLimit)
            return ("timeout" if timeout else "failure"), answer_vote(text), str(error)
        return reply["outcome"], reply["vote"], reply["detail"]

    def _math_worker(self) -> LineProcess:
        """This thread's helper process; a new one after the last was killed."""
        worker = getattr(self._own, "worker", None)
        if worker is None:
            worker = LineProcess([sys.executable, str(_MATH_WORKER)], dict(os.environ))
            self._math_workers.append(worker)
            worker.answer(_START_SECONDS)  # what keeps it from starting would fail every verdict, so it is an error
            self._own.worker = worker
        return worker


def verify_program(text: str, target: ProgramTarget) -> tuple[str, str]:
    """
    Run the program in a conclusion on every test, up to the first that it does not pass. Returns the outcome, "right"
    or "no answer", "wrong", "failure" (of the sandbox) or how the program failed, and one line on it.
    """
    tests = target.load()
    source = program(text, _functions(tests))
    if source is None:
        return "no answer", ""
    try:
        with Sandbox(source, prelude=target.prelude) as sandbox:
            for number, test in enumerate(tests, start=1):
                run, passed = _run(sandbox, test, target.seconds)
                if run.status != "ok":
                    return run.status, f"test {number}: {run.detail}"
                if not passed:
                    return "wrong", f"test {number}"
    except SandboxError as error:
        return "failure", str(error)
    return "right", ""


def _functions(tests: Iterable[Test]) -> frozenset[str]:
    """Names that the tests call, which the prompt gave: the program is what defines them."""
    called = {test.function for test in tests if isinstance(test, CallTest)}
    return frozenset(called).union(*(called_names(test.code) for test in tests if isinstance(test, AssertTest)))


def _run(sandbox: Sandbox, test: Test, seconds: float) -> tuple[Run, bool]:
    """What the program did in a test, and whether that is what it should do."""
    match test:
        case InputTest(input=text, output=output):
            run = sandbox.run("input", seconds, input=text)
            return run, run.status == "ok" and same_output(run.output, output)
        case CallTest(function=function, arguments=arguments, expected=expected):
            run = sandbox.run("call", seconds, function=function, arguments=arguments)
            return run, run.status == "ok" and run.value == expected
        case AssertTest(code=code):
            run = sandbox.run("assert", seconds, code=code)
            return run, run.status == "ok"


def same_output(printed: str, expected: str) -> bool:
    """
    Whether two outputs have the same lines, apart from white space around them; lines of numbers may write them in
    another way (1.0 and 1), with equal values. LiveCodeBench's own rule.
    """
    lines, expected_lines = ([line.strip() for line in text.strip().split("\n")] for text in (printed, expected))
    return len(lines) == len(expected_lines) and all(
        line == other or _same_numbers(line, other) for line, other in zip(lines, expected_lines, strict=True)
    )


def _same_numbers(line: str, other: str) -> bool:
    try:
        return [Decimal(word) for word in line.split()] == [Decimal(word) for word in other.split()]
    except InvalidOperation:
        return False
