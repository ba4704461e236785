"""`repro-trl inspect`: shows which steps of a thought helped, for any model, in one HTML file."""

import argparse
import importlib.util
import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from datasets import load_dataset
from tqdm import tqdm

from ..demo import ANSWER_PREFIX, PROBLEMS_FILE
from ..messages import Messages, prompt_text
from ..traces import Trace, is_trace_file, make_trace, read_traces, write_traces
from .page import write_page
from .rows import (
    AnswerBook,
    Columns,
    Refusal,
    Row,
    check_row,
    groups,
    has_completions,
    parse_line,
)
from .score_command import add_row_arguments, columns_from_arguments
from .scorer import CompletionScorer, add_scoring_arguments, scorer_from_arguments

_DESCRIPTION = """
Takes completions that a file holds, or else samples some for its problems, scores them with the model, and writes a
page that needs no network: each thought by segment, coloured by process reward, with the advantage of every token.
Files may be jsonl, the parquet files of TRL's logged completions, or trace files, which are shown as they are. Without
a source the problems are those of the embedded model, which is asked for its answers as in its training recipe, with
--repro_answer_prefix $'</think>\\n\\n'.
"""
_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
# Columns of TRL's completions table that are no reward.
_NO_REWARDS = {"step", "advantage"}
_DEFAULT_LIMIT = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{parser.description} {_DESCRIPTION}"
    parser.add_argument(
        "source", nargs="*", help="Files of traces, completions or problems, or one dataset on the Hub."
    )
    parser.add_argument(
        "--output", type=Path, default=Path("traces.html"), help="Page to write. Default: %(default)s."
    )
    parser.add_argument("--png", type=Path, help="Also write a picture of one prompt's completions (extra 'plots').")
    parser.add_argument("--png_prompt", type=int, default=1, metavar="N", help="Which prompt. Default: the first.")
    parser.add_argument("--traces", type=Path, help="Also write a trace file.")
    parser.add_argument("--title", help="Of the page. Default: what was inspected.")
    parser.add_argument("--problem", action="append", default=[], help="A problem typed in; may be repeated.")
    parser.add_argument("--answer", action="append", default=[], help="Its ground truth; one for each --problem.")
    parser.add_argument(
        "--answers_from", type=Path, metavar="FILE", help="jsonl or parquet file of problems, for completions without."
    )
    parser.add_argument("--split", default="train", help="Of a dataset on the Hub. Default: %(default)s.")
    parser.add_argument(
        "--limit", type=int, help=f"Prompts to take. Default: {_DEFAULT_LIMIT} to sample for, else all."
    )
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--sample", action="store_true", help="Sample even where the source has completions.")
    sampling.add_argument("--num_generations", type=int, default=4, help="For each problem. Default: %(default)s.")
    sampling.add_argument("--max_completion_length", type=int, default=1024, help="Tokens. Default: %(default)s.")
    sampling.add_argument("--top_p", type=float, default=1.0, help="Default: %(default)s.")
    sampling.add_argument("--seed", type=int, default=0, help="Default: %(default)s.")
    sampling.add_argument(
        "--instruction",
        help=f"Put after problems that are plain text. Default: {_INSTRUCTION!r}; nothing for the embedded model.",
    )
    add_row_arguments(parser)
    add_scoring_arguments(parser)
    parser.set_defaults(repro_answer_prefix=None)


def run(arguments: argparse.Namespace) -> int:
    try:
        traces, refused = _traces(arguments)
        if not traces:
            hint = " Give ground truths with --answers_from where the file has none." if refused else ""
            raise ValueError(f"there is nothing to show: {refused} rows were refused.{hint}")
        prompts = len(_by_prompt(traces))
        if arguments.png and arguments.png_prompt > prompts:
            raise ValueError(f"--png_prompt {arguments.png_prompt}: there are only {prompts} prompts.")
        write_page(arguments.output, traces, arguments.title or _title(arguments))
        if arguments.traces:
            write_traces(arguments.traces, traces)
        if arguments.png:
            from .picture import write_picture

            write_picture(arguments.png, _by_prompt(traces)[arguments.png_prompt - 1])
    except (ValueError, OSError) as error:
        print(f"repro-trl inspect: {error}", file=sys.stderr)
        return 2
    print(f"{len(traces)} completions of {prompts} prompts in {arguments.output}.")
    return 1 if refused else 0


