"use strict";
// The cameras on one page: states and numbers from /events, pictures one after the other as the person looks at them.

const token = new URLSearchParams(location.search).get("token");
const TURNS = 2;              // pictures asked for at a time
const EVERY_MS = 1000;        // between two pictures of one camera, at best
const SILENT_MS = 8000;       // without an event the connection is lost; a sign of life comes each second
const THUMB_WIDTH = 640;

const byId = (id) => document.getElementById(id);
const cards = new Map();      // name -> {root, entry, seen, asked, url}
let preview = true;
let heard = 0;
let opened = null;            // name of the camera in the dialog

function address(path, query) {
  const parts = new URLSearchParams(query);
  if (token) parts.set("token", token);
  const text = parts.toString();
  return text ? path + "?" + text : path;
}

function span(ms) {
  if (ms === null || ms === undefined) return "-";
  const size = Math.abs(ms);
  if (size < 999.5) return Math.round(ms) + " ms";
  if (size < 60000) return (ms / 1000).toFixed(1) + " s";
  if (size < 3600000) return Math.floor(ms / 60000) + " min";
  if (size < 172800000) return Math.floor(ms / 3600000) + " h";
  return Math.floor(ms / 86400000) + " d";
}

// How old what is shown is, and whether that is to be said across the picture.
function oldness(entry) {
  if (entry.age_ms === null || entry.age_ms === undefined) return null;
  const isLive = entry.grade === "fine" && entry.condition !== "parked";
  return isLive ? null : span(entry.age_ms) + " old";
}

function fill(root, entry) {
  root.dataset.grade = entry.grade;
  root.querySelector("h2").textContent = entry.name;
  root.querySelector(".state-words").textContent = entry.words;
  const note = root.querySelector(".note");
  note.textContent = entry.note;
  note.hidden = !entry.note;
  const numbers = {
    fps: entry.fps === undefined ? "-" : entry.fps.toFixed(1),
    age: span(entry.age_ms),
    latency: span(entry.latency_ms),
    readers: entry.readers === undefined ? "-" : String(entry.readers),
    size: entry.width ? entry.width + "\u00d7" + entry.height + " " + entry.format : "-",
    seq: entry.seq ? String(entry.seq) : "-",
  };
  for (const slot of root.querySelectorAll("dd")) slot.textContent = numbers[slot.dataset.value];
  const old = oldness(entry);
  const label = root.querySelector(".old");
  const isShown = old !== null && !root.querySelector("img").hidden;
  label.textContent = old || "";
  label.hidden = !isShown;
  label.parentElement.classList.toggle("is-old", isShown);
  root.querySelector(".blank").textContent = preview ? "no picture" : "pictures are switched off";
}

const seen = new IntersectionObserver((changes) => {
  for (const change of changes) {
    for (const card of cards.values()) if (card.root === change.target) card.seen = change.isIntersecting;
  }
});

function add(name) {
  const root = byId("card").content.firstElementChild.cloneNode(true);
  root.id = "camera-" + name;
  const button = root.querySelector("button");
  button.setAttribute("aria-label", name + ", large");
  button.addEventListener("click", () => open(name));
  const card = { root, entry: null, seen: false, asked: 0, url: null };
  cards.set(name, card);
  const after = [...cards.keys()].sort().find((other) => other > name);
  byId("cameras").insertBefore(root, after ? cards.get(after).root : null);
  seen.observe(root);
  return card;
}

function show(entries) {
  const names = new Set(entries.map((entry) => entry.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    seen.unobserve(card.root);
    card.root.remove();
    if (card.url) URL.revokeObjectURL(card.url);
    cards.delete(name);
    if (opened === name) byId("large").close();
  }
  for (const entry of entries) {
    const card = cards.get(entry.name) || add(entry.name);
    const was = card.entry;
    card.entry = entry;
    fill(card.root, entry);
    if (opened === entry.name) {
      fill(byId("large"), entry);
      // A stream ends when its camera is away; it begins anew when the camera is back.
      if (was && was.grade !== "fine" && entry.grade === "fine") play(entry.name);
    }
  }
  summarise(entries);
}

function summarise(entries) {
  const count = (grade) => entries.filter((entry) => entry.grade === grade).length;
  const words = [["fine", "fine"], ["waiting", "waiting"], ["broken", "in trouble"], ["off", "stopped"]];
  const parts = words.filter(([grade]) => count(grade)).map(([grade, word]) => count(grade) + " " + word);
  const text = parts.join(" \u00b7 ") || "no cameras";
  if (byId("summary").textContent !== text) byId("summary").textContent = text;
  const bad = entries.filter((entry) => entry.grade === "broken" || entry.grade === "waiting");
  bad.sort((a, b) => (a.grade === b.grade ? 0 : a.grade === "broken" ? -1 : 1));
  document.title = (bad.length ? "(" + bad.length + ") " : "") + "camring";
  byId("trouble").hidden = bad.length === 0;
  const list = byId("trouble").firstElementChild;
  // Kept when nothing but numbers changed, so that the focus stays where it is.
  const key = bad.map((entry) => entry.name + entry.words).join("\n");
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...bad.map((entry) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      const name = document.createElement("strong");
      name.textContent = entry.name;
      link.href = "#camera-" + entry.name;
      link.dataset.grade = entry.grade;
      link.append(name, " " + entry.words);
      item.append(link);
      return item;
    }));
  }
  byId("nothing").hidden = entries.length > 0;
  byId("nothing").textContent = "There is no ring and no configured camera. Start one: systemctl start camring@NAME";
}

