// All text of the program is set by textContent, so none of it is ever markup.
"use strict";

const LENGTH = 300;  // samples in a plot, as the server keeps
const PLOTS = [      // title, series, second series, unit
  ["queued", "queued", null, count],
  ["running", "running", null, count],
  ["ended per second", "rate", "errors", rate],
  ["time in the queue", "queue_time", null, duration],
  ["run time", "run_time", null, duration],
];
const NUMBERS = ["completed", "failed", "panicked", "cancelled", "rejected", "restarts", "retries", "delayed", "submitters waiting", "dropped"];

let times = [], series = {}, mayAct = false, seen = false;

const $ = (id) => document.getElementById(id);

function count(value) { return value == null ? "–" : Number(value).toLocaleString("en"); }
function rate(value) { return value == null ? "–" : `${value.toFixed(value < 10 ? 1 : 0)}/s`; }
function duration(s) {
  if (s == null) return "–";
  if (s < 0.00001) return "0 s";
  if (s < 1) return `${(s * 1000).toFixed(s < 0.01 ? 2 : 0)} ms`;
  if (s < 60) return `${s.toFixed(1)} s`;
  return s < 3600 ? `${Math.floor(s / 60)} m ${Math.floor(s % 60)} s` : `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} m`;
}

// -- elements, made once and kept, so that focus and what is unfolded stay as they are ------------

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
function put(node, text) {
  text = String(text ?? "");
  if (node.textContent !== text) node.textContent = text;
}
function keyed(parent, items, key, create, update) {
  const known = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]));
  items.forEach((item, place) => {
    const name = String(key(item));
    const node = known.get(name) ?? create(item);
    node.dataset.key = name;
    known.delete(name);
    if (parent.children[place] !== node) parent.insertBefore(node, parent.children[place] ?? null);
    update(node, item);
  });
  known.forEach((node) => node.remove());
}
function pick(node, name, create) {  // the part of that name
  node.parts ??= {};
  return node.parts[name] ??= node.appendChild(create());
}

// A table: columns are [title, what it shows of an item, kind]; without a kind, it is a text.
function table(owner, caption, columns, items, key) {
  const wide = pick(owner, caption, () => make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {}, make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...columns.map(([title]) => make("th", { scope: "col" }, title)))), make("tbody"))));
  wide.hidden = items.length === 0;
  keyed(wide.querySelector("tbody"), items, key,
    () => make("tr", {}, ...columns.map(([, , kind]) => make("td", kind === "number" ? { class: kind } : {}))),
    (row, item) => columns.forEach(([, show, kind], place) => cell(row.children[place], show(item), kind)));
  return wide;
}
function cell(node, value, kind) {
  if (kind === "stack") {
    const unfolded = node.closest("#stuck") ? { open: "" } : {};
    const details = pick(node, "stack", () => make("details", unfolded, make("summary"), make("pre")));
    details.hidden = !value;
    put(details.firstChild, (value ?? "").trim().split("\n").slice(0, 2).at(-1).trim());  // in the task's own function
    put(details.lastChild, (value ?? "").trimEnd());
  } else if (kind === "state") {
    badge(pick(node, "state", () => make("span")), value);
  } else if (kind === "action") {
    const button = pick(node, "button", () => make("button", { type: "button" }));
    button.hidden = !(mayAct && value);
    if (value) {
      put(button, value[0]);
      button.setAttribute("aria-label", `${value[0]} ${value[1]}`);
      button.onclick = () => act(...value.slice(2));
    }
  } else put(node, value);
}

// -- plots ----------------------------------------------------------------------------------------

