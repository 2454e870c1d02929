// One camera's card: the picture with its boxes, the answers, the state. Knows nothing of connections.
// Every text from outside goes through textContent; nothing here writes HTML.

// Okabe and Ito's colours, the dark ones lightened for this background. A second round of queries gets another mark.
const COLOURS = ["#56b4e9", "#e69f00", "#2fc79a", "#f0e442", "#e08cc0", "#ff7a45", "#8fa3ff", "#ffffff"];
const KEY = "groundd-colours";
const STALE_MS = 2000;
const DEAD_MS = 8000;

const slots = new Map(readSlots());

function readSlots() {
  try {
    const saved = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(saved) ? saved.filter((s) => Array.isArray(s) && Number.isInteger(s[1])).slice(-200) : [];
  } catch { return []; }
}

// A query keeps its colour for as long as this browser remembers it; a new one gets the first free.
function slot(id) {
  if (!slots.has(id)) {
    const taken = new Set(slots.values());
    let free = 0;
    while (taken.has(free)) free += 1;
    slots.set(id, free);
    try { localStorage.setItem(KEY, JSON.stringify([...slots])); } catch { /* private window: this page only */ }
  }
  return slots.get(id);
}

/** Colours of queries that are gone become free. */
export function keepSlots(ids) {
  const keep = new Set(ids);
  for (const id of [...slots.keys()]) if (!keep.has(id)) slots.delete(id);
}

