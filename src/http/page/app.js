// The page: the one connection, the grid, the header. Pictures and boxes are the cards' business.

import { Card, element, keepSlots, mark, span } from "./card.js";

const cards = new Map();
const at = (id) => document.getElementById(id);
const [grid, legend, banner, spoken] = [at("grid"), at("legend"), at("banner"), at("spoken")];
/** Events stop for this long: the connection is dead even if nobody said so. */
const SILENCE_MS = 6000;
const HIDDEN_MS = 10_000;

let stream = null;
let focus = location.hash.slice(1) || null;
let paused = false;
let attempts = 0;
let retryAt = 0;
let heard = performance.now();
let fastest = Infinity;
let problem = "";
let queryCount = 0;

function open() {
  close();
  fastest = Infinity;
  heard = performance.now();
  // Relative, so that a proxy may put the page under any path.
  stream = new EventSource(focus ? `live/${encodeURIComponent(focus)}` : "live");
  stream.addEventListener("overview", (event) => {
    const overview = parse(event.data);
    if (!overview) return;
    attempts = 0;
    problem = "";
    beat("live");
    showOverview(overview);
  });
  stream.addEventListener("frame", (event) => {
    const frame = parse(event.data);
    if (!frame) return;
    beat("live");
    // The clocks differ by an unknown constant; what exceeds the smallest difference seen is time in transit.
    const difference = performance.now() - frame.sent_ms;
    fastest = Math.min(fastest, difference);
    cards.get(frame.camera)?.show(frame, difference - fastest);
  });
  stream.onerror = () => lost();
  restWhileHidden();
}

// A hidden tab costs the daemon pictures nobody sees, also one that was opened in the background.
function restWhileHidden() {
  clearTimeout(restWhileHidden.timer);
  if (document.hidden) restWhileHidden.timer = setTimeout(close, HIDDEN_MS);
}

function parse(text) {
  try { return JSON.parse(text); } catch { return null; }
}

function close() {
  stream?.close();
  stream = null;
}

function beat(state) {
  heard = performance.now();
  if (document.body.dataset.link !== state) setLink(state);
}

function setLink(state) {
  document.body.dataset.link = state;
  const words = { live: "Connected", connecting: "Connecting", lost: "Not connected", paused: "Paused" };
  at("link").lastElementChild.textContent = words[state];
  showBanner();
}

// An EventSource does not say why it failed, and never comes back from a refusal: ask, then try again ourselves.
async function lost() {
  close();
  if (paused) return;
  attempts += 1;
  const wait = Math.min(8000, 500 * 2 ** Math.min(attempts, 5)) * (0.75 + Math.random() / 4);
  retryAt = performance.now() + wait;
  setTimeout(() => { if (!stream && !paused && !document.hidden) open(); }, wait);
  // At once: who is asked what is wrong may take its time, too.
  setLink("lost");
  problem = await whatIsWrong();
}

async function whatIsWrong() {
  try {
    const answer = await fetch("api/status", { cache: "no-store", signal: AbortSignal.timeout(3000) });
    const status = await answer.json();
    if (focus && status.states?.model && await isGone(focus)) { leave(); return ""; }
    return status.viewers?.now >= status.viewers?.most
      ? `All ${status.viewers.most} live views are taken. Close one, or wait.` : "The connection broke.";
  } catch {
    return "The daemon does not answer. Pictures below are the last ones received.";
  }
}

// The camera of a bookmark may be gone: its stream is refused for ever, the grid is not. Before the model is loaded those that
// messages set are not known yet.
async function isGone(id) {
  const answer = await fetch("api/cameras", { cache: "no-store", signal: AbortSignal.timeout(3000) });
  const { cameras } = await answer.json();
  return !cameras.some((camera) => camera.id === id);
}

function showBanner(overview) {
  if (overview) Object.assign(showBanner, { health: overview.health, broker: overview.states?.broker });
  const wrong = document.body.dataset.link === "lost";
  const reasons = showBanner.health?.reasons ?? [];
  // A camera that is down says so itself; only what concerns the whole daemon belongs up here.
  const daemon = reasons.filter((r) => r.what !== "cameras").map((r) => `${r.what}: ${r.why}`);
  // Watching goes on without a broker, which therefore is no matter of health.
  if (showBanner.broker?.up === false) daemon.push(`broker: ${showBanner.broker.reason || "not connected"}`);
  const wait = Math.max(0, retryAt - performance.now());
  const text = wrong ? `${problem || "Not connected."} Next try in ${Math.ceil(wait / 1000)} s.` : daemon.join(" · ");
  if (banner.textContent !== text) banner.textContent = text;
  banner.dataset.tone = wrong ? "bad" : "warn";
  if (banner.hidden !== !text) { banner.hidden = !text; layout(); }
}

function showOverview(overview) {
  const list = Array.isArray(overview.cameras) ? overview.cameras : [];
  if (focus && !list.some((camera) => camera.id === focus)) return leave();
  for (const [id, card] of cards) if (!list.some((c) => c.id === id)) { card.node.remove(); cards.delete(id); }
  for (const camera of list) {
    if (!cards.has(camera.id)) add(camera.id);
    const card = cards.get(camera.id);
    const before = card.state;
    card.update(camera);
    if (before && before !== card.state) speak(`${camera.id} is ${card.state}. ${card.reason}`);
  }
  showLegend(overview.states?.queries);
  const live = list.filter((c) => c.status?.state === "live").length;
  at("summary").textContent = list.length ? `${live} of ${list.length} cameras live` : "";
  at("summary").title = `groundd ${overview.version}, up ${span(overview.uptime_seconds * 1000)}`;
  at("empty").hidden = list.length > 0;
  grid.hidden = !list.length;
  showBanner(overview);
  layout();
}