function plot(owner, title, pool, first, second, format) {
  const lines = [first, second].filter(Boolean).map((name) => series[pool]?.[name] ?? []);
  const highest = Math.max(0, ...lines.flat().filter((value) => value != null));
  const svg = pick(owner, title, () => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    node.setAttribute("viewBox", "0 0 300 40");
    node.setAttribute("preserveAspectRatio", "none");
    node.setAttribute("role", "img");
    for (const name of ["first", "second"]) {
      node.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
      node.lastChild.setAttribute("class", name);
    }
    return node;
  });
  const now = lines[0].at(-1);
  svg.setAttribute("aria-label", `${title} over the last minutes: now ${format(now)}, at most ${format(highest)}`);
  lines.forEach((line, place) => svg.children[place].setAttribute("d", path(line, highest)));
  return [now, highest];
}
function span() { return Math.min(Math.max(times.at(-1) - times[0], 60), LENGTH); }  // seconds
function path(line, highest) {
  const end = times.at(-1), from = times.length - line.length;
  let d = "", pen = "M";
  line.forEach((value, place) => {
    if (value == null) { pen = "M"; return; }
    const x = 300 - (end - times[from + place]) * 300 / span(), y = 38 - 36 * (highest ? value / highest : 0);
    if (x >= 0) { d += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`; pen = "L"; }
  });
  return d;
}

// -- what is shown --------------------------------------------------------------------------------

function show(snapshot) {
  const { pools } = snapshot;
  put($("program"), snapshot.program || "ion_actors");
  put($("process"), `process ${snapshot.pid}, Python ${snapshot.python}, ion_actors ${snapshot.version}`);
  const stuck = pools.flatMap((pool) => pool.stuck.map((one) => ({ ...one, pool })));
  showStuck(stuck);
  document.title = `${stuck.length ? `(${stuck.length} stuck) ` : ""}${snapshot.program || "ion_actors"}`;
  $("none").hidden = pools.length > 0;
  put($("span"), `plots of the last ${Math.round(span())} seconds`);
  keyed($("cards"), pools, (pool) => pool.id, card, showPool);
  if (!seen && pools.length === 1) $("cards").firstChild.open = true;
  seen = true;
  $("supervisors").hidden = !snapshot.supervisors?.length;
  branches($("trees"), snapshot.supervisors ?? []);
  const kinds = { breakers: "Circuit breakers", limiters: "Rate limiters", semaphores: "Semaphores", adaptive: "Adaptive limits" };
  let some = false;
  for (const [kind, title] of Object.entries(kinds)) {
    const items = snapshot[kind] ?? [];
    some ||= items.length > 0;
    if (items.length) facts($("limits"), title, items);
    else if ($("limits").parts?.[title]) $("limits").parts[title].hidden = true;
  }
  $("limits").hidden = !some;
}
function facts(owner, title, items) {  // whatever they have
  const names = Object.keys(items[0]).filter((name) => name !== "id");
  const columns = names.map((name) => [name.replaceAll("_", " "), (item) => plain(item[name]), name === "state" ? name : ""]);
  table(owner, title, columns, items.map((item, place) => ({ place, ...item })), (item) => item.id ?? item.place);
}
function plain(value) {
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : String(Number(value.toPrecision(4)));
  if (value !== null && typeof value === "object") return Object.entries(value).map(([name, one]) => `${name} ${plain(one)}`).join(", ");
  return value ?? "–";
}
function showStuck(stuck) {
  $("stuck").hidden = stuck.length === 0;
  put($("stuck-news"), stuck.length ? `${stuck.length === 1 ? "One task is" : `${stuck.length} tasks are`} stuck.` : "");
  table($("stuck"), "Tasks that run for longer than they should", [
    ["Task", (one) => one.task], ["For", (one) => duration(one.age), "number"], ["Where", (one) => one.stack, "stack"],
    ["Pool", (one) => one.pool.name], ["Worker", (one) => one.worker],
    ["", (one) => ["cancel", one.task, one.pool, "cancel", { task: one.task_id }], "action"],
  ], stuck, (one) => one.task_id);
}
function branches(list, nodes) {
  keyed(list, nodes, (node) => node.id ?? node.name, () => make("li"), (item, node) => {
    put(pick(item, "name", () => make("span", { class: "name" })), node.id ?? node.name);
    badge(pick(item, "state", () => make("span")), node.state);
    put(pick(item, "more", () => make("span", { class: "quiet" })), [
      node.kind ?? node.strategy, node.restarts ? `restarted ${node.restarts} times` : "", node.error || node.failure,
    ].filter(Boolean).map((text) => ` ${text}`).join(","));
    branches(pick(item, "children", () => make("ul")), node.children ?? node.supervisor?.children ?? []);
  });
}
function badge(node, state) {
  node.className = `state ${state}`;
  put(node, state);
}

function card() {
  const node = make("details", { class: "pool" });
  pick(node, "head", () => make("summary"));
  pick(node, "body", () => make("div", { class: "body" }));
  node.addEventListener("toggle", () => node.pool && showPool(node, node.pool));
  return node;
}
function showPool(node, pool) {
  node.pool = pool;
  const { head, body } = node.parts;
  const title = pick(head, "title", () => make("h3"));
  put(pick(title, "name", () => make("span", { class: "name" })), pool.name);
  badge(pick(title, "state", () => make("span")), pool.broken ? "broken" : pool.paused ? "paused" : pool.state);
  const lately = Object.fromEntries(Object.entries(series[pool.id] ?? {}).map(([name, values]) => [name, values.at(-1)]));
  put(pick(head, "running", () => make("span")), `${count(pool.running)} of ${count(pool.size)} running`);
  const queued = pick(head, "queued", () => make("span"));
  put(queued, pool.queue_size == null ? `${count(pool.queued)} queued` : `${count(pool.queued)} of ${count(pool.queue_size)} queued`);
  queued.className = pool.queued > 0 && pool.queued >= (pool.queue_size ?? Infinity) ? "bad" : "";
  put(pick(head, "rate", () => make("span")), rate(lately.rate));
  plot(pick(head, "spark", () => make("span", { class: "spark" })), "queued", pool.id, "queued", null, count);
  if (node.open) showBody(body, pool);
}
function showBody(body, pool) {
  if (mayAct) showActions(pick(body, "actions", () => make("div", { class: "actions" })), pool);
  const notes = [...pool.left_behind.map((name) => `${name} has ended, and left a call running`)];
  if (pool.broken) notes.unshift(pool.broken);
  if (pool.more_workers) notes.push(`${count(pool.more_workers)} more workers are not shown`);
  keyed(pick(body, "notes", () => make("div", { class: "bad" })), notes, (note) => note, () => make("p"), put);
  const facts = { ...pool, "submitters waiting": pool.waiting, dropped: plain(pool.dropped) };
  const numbers = pick(body, "numbers", () => make("dl", { class: "numbers" }));
  keyed(numbers, NUMBERS.filter((name) => facts[name] || name in pool && name !== "dropped"), (name) => name,
    (name) => make("div", {}, make("dt", {}, name), make("dd")), (node, name) => {
      put(node.lastChild, name === "dropped" ? facts[name] : count(facts[name]));
      node.lastChild.className = facts[name] && (name === "failed" || name === "panicked") ? "bad" : "";
    });
  const plots = pick(body, "plots", () => make("div", { class: "plots" }));
  for (const [title, first, second, format] of PLOTS) {
    const figure = pick(plots, title, () => make("figure"));
    const caption = pick(figure, "caption", () => make("figcaption", {}, make("span", {}, title), make("b")));
    const [now] = plot(figure, title, pool.id, first, second, format);
    put(caption.lastChild, format(now));
  }
  const cancel = (task, id) => id != null && ["cancel", task, pool, "cancel", { task: id }];
  table(body, "Workers", [
    ["Worker", (one) => one.pid ? `${one.name}, process ${one.pid}` : one.name],
    ["Task", (one) => one.task ?? one.state], ["For", (one) => one.task == null ? "" : duration(one.age), "number"],
    ["Where", (one) => one.stack, "stack"], ["", (one) => cancel(one.task, one.task_id), "action"],
  ], pool.workers, (one) => one.name);
  const waiting = table(body, "Tasks that wait", [
    ["Task", (one) => one.name], ["For", (one) => duration(one.age), "number"], ["Key", (one) => one.key],
    ["Priority", (one) => one.priority, "number"], ["Due in", (one) => one.due_in == null ? "" : duration(one.due_in), "number"],
    ["Last error", (one) => one.error], ["", (one) => cancel(one.name, one.id), "action"],
  ], pool.waiting_tasks, (one) => one.id);
  put(waiting.querySelector("caption"), `Tasks that wait: the first ${pool.waiting_tasks.length} of ${count(pool.queued)}`);
  table(body, "Dead letters: tasks that were given up", [
    ["Task", (one) => one.name], ["Why", (one) => one.reason], ["Error", (one) => one.error],
    ["Ago", (one) => duration(one.age), "number"], ["", (one) => ["replay", one.name, pool, "replay", { letter: one.id }], "action"],
  ], pool.dead_letters, (one) => one.id);
}

// -- actions --------------------------------------------------------------------------------------

function showActions(node, pool) {
  const form = pick(node, "resize", () => {
    const input = make("input", { type: "number", min: "1", value: pool.size, id: `size-${pool.id}`, required: "" });
    const made = make("form", {}, make("label", { for: input.id }, "workers"), input, make("button", {}, "resize"));
    made.addEventListener("submit", (event) => { event.preventDefault(); act(made.pool, "resize", { size: input.valueAsNumber }); });
    return made;
  });
  form.pool = pool;
  const pause = pick(node, "pause", () => make("button", { type: "button" }));
  put(pause, pool.paused ? "resume" : "pause");
  pause.onclick = () => act(pool, pool.paused ? "resume" : "pause", {});
  const drain = pick(node, "drain", () => make("button", { type: "button" }, "drain"));
  drain.onclick = () => confirm(`Drain ${pool.name}? It accepts no more tasks, and ends.`) && act(pool, "drain", {});
  for (const button of node.querySelectorAll("button")) button.disabled = pool.state !== "running";
}
async function act(pool, verb, body) {
  let text, ok = false;
  try {
    const answer = await fetch(`api/pools/${encodeURIComponent(pool.name)}/${verb}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...body, pool: pool.id }),
    });
    ok = answer.ok;
    text = ok ? `${verb}: done` : `${verb}: ${(await answer.json()).error}`;
  } catch { text = `${verb}: the program does not answer`; }
  $("said").className = ok ? "" : "bad";
  put($("said"), `${pool.name}: ${text}`);
}

