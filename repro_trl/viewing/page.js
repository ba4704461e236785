"use strict";
// Everything a model wrote arrives as JSON and leaves through textContent: nothing in this file parses markup.

const $ = (id) => document.getElementById(id);
const read = (id) => JSON.parse($(id).textContent);
const { traces, prompts, largest } = read("index");

const ITEM_HEIGHT = 74;
const SVG = "http://www.w3.org/2000/svg";
const VERDICT = {
  true: { word: "right", mark: "✓", kind: "right" },
  false: { word: "wrong", mark: "✗", kind: "wrong" },
  null: { word: "not judged", mark: "·", kind: "unjudged" },
};
const SORTS = {
  order: { name: "file order", value: (trace) => trace.id },
  length: { name: "length", value: (trace) => trace.length },
  reward: { name: "process reward", value: (trace) => trace.reward },
  backtracks: { name: "backtracks", value: (trace) => trace.backtracks },
  gain: { name: "gain in J", value: (trace) => trace.gain },
};
const MEASURES = { process_rewards: "r", normalized_rewards: "r̂", advantages: "Ã" };

const state = { verdict: "all", sort: "order", descending: false, search: "", measure: "process_rewards", chosen: 0 };
let shown = [];

// ------------------------------------------------------------------------------------------------------------ helpers

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const element = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
const shape = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);
const counted = (count, name) => `${count} ${name}${count === 1 ? "" : "s"}`;

function number(value, digits = 4, signed = false) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(digits);
  const sign = Number(text) === 0 ? "" : value < 0 ? "−" : signed ? "+" : "";
  return sign + text;
}

// Characters that are invisible or change the direction of writing are shown by their code points.
const UNSEEN = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e" +
    "\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb\\u{e0000}-\\u{e007f}\\ud800-\\udfff]",
  "gu",
);

function visible(text) {
  return text.replace(UNSEEN, (character) => {
    const code = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    return `⟨U+${code}⟩`;
  });
}

// White space with a sign for each line break, which is not made.
function marked(space) {
  return space.split(/(\n+)/).filter(Boolean).map((part) =>
    part[0] === "\n" ? element("span", { class: "break" }, "⏎".repeat(part.length)) : visible(part),
  );
}

const quoted = (text) => `“${visible(text).replace(/\n/g, "⏎")}”`;
const strength = (value, limit) => (limit > 0 ? Math.sqrt(Math.min(Math.abs(value) / limit, 1)) : 0);

function colour(value, limit) {
  const hue = value < 0 ? "var(--loss)" : "var(--gain)";
  return `color-mix(in oklab, ${hue} ${(100 * strength(value, limit)).toFixed(1)}%, var(--line))`;
}

function stripes(values, ends, limit) {
  const total = ends[ends.length - 1] || 1;
  let begin = 0;
  const stops = values.map((value, index) => {
    const stop = `${colour(value, limit)} ${((100 * begin) / total).toFixed(2)}% ${((100 * ends[index]) / total).toFixed(2)}%`;
    begin = ends[index];
    return stop;
  });
  return stops.length ? `linear-gradient(90deg, ${stops.join(", ")})` : "none";
}

// Runs of equal values, as the file holds advantages, back to one value per token.
const unroll = (runs) => (runs === null ? null : runs.flatMap(([value, count]) => Array(count).fill(value)));

function load(id) {
  const { advantages, total_advantages: totals, ...rest } = read(`trace-${id}`);
  return { ...traces[id], ...rest, advantages: unroll(advantages), total_advantages: unroll(totals) };
}

function segmentValue(trace, segment) {
  return state.measure === "advantages" ? trace.advantages[trace.boundaries[segment]] : trace[state.measure][segment];
}

// --------------------------------------------------------------------------------------------------- list of completions

function excerpt(trace) {
  const text = prompts[trace.prompt].text.replace(/<\|[^|<>]*\|>/g, " ").replace(/\s+/g, " ").trim();
  return visible(text.slice(0, 160));
}

