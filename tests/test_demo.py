import json

from pocket.make import MODEL_DIR as POCKET_MODEL_DIR

from repro_trl.demo import MODEL_DIR, PROBLEMS_FILE, task


def test_it_is_the_model_of_the_examples():
    assert MODEL_DIR.is_dir() and POCKET_MODEL_DIR.resolve() == MODEL_DIR.resolve()


def test_the_problems_are_held_out_ones_of_its_task():
    problems = [json.loads(line) for line in PROBLEMS_FILE.read_text().splitlines()]
    assert problems == task.eval_dataset(len(problems)).to_list()