// -- live -----------------------------------------------------------------------------------------

function add(time, points) {
  times.push(time);
  times = times.slice(-LENGTH);
  const names = Object.keys(points.series);
  const kept = {};
  for (const [pool, values] of Object.entries(points.pools)) {
    const old = series[pool] ?? {};
    kept[pool] = Object.fromEntries(points.series.map((name, place) => [name, [...(old[name] ?? []), values[place]].slice(-LENGTH)]));
  }
  series = kept;
}
let lost;
function alive(isAlive, text) {
  clearTimeout(lost);
  $("live").className = isAlive ? "" : "lost";
  put($("live"), text);
}
function follow() {
  const source = new EventSource("api/events");
  source.addEventListener("history", (event) => ({ times, pools: series, actions: mayAct } = JSON.parse(event.data)));
  source.addEventListener("frame", (event) => {
    const { snapshot, points } = JSON.parse(event.data);
    add(snapshot.time, points);
    show(snapshot);
    alive(true, "live");
    lost = setTimeout(alive, 15000, false, "no news for a while");
  });
  source.addEventListener("error", () => {  // the server ends each stream after a while, and it is opened again
    clearTimeout(lost);
    lost = setTimeout(alive, 3000, false, "the program does not answer");
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 3000);  // it has answered something else
  });
}
follow();
