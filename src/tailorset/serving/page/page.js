// Photos in, labels out. Everything shown comes from /model and /predict; see /openapi.json.

const AT_ONCE = 2; // photos under way
const MAX_BYTES = 10 * 2 ** 20;
const FIRST_SHOWN = 10; // labels of a photo, before "more"
const FIRST_NAMES = 60; // names of labels before the first photo
const GENERATED = "learned from generated images";
const ORDER = ["present", "open", "absent"];
const WORDS = { present: "present", open: "undecided", absent: "absent" };

const get = (id) => document.getElementById(id);
const part = (root, selector) => root.querySelector(selector);
const copy = (id) => get(id).content.firstElementChild.cloneNode(true);
const percent = (share) => `${Math.round(100 * share)} %`;
const list = (names) => new Intl.ListFormat("en-GB").format(names);
const say = (text) => (get("said").textContent = text);

let models = null;
const cards = new Set();
const waiting = [];
let underWay = 0;

// ---- the service ----

class Failure extends Error {}

async function post(file, query) {
  for (let attempt = 1; ; attempt++) {
    const answer = await fetch(`predict?${query}`, {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" }, // the server looks at the bytes, whatever the name says
      body: file,
    }).catch(() => { throw new Failure("The server does not answer."); });
    if (answer.ok) return answer.json();
    const seconds = Number(answer.headers.get("Retry-After"));
    if (seconds && attempt < 8) {
      await new Promise((done) => setTimeout(done, 1000 * seconds * (0.5 + Math.random())));
      continue;
    }
    const problem = await answer.json().catch(() => ({}));
    throw new Failure(problem.error ?? `The server answered ${answer.status}.`);
  }
}

async function describe() {
  models = await (await fetch("model")).json(); // no address begins with /: the page may be below a proxy's sub-path
  const all = [models, models.challenger].filter(Boolean);
  get("model").textContent = title(models);
  const compare = get("compare");
  compare.hidden = !models.challenger;
  if (models.challenger) part(compare, "span").textContent = `Compare with ${title(models.challenger)}`;
  get("origin").replaceChildren(...all.flatMap((model) => facts(model)));
  introduce();
}

// What can be asked for, before the first photo.
function introduce() {
  const names = models.labels.map((label) => {
    const item = Object.assign(document.createElement("li"), { textContent: label.label });
    item.classList.toggle("generated", !label.seen);
    if (!label.seen) item.title = GENERATED;
    return item;
  });
  names.forEach((item, index) => (item.hidden = index >= FIRST_NAMES));
  get("known").textContent = `It knows ${count(names.length, "label")}`;
  get("names").replaceChildren(...names);
  part(get("start"), ".legend").hidden = models.labels.every((label) => label.seen);
  const more = part(get("start"), ".more");
  more.hidden = names.length <= FIRST_NAMES;
  more.textContent = `${names.length - FIRST_NAMES} more`;
  more.onclick = () => { names.forEach((item) => (item.hidden = false)); more.hidden = true; };
  get("examples").hidden = !models.num_examples;
  part(get("examples"), ".pictures").replaceChildren(...Array.from({ length: models.num_examples }, (_, index) => example(index)));
  get("start").hidden = false;
}

function example(index) {
  const [button, image] = [document.createElement("button"), document.createElement("img")];
  image.src = `examples/${index}?${new URLSearchParams({ version: models.version ?? "" })}`; // another version, other photos
  image.alt = `Example ${index + 1}`;
  button.type = "button";
  button.append(image);
  button.addEventListener("click", async () => {
    const answer = await fetch(image.src);
    if (answer.ok) add([new File([await answer.blob()], `example ${index + 1}`)]);
    else say("This example is no more there.");
  });
  return button;
}

function title(model) {
  return model.version ? `${model.model}, version ${model.version}` : model.model;
}

function facts(model) {
  const unseen = model.labels.filter((label) => !label.seen).length;
  const words = [`${count(model.labels.length, "label")}, ${unseen} of them ${GENERATED}`];
  if (model.run_id) words.push(`run ${model.run_id}`);
  if (model.git_revision) words.push(`commit ${model.git_revision.slice(0, 12)}`);
  if (!model.calibrated) words.push("without thresholds of its own: 0.5 for all");
  const [term, text] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = title(model);
  text.textContent = words.join(" · ");
  return [term, text];
}

const count = (number, noun) => `${number.toLocaleString("en-GB")} ${noun}${number === 1 ? "" : "s"}`;
const comparing = () => !get("compare").hidden && part(get("compare"), "input").checked;

// ---- photos ----

function add(files) {
  if (!files.length) return;
  document.body.classList.add("busy");
  for (const file of [...files].reverse()) { // the first one on top
    const card = new Card(file);
    cards.add(card);
    get("photos").prepend(card.root);
    waiting.unshift(card);
  }
  work();
}

async function work() {
  while (underWay < AT_ONCE && waiting.length) {
    const card = waiting.shift();
    underWay++;
    card.look().finally(() => { underWay--; work(); });
  }
}

