"""The page and the picture: what they hold, and that nothing in other people's text comes alive in them."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from tiny_run_folders import write_completions, write_run

from repro_trl.cli import main
from repro_trl.reporting import compare, group_runs, read_run
from repro_trl.reporting.arms import Arm
from repro_trl.reporting.page import render_page
from repro_trl.thinking import BACKTRACK_PHRASES

ACCURACY = "rewards/accuracy/mean"
HOSTILE = "</title></script><script>document.title='owned'</script><img src=x onerror=alert(1)>{{7*7}}$\\frac$_\"'"


@pytest.fixture
def hostile_runs(tmp_path):
    reward = f"{HOSTILE} accuracy"
    for seed in (1, 2, 3):
        values = [0.1 * seed, 0.2 * seed, 0.3]
        folder = write_run(
            tmp_path / f"<b>run {seed}<script>",
            {f"rewards/{reward}/mean": values, "thinking_tokens": [9.0, 8.0, 7.0]},
            {3: {f"rewards/{reward}/mean": 0.1 * seed}},
            settings={"seed": seed, "repro_answer_column": HOSTILE, "repro_delimiter": "<hr>"},
        )
        write_completions(folder, 1, [f"{HOSTILE}<hr>wait</think>x"], **{reward: [1.0]})
    return sorted(tmp_path.iterdir())


class _Tags(HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text.append(data)


def render(paths, name=HOSTILE):
    comparison = compare([Arm(name, [read_run(path) for path in paths])])
    return render_page(comparison, {**BACKTRACK_PHRASES, HOSTILE: [HOSTILE]})


def test_hostile_text_is_inert_and_shown(hostile_runs):
    page = _Tags(render(hostile_runs))
    assert not page.tags & {"script", "img", "b", "iframe", "link", "object", "hr"}
    assert not {name for name in page.attributes if name.startswith("on")} | page.attributes & {"href", "src"}
    text = "".join(page.text)
    assert text.count(HOSTILE) >= 4 and "<b>run 1<script>" in text and "{{7*7}}" in text


def test_the_page_loads_nothing(hostile_runs):
    page = render(hostile_runs, "arm")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert not re.search(r"https?://|@import|url\((?!#)", page)


def test_each_curve_is_drawn_with_its_values(hostile_runs):
    page = render(hostile_runs, "arm")
    figures = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    accuracy = figures[0]
    assert ">accuracy <" in accuracy
    # Means over three seeds: 0.2, 0.4, 0.3 in training, 0.2 held out; the interval of 0.1, 0.2, 0.3 is ± 0.248.
    titles = re.findall(r"<title>arm, (.*?)</title>", accuracy)
    assert titles == [
        "training, step 1: 0.200 ± 0.248",
        "training, step 2: 0.400 ± 0.497",
        "training, step 3: 0.300 ± 0.000",
        "held out, step 3: 0.200 ± 0.248",
    ]
    heights = [float(y) for y in re.findall(r'<use [^>]*y="([^"]+)"[^>]*class="hover"', accuracy)]
    assert heights[1] < heights[2] < heights[0] == heights[3]  # y grows downwards


def test_the_page_s_colours_hold_for_its_curves(hostile_runs):
    page = render(hostile_runs, "arm")
    curves = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}", curves), "a colour that is the same on a dark ground"
    names = set(re.findall(r"var\((--[\w-]+)\)", curves))
    assert names == {"--arm-0", "--soft", "--rule", "--panel"}
    assert all(page.count(f"{name}:") == 2 for name in names), "not both a light and a dark one"


def test_no_two_parts_of_the_page_share_an_id(hostile_runs):
    ids = re.findall(r' id="([^"]+)"', render(hostile_runs, "arm"))
    assert len(ids) == len(set(ids))


def test_the_same_runs_give_the_same_page(hostile_runs):
    assert render(hostile_runs) == render(hostile_runs)


def test_hostile_arms_and_kinds_do_not_break_the_picture(tmp_path):
    folder = write_run(tmp_path / "run", {"rewards/accuracy/mean": [0.5]}, settings={})
    write_completions(folder, 1, ["hmm"], accuracy=[1.0])
    phrases = tmp_path / "phrases.json"
    phrases.write_text('{"$\\\\frac{ _x": ["hmm"], "</svg><script>": ["wait"]}')
    files = ["--png", tmp_path / "a.png", "--html", tmp_path / "a.html"]
    assert main(["report", "--arm", f"_$\\bad{{={folder}", "--backtracks", *map(str, [phrases, *files])]) == 0
    assert "<script>" not in (tmp_path / "a.html").read_text()


def test_flags_and_rules_are_on_the_page(tmp_path):
    write_run(tmp_path / "run", {ACCURACY: [0.5] * 10, "thinking_tokens": [50.0] * 5 + [1.0] * 5}, settings={})
    page = render_page(compare(group_runs([read_run(tmp_path / "run")])), BACKTRACK_PHRASES)
    text = re.sub(r"<[^>]+>", "", page)
    assert "vanishing thoughts, run: thinking tokens went from 50.0 to 1.0." in text
    assert "No flags." not in text and "less than 20% of the tokens" in text
    assert "no completions were logged" in text and "wait, hold on" in text


def test_a_single_point_shows(tmp_path):
    page = render_page(compare(group_runs([read_run(write_run(tmp_path, {ACCURACY: [0.5]}))])), BACKTRACK_PHRASES)
    (figure,) = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    seen = [use for use in re.findall(r"<use [^>]*>", figure) if "--arm-0" in use and "hover" not in use]
    assert len(seen) == 1


def test_a_run_without_curves_gives_a_page(tmp_path):
    write_completions(tmp_path / "run", 1, [], accuracy=[])
    page = render_page(compare(group_runs([read_run(tmp_path / "run")])), BACKTRACK_PHRASES)
    assert "No training figures." in page


def test_picture(hostile_runs, tmp_path):
    file = tmp_path / "out.png"
    assert main(["report", "--arm", f"_$x^{{$={','.join(map(str, hostile_runs))}", "--png", str(file)]) == 0
    content = file.read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 20_000


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.slow
def test_nothing_runs_in_a_browser(hostile_runs, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(render(hostile_runs), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", file.as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>Runs compared</title>" in page and _Tags(page).tags >= {"figure", "table"}
    assert not _Tags(page).tags & {"script", "img"}
