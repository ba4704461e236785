"""A reasoning model of 0.37 million parameters, its task and the script that made it; see README.md beside this file.

- `pocket/model`: the committed model and tokenizer, for `from_pretrained`.
- `repro_trl.demo.task`: `train_dataset`, `eval_dataset` (columns `prompt`, `solution`), `Problem`, `problems`.
- `pocket.traces`: `make_trace`, `TraceStyle`, `label_segments`, `is_correct`, `accuracy_reward` (for TRL).
- `pocket.evaluate`: `evaluate(model, tokenizer, dataset) -> Evaluation`, `format_table`.
- `pocket.make`: `make_tokenizer`, `make_model`, `warm_up`, `make`, `MODEL_DIR`.
"""
