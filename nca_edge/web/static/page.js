// The page's only script: sends changes, listens to the server, and makes everything work with the keyboard alone.
"use strict";

const body = document.body;
const csrf = document.querySelector('meta[name="csrf"]').content;
const say = document.getElementById("say");
const texts = JSON.parse(document.getElementById("live-texts")?.textContent || "{}");
let revision = Number(body.dataset.revision);
let sayTimer = 0;

function tell(sentence, bad) {
  clearTimeout(sayTimer);
  say.textContent = sentence;
  say.className = bad ? "bad" : "";
  say.setAttribute("role", bad ? "alert" : "status");
  say.hidden = !sentence;
  if (!bad) sayTimer = setTimeout(() => { say.hidden = true; }, 2500);
}

// One change at a time: a key held down must not name ten cells.
let busy = false;
async function change(name, values) {
  if (busy) return;
  busy = true;
  try {
    const answer = await fetch(`/do/${name}`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-csrf-token": csrf },
      body: JSON.stringify(values),
    });
    const told = await answer.json().catch(() => ({ error: body.dataset.failed }));
    if (!answer.ok) {
      tell(told.error || body.dataset.failed, true);
      if (told.go) setTimeout(() => location.assign(told.go), 0);
      return;
    }
    if (told.say) sessionStorage.setItem("say", told.say);
    if (told.stay) { tell(told.say || "", false); return; }
    rememberPlace(name, values);
    if (told.go && told.go !== location.pathname + location.search) location.assign(told.go);
    else location.reload();
  } catch {
    tell(body.dataset.offline, true);
  } finally {
    busy = false;
  }
}

function rememberPlace(name, values) {
  const tiles = [...document.querySelectorAll("#grid .tile")];
  if (!tiles.length) return;
  const named = values.cell;
  const at = tiles.findIndex((tile) => tile.dataset.cell === named);
  // After a correction the next cell has the focus; it is found by its name, since the order may have changed.
  const next = name === "reclassify" && at >= 0 ? tiles[Math.min(at + 1, tiles.length - 1)] : null;
  if (next) sessionStorage.setItem("tile", `${next.dataset.cell} ${at}`);
}

function restorePlace() {
  const sentence = sessionStorage.getItem("say");
  if (sentence) { sessionStorage.removeItem("say"); tell(sentence, false); }
  const wanted = sessionStorage.getItem("tile");
  if (!wanted || !document.getElementById("grid")) return;
  sessionStorage.removeItem("tile");
  const [cell, at] = wanted.split(" ");
  const tiles = [...document.querySelectorAll("#grid .tile")];
  const tile = tiles.find((one) => one.dataset.cell === cell) || tiles[Math.min(Number(at), tiles.length - 1)];
  if (tile) focusTile(tile);
}

function focusTile(tile) {
  for (const other of document.querySelectorAll("#grid .tile")) other.tabIndex = other === tile ? 0 : -1;
  tile.focus();
}

function press(element) {
  if (!element || element.disabled) return;
  if (element.tagName === "A" && element.dataset.back !== undefined && history.length > 1) { history.back(); return; }
  if (element.id === "outline") { outlines(); return; }
  if (element.dataset.do === undefined || element.tagName === "FORM") { element.click(); return; }
  if (element.dataset.confirm && !confirm(element.dataset.confirm)) return;
  change(element.dataset.do, JSON.parse(element.dataset.json || "{}"));
}

function outlines() {
  const on = document.documentElement.classList.toggle("outlines");
  document.getElementById("outline").setAttribute("aria-pressed", String(on));
  sessionStorage.setItem("outlines", on ? "1" : "");
}

document.addEventListener("click", (event) => {
  const element = event.target.closest("button[data-do], #outline, a[data-back]");
  if (!element) return;
  event.preventDefault();
  press(element);
});

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-do]");
  if (!form) return;
  event.preventDefault();
  change(form.dataset.do, Object.fromEntries(new FormData(form)));
});

// What is filled in already is replaced by what is typed, not added to.
document.addEventListener("focusin", (event) => { if (event.target.name === "name") event.target.select(); });

// Digits by their place on the keyboard (on a French one they need Shift), letters by what is printed on the key.
function keyOf(event) {
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code);
  if (digit) return digit[1];
  return { " ": "space", Enter: "enter", Escape: "escape" }[event.key] || event.key.toLowerCase();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape" && typing) { typing.blur(); return; }
  if (typing || event.ctrlKey || event.altKey || event.metaKey || event.repeat && !event.key.startsWith("Arrow")) return;
  if (moveFocus(event)) return;
  const key = keyOf(event);
  const onControl = event.target.closest("button, summary, a");
  if ((key === "enter" || key === "space") && onControl) return; // what has the focus is pressed
  const named = document.querySelector(`[data-class-key="${CSS.escape(key)}"]`);
  const tile = event.target.closest(".tile");
  const target = document.querySelector(`[data-key="${CSS.escape(key)}"]:not([hidden])`);
  if (named && named.tagName === "A" && tile) nameTile(tile.dataset.cell, named.dataset.label);
  else if (named && named.tagName === "BUTTON") press(named);
  else if (target) press(target);
  else return;
  event.preventDefault();
});

