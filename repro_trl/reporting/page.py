"""A comparison as one HTML file that loads nothing and runs nothing: no scripts, no fonts, no network."""

from collections.abc import Iterable, Mapping
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from .arms import Arm
from .charts import PANELS_NOTE, panel_svgs, swatch_svgs
from .comparison import Comparison, counted_runs, label_of, seed_of, show_difference, show_estimate
from .flags import RULES
from .style import arm_style
from .texts import COMPLETIONS_NOTE, INTERVAL_NOTE, phase_note

_TEMPLATE = "report.html.jinja"
_SHOWN_SETTINGS = ("config_class", "model", "dataset", "seed", "learning_rate", "max_steps", "num_generations")


def render_page(comparison: Comparison, phrases: Mapping[str, Iterable[str]]) -> str:
    """The page as text; `phrases` are those that count as backtracks, by kind, for the reader to see."""
    # Names of folders, settings and rewards are other people's text: everything is escaped.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        comparison=comparison,
        styles=[arm_style(index) for index in range(len(comparison.arms))],
        swatches=[Markup(svg) for svg in swatch_svgs(len(comparison.arms))],
        panels=[(metric, Markup(svg)) for metric, svg in panel_svgs(comparison)],
        panels_note=PANELS_NOTE,
        phases=[
            (phase, phase_note(phase), [row for row in comparison.rows if row.phase == phase])
            for phase in comparison.phases
        ],
        settings=[(arm, _settings(arm)) for arm in comparison.arms],
        rules=RULES,
        phrases=phrases,
        notes=(COMPLETIONS_NOTE, INTERVAL_NOTE),
        counted_runs=counted_runs,
        label_of=label_of,
        seed_of=seed_of,
        show_estimate=show_estimate,
        show_difference=show_difference,
    )


def _settings(arm: Arm) -> dict[str, object]:
    settings = arm.runs[0].settings
    return {
        name: value
        for name, value in settings.items()
        if (name in _SHOWN_SETTINGS and name != "seed") or name.startswith("repro_")
    }
