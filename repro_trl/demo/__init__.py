"""What commands take when no model and no problems are named: the model of examples/pocket, and problems for it."""

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
"""A Qwen3 of 0.37 million parameters with its tokenizer, for `from_pretrained`; examples/pocket says what it is."""

PROBLEMS_FILE = Path(__file__).parent / "problems.jsonl"
"""Held-out problems of its task, one JSON object a line: `prompt`, a list of messages, and `solution`."""

CONFIG_DIR = Path(__file__).parent / "configs"
"""The YAML files with which the training commands train this model, one for each algorithm."""

ANSWER_PREFIX = "</think>\n\n"
"""The `repro_answer_prefix` with which the model is asked where it is used to answering."""
