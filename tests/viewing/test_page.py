"""The page in a browser: its list and looks, that it is quick, and that what models wrote cannot act."""

import base64
import dataclasses
import hashlib
import json
import math
import random
import re
import time

import pytest
from browser import ActionChains, Keys, click, columns, find, find_all
from tiny_traces import random_trace, unscored_trace

from repro_trl.traces import Trace
from repro_trl.viewing.page import inert_json, write_page

HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    "<!-- <script> <!--",
    "</style></title></textarea><svg onload=window.hacked=3>",
    "javascript:window.hacked=4",
    "]]> &lt;b&gt; &amp; ${window.hacked = 5} `$title` $script",
    "\u202etxet desrever\u202c \u2066iso\u2069 \u200f \ufeff",
    "\x00\x07\x1b[31mred\x7f\x85",
    "\ud800 half \udc00 pair",
    "line\u2028separator\u2029s",
    "\r\n carriage",
    "{{constructor.constructor('window.hacked=6')()}}",
    "unbroken" * 4000,
    "𝒳😀👩‍👩‍👧 因此 مرحبا",
]


# ------------------------------------------------------------------------------------------------------------ the list


def shown_items(browser):
    items = find_all(browser, ".item")
    return [int(item.get_attribute("id").removeprefix("item-")) for item in items]


