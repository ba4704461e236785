"""The page in a browser: what it shows equals the traces, quickly, and what models wrote cannot act."""

import base64
import dataclasses
import hashlib
import json
import math
import random
import re
import shutil
import time

import pytest
from tiny_traces import random_trace, unscored_trace

from repro_trl.traces import Trace, read_traces, write_traces
from repro_trl.viewing.page import inert_json, write_page

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
By = pytest.importorskip("selenium.webdriver.common.by").By
StaleElementReferenceException = pytest.importorskip("selenium.common").StaleElementReferenceException
Keys = webdriver.Keys

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


@pytest.fixture(scope="module")
def chromium():
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


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


def find(parent, selector):
    return parent.find_element(By.CSS_SELECTOR, selector)


def click(browser, selector):
    """Click what may be drawn anew meanwhile, as the rows of the list are when its size changes."""
    for _ in range(20):
        try:
            return find(browser, selector).click()
        except StaleElementReferenceException:
            time.sleep(0.1)
    find(browser, selector).click()


def find_all(parent, selector):
    return parent.find_elements(By.CSS_SELECTOR, selector)


def text(node):
    """All of a node's text, hidden or not, line breaks as the completion has them."""
    return node.get_attribute("textContent").replace("⏎", "\n")


def to_number(shown):
    return math.nan if shown == "–" else float(shown.replace("−", "-"))


