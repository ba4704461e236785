"""
The study on a real language model, SmolLM2-135M-Instruct, and simple word problems.

    python study/real/run.py separation          # J of 200 completions, by answer prefix and by what is scored
    python study/real/run.py train               # GRPO, with RePro in the paper's form and with its recipe, two seeds
    python study/real/run.py train --only recipe/0
    python study/real/run.py train --list        # the runs, and which are done

Both begin with a short warm-up of the model on written-out thoughts, once. Stop either at any time: what is measured
or trained stays, and the next start goes on. `--device cuda` runs it on a GPU. Then `study/report.py` makes
the tables. Needs the extra `study`, and `gguf` when the model is made.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[0:1] = [str(ROOT), str(ROOT / "examples")]  # so that `study` and `pocket` are found from anywhere

RESULTS = ROOT / "study" / "results"
SAMPLED_TOGETHER = 5
"""Problems."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    separation = commands.add_parser("separation", help="J of sampled completions, in many forms")
    train = commands.add_parser("train", help="training runs")
    for command, file in ((separation, "real_separation.jsonl"), (train, "real_training.jsonl")):
        command.add_argument("--device", default="cpu", help="cpu, or where the accelerator is (default: %(default)s)")
        command.add_argument("--policy", type=Path, help="another policy to start from; default: one is made")
        command.add_argument("--results", type=Path, default=RESULTS / file, help="default: %(default)s")
    _add_plan(separation, _separation_plan())
    _add_plan(train, _training_plan())
    train.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="default: %(default)s")
    train.add_argument("--only", nargs="+", metavar="CELL", help="runs by name, such as recipe/0")
    train.add_argument("--list", action="store_true", help="name the runs and say which are done")
    options = parser.parse_args(arguments)
    _check_device(options.device, parser)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    (_measure if options.command == "separation" else _train)(options, parser)


def _check_device(device: str, parser: argparse.ArgumentParser) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # torch's, without a GPU or for a name that is none
        parser.error(f"--device {device}: {str(error).splitlines()[0]}")


def _separation_plan() -> Any:
    from study.real.separation import Plan

    return Plan()


def _training_plan() -> Any:
    from study.real.training import Plan

    return Plan()


def _add_plan(command: argparse.ArgumentParser, plan: Any) -> None:
    for name, value in vars(plan).items():
        command.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")


def _plan_of(options: argparse.Namespace, default: Any) -> Any:
    return type(default)(**{name: getattr(options, name) for name in vars(default)})


def _policy(options: argparse.Namespace) -> Path:
    """The folder of the policy, warmed up if it is not there."""
    from study.real.model import ModelUnavailable, cache_folder, make_model
    from study.real.policy import make_policy

    if options.policy is not None:
        return options.policy
    folder = cache_folder().with_name("SmolLM2-135M-word-problems")
    if not folder.is_dir():
        try:
            make_policy(make_model(), folder, options.device)
        except ModelUnavailable as error:
            sys.exit(f"The model cannot be made: {error}")
    return folder


def _measure(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from study import records
    from study.real import separation
    from study.run import describe_environment

    plan = _plan_of(options, _separation_plan())
    found = records.read(options.results)
    if any(record["plan"] != vars(plan) for record in found):
        parser.error(f"{options.results} has results of another plan: give another --results.")
    folder = _policy(options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).to(options.device).eval()
    common = {"plan": vars(plan), "device": options.device} | describe_environment()
    done = {record["problem"] for record in found if record["kind"] == "problem"}
    missing = [problem for problem in plan.problems() if problem.text not in done]
    for first in range(0, len(missing), SAMPLED_TOGETHER):
        part = missing[first : first + SAMPLED_TOGETHER]
        for problem, completions in zip(part, separation.sample(model, tokenizer, part, plan), strict=True):
            asked = list(separation.forms().values())
            shared = separation.measure(model, tokenizer, problem, completions, asked, separation.AFTER_TURN)
            record = {"kind": "problem", "problem": problem.text, "answer": problem.answer}
            records.append(options.results, record | {"first": shared, "completions": completions} | common)
        print(f"{len(missing) - first - len(part)} of {plan.num_problems} problems are missing.", flush=True)
    found = records.read(options.results)
    if not any(record["kind"] == "auto" for record in found):
        problems = [record for record in found if record["kind"] == "problem"]
        auto = separation.compare_candidates(model, tokenizer, problems, plan)
        records.append(options.results, {"kind": "auto"} | auto | common)


def _train(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from study import records
    from study.real.training import ARMS, START, Cell, cell_of, run_cell
    from study.run import describe_environment

    plan = _plan_of(options, _training_plan())
    cells = {cell.name: cell for seed in options.seeds for arm in (START, *ARMS) for cell in [Cell(arm, seed, plan)]}
    if options.only:
        unknown = [name for name in options.only if name not in cells]
        if unknown:
            parser.error(f"no such run: {', '.join(unknown)} (--list names them)")
        cells = {name: cells[name] for name in options.only}
    done = {cell_of(record) for record in records.read(options.results)}
    if options.list:
        for name, cell in cells.items():
            print(f"{'done' if cell in done else '    '}  {name}")
        return
    environment = {"device": options.device} | describe_environment()
    for name, cell in cells.items():
        if cell in done:
            continue
        result = run_cell(cell, _policy(options), options.device)
        records.append(options.results, result | environment)
        last = result["evaluation"]
        print(
            f"{name}: accuracy {last['accuracy']:.3f}, {last['thinking_tokens']:.1f} thinking tokens; "
            f"{result['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
