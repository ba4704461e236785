"""The recommended recipe: RePro's settings as the study and the README recommend them."""

from .config import AUTO_PREFIX

RECIPE: dict[str, object] = {
    "repro_answer_prefix": AUTO_PREFIX,
    "repro_top_k": None,
    "repro_credit": "segment",
    "repro_baseline_score": "magnitude",
    "repro_alpha": 0.3,
}