class Card {
  constructor(file) {
    this.file = file;
    this.name = file.name || "pasted image";
    this.maps = new Map(); // label -> promise of an answer with the maps of that label
    this.root = copy("photo");
    this.root.setAttribute("aria-label", this.name);
    this.canvas = part(this.root, "canvas");
    part(this.root, ".name").textContent = this.name;
    part(this.root, ".remove").setAttribute("aria-label", `Remove ${this.name}`);
    part(this.root, ".remove").addEventListener("click", () => this.remove());
    part(this.root, ".more").addEventListener("click", () => this.showAll());
    part(this.root, ".labels").addEventListener("keydown", (event) => this.move(event));
    this.root.addEventListener("keydown", (event) => event.key === "Escape" && this.clearMap());
    const image = part(this.root, "img");
    image.alt = this.name;
    image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth <= 64));
    image.src = this.url = URL.createObjectURL(file);
  }

  async look() {
    const compare = comparing();
    try {
      if (this.file.size > MAX_BYTES) throw new Failure(`The file has ${(this.file.size / 2 ** 20).toFixed(1)} MiB: at most 10 are sent.`);
      this.show(await post(this.file, new URLSearchParams({ compare })));
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.fail(error.message);
    }
  }

  fail(text) {
    this.root.classList.add("failed");
    part(this.root, "h2").textContent = text;
    part(this.root, "h2").setAttribute("role", "alert");
  }

  show(answer) {
    if (answer.version !== models.version || answer.challenger?.version !== models.challenger?.version) describe();
    this.version = answer.version;
    this.maps.clear();
    this.clearMap();
    const answers = [answer, answer.challenger].filter(Boolean);
    this.root.classList.toggle("wide", answers.length > 1);
    const heads = part(this.root, ".heads");
    heads.hidden = answers.length < 2;
    heads.replaceChildren(...["", ...answers.map(title)].map((text) => Object.assign(document.createElement("span"), { textContent: text })));
    const rows = merged(answers);
    part(this.root, ".labels").replaceChildren(...rows.map((row) => this.row(row, answers)));
    part(this.root, ".legend").hidden = rows.every((entries) => entries.find(Boolean).seen);
    this.fold(rows);
    this.sum(answer);
  }

  sum(answer) {
    const named = (decision) => answer.labels.filter((label) => label.decision === decision).sort((a, b) => value(b) - value(a)).map((label) => label.label);
    const [present, open] = [named("present"), named("open")];
    part(this.root, "h2").textContent = present.length ? sentence(list(present)) : "None of the labels for certain";
    const note = part(this.root, ".note");
    note.hidden = !open.length;
    note.textContent = `Undecided: ${list(open)}`;
    const novel = part(this.root, ".novel");
    novel.hidden = !answer.unfamiliar;
    novel.textContent = "Unlike the photos this model was trained on: do not rely on its labels here.";
    say(`${this.name}: ${answer.unfamiliar ? novel.textContent : ""} ${present.length ? list(present) : "nothing"} present. ${open.length ? note.textContent : ""}`);
  }

  row(entries, answers) {
    const first = entries.find(Boolean);
    const item = copy("label");
    part(item, ".word").textContent = first.label;
    part(item, ".mark-generated").hidden = first.seen;
    item.classList.toggle("minor", entries.every((entry) => !entry || entry.decision === "absent"));
    item.classList.toggle("differs", entries.length > 1 && entries[0]?.decision !== entries[1]?.decision);
    item.append(...entries.map((entry, side) => (entry ? this.bar(entry, side, answers) : document.createElement("span"))));
    part(item, ".label").addEventListener("click", () => part(item, "button").click()); // for a mouse: keys reach the bars
    return item;
  }

  bar(entry, side, answers) {
    const button = copy("bar");
    const spoken = `${entry.label}${entry.seen ? "" : `, ${GENERATED}`}: ${percent(value(entry))}, ${WORDS[entry.decision]}, threshold ${percent(entry.threshold)}`;
    button.setAttribute("aria-label", answers.length > 1 ? `${spoken}, by ${title(answers[side])}` : spoken);
    button.title = `threshold ${percent(entry.threshold)}; press to see where`;
    button.classList.add(entry.decision);
    part(button, ".value").textContent = percent(value(entry));
    part(button, ".decision").textContent = WORDS[entry.decision];
    const places = { at: value(entry), threshold: entry.threshold, low: entry.abstain_low, high: entry.abstain_high };
    for (const [name, share] of Object.entries(places)) part(button, ".track").style.setProperty(`--${name}`, `${100 * share}%`);
    button.addEventListener("click", () => this.toggleMap(button, entry.label, side));
    return button;
  }

  fold(rows) {
    const items = [...part(this.root, ".labels").children];
    const decided = rows.filter((entries) => entries.some((entry) => entry && entry.decision !== "absent")).length;
    const shown = Math.max(FIRST_SHOWN, decided);
    const more = part(this.root, ".more");
    more.hidden = items.length <= shown;
    more.textContent = `${items.length - shown} more, all absent`;
    items.forEach((item, index) => (item.hidden = index >= shown));
  }

  showAll() {
    const hidden = [...part(this.root, ".labels").children].filter((item) => item.hidden);
    hidden.forEach((item) => (item.hidden = false));
    part(this.root, ".more").hidden = true;
    part(hidden[0], "button").focus();
  }

  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const side = [...event.target.parentElement.querySelectorAll("button")].indexOf(event.target);
    const buttons = [...this.root.querySelectorAll("li:not([hidden])")].map((item) => item.querySelectorAll("button")[side]).filter(Boolean);
    buttons[buttons.indexOf(event.target) + step]?.focus();
    event.preventDefault();
  }

  remove() {
    const next = this.root.nextElementSibling ?? this.root.previousElementSibling;
    cards.delete(this);
    waiting.splice(0, waiting.length, ...waiting.filter((card) => card !== this));
    URL.revokeObjectURL(this.url);
    this.root.remove();
    say(`${this.name} removed`);
    (next ? part(next, ".remove") : get("files")).focus();
    document.body.classList.toggle("busy", cards.size > 0);
  }

  // ---- maps ----

  clearMap() {
    this.canvas.classList.remove("shown");
    part(this.root, ".where").textContent = "";
    for (const button of this.root.querySelectorAll("[aria-pressed=true]")) button.setAttribute("aria-pressed", "false");
  }

  async toggleMap(button, label, side) {
    const wasShown = button.getAttribute("aria-pressed") === "true";
    this.clearMap();
    if (wasShown) return;
    button.setAttribute("aria-pressed", "true");
    const query = new URLSearchParams({ compare: this.root.classList.contains("wide"), map: label });
    if (!this.maps.has(label)) this.maps.set(label, post(this.file, query));
    try {
      const answer = await this.maps.get(label);
      if (answer.version !== this.version) return this.show(answer); // another model now: its bars, no map of the old ones
      if (button.getAttribute("aria-pressed") === "true") this.drawMap((side ? answer.challenger : answer).map);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.maps.delete(label);
      part(this.root, ".where").textContent = error.message;
    }
  }

  drawMap({ label, weights }) {
    drawHeat(this.canvas, weights);
    this.canvas.classList.add("shown");
    const text = `Where it looks for ${label}: most at the ${place(weights)}`;
    part(this.root, ".where").textContent = text;
    say(text);
  }
}