function select() {
  const { value } = SORTS[state.sort];
  const sign = state.descending ? -1 : 1;
  const search = state.search.toLowerCase();
  shown = traces.filter(
    (trace) =>
      (state.verdict === "all" || String(trace.correct) === state.verdict) &&
      (!search || prompts[trace.prompt].text.toLowerCase().includes(search)),
  );
  // Those without a value come last whichever way the order runs.
  shown.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null) || a.id - b.id;
    return sign * (x - y) || a.id - b.id;
  });
  $("spacer").style.height = `${shown.length * ITEM_HEIGHT}px`;
  $("shown").textContent = `${shown.length} of ${traces.length} completions`;
  $("list").scrollTop = 0;
  drawList();
}

function drawList() {
  const list = $("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ITEM_HEIGHT) - 4);
  const last = Math.min(shown.length, first + Math.ceil((list.clientHeight || 600) / ITEM_HEIGHT) + 8);
  const items = [$("spacer")];
  for (let place = first; place < last; place++) items.push(listItem(shown[place], place));
  list.replaceChildren(...items);
  const chosen = `item-${state.chosen}`;
  if ($(chosen)) list.setAttribute("aria-activedescendant", chosen);
  else list.removeAttribute("aria-activedescendant");
}

function listItem(trace, place) {
  const verdict = VERDICT[trace.correct];
  const item = element("div", {
    id: `item-${trace.id}`,
    class: "item",
    role: "option",
    "aria-selected": trace.id === state.chosen,
    "aria-posinset": place + 1,
    "aria-setsize": shown.length,
  });
  item.style.top = `${place * ITEM_HEIGHT}px`;
  const strip = element("div", { class: "strip", "aria-hidden": "true" });
  strip.style.background = stripes(trace.strip, trace.ends, largest.process_rewards);
  item.append(
    element(
      "div",
      { class: "line" },
      element("span", { class: `mark ${verdict.kind}`, role: "img", "aria-label": verdict.word }, verdict.mark),
      element("span", { class: "name" }, excerpt(trace)),
    ),
    strip,
    element(
      "div",
      { class: "facts" },
      element("span", {}, `${trace.length} tokens`),
      element("span", {}, counted(trace.backtracks, "backtrack")),
      element("span", {}, `Σr ${number(trace.reward, 2, true)}`),
    ),
  );
  item.addEventListener("click", () => choose(trace.id));
  return item;
}

function choosePlace(place) {
  place = Math.max(0, Math.min(shown.length - 1, place));
  if (!shown.length) return;
  const list = $("list");
  const top = place * ITEM_HEIGHT;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ITEM_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ITEM_HEIGHT - list.clientHeight;
  choose(shown[place].id);
}

function onListKey(event) {
  const place = shown.findIndex((trace) => trace.id === state.chosen);
  const page = Math.max(1, Math.floor($("list").clientHeight / ITEM_HEIGHT) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -place, End: shown.length - 1 - place };
  if (!(event.key in steps)) return;
  event.preventDefault();
  choosePlace(place + steps[event.key]);
}

// -------------------------------------------------------------------------------------------------- prompt and columns

let columns = new Map();
let drawnPrompt = null;
const onScreen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const column = columns.get(Number(entry.target.dataset.trace));
      if (!column) continue;
      if (entry.isIntersecting) column.fill();
      else column.empty();
    }
  },
  { rootMargin: "50% 50%", scrollMargin: "0% 60%" },
);

function choose(id) {
  state.chosen = id;
  history.replaceState(null, "", `#${id + 1}`);
  const trace = traces[id];
  if (trace.prompt !== drawnPrompt) drawPrompt(trace.prompt);
  for (const [other, column] of columns) column.node.classList.toggle("chosen", other === id && columns.size > 1);
  const column = columns.get(id);
  column.fill();
  column.showBeside();
  document.querySelector("nav").classList.remove("open");
  $("fold").setAttribute("aria-expanded", "false");
  drawList();
}

