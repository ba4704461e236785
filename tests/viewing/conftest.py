"""Fixtures of the page's tests: a way to show traces in a browser, and traces."""

import random

import pytest
from tiny_traces import random_trace

from repro_trl.traces import Trace, read_traces, write_traces
from repro_trl.viewing.page import write_page


@pytest.fixture
def show(chromium, tmp_path):
    """Writes traces as a page and opens it; afterwards the console must be empty."""

    def open_page(traces, width=1440, height=900, scheme="light", title="Traces"):
        path = tmp_path / "page.html"
        write_page(path, traces, title)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        chromium.get("about:blank")
        chromium.get(path.as_uri())
        return chromium

    chromium.get_log("browser")
    yield open_page
    assert chromium.get_log("browser") == []
    overflow = chromium.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0, "the page is wider than the window"


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """Two prompts with three and one completions, as they come back from a trace file."""
    rng = random.Random(7)
    made = [random_trace(rng, "0", segments) for segments in (4, 7, 1)]
    made.append(random_trace(rng, "1", 5, rewards={"accuracy": 1.0, "format": None}, step=40, truncated=True))
    totals = [round(0.5 + 0.05 * advantage, 6) for advantage in made[1].advantages]
    made[1] = Trace(**{**made[1].to_dict(), "total_advantages": totals})
    path = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    write_traces(path, made)
    return list(read_traces(path))