def tip(browser):
    """The tooltip's rows by name."""
    box = find(browser, "#tip")
    assert box.is_displayed()
    names, values = ([node.text for node in find_all(box, tag)] for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def columns(browser, count):
    nodes = find_all(browser, "article.completion")
    assert len(nodes) == count
    return nodes


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


# --------------------------------------------------------------------------------------------------------- the numbers


def test_segments_have_the_text_the_reward_and_the_entropy_of_the_trace(show, traces):
    browser = show(traces)
    for trace, column in zip(traces[:3], columns(browser, 3), strict=True):
        segments = find_all(column, ".segment:not(.plain)")
        assert len(segments) == len(trace.process_rewards)
        for index, segment in enumerate(segments):
            begin, end = trace.boundaries[index : index + 2]
            assert text(find(segment, ".words")) == "".join(trace.tokens[begin:end])
            assert len(find_all(segment, ".t")) == end - begin
            reward = trace.process_rewards[index]
            assert to_number(find(segment, ".value").text) == pytest.approx(reward, abs=6e-4)
            label = segment.get_attribute("aria-label")
            assert label.startswith(f"Segment {index + 1} of {len(segments)}, r ")
            assert to_number(label.split("r ")[1].split(",")[0]) == pytest.approx(reward, abs=6e-5)
            entropy = find_all(segment, ".entropy")
            assert [to_number(node.text[2:]) for node in entropy] == pytest.approx(
                [value for value in [trace.entropies[index]] if value is not None], abs=6e-3
            )
        rest = find(column, ".segment.plain")
        assert text(find(rest, ".words")) == "".join(trace.tokens[trace.boundaries[-1] :])
        head = find(column, ".head").text
        assert ("✓ right" if trace.correct else "✗ wrong") in head
        assert f"answer {trace.given_answer}" in head
        assert f"{len(trace.tokens)} tokens" in head and f"{trace.thinking_tokens} of them thinking" in head
        assert f"{trace.backtracks} backtrack" in head
    assert find(browser, "#truth").text == "ground truth 42"


# The background as red, green, blue, alpha in 0..255, whatever colour space the browser names it in.
PIXEL = """
const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
return arguments[0].map((node) => {
  context.clearRect(0, 0, 1, 1);
  context.fillStyle = getComputedStyle(node).backgroundColor;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data];
});
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_segments_are_coloured_by_sign_and_size_of_the_chosen_measure(show, traces, scheme):
    browser = show(traces, scheme=scheme)
    for measure in ("process_rewards", "normalized_rewards", "advantages"):
        find(browser, f"#measure option[value={measure}]").click()
        largest = max(abs(value) for trace in traces for value in getattr(trace, measure))
        assert to_number(find(browser, "#high").text) == pytest.approx(largest, abs=6e-3)
        signs = set()
        for trace, column in zip(traces[:3], columns(browser, 3), strict=True):
            values = getattr(trace, measure)
            if measure == "advantages":
                values = [values[boundary] for boundary in trace.boundaries[:-1]]
            words = find_all(column, ".segment:not(.plain) .words")
            pixels = browser.execute_script(PIXEL, words)
            tint = 0.30 if scheme == "light" else 0.36
            for value, (red, _, blue, alpha) in zip(values, pixels, strict=True):
                strength = math.sqrt(abs(value) / largest)
                assert alpha == pytest.approx(255 * tint * strength, abs=2)
                if alpha > 12:
                    assert (blue > red) if value > 0 else (red > blue)
                    signs.add(value > 0)
        assert signs == {True, False}


def points(column, name):
    pairs = find(column, f"polyline.{name}").get_attribute("points").split()
    return [tuple(map(float, pair.split(","))) for pair in pairs]


def assert_proportional(shown, values):
    """Shown positions are a linear function of the values, to a hundredth of a pixel each."""
    low, high = values.index(min(values)), values.index(max(values))
    scale = (shown[high] - shown[low]) / (values[high] - values[low])
    expected = [shown[low] + scale * (value - values[low]) for value in values]
    assert shown == pytest.approx(expected, abs=0.03)
    return scale


def test_curves_are_those_of_the_trace(show, traces):
    browser = show(traces)
    for trace, column in zip(traces[:3], columns(browser, 3), strict=True):
        x, y = zip(*points(column, "curve"), strict=True)
        assert assert_proportional(list(x), trace.boundaries) > 0
        assert assert_proportional(list(y), trace.objective) < 0
        dots = [(float(dot.get_attribute("cx")), float(dot.get_attribute("cy"))) for dot in find_all(column, "circle")]
        assert [place for dot in dots for place in dot] == pytest.approx(
            [place for pair in zip(x, y, strict=True) for place in pair], abs=0.01
        )
        magnitude, stability = points(column, "magnitude"), points(column, "stability")
        assert [place for place, _ in magnitude] == list(x)
        assert [place for place, _ in stability] == list(x[1:])
        # Both have the axis from 0 to 1.
        grid = sorted(float(line.get_attribute("y1")) for line in find_all(column, "line.grid"))
        top, bottom = grid[0], grid[-1]
        for shown, values in ((magnitude, trace.magnitude), (stability, trace.stability[1:])):
            heights = [(bottom - place) / (bottom - top) for _, place in shown]
            assert heights == pytest.approx(values, abs=1e-3)
        label = find(column, "svg").get_attribute("aria-label")
        assert f"from −{-trace.objective[0]:.3f} to −{-trace.objective[-1]:.3f}" in label


def test_hovering_a_token_shows_its_advantage(show, traces):
    browser = show(traces)
    for trace, column in zip(traces[:2], columns(browser, 3), strict=False):
        tokens = find_all(column, ".t")
        assert len(tokens) == len(trace.tokens)
        last = trace.boundaries[-1]
        for index in (0, trace.boundaries[1] - 1, trace.boundaries[1], last - 1, last, len(tokens) - 1):
            webdriver.ActionChains(browser, duration=0).move_to_element(tokens[index]).perform()
            rows = tip(browser)
            assert to_number(rows["advantage Ã"]) == pytest.approx(trace.advantages[index], abs=6e-5)
            assert rows["token"] == f"{index + 1} of {len(trace.tokens)}"
            if trace.total_advantages:
                assert to_number(rows["total advantage"]) == pytest.approx(trace.total_advantages[index], abs=6e-5)
            if index < trace.boundaries[-1]:
                segment = sum(boundary <= index for boundary in trace.boundaries) - 1
                assert rows["segment"] == str(segment + 1)
                for name, values in (
                    ("process reward r", trace.process_rewards),
                    ("normalised r̂", trace.normalized_rewards),
                ):
                    assert to_number(rows[name]) == pytest.approx(values[segment], abs=6e-5)
            else:
                assert "segment" not in rows
            assert text(find(browser, "#tip .what")) == f"“{trace.tokens[index]}”"
    zone = find_all(columns(browser, 3)[0], ".zone")[1]
    webdriver.ActionChains(browser, duration=0).move_to_element(zone).perform()
    rows = tip(browser)
    assert to_number(rows["J before"]) == pytest.approx(traces[0].objective[1], abs=6e-5)
    assert to_number(rows["J after"]) == pytest.approx(traces[0].objective[2], abs=6e-5)


def test_tokens_are_read_with_the_keyboard(show, traces):
    browser = show(traces)
    trace = traces[0]
    segment = find_all(columns(browser, 3)[0], ".segment")[1]
    browser.execute_script("arguments[0].focus()", segment)
    for index in range(trace.boundaries[1], trace.boundaries[1] + 3):
        segment.send_keys(Keys.ARROW_RIGHT)
        assert to_number(tip(browser)["advantage Ã"]) == pytest.approx(trace.advantages[index], abs=6e-5)
        spoken = find(browser, "#live").get_attribute("textContent")
        assert f"advantage Ã {tip(browser)['advantage Ã']}" in spoken
        assert find(browser, ".t.current").get_attribute("data-token") == str(index)
    segment.send_keys(Keys.ARROW_LEFT)
    assert find(browser, ".t.current").get_attribute("data-token") == str(index - 1)
    segment.send_keys(Keys.ESCAPE)
    assert not find(browser, "#tip").is_displayed()
    segment.send_keys(Keys.TAB)
    assert find(browser, ".segment:focus").get_attribute("data-segment") == "2"
    assert find_all(browser, ".t.current") == []


def test_the_table_holds_every_number(show, traces):
    browser = show(traces)
    trace, column = traces[1], columns(browser, 3)[1]
    find(column, "summary").click()
    head, *rows = [[cell.text for cell in find_all(row, "th, td")] for row in find_all(column, "tr")]
    assert head == ["segment", "tokens", "H", "J", "magnitude", "stability", "S", "r", "r̂", "Ã"]
    assert len(rows) == len(trace.boundaries)
    for index, row in enumerate(rows):
        shown = dict(zip(head, row, strict=True))
        expected = {"J": trace.objective[index], "magnitude": trace.magnitude[index], "S": trace.scores[index]}
        if index:
            begin, end = trace.boundaries[index - 1 : index + 1]
            assert shown["tokens"] == f"{begin + 1}–{end}"
            expected |= {
                "stability": trace.stability[index],
                "r": trace.process_rewards[index - 1],
                "r̂": trace.normalized_rewards[index - 1],
                "Ã": trace.advantages[begin],
                "H": math.nan if trace.entropies[index - 1] is None else trace.entropies[index - 1],
            }
        for name, value in expected.items():
            assert to_number(shown[name]) == pytest.approx(value, abs=6e-5, nan_ok=True), name


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
        webdriver.ActionChains(browser, duration=0).move_to_element(find(column, ".head")).perform()
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