function drawPrompt(index) {
  const prompt = prompts[index];
  drawnPrompt = index;
  hideTip();
  $("where").textContent = prompts.length > 1 ? `Prompt ${index + 1} of ${prompts.length}` : "Prompt";
  $("truth").textContent = prompt.answer === null ? "no ground truth" : `ground truth ${visible(prompt.answer)}`;
  $("prompt").textContent = visible(prompt.text);
  onScreen.disconnect();
  columns = new Map(prompt.traces.map((id, place) => [id, new Column(id, place + 1, prompt.traces.length)]));
  $("columns").replaceChildren(...[...columns.values()].map((column) => column.node));
  $("reading").scrollTop = 0;
  for (const column of columns.values()) onScreen.observe(column.node);
}

class Column {
  constructor(id, place, count) {
    this.id = id;
    this.place = place;
    this.count = count;
    this.trace = null;
    this.node = element("article", {
      class: count === 1 ? "completion only" : "completion",
      "data-trace": id,
      "aria-label": `Completion ${place} of ${count}, ${VERDICT[traces[id].correct].word}`,
    });
    this.node.append(element("div", { class: "placeholder" }));
    this.node.addEventListener("pointerover", (event) => this.onPointer(event));
    this.node.addEventListener("pointerleave", hideTip);
    this.node.addEventListener("focusin", (event) => this.onFocus(event));
    this.node.addEventListener("focusout", () => this.setToken(null));
    this.node.addEventListener("keydown", (event) => this.onKey(event));
  }

  fill() {
    if (this.trace) return;
    this.trace = load(this.id);
    this.node.style.minHeight = "";
    this.figure = element("div", { class: "lens" });
    this.node.replaceChildren(this.head(), this.figure, this.numbers(), this.thought());
    this.drawLens();
    this.paint();
  }

  // Scrolls sideways only: the reader's place in the text stays.
  showBeside() {
    for (const box of [$("reading"), $("columns")]) {
      const [own, outer] = [this.node.getBoundingClientRect(), box.getBoundingClientRect()];
      const margin = 16;
      if (own.left < outer.left || own.right > outer.right) box.scrollLeft += own.left - outer.left - margin;
    }
  }

  // What has left the screen gives its thousands of nodes back, but keeps its place.
  empty() {
    if (!this.trace || this.node.contains(document.activeElement)) return;
    this.node.style.minHeight = `${this.node.offsetHeight}px`;
    this.node.replaceChildren(element("div", { class: "placeholder" }));
    this.trace = null;
  }

  head() {
    const { trace } = this;
    const verdict = VERDICT[trace.correct];
    const line = element(
      "div",
      { class: "line" },
      element("h3", { class: verdict.kind }, `${verdict.mark} ${verdict.word}`),
      element("span", { class: "given" }, trace.given_answer === null ? "no boxed answer" : `answer ${visible(trace.given_answer)}`),
    );
    if (this.count > 1) line.append(element("span", { class: "plain-name" }, `${this.place} of ${this.count}`));
    const facts = element("p", { class: "facts-list" });
    const fact = (value, name) => facts.append(element("span", {}, element("strong", {}, value), ` ${name}`));
    fact(String(trace.length), "tokens");
    fact(String(trace.thinking_tokens), "of them thinking");
    fact(String(trace.backtracks), trace.backtracks === 1 ? "backtrack" : "backtracks");
    if (trace.objective.length) fact(number(trace.gain, 3, true), "gain in J");
    for (const [name, value] of Object.entries(trace.rewards)) fact(number(value, 2), visible(name));
    if (trace.truncated) fact("cut off", "at its limit");
    if (trace.step !== null) fact(String(trace.step), "steps trained");
    return element("div", { class: "head" }, line, facts);
  }