/** A new element with a class and a text. */
export function element(name, className = "", text = "") {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

/** The coloured mark of a query. */
export function mark(id) {
  const node = element("i", "mark");
  paint(node, id);
  return node;
}

function paint(node, id) {
  node.style.setProperty("--c", COLOURS[slot(id) % COLOURS.length]);
  node.dataset.turn = Math.floor(slot(id) / COLOURS.length) % 3;
}

/** Milliseconds for people. */
export function span(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  return `${Math.round(ms / 3_600_000)} h`;
}

const score = (match) => (match.score_kind === "none" || !Number.isFinite(match.score) ? "" : match.score.toFixed(2));
const list = (value) => (Array.isArray(value) ? value : []);
const ruler = document.createElement("canvas").getContext("2d");
ruler.font = "12px system-ui, sans-serif";

export class Card {
  constructor(id) {
    this.id = id;
    this.node = document.getElementById("card").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.node.querySelector(selector);
    this.parts = {
      name: find("h2"), state: find(".state span"), fps: find(".fps"), age: find(".age"), canvas: find("canvas"),
      boxes: find(".boxes"), veil: find(".veil"), answers: find(".answers"), numbers: find(".numbers"),
    };
    this.parts.name.textContent = id;
    this.node.dataset.camera = id;
    this.node.setAttribute("aria-label", `Camera ${id}`);
    this.context = this.parts.canvas.getContext("2d");
    this.rows = new Map();
    this.found = new Map();
    this.order = 0;
    this.last = null;
    new ResizeObserver(() => this.last && this.drawBoxes(this.last)).observe(this.parts.boxes);
  }

  /** What the overview says of this camera. */
  update(camera) {
    const status = camera.status ?? {};
    const state = ["live", "connecting", "stalled", "failed"].includes(status.state) ? status.state : "unknown";
    this.state = state;
    this.reason = typeof status.reason === "string" ? status.reason : "";
    this.node.dataset.state = state;
    this.parts.state.textContent = this.reason && state !== "live" ? `${state}: ${this.reason}` : state;
    this.parts.state.title = this.parts.state.textContent;
    this.parts.fps.textContent = Number.isFinite(camera.fps) && camera.fps > 0 ? `${camera.fps.toFixed(1)} fps` : "";
    this.parts.numbers.textContent = numbers(camera);
    // It has another source, or a new daemon: the old scene is no picture of it.
    if (camera.last_frame_ms === null && this.last) this.clear();
    this.tick();
  }

  clear() {
    this.shown = ++this.order;
    this.last = null;
    this.context.clearRect(0, 0, this.parts.canvas.width, this.parts.canvas.height);
    this.parts.boxes.replaceChildren();
    this.parts.answers.replaceChildren();
    this.rows.clear();
    this.found.clear();
  }

  /** A frame: picture and boxes are swapped in one go, so they always belong together. */
  async show(event, lag) {
    const order = ++this.order;
    const bytes = Uint8Array.from(atob(event.jpeg), (c) => c.charCodeAt(0));
    let bitmap;
    try {
      bitmap = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
    } catch { return; }
    // A later frame may have been decoded first.
    if (order < (this.shown ?? 0)) return bitmap.close();
    this.shown = order;
    const { canvas } = this.parts;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
      this.node.style.setProperty("--aspect", event.aspect > 0 ? event.aspect : bitmap.width / bitmap.height);
    }
    this.context.drawImage(bitmap, 0, 0);
    bitmap.close();
    this.last = event.detections ?? {};
    this.born = performance.now() - event.age_ms - lag;
    // How long it had waited in the daemon counts as silence; the age of its pixels may come from a wrong clock.
    const waited = event.age_ms - (this.last.time?.age_ms ?? event.age_ms);
    this.arrived = performance.now() - lag - Math.max(0, waited);
    this.drawBoxes(this.last);
    this.drawAnswers(list(this.last.queries));
    this.tick();
    this.node.dataset.seq = this.last.seq ?? "";
  }

  drawBoxes(detections) {
    const { boxes } = this.parts;
    const [width, height] = [boxes.clientWidth, boxes.clientHeight];
    const source = detections.frame ?? {};
    const [sx, sy] = [100 / source.width, 100 / source.height];
    const nodes = [];
    const tags = [];
    for (const query of list(detections.queries)) {
      for (const match of list(query.matches)) {
        const corners = list(match.box);
        if (corners.length !== 4 || !corners.every(Number.isFinite) || !(sx > 0) || !(sy > 0)) continue;
        const via = match.via ?? {};
        if (list(via.crop).length === 4) nodes.push(place(element("i", "crop"), via.crop, sx, sy, query.id));
        const box = place(element("div", via.fresh === false ? "box held" : "box"), corners, sx, sy, query.id);
        box.dataset.query = query.id;
        nodes.push(box);
        tags.push({ query, match, x: corners[0] * sx * width / 100, top: corners[1] * sy * height / 100,
          bottom: corners[3] * sy * height / 100 });
      }
    }
    boxes.replaceChildren(...nodes, ...placeTags(tags, width, height));
  }

  drawAnswers(queries) {
    const ids = new Set();
    for (const query of queries) {
      ids.add(query.id);
      if (!this.rows.has(query.id)) this.rows.set(query.id, new Row(query.id));
      this.rows.get(query.id).update(query);
      const count = list(query.matches).length;
      // What is drawn on the picture is seen, also where nobody was asked just now; that nothing is there must have been said.
      if (query.status === "ok" || count) this.found.set(query.id, { text: query.text, count });
      else this.found.delete(query.id);
    }
    for (const id of this.rows.keys()) if (!ids.has(id)) { this.rows.delete(id); this.found.delete(id); }
    const wanted = queries.map((q) => this.rows.get(q.id).node);
    const { answers } = this.parts;
    const same = wanted.length === answers.children.length && wanted.every((node, i) => node === answers.children[i]);
    if (!same) answers.replaceChildren(...wanted);
  }

  /** What is seen, in words. */
  words() {
    const seen = [...this.found.values()].filter((f) => f.count > 0).map((f) => `${f.count} ${f.text}`);
    return `${this.id}: ${seen.join(", ") || (this.found.size ? "nothing found" : "not answered")}`;
  }

  /** Ages, a few times a second. */
  tick(now = performance.now()) {
    const { age, veil, canvas } = this.parts;
    const old = this.last ? now - this.born : null;
    const silent = this.last ? now - this.arrived : 0;
    const level = silent > DEAD_MS || (silent > STALE_MS && this.state === "failed") ? "bad"
      : silent > STALE_MS || old > STALE_MS ? "warn" : "ok";
    age.textContent = old === null ? "" : span(old);
    age.dataset.level = level;
    this.node.dataset.level = this.last ? level : this.state === "failed" ? "bad" : "ok";
    const [head, small] = this.last
      ? (level === "bad" ? [`No new picture for ${span(silent)}`, this.state === "live" ? "" : this.parts.state.textContent] : ["", ""])
      : this.waiting();
    if (veil.dataset.said !== head + small) {
      veil.dataset.said = head + small;
      veil.replaceChildren(head, ...(small ? [element("small", "", small)] : []));
    }
    if (now - (this.described ?? -1e9) > 2000) {
      this.described = now;
      canvas.setAttribute("aria-label", this.last ? this.words() : `${this.id}: no picture`);
    }
  }

  waiting() {
    switch (this.state) {
      case "live": return ["Waiting for the first analysed frame", ""];
      case "connecting": return ["Connecting", this.reason];
      case "stalled": return ["Stalled", this.reason || "the camera sends nothing"];
      case "failed": return ["Failed", this.reason];
      default: return ["No state known yet", ""];
    }
  }
}

