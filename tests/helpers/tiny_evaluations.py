"""`repro-trl eval` of a small policy on a few problems of the pocket task."""

import json

from repro_trl.cli import main
from repro_trl.demo import task as pocket_task


def write_rows(path, rows):
    """A file of one's own."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_problems(path, count):
    return write_rows(path, pocket_task.eval_dataset(count))


def arguments(policy, tasks, folder, *more, length=24, batch_size=4):
    settings = {
        "model": policy,
        "tasks": tasks,
        "output_dir": folder,
        "temperature": 1,
        "top_p": 1,
        "num_generations": 2,
        "max_completion_length": length,
        **({} if batch_size is None else {"batch_size": batch_size}),
    }
    return ["eval", *(text for name, value in settings.items() for text in (f"--{name}", str(value))), *more]


def evaluation(*args, **settings):
    """The exit status of the command with these `arguments`."""
    return main(arguments(*args, **settings))


def final_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
