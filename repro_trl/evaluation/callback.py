"""The command's tasks and figures during training."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback
from trl.models.utils import unwrap_model_for_generation

from ..generation import TransformersSampler
from ..sampling import Sampling
from .figures import Figures, as_json, compute_figures
from .records import Record, join
from .sampling import sample_units, work_units
from .sandbox import usable_isolation
from .tasks import Task, load_task
from .team import Team
from .verify import Verifier


class EvaluationCallback(TrainerCallback):
    """
    Evaluates tasks whenever the trainer evaluates (`eval_strategy`, `eval_on_start`, `trainer.evaluate()`), and logs
    the metrics of `repro-trl eval` as `eval_<task>/<metric>`. The completions and seeds are those that the command
    would use for the saved model.

    Completions are sampled with transformers from the current model, whatever the trainer uses for its rollouts. Under
    DeepSpeed and FSDP2, every process generates the same number of times.

    Args:
        trainer: to add the callback to: `trainer.add_callback(EvaluationCallback(trainer, ["aime24"]))`.
        tasks: tasks, their names, or paths of local files.
        sampling: how completions are sampled; by default as in the paper.
        num_samples: completions per problem. Default: the task's own number.
        data_dir: folder with local copies of the datasets.
        verify_workers: number of completions that each process verifies in parallel.

    Raises:
        TaskError: a task cannot be loaded.
        SandboxError: there are programs to run, and no sandbox works here.
        ValueError: `num_samples` is below 1.
    """

    def __init__(
        self,
        trainer: Trainer,
        tasks: Sequence[Task | str],
        sampling: Sampling | None = None,
        num_samples: int | None = None,
        data_dir: str | Path | None = None,
        verify_workers: int = 1,
    ) -> None:
        self.trainer = trainer
        self.sampling = sampling or Sampling()
        self.num_samples, self.verify_workers = num_samples, verify_workers
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"num_samples={num_samples}: give 1 or more.")
        self._team = Team(PartialState())
        loaded: list[Task] = []
        for is_my_turn in (trainer.accelerator.is_main_process, not trainer.accelerator.is_main_process):
            with self._team.together():  # one process downloads, the others read what it has stored
                if is_my_turn:
                    loaded = [load_task(task, data_dir) if isinstance(task, str) else task for task in tasks]
        self.tasks = loaded
        with self._team.together():
            if not all(task.votes for task in self.tasks):
                usable_isolation()  # rather now than in the middle of the training

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        logs: dict[str, float] = {}
        for task in self.tasks:
            for name, value in as_json(self.evaluate(task)).items():
                parts = value.items() if isinstance(value, dict) else [("", value)]
                named = {f"eval_{task.name}/{name}/{part}".removesuffix("/"): number for part, number in parts}
                logs |= {name: float(number) for name, number in named.items() if number is not None}
        # In evaluation mode, or the trainer would log the metrics of a training step that is not over.
        was_training = self.trainer.model.training
        self.trainer.model.eval()
        self.trainer.log(logs)
        self.trainer.model.train(was_training)

    def evaluate(self, task: Task) -> Figures:
        """Figures of the model as it is, the same on every process; every process has to call this."""
        trainer, accelerator = self.trainer, self.trainer.accelerator
        samples = self.num_samples or task.samples
        processes, rank = accelerator.num_processes, accelerator.process_index
        units = work_units(task.problems, samples, self.sampling.batch_size, processes)
        # Where the model is split over processes, all of them have to call it equally often: where units run out, the
        # last one is sampled again.
        rounds = math.ceil(len(units) / processes)
        mine = [units[min(number * processes + rank, len(units) - 1)] for number in range(rounds)]
        with unwrap_model_for_generation(
            trainer.model_wrapped, accelerator, gather_deepspeed3_params=trainer.args.ds3_gather_for_generation
        ) as model:
            sampler = TransformersSampler(model, trainer.processing_class, in_step=processes > 1)
            sampled = [sample for unit in sample_units(sampler, mine, self.sampling) for sample in unit]
        problems = {problem.id: problem for problem in task.problems}
        with self._team.together(), Verifier(self.verify_workers, think_end=self.sampling.think_end) as verifier:
            verdicts = verifier.verify(problems, sampled)
            records = [join(sample, verdict) for sample, verdict in zip(sampled, verdicts, strict=True)]
        gathered: dict[tuple[str, int], Record] = {
            (record.problem, record.sample): record for record in gather_object(records)
        }
        keys = [(problem.id, sample) for problem in task.problems for sample in range(samples)]
        return compute_figures([gathered[key] for key in keys], task.votes)