function add(id) {
  const card = new Card(id);
  cards.set(id, card);
  const after = [...cards.keys()].sort().find((other) => other > id && cards.get(other).node.isConnected);
  grid.insertBefore(card.node, after ? cards.get(after).node : null);
  card.node.hidden = Boolean(focus) && focus !== id;
  card.node.addEventListener("click", () => { if (!focus) enter(id); });
}

function showLegend(queries) {
  if (!Array.isArray(queries)) return;
  const key = JSON.stringify(queries.map((q) => [q.id, q.text, q.status]));
  if (key === showLegend.key) return;
  showLegend.key = key;
  keepSlots(queries.map((q) => q.id));
  if (queryCount !== queries.length) layout.key = "";
  queryCount = queries.length;
  legend.replaceChildren(...queries.map((query) => {
    const off = query.status && query.status !== "active";
    const node = element("li", off ? "off" : "");
    const words = element("bdi", "", String(query.text ?? query.id));
    node.title = [query.text, off ? `${query.status}: ${query.reason ?? ""}` : ""].filter(Boolean).join(" — ");
    node.append(mark(query.id), words);
    if (off) node.append(element("small", "", String(query.status)));
    return node;
  }));
  if (!queries.length) legend.replaceChildren(element("li", "off", "No query yet: frames are shown as they are"));
}

// The columns, and the place of the answers, that make the pictures largest without scrolling; phones scroll.
function layout() {
  const count = focus ? Math.min(1, cards.size) : cards.size;
  const [width, height] = [window.innerWidth, window.innerHeight - grid.offsetTop];
  const key = [count, width, height, queryCount, focus].join();
  if (!count || key === layout.key) return;
  layout.key = key;
  let best = { area: 0 };
  for (let cols = 1; cols <= count; cols += 1) {
    for (const beside of [false, true]) {
      const rows = Math.ceil(count / cols);
      const [w, h] = [(width - 10) / cols - 10, (height - 10) / rows - 10];
      const lines = Math.ceil(Math.min(queryCount || 1, 6) / Math.max(1, Math.floor(w / 268)));
      const [pw, ph] = beside ? [w - 232, h - 36] : [w, h - 36 - 40 - lines * 24];
      const picture = Math.min(pw, ph * 16 / 9);
      if (picture > 260 && picture > best.area) best = { area: picture, cols, beside };
    }
  }
  const fits = width > 720 && best.area > 0;
  document.body.classList.toggle("fit", fits);
  document.body.classList.toggle("beside", fits && best.beside);
  const columns = fits ? best.cols : Math.max(1, Math.min(count, Math.floor(width / 380)));
  grid.style.setProperty("--cols", columns);
}

function enter(id) {
  focus = id;
  location.hash = id;
  refocus();
}

function leave() {
  const id = focus;
  focus = null;
  history.replaceState(null, "", location.pathname + location.search);
  refocus(id);
}

function refocus(id) {
  document.body.classList.toggle("focused", Boolean(focus));
  at("back").hidden = !focus;
  // Hidden, not dropped: their last pictures are there again at once.
  for (const [other, card] of cards) card.node.hidden = Boolean(focus) && other !== focus;
  layout();
  if (!paused) open();
  if (id) setTimeout(() => cards.get(id)?.node.focus(), 400);
}

function pause() {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", paused);
  at("pause").textContent = paused ? "Resume" : "Pause";
  if (paused) { close(); setLink("paused"); } else { setLink("connecting"); open(); }
}

function speak(text) {
  spoken.textContent = text;
}

function move(step) {
  const nodes = [...grid.children];
  const now = nodes.indexOf(document.activeElement);
  nodes[(now + step + nodes.length) % nodes.length]?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const card = document.activeElement?.closest?.(".card");
  if (event.key === "Escape" && focus) leave();
  else if (event.key === "p" || event.key === "P") pause();
  else if (event.key === "ArrowRight" && !focus) move(1);
  else if (event.key === "ArrowLeft" && !focus) move(-1);
  else if (event.key === "Enter" && card && !focus) enter(card.dataset.camera);
});
document.addEventListener("visibilitychange", () => {
  restWhileHidden();
  if (!document.hidden && !stream && !paused) open();
});
window.addEventListener("hashchange", () => {
  const wanted = location.hash.slice(1) || null;
  if (wanted !== focus) { focus = wanted; refocus(); }
});
window.addEventListener("resize", layout);
at("pause").addEventListener("click", pause);
at("back").addEventListener("click", leave);
setInterval(() => {
  const now = performance.now();
  if (!paused) for (const card of cards.values()) card.tick(now);
  if (stream && now - heard > SILENCE_MS && !document.hidden) lost();
  showBanner();
}, 250);

document.body.classList.toggle("focused", Boolean(focus));
at("back").hidden = !focus;
open();