def test_the_list_filters_sorts_and_searches(show):
    rng = random.Random(3)
    many = [random_trace(rng, str(index // 2), rng.randint(1, 6)) for index in range(12)]
    many.append(unscored_trace(["no", " truth"], group="x", prompt="Unjudged"))
    browser = show(many, height=2000)
    assert shown_items(browser) == list(range(13))
    counts = {button.text for button in find_all(browser, "#filters button")}
    right = [index for index, trace in enumerate(many) if trace.correct]
    assert counts == {"All 13", f"✓ Right {len(right)}", f"✗ Wrong {12 - len(right)}", "Not judged 1"}
    find(browser, "[data-verdict=true]").click()
    assert shown_items(browser) == right
    find(browser, "[data-verdict=all]").click()
    keys = {
        "length": lambda trace: len(trace.tokens),
        "reward": lambda trace: sum(trace.process_rewards) if trace.boundaries else math.inf,
        "backtracks": lambda trace: trace.backtracks,
        "gain": lambda trace: trace.objective[-1] - trace.objective[0] if trace.boundaries else math.inf,
    }
    for name, key in keys.items():
        find(browser, f"#sort option[value={name}]").click()
        assert shown_items(browser) == sorted(range(13), key=lambda index: (key(many[index]), index))
    find(browser, "#direction").click()
    assert shown_items(browser)[-1] == 12, "what has no value comes last in both orders"
    find(browser, "#search").send_keys("problem 4:")
    assert sorted(shown_items(browser)) == [8, 9]
    assert find(browser, "#shown").text == "2 of 13 completions"


def test_the_list_is_walked_with_the_keyboard(show, traces):
    browser = show(traces)
    box = find(browser, "#list")
    for expected in (1, 2, 3, 3):
        box.send_keys(Keys.ARROW_DOWN)
        assert find(browser, ".item[aria-selected=true]").get_attribute("id") == f"item-{expected}"
        assert box.get_attribute("aria-activedescendant") == f"item-{expected}"
    columns(browser, 1)
    head = find(browser, "article .head").text
    assert "cut off" in head and "1.00 accuracy" in head and "– format" in head and "40 steps" in head
    assert browser.current_url.endswith("#4")
    box.send_keys(Keys.HOME)
    columns(browser, 3)


def test_unscored_empty_and_lone_completions(show):
    rng = random.Random(1)
    odd = [
        unscored_trace(["plain", " text"]),
        unscored_trace([]),
        random_trace(rng, "0", 1, prompt="?"),
        Trace(**{**random_trace(rng, "0", 2, prompt="?").to_dict(), "objective": [-1.0] * 3}),
    ]
    browser = show(odd)
    browser.execute_script("choose(3)")
    assert [len(find_all(column, ".segment:not(.plain)")) for column in columns(browser, 4)] == [0, 0, 1, 2]
    assert "plain text" in columns(browser, 4)[0].text and "Not scored" in columns(browser, 4)[0].text
    assert "An empty completion" in columns(browser, 4)[1].text


def test_no_traces_at_all(show):
    assert "no completions" in find(show([]), "#reading").text


# ---------------------------------------------------------------------------------------------------------- the looks


def test_light_and_dark_follow_the_system_and_the_button(show, traces):
    def background(browser):
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = background(show(traces))
    browser = show(traces, scheme="dark")
    dark = background(browser)
    assert light != dark
    button = find(browser, "#theme")
    assert button.text == "Light"
    button.click()
    assert background(browser) == light and button.text == "Dark"


def test_a_phone_folds_the_list_and_fits(show, traces):
    browser = show(traces, width=390, height=844)
    assert not find(browser, "#list").is_displayed()
    find(browser, "#fold").click()
    assert find(browser, "#list").is_displayed()
    click(browser, "#item-3")
    assert not find(browser, "#list").is_displayed()
    assert columns(browser, 1)[0].rect["width"] <= 390


# ----------------------------------------------------------------------------------------------------------- hostility


def test_what_models_write_is_inert(show):
    rng = random.Random(5)
    hostile = []
    for index, bad in enumerate(HOSTILE):
        trace = random_trace(rng, str(index), 2).to_dict()
        trace |= {"prompt": bad, "answer": bad, "given_answer": bad, "group": bad, "rewards": {bad: 1.0}}
        trace["tokens"] = [bad, *trace["tokens"][1:-1], bad]
        hostile.append(Trace(**trace))
    browser = show(hostile, title=HOSTILE[0] + HOSTILE[8])
    tags = "return [...new Set([...document.querySelectorAll('*')].map((node) => node.localName))].sort()"
    harmless = set(browser.execute_script(tags))
    assert not harmless & {"img", "iframe", "object", "embed", "b"}
    scripts = "return [...document.scripts].filter((script) => script.type !== 'application/json').length"
    assert browser.execute_script(scripts) == 1
    for index, bad in enumerate(HOSTILE):
        browser.execute_script("choose(arguments[0])", index)
        column = columns(browser, 1)[0]
        written = find(column, ".t").get_attribute("textContent").replace("⏎", "\n")
        back = re.sub(r"⟨U\+([0-9A-F]+)⟩", lambda match: chr(int(match[1], 16)), written)
        assert back == bad
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x1b\x7f\ud800-\udfff]", column.text)
        ActionChains(browser, duration=0).move_to_element(find(column, ".head")).perform()
    assert browser.execute_script("return typeof window.hacked") == "undefined"
    assert set(browser.execute_script(tags)) == harmless


def test_the_policy_lets_nothing_else_run(show, traces):
    browser = show(traces)
    browser.execute_script(
        """
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
        const image = document.createElement("div");
        image.innerHTML = "<img src=x onerror='window.hacked = 2'>";
        document.body.append(image);
        """
    )
    time.sleep(0.2)
    assert browser.execute_script("return typeof window.hacked") == "undefined"
    refusals = browser.get_log("browser")  # emptied, for the check at the end
    assert refusals and all("Content Security Policy" in entry["message"] for entry in refusals)
    browser.execute_script("document.body.lastChild.remove()")


def test_one_file_that_asks_for_nothing(tmp_path, traces):
    write_page(tmp_path / "deep" / "page.html", traces, "Title")
    page = (tmp_path / "deep" / "page.html").read_text()
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "page.html"]
    assert set(re.findall(r"https?://[^\"'`\s]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(
        r"\b(src|@import|fetch|XMLHttpRequest|innerHTML|outerHTML|insertAdjacentHTML|eval)\b\s*[=(]", page
    )
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    for tag in ("script", "style"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_json_is_inert_and_comes_back():
    value = {"</script>&": HOSTILE}
    inert = inert_json(value)
    assert inert.isascii() and not set("<>&") & set(inert)
    assert json.loads(inert) == value


# ---------------------------------------------------------------------------------------------------------------- size


LOAD_TIME = "const times = performance.timing; return times.loadEventEnd - times.navigationStart"

# Milliseconds between the frames, sorted, while list and text are scrolled to their ends in forty steps.
SCROLL = """
const done = arguments[0];
const [list, reading] = ["list", "reading"].map((id) => document.getElementById(id));
const times = [];
let last = performance.now();
function step(now) {
  times.push(now - last);
  last = now;
  list.scrollTop += list.scrollHeight / 40;
  reading.scrollTop += reading.scrollHeight / 40;
  if (times.length < 41) requestAnimationFrame(step); else done(times.slice(1).sort((a, b) => a - b));
}
requestAnimationFrame(step);
"""


def test_hundreds_of_long_traces_load_in_three_seconds_and_scroll(show):
    rng = random.Random(0)
    base = [random_trace(rng, "0", 11, length=6000) for _ in range(5)]
    many = [
        dataclasses.replace(base[index % 5], group=str(index // 4), prompt=f"Problem {index // 4}")
        for index in range(500)
    ]
    assert sum(len(trace.tokens) for trace in many) > 500 * 4000
    # The best of three: what else runs on the machine is not the page's doing.
    for _ in range(3):
        browser = show(many)
        milliseconds = browser.execute_script(LOAD_TIME)
        tokens, items = len(find_all(browser, ".t")), len(find_all(browser, ".item"))
        frames = browser.execute_async_script(SCROLL)
        figures = f"open after {milliseconds} ms, frames of {frames[20]:.0f} ms, the slowest of {frames[-1]:.0f} ms"
        print(figures)
        if 0 < milliseconds < 3000 and frames[20] < 200:
            break
    else:
        pytest.fail(figures)
    assert tokens >= len(many[0].tokens)
    assert items < 40, "the list draws only what is seen"
    assert shown_items(browser)[-1] == 499
    click(browser, "#item-499")
    assert len(find_all(find(browser, "article.chosen"), ".t")) == len(many[499].tokens)