// --- pictures ---

async function take(name, card) {
  const path = "rings/" + encodeURIComponent(name) + "/snapshot.jpg";
  const answer = await fetch(address(path, { max_age: "any", width: THUMB_WIDTH }), { signal: AbortSignal.timeout(15000) });
  if (!answer.ok) return;
  const url = URL.createObjectURL(await answer.blob());
  const image = card.root.querySelector("img");
  image.src = url;
  image.alt = "newest picture of " + name;
  try {
    await image.decode();
    image.hidden = false;
    if (card.entry) fill(card.root, card.entry);
  } finally {
    if (card.url) URL.revokeObjectURL(card.url);
    card.url = url;
  }
}

function due(now) {
  const wanted = ([name, card]) =>
    card.seen && card.entry && card.entry.seq && card.entry.seq !== card.shown && now - card.asked >= EVERY_MS && opened !== name;
  const candidates = [...cards].filter(wanted);
  candidates.sort((a, b) => a[1].asked - b[1].asked);
  return candidates[0];
}

async function photographer() {
  for (;;) {
    const next = preview && !document.hidden ? due(performance.now()) : undefined;
    if (!next) {
      await new Promise((done) => setTimeout(done, 200));
      continue;
    }
    const [name, card] = next;
    card.asked = performance.now();
    card.shown = card.entry.seq;
    // What cannot be had now is asked for again; the state says why it cannot.
    await take(name, card).catch(() => { card.shown = 0; });
  }
}

// --- one camera, large ---

function play(name) {
  const image = byId("large").querySelector("img");
  image.alt = "live picture of " + name;
  image.hidden = !preview;
  if (preview) image.src = address("rings/" + encodeURIComponent(name) + "/stream.mjpg", { at: Date.now() });
}

function open(name) {
  opened = name;
  const dialog = byId("large");
  play(name);
  fill(dialog, cards.get(name).entry);
  const folder = "rings/" + encodeURIComponent(name) + "/";
  dialog.querySelector('[data-link-to="snapshot.jpg"]').href = address(folder + "snapshot.jpg", { max_age: "any" });
  dialog.querySelector('[data-link-to="details"]').href = address("api/" + folder.slice(0, -1), {});
  dialog.showModal();
}

// An answer that is no picture, or none yet: what the state says stands alone.
byId("large").querySelector("img").addEventListener("error", (event) => {
  event.target.hidden = true;
  if (opened && cards.has(opened)) fill(byId("large"), cards.get(opened).entry);
});

byId("large").addEventListener("close", () => {
  const image = byId("large").querySelector("img");
  // Ends the stream: without a source the browser closes the connection.
  image.removeAttribute("src");
  image.hidden = true;
  const card = cards.get(opened);
  opened = null;
  if (card) card.root.querySelector("button").focus();
});
byId("close").addEventListener("click", () => byId("large").close());

byId("only").addEventListener("click", (event) => {
  const only = event.currentTarget.getAttribute("aria-pressed") !== "true";
  event.currentTarget.setAttribute("aria-pressed", String(only));
  byId("cameras").classList.toggle("only-trouble", only);
});

// --- events ---

function listen() {
  const events = new EventSource(address("events", { numbers: "1" }));
  events.addEventListener("hello", (event) => {
    const hello = JSON.parse(event.data);
    preview = hello.preview;
    byId("version").textContent = "camring " + hello.version;
    heard = performance.now();
  });
  events.addEventListener("rings", (event) => {
    heard = performance.now();
    show(JSON.parse(event.data));
  });
  // What is closed for good (a restart behind a proxy, for one) is opened anew.
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  });
}

function check() {
  const silent = performance.now() - heard;
  const isLost = silent > SILENT_MS;
  const link = byId("link");
  const text = isLost ? "connection lost " + span(silent) + " ago: nothing here is live" : "connected";
  link.dataset.link = isLost ? "lost" : "there";
  if (link.textContent !== text) link.textContent = text;
  document.body.classList.toggle("is-lost", isLost);
  for (const card of cards.values()) if (isLost) card.root.querySelector(".picture").classList.add("is-old");
}

for (const link of document.querySelectorAll("[data-href]")) link.href = address(link.dataset.href, {});
heard = performance.now();
setInterval(check, 1000);
listen();
for (let turn = 0; turn < TURNS; turn += 1) photographer();