def _traces(arguments: argparse.Namespace) -> tuple[list[Trace], int]:
    """What to show, and how many rows were refused."""
    _check_arguments(arguments)
    if _are_trace_files(arguments.source):
        traces = [trace for file in arguments.source for trace in read_traces(file)]
        return [trace for members in _by_prompt(traces)[: arguments.limit] for trace in members], 0
    if arguments.repro_answer_prefix is None:
        arguments.repro_answer_prefix = "" if arguments.model else ANSWER_PREFIX
    scorer = scorer_from_arguments(arguments)
    source = _Source(arguments)
    traces = []
    with tqdm(desc="inspect", unit=" prompts") as progress:
        for number, (rows, is_problem, name) in enumerate(source.groups(), start=1):
            prompt = _prompt(arguments, scorer, rows[0].prompt, is_problem)
            problem = scorer.prompt_problem(prompt)
            if problem:
                for row in rows:
                    source.refuse(Refusal(row.number, problem), name)
                continue
            traces += _inspect(arguments, scorer, prompt, rows, number)
            progress.update()
    return traces, source.refused


def _check_arguments(arguments: argparse.Namespace) -> None:
    if len(arguments.problem) != len(arguments.answer):
        raise ValueError(
            f"{len(arguments.problem)} --problem and {len(arguments.answer)} --answer: give one for each."
        )
    for name in ("num_generations", "max_completion_length", "limit", "png_prompt"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: give an integer >= 1.")
    if not 0 < arguments.top_p <= 1:
        raise ValueError(f"--top_p {arguments.top_p}: give a number in (0, 1].")
    if arguments.png and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--png needs matplotlib: pip install 'repro-trl[plots]'.")


def _are_trace_files(sources: list[str]) -> bool:
    files = [Path(name) for name in sources]
    return bool(files) and all(f.is_file() and f.suffix != ".parquet" and is_trace_file(f) for f in files)


def _title(arguments: argparse.Namespace) -> str:
    names = [Path(name).name for name in arguments.source]
    if len(names) > 2:
        names = [f"{names[0]} … {names[-1]}"]
    problems = ", ".join(names) or ("problems typed in" if arguments.problem else "embedded problems")
    if _are_trace_files(arguments.source):
        return f"Traces of {problems}"
    return f"{arguments.model or 'Embedded model'} on {problems}"


def _by_prompt(traces: list[Trace]) -> list[list[Trace]]:
    """Traces that follow each other and belong to one prompt, as the page groups them."""
    return [list(members) for _, members in itertools.groupby(traces, key=lambda trace: (trace.group, trace.prompt))]


# ------------------------------------------------------------------------------------------------------------- reading


class _Source:
    """The rows that are asked for, by prompt; those that cannot be read are reported and counted."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._columns = columns_from_arguments(arguments)
        self._answers: AnswerBook | None = None
        self.refused = 0
        if arguments.answers_from:
            # Only the problems' own columns are known by name: the given ones are those of the completions.
            records = self._rows(_read_file(arguments.answers_from), arguments.answers_from, Columns(), False, None)
            self._answers = AnswerBook(records)

    def groups(self) -> Iterator[tuple[list[Row], bool, str]]:
        """The rows of each prompt, whether a text prompt is a problem to be put as a message, and the source."""
        for problem, answer in zip(self._arguments.problem, self._arguments.answer, strict=True):
            row = check_row(1, {"prompt": problem, "answer": answer}, Columns(), with_completions=False)
            if isinstance(row, Refusal):
                raise ValueError(f"--problem {problem!r}: {row.reason}")
            yield [row], True, "--problem"
        names = self._arguments.source
        if not names and not self._arguments.problem:
            names = [str(PROBLEMS_FILE)]
        limit, num_given, num_sampled = self._arguments.limit, 0, 0
        for name in names:
            for group, given in self._groups_of(name):
                num_given, num_sampled = num_given + given, num_sampled + (not given)
                if limit is None and num_sampled > _DEFAULT_LIMIT:
                    break
                if limit is not None and num_given + num_sampled > limit:
                    return
                yield group, not given, name

    def _groups_of(self, name: str) -> Iterator[tuple[list[Row], bool]]:
        """The rows of each prompt in one source, and whether they come with completions."""
        records = _read_file(Path(name)) if Path(name).suffix in _READERS else self._read_hub(name)
        # Some rows tell what the source is, for the first ones may be broken.
        head = list(itertools.islice(records, 20))
        if not head:
            raise ValueError(f"{name} holds no rows.")
        given = not self._arguments.sample and any(has_completions(record, self._columns) for _, record in head)
        rows = self._rows(itertools.chain(head, records), name, self._columns, given, self._answers)
        yield from ((group, given) for group in (groups(rows) if given else ([row] for row in rows)))

    def _rows(
        self,
        records: Iterable[tuple[int, Any]],
        name: str | Path,
        columns: Columns,
        with_completions: bool,
        answers: AnswerBook | None,
    ) -> Iterator[Row]:
        for number, record in records:
            options = {"with_completions": with_completions, "answers": answers}
            parse = parse_line if isinstance(record, bytes) else check_row
            row = parse(number, record, columns, **options)
            if isinstance(row, Refusal):
                self.refuse(row, name)
            elif row is not None:
                yield row

    def refuse(self, refusal: Refusal, name: str | Path) -> None:
        """Report a row that is left out."""
        self.refused += 1
        tqdm.write(f"{name}, {refusal}", file=sys.stderr)

    def _read_hub(self, name: str) -> Iterator[tuple[int, Any]]:
        if Path(name).suffix or Path(name).exists():
            raise ValueError(f"{name}: give a file that ends in {', '.join(_READERS)}, or a dataset on the Hub.")
        return enumerate(iter(load_dataset(name, split=self._arguments.split, streaming=True)), start=1)


def _read_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    with open(file, "rb") as lines:
        yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _read_parquet(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        batches = pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=256)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{file}: not a parquet file ({error}).") from error
    yield from enumerate((record for batch in batches for record in batch.to_pylist()), start=1)


def _read_json(file: Path) -> Iterator[tuple[int, Any]]:
    records = json.loads(file.read_bytes())
    if not isinstance(records, list):
        raise ValueError(f"{file}: a json file must hold a list of rows. One object a line is a jsonl file.")
    yield from enumerate(records, start=1)


_READERS = {".jsonl": _read_lines, ".json": _read_json, ".parquet": _read_parquet}


def _read_file(file: Path) -> Iterator[tuple[int, Any]]:
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file.")
    if file.suffix not in _READERS:
        raise ValueError(f"{file}: give a file that ends in {', '.join(_READERS)}.")
    return _READERS[file.suffix](file)


# ------------------------------------------------------------------------------------------------ sampling and scoring


def _inspect(
    arguments: argparse.Namespace, scorer: CompletionScorer, prompt: str | Messages, rows: list[Row], number: int
) -> list[Trace]:
    """The completions of one prompt, given or sampled, as traces."""
    prompt_ids = scorer.encode_prompt(prompt)
    if rows[0].completions:
        completions = [scorer.encode_completion(text) for row in rows for text in row.completions]
        answers = [row.answer for row in rows for _ in row.completions]
        more = [_logged(row) for row in rows for _ in row.completions]
    else:
        torch.manual_seed(arguments.seed + number)
        completions, truncated = _sample(arguments, scorer, prompt_ids)
        answers = [rows[0].answer] * len(completions)
        more = [{"truncated": cut} for cut in truncated]
    group = scorer.score(prompt_ids, completions, answers)
    return [
        make_trace(
            scorer.tokenizer,
            scorer.settings,
            group.scored,
            index,
            ids,
            answers[index],
            group=str(number),
            prompt=prompt_text(prompt),
            **more[index],
        )
        for index, ids in enumerate(completions)
    ]


def _prompt(
    arguments: argparse.Namespace, scorer: CompletionScorer, prompt: str | Messages, is_problem: bool
) -> str | Messages:
    """A row's prompt as it is put to the model."""
    if not isinstance(prompt, str) or not (is_problem or arguments.as_user_message):
        return prompt
    instruction = ""
    if is_problem:
        instruction = arguments.instruction
        if instruction is None:
            instruction = _INSTRUCTION if arguments.model else ""
    text = f"{prompt}\n\n{instruction}" if instruction else prompt
    if scorer.tokenizer.chat_template is None:  # a base model continues plain text
        return f"{text}\n\n"
    return [{"role": "user", "content": text}]


def _logged(row: Row) -> dict[str, Any]:
    """Rewards and step, where the row is one of TRL's completions table."""
    record = row.record
    if not _NO_REWARDS <= record.keys():
        return {}
    rewards = {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in record.items()
        if isinstance(value, (int, float)) and name not in _NO_REWARDS and not name.startswith("repro_")
    }
    return {"rewards": rewards, "step": record["step"]}


@torch.no_grad()
def _sample(
    arguments: argparse.Namespace, scorer: CompletionScorer, prompt_ids: list[int]
) -> tuple[list[list[int]], list[bool]]:
    """Completions of one prompt as token ids, and whether each was cut off."""
    model, tokenizer = scorer.model, scorer.tokenizer
    inputs = torch.tensor([prompt_ids], device=model.device)
    ends = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    output = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        do_sample=True,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        top_k=0,
        num_return_sequences=arguments.num_generations,
        max_new_tokens=arguments.max_completion_length,
        eos_token_id=sorted(ends) or None,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends, default=0),
    )
    completions, truncated = [], []
    for ids in output[:, len(prompt_ids) :].tolist():
        length = next((place + 1 for place, token in enumerate(ids) if token in ends), None)
        completions.append(ids[:length])
        truncated.append(length is None)
    return completions, truncated