  // Strip of segments, J, and both scores, over the tokens of the thought.
  drawLens() {
    const { trace } = this;
    const { boundaries, objective, magnitude, stability } = trace;
    if (!boundaries.length) {
      this.figure.replaceChildren(element("p", { class: "plain-name" }, "Not scored."));
      return;
    }
    const style = getComputedStyle(this.figure);
    const total = Math.max(240, this.figure.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
    const [left, right] = [38, total - 62];
    const end = boundaries[boundaries.length - 1] || 1;
    const x = (token) => left + ((right - left) * token) / end;
    const [low, high] = [Math.min(...objective), Math.max(...objective)];
    const [curveTop, curveBottom, scoreTop, scoreBottom] = [35, 94, 108, 150];
    const y = (value) => (high > low ? curveBottom - ((curveBottom - curveTop) * (value - low)) / (high - low) : (curveTop + curveBottom) / 2);
    const z = (value) => scoreBottom - (scoreBottom - scoreTop) * value;
    const points = (values, scale, from = 0) =>
      values.slice(from).map((value, index) => `${x(boundaries[index + from]).toFixed(2)},${scale(value).toFixed(2)}`).join(" ");
    const last = objective.length - 1;
    const segments = Array.from({ length: last }, (_, segment) => ({
      begin: x(boundaries[segment]),
      width: x(boundaries[segment + 1]) - x(boundaries[segment]),
    }));

    const picture = shape("svg", {
      viewBox: `0 0 ${total} 154`,
      height: 154,
      role: "img",
      "aria-label":
        `J goes from ${number(objective[0], 3)} to ${number(objective[last], 3)} nats per token over ${end} tokens; ` +
        `at the end magnitude is ${number(magnitude[last], 3)} and stability ${number(stability[last], 3)}. ` +
        "All values are in the table of numbers.",
    });
    this.stripBars = segments.map(({ begin, width }) => shape("rect", { x: begin, y: 2, width: Math.max(0.5, width - 1), height: 10, rx: 1.5 }));
    picture.append(...this.stripBars);
    for (const boundary of boundaries) picture.append(shape("line", { class: "fork", x1: x(boundary), x2: x(boundary), y1: 16, y2: scoreBottom }));
    for (const value of [0, 0.5, 1]) picture.append(shape("line", { class: "grid", x1: left, x2: right, y1: z(value), y2: z(value) }));
    picture.append(
      shape("text", { x: left, y: 25 }, "J, nats per token"),
      shape("text", { x: left - 5, y: curveTop + 4, "text-anchor": "end" }, number(high, 2)),
      shape("text", { x: left - 5, y: curveBottom + 3, "text-anchor": "end" }, high > low ? number(low, 2) : ""),
      shape("text", { x: left - 5, y: z(1) + 4, "text-anchor": "end" }, "1"),
      shape("text", { x: left - 5, y: z(0) + 3, "text-anchor": "end" }, "0"),
      shape("polyline", { class: "magnitude", points: points(magnitude, z) }),
      // Before the first segment there is no stability.
      shape("polyline", { class: "stability", points: points(stability, z, 1) }),
      shape("polyline", { class: "curve", points: points(objective, y) }),
    );
    this.dots = objective.map((value, index) => shape("circle", { cx: x(boundaries[index]), cy: y(value), r: 3.6 }));
    picture.append(...this.dots);
    // Names stand at the lines' ends, apart from each other.
    let [m, s] = [z(magnitude[last]), z(stability[last])];
    if (Math.abs(m - s) < 12) {
      const upper = Math.max(scoreTop, (m + s) / 2 - 6);
      [m, s] = m <= s ? [upper, upper + 12] : [upper + 12, upper];
    }
    picture.append(
      shape("text", { x: right + 6, y: y(objective[last]) + 4 }, number(objective[last], 3)),
      shape("text", { class: "magnitude-name", x: right + 6, y: m + 4 }, "magnitude"),
      shape("text", { class: "stability-name", x: right + 6, y: s + 4 }, "stability"),
    );
    this.zones = segments.map(({ begin, width }, segment) => {
      const zone = shape("rect", { class: "zone", x: begin, y: 0, width: Math.max(1, width), height: 154, "data-segment": segment });
      zone.addEventListener("click", () => this.segments[segment].focus());
      return zone;
    });
    picture.append(...this.zones);
    this.figure.replaceChildren(picture);
  }

  numbers() {
    const { trace } = this;
    const box = element("details", { class: "numbers" }, element("summary", {}, "Numbers"));
    if (!trace.boundaries.length) {
      box.hidden = true;
      return box;
    }
    const names = ["segment", "tokens", "H", "J", "magnitude", "stability", "S", "r", "r̂", "Ã"];
    const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)));
    const row = (index) => {
      const segment = index - 1;
      const begin = trace.boundaries[Math.max(segment, 0)];
      const cells = [
        index === 0 ? "before" : String(index),
        index === 0 ? "–" : `${begin + 1}–${trace.boundaries[index]}`,
        index === 0 ? "–" : number(trace.entropies[segment]),
        number(trace.objective[index]),
        number(trace.magnitude[index]),
        index === 0 ? "–" : number(trace.stability[index]),
        number(trace.scores[index]),
        index === 0 ? "–" : number(trace.process_rewards[segment], 4, true),
        index === 0 ? "–" : number(trace.normalized_rewards[segment], 4, true),
        index === 0 ? "–" : number(trace.advantages[begin], 4, true),
      ];
      return element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
    };
    box.addEventListener("toggle", () => {
      if (!box.open || box.querySelector("table")) return;
      const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...trace.boundaries.map((_, index) => row(index))));
      box.append(element("div", { class: "scroll", tabindex: "0", "aria-label": "Numbers of this completion" }, table));
    });
    return box;
  }

  thought() {
    const { trace } = this;
    const { boundaries } = trace;
    const body = element("div", { class: "thought" });
    this.segments = [];
    this.spans = new Array(trace.tokens.length);
    for (let index = 0; index + 1 < boundaries.length; index++) {
      const gutter = element("div", { class: "gutter", "aria-hidden": "true" }, element("span", { class: "number" }, String(index + 1)), element("span", { class: "value" }));
      const entropy = trace.entropies[index];
      if (entropy !== null) {
        const meter = element("span", { class: "meter" });
        meter.style.width = `${Math.min(48, Math.max(2, (48 * entropy) / (largest.entropies || 1)))}px`;
        gutter.append(element("span", { class: "entropy", title: "entropy of the distribution that wrote this segment's first token, nats" }, `H ${number(entropy, 2)}`), meter);
      }
      const segment = element("div", { class: "segment", role: "group", tabindex: "0", "data-segment": index }, gutter, this.words(boundaries[index], boundaries[index + 1]));
      this.segments.push(segment);
      body.append(segment);
    }
    const rest = boundaries.length ? boundaries[boundaries.length - 1] : 0;
    if (rest < trace.tokens.length) {
      const name = boundaries.length ? "answer" : "";
      const label = boundaries.length ? "After the thought" : "Completion";
      body.append(
        element("div", { class: "segment plain", role: "group", tabindex: "0", "aria-label": label }, element("div", { class: "gutter", "aria-hidden": "true" }, element("span", { class: "number" }, name)), this.words(rest, trace.tokens.length)),
      );
    }
    if (!trace.tokens.length) body.append(element("p", { class: "plain-name" }, "An empty completion."));
    return body;
  }

  words(begin, end) {
    const { tokens } = this.trace;
    const words = element("div", { class: "words" });
    // Line breaks at either end of a segment are marked, not made.
    let [opening, closing] = [begin, end];
    while (opening < end && !/\S/.test(tokens[opening])) opening++;
    while (closing > opening && !/\S/.test(tokens[closing - 1])) closing--;
    for (let index = begin; index < end; index++) {
      const text = tokens[index];
      const inner = index >= opening && index < closing;
      const from = index === opening ? text.search(/\S/) : inner ? 0 : text.length;
      const to = index === closing - 1 ? text.search(/\s*$/) : text.length;
      const span = element("span", { class: "t", "data-token": index });
      span.append(...marked(text.slice(0, from)), visible(text.slice(from, to)), ...marked(text.slice(to)));
      this.spans[index] = span;
      words.append(span);
    }
    return words;
  }

  // Colours and labels that depend on the measure.
  paint() {
    const { trace } = this;
    if (!trace || !trace.boundaries.length) return;
    const limit = largest[state.measure];
    const symbol = MEASURES[state.measure];
    this.segments.forEach((segment, index) => {
      const value = segmentValue(trace, index);
      segment.classList.toggle("loss", value < 0);
      segment.style.setProperty("--strength", strength(value, limit).toFixed(4));
      segment.querySelector(".value").textContent = number(value, 3, true);
      const [begin, end] = trace.boundaries.slice(index, index + 2);
      const entropy = trace.entropies[index];
      segment.setAttribute(
        "aria-label",
        `Segment ${index + 1} of ${this.segments.length}, ${symbol} ${number(value, 4, true)}, ${end - begin} tokens` +
          (entropy === null ? "" : `, entropy ${number(entropy, 2)} nats`) +
          ". Left and right arrows read its tokens.",
      );
      this.stripBars[index].style.fill = colour(value, limit);
      this.dots[index + 1].style.fill = colour(value, limit);
    });
    this.dots[0].style.fill = "var(--soft)";
  }

  segmentOf(token) {
    const { boundaries } = this.trace;
    if (!boundaries.length || token >= boundaries[boundaries.length - 1]) return null;
    return boundaries.findIndex((boundary) => boundary > token) - 1;
  }

  onPointer(event) {
    const token = event.target.closest(".t");
    const zone = event.target.closest(".zone");
    if (token) this.showToken(Number(token.dataset.token), token.getBoundingClientRect());
    else if (zone) this.showSegment(Number(zone.dataset.segment), zone.getBoundingClientRect());
    else hideTip();
  }

  onFocus(event) {
    const segment = event.target.closest(".segment");
    if (!segment) return;
    const index = segment.dataset.segment;
    this.mark(index === undefined ? null : Number(index));
    if (index !== undefined && event.target.matches(":focus-visible")) this.showSegment(Number(index), segment.getBoundingClientRect());
  }

  onKey(event) {
    const segment = event.target.closest(".segment");
    if (event.key === "Escape") hideTip();
    if (!segment || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    event.preventDefault();
    const spans = segment.querySelectorAll(".t");
    const first = Number(spans[0].dataset.token);
    const step = event.key === "ArrowRight" ? 1 : -1;
    const token = this.token === null ? (step > 0 ? first : first + spans.length - 1) : this.token + step;
    if (token < first || token >= first + spans.length) return;
    this.setToken(token);
    const rows = this.showToken(token, this.spans[token].getBoundingClientRect());
    $("live").textContent = `${quoted(this.trace.tokens[token])}: ${rows.map(([name, value]) => `${name} ${value}`).join(", ")}`;
  }

  token = null;

  setToken(token) {
    if (this.token !== null) this.spans[this.token]?.classList.remove("current");
    this.token = token;
    if (token === null) {
      hideTip();
      this.mark(null);
      return;
    }
    this.spans[token].classList.add("current");
    this.spans[token].scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  mark(segment) {
    this.zones?.forEach((zone, index) => zone.classList.toggle("current", index === segment));
    this.segments?.forEach((node, index) => node.classList.toggle("current", index === segment));
  }

  showToken(token, place) {
    const { trace } = this;
    const segment = this.segmentOf(token);
    const rows = [];
    if (trace.advantages.length) rows.push(["advantage Ã", number(trace.advantages[token], 4, true)]);
    if (trace.total_advantages) rows.push(["total advantage", number(trace.total_advantages[token], 4, true)]);
    if (segment !== null) rows.push(...this.segmentRows(segment));
    rows.push(["token", `${token + 1} of ${trace.tokens.length}`]);
    showTip(quoted(trace.tokens[token]), rows, place);
    return rows;
  }

  showSegment(segment, place) {
    const { trace } = this;
    const rows = [
      ...this.segmentRows(segment).slice(1),
      ["advantage Ã", number(trace.advantages[trace.boundaries[segment]], 4, true)],
      ["J before", number(trace.objective[segment])],
      ["J after", number(trace.objective[segment + 1])],
      ["magnitude", number(trace.magnitude[segment + 1])],
      ["stability", number(trace.stability[segment + 1])],
    ];
    showTip(`Segment ${segment + 1} of ${this.segments.length}`, rows, place);
  }

  segmentRows(segment) {
    const { trace } = this;
    const rows = [
      ["segment", String(segment + 1)],
      ["process reward r", number(trace.process_rewards[segment], 4, true)],
      ["normalised r̂", number(trace.normalized_rewards[segment], 4, true)],
    ];
    if (trace.entropies[segment] !== null) rows.push(["entropy at its start", number(trace.entropies[segment])]);
    return rows;
  }
}

// ------------------------------------------------------------------------------------------------------------ tooltip

function showTip(title, rows, place) {
  const tip = $("tip");
  tip.replaceChildren(
    element("div", { class: "what" }, title),
    element("dl", {}, ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
  );
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const below = place.bottom + 8 + box.height < innerHeight;
  const top = below ? place.bottom + 8 : Math.max(8, place.top - box.height - 8);
  tip.style.top = `${top}px`;
  tip.style.left = `${Math.max(8, Math.min(place.left, innerWidth - box.width - 8))}px`;
}

function hideTip() {
  $("tip").hidden = true;
}

// ----------------------------------------------------------------------------------------------------------- controls

function drawLegend() {
  const limit = largest[state.measure];
  const stops = [];
  for (let step = -8; step <= 8; step++) stops.push(colour((step / 8) * limit, limit));
  $("legend").querySelector("i").style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
  $("low").textContent = number(-limit, 2);
  $("high").textContent = number(limit, 2, true);
  $("legend").setAttribute("aria-label", `Colours from ${number(-limit, 2)}, orange, to ${number(limit, 2, true)}, blue; stronger is larger`);
}

function drawFilters() {
  const count = (verdict) => traces.filter((trace) => verdict === "all" || String(trace.correct) === verdict).length;
  const names = { all: "All", true: "✓ Right", false: "✗ Wrong", null: "Not judged" };
  for (const [verdict, name] of Object.entries(names)) {
    if (verdict !== "all" && !count(verdict)) continue;
    const button = element("button", { type: "button", "data-verdict": verdict, "aria-pressed": verdict === state.verdict }, `${name} ${count(verdict)}`);
    button.addEventListener("click", () => {
      state.verdict = verdict;
      for (const other of $("filters").children) other.setAttribute("aria-pressed", other === button);
      select();
    });
    $("filters").append(button);
  }
}

function drawOverview() {
  const judged = traces.filter((trace) => trace.correct !== null);
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const parts = [counted(prompts.length, "prompt"), counted(traces.length, "completion")];
  if (judged.length) parts.push(`${Math.round(100 * mean(judged.map((trace) => Number(trace.correct))))}% right`);
  parts.push(`${Math.round(mean(traces.map((trace) => trace.thinking_tokens)))} thinking tokens on average`);
  $("overview").textContent = parts.join(" · ");
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function nameTheme() {
  $("theme").textContent = isDark() ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
}

function start() {
  nameTheme();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
  $("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
  });
  if (!traces.length) {
    $("reading").replaceChildren(element("p", { class: "empty" }, "There are no completions in this file."));
    return;
  }
  drawOverview();
  drawLegend();
  drawFilters();
  for (const [key, { name }] of Object.entries(SORTS)) $("sort").append(element("option", { value: key }, name));
  for (const [id, event] of [["sort", "change"], ["search", "input"]]) {
    $(id).addEventListener(event, () => {
      state[id] = $(id).value;
      select();
    });
  }
  $("direction").addEventListener("click", () => {
    state.descending = !state.descending;
    $("direction").textContent = state.descending ? "↓" : "↑";
    $("direction").setAttribute("aria-label", `Sort order: ${state.descending ? "descending" : "ascending"}`);
    select();
  });
  $("measure").addEventListener("change", () => {
    state.measure = $("measure").value;
    drawLegend();
    for (const column of columns.values()) column.paint();
  });
  $("list").addEventListener("scroll", drawList, { passive: true });
  $("list").addEventListener("keydown", onListKey);
  $("fold").addEventListener("click", () => {
    const open = document.querySelector("nav").classList.toggle("open");
    $("fold").setAttribute("aria-expanded", open);
    drawList();
  });
  let resizing = 0;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => {
      drawList();
      for (const column of columns.values()) {
        if (!column.trace) continue;
        column.drawLens();
        column.paint();
      }
    }, 120);
  });
  select();
  const asked = Number(location.hash.slice(1)) - 1;
  choose(traces[asked] ? asked : 0);
}

start();
