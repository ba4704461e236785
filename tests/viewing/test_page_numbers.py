"""The numbers on the page in a browser: what it shows equals the traces."""

import math

import pytest
from browser import ActionChains, Keys, columns, find, find_all, text, tip, to_number


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
            ActionChains(browser, duration=0).move_to_element(tokens[index]).perform()
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
    ActionChains(browser, duration=0).move_to_element(zone).perform()
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