// ---- labels and maps as data ----

const value = (entry) => entry.probability ?? entry.score;
const sentence = (text) => text[0].toUpperCase() + text.slice(1);

// One row a label of any model: [champion's entry, challenger's entry], the surest first.
function merged(answers) {
  const sides = answers.map((answer) => new Map(answer.labels.map((entry) => [entry.label, entry])));
  const names = new Set(sides.flatMap((side) => [...side.keys()]));
  const rank = (entries) => Math.min(...entries.filter(Boolean).map((entry) => ORDER.indexOf(entry.decision)));
  const sure = (entries) => Math.max(...entries.filter(Boolean).map(value));
  return [...names].map((name) => sides.map((side) => side.get(name))).sort((a, b) => rank(a) - rank(b) || sure(b) - sure(a));
}

// Rows of weights -> a veil over what matters little, and a glow over what matters most.
function drawHeat(canvas, weights) {
  const [rows, columns] = [weights.length, weights[0].length];
  const most = Math.max(...weights.flat());
  const small = new OffscreenCanvas(columns, rows);
  const pixels = new ImageData(columns, rows);
  weights.flat().forEach((weight, index) => pixels.data.set(heat(weight / most), 4 * index));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  // the outer half cell is stretched to the border: values belong to the centres of cells
  context.drawImage(small, 0, 0, columns, rows, 0, 0, canvas.width, canvas.height);
}

function heat(share) {
  const stops = [[14, 16, 44, 175], [66, 18, 96, 150], [190, 40, 80, 120], [255, 120, 30, 100], [255, 200, 40, 90]]; // RGBA
  const at = share * (stops.length - 1);
  const [low, high] = [Math.floor(at), Math.ceil(at)];
  return stops[low].map((channel, i) => channel + (stops[high][i] - channel) * (at - low));
}

function place(weights) {
  const flat = weights.flat();
  const index = flat.indexOf(Math.max(...flat));
  const third = (at, size, names) => names[Math.min(2, Math.floor((3 * (at + 0.5)) / size))];
  const vertical = third(Math.floor(index / weights[0].length), weights.length, ["top", "middle", "bottom"]);
  const horizontal = third(index % weights[0].length, weights[0].length, ["left", "centre", "right"]);
  if (vertical === "middle") return horizontal;
  return horizontal === "centre" ? vertical : `${vertical} ${horizontal}`;
}

// ---- the page ----

get("files").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
part(get("compare"), "input").addEventListener("change", () => { waiting.push(...[...cards].filter((card) => !waiting.includes(card))); work(); });
addEventListener("paste", (event) => add([...event.clipboardData.files]));
addEventListener("dragover", (event) => { event.preventDefault(); get("drop").classList.add("over"); });
addEventListener("dragleave", (event) => event.relatedTarget ?? get("drop").classList.remove("over"));
addEventListener("drop", (event) => { event.preventDefault(); get("drop").classList.remove("over"); add([...event.dataTransfer.files]); });
describe();