function moveFocus(event) {
  if (!event.key.startsWith("Arrow")) return false;
  const tiles = [...document.querySelectorAll("#grid .tile")];
  if (!tiles.length || event.target.closest("summary")) return false;
  const at = tiles.indexOf(event.target.closest(".tile"));
  const columns = getComputedStyle(document.getElementById("grid")).gridTemplateColumns.split(" ").length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const to = at < 0 ? 0 : at + step;
  if (tiles[to]) focusTile(tiles[to]);
  event.preventDefault();
  return true;
}

function nameTile(cell, label) { change("reclassify", { cell, label }); }

document.addEventListener("dragstart", (event) => {
  const tile = event.target.closest?.(".tile");
  if (tile) { event.dataTransfer.setData("text/x-cell", tile.dataset.cell); event.dataTransfer.effectAllowed = "move"; }
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    const target = event.target.closest?.("a[data-label]");
    if (!target) return;
    target.classList.toggle("over", kind === "dragover");
    if (kind === "dragleave") return;
    event.preventDefault();
    if (kind === "drop") nameTile(event.dataTransfer.getData("text/x-cell"), target.dataset.label);
  });
}

// What the server tells: how often the session changed, and how the microscope stands.
const live = document.getElementById("live");
let frame = 0;

async function refresh() {
  const part = document.querySelector("[data-part]");
  if (!part) return;
  const focused = document.activeElement?.closest(".tile")?.dataset.cell;
  const answer = await fetch(part.dataset.part);
  if (!answer.ok) return;
  part.innerHTML = await answer.text();
  const tile = focused && part.querySelector(`[data-cell="${focused}"]`);
  if (tile) focusTile(tile);
}

function show(told) {
  if (say.dataset.lost) { delete say.dataset.lost; location.reload(); return; }
  if (told.head) showHead(told.head);
  if (told.revision !== revision) { revision = told.revision; refresh(); }
  if (told.live && live) showLive(told.live);
}

function showHead(head) {
  const state = document.querySelector(".state");
  state.className = `state state-${head.state}`;
  state.textContent = head.text;
  const number = document.getElementById("queued");
  number.textContent = head.queued;
  number.hidden = !head.queued;
}

function showLive(now) {
  document.getElementById("lamp").dataset.field = now.field;
  document.getElementById("field-text").textContent = texts[`field.${now.field}`] || now.field;
  document.getElementById("camera-text").textContent = now.text || texts[`camera.${now.camera}`] || now.camera;
  document.getElementById("pause").hidden = now.paused || now.ended;
  document.getElementById("resume").hidden = !now.paused || now.ended;
  for (const button of document.querySelectorAll(".while-live")) button.hidden = now.ended;
  const interrupted = document.getElementById("interrupted");
  if (interrupted) interrupted.hidden = !now.interrupted;
  drawBoxes(now);
  if (now.frame && now.frame !== frame && (live.complete || !live.src)) {
    frame = now.frame;
    live.src = `/live.jpg?n=${frame}`;
    document.getElementById("no-picture").hidden = true;
  }
}

function drawBoxes(now) {
  const svg = document.getElementById("boxes");
  const [width, height] = now.size || [4, 3];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  document.getElementById("frame").style.aspectRatio = `${width} / ${height}`;
  svg.replaceChildren(...(now.boxes || []).flatMap(([x, y, w, h, name]) => [
    draw("rect", { class: "under", x, y, width: w, height: h }), draw("rect", { x, y, width: w, height: h }),
    draw("text", { x: x > width / 2 ? x + w : x, "text-anchor": x > width / 2 ? "end" : "start", y: Math.max(y - height * 0.01, height * 0.04), "font-size": height * 0.045 }, name ? texts[`class.${name}`] || name : "?"),
  ]));
}

function draw(kind, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  return element;
}

function listen() {
  const source = new EventSource("/events");
  source.onmessage = (event) => show(JSON.parse(event.data));
  source.onerror = () => {
    // The browser itself tries again, unless the server answered with a refusal: then we do.
    say.dataset.lost = "1";
    tell(body.dataset.offline, true);
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}

if (sessionStorage.getItem("outlines") && document.getElementById("outline")) outlines();
restorePlace();
listen();