function numbers(camera) {
  const { frames } = camera;
  if (!frames) return "";
  const parts = [`${frames.published} published`];
  const drops = Object.entries(frames.dropped ?? {}).filter(([, count]) => count > 0);
  parts.push(drops.length ? `dropped ${drops.map(([why, count]) => `${count} ${why.replace("_", " ")}`).join(", ")}` : "none dropped");
  if (camera.restarts > 0) parts.push(`${camera.restarts} restart${camera.restarts > 1 ? "s" : ""}`);
  return parts.join(" · ");
}

function place(node, [x1, y1, x2, y2], sx, sy, id) {
  paint(node, id);
  Object.assign(node.style, { left: `${x1 * sx}%`, top: `${y1 * sy}%`, width: `${(x2 - x1) * sx}%`, height: `${(y2 - y1) * sy}%` });
  return node;
}

// Labels go above their box, else inside it, else below: the first place that covers no other label.
function placeTags(tags, width, height) {
  const taken = [];
  const free = (r) => taken.every((t) => r.x + r.w < t.x || t.x + t.w < r.x || r.y + 20 < t.y || t.y + 20 < r.y);
  return tags.map(({ query, match, x, top, bottom }) => {
    const roomy = width > 460;
    const text = String(query.text ?? query.id);
    const limit = Math.min(width, roomy ? 320 : 200);
    const how = roomy && match.via?.method ? `${match.via.method}${match.via.fresh === false ? ", held" : ""}` : "";
    const extra = (match.track == null ? 0 : 30) + (score(match) ? 32 : 0) + (how ? 18 + how.length * 6 : 0) + 16;
    const w = Math.min(limit, ruler.measureText(text.slice(0, 80)).width + extra);
    const left = Math.max(0, Math.min(x, width - w));
    const spots = [top - 21, top + 2, bottom + 1, top + 23].map((y) => ({ x: left, y, w }));
    const spot = spots.find((s) => s.y >= 0 && s.y + 20 <= height && free(s)) ?? { x: left, y: Math.max(0, Math.min(top - 21, height - 20)), w };
    taken.push(spot);
    const tag = element("div", "tag");
    paint(tag, query.id);
    Object.assign(tag.style, { left: `${spot.x}px`, top: `${spot.y}px`, maxWidth: `${limit}px` });
    tag.append(element("bdi", "", text));
    if (match.track != null) tag.append(element("span", "id", `#${match.track}`));
    if (score(match)) tag.append(element("b", "", score(match)));
    if (how) tag.append(element("span", "how", how));
    return tag;
  });
}

class Row {
  constructor(id) {
    this.node = element("li");
    this.text = element("bdi");
    this.result = element("span", "result");
    this.detail = element("small");
    this.said = element("span");
    this.result.append(this.said, this.detail);
    this.why = element("span", "why");
    this.node.append(mark(id), this.text, this.result, this.why);
  }

  update(query) {
    const matches = list(query.matches);
    const kind = query.status === "ok" ? (matches.length ? "found" : "miss") : query.status === "shed" ? "shed" : "error";
    const how = [...new Set(matches.map((m) => m.via?.method).filter(Boolean))].join(", ");
    const best = matches.length ? score(matches[0]) : "";
    // Of a search that was not finished, or a question that was put off, there may be what was found by then.
    const shed = matches.length ? `${matches.length} known` : "no answer";
    const said = { found: `${matches.length} found`, miss: "nothing there", shed, error: "error" }[kind];
    this.set(this.node, "className", kind);
    this.set(this.text, "textContent", String(query.text ?? query.id));
    this.set(this.text, "title", String(query.text ?? query.id));
    this.set(this.said, "textContent", said);
    this.set(this.detail, "textContent", kind === "found" ? [best, how].filter(Boolean).join(" · ") : "");
    this.set(this.why, "textContent", kind === "shed" || kind === "error" ? String(query.reason ?? "") : "");
    this.why.hidden = !this.why.textContent;
  }

  // Only what changed is touched: fifteen frames a second must not restyle a wall of cards.
  set(node, key, value) {
    if (node[key] !== value) node[key] = value;
  }
}
