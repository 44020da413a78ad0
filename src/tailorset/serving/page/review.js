// A page to label images one by one. Texts are only ever set as text: names of files and prompts come from elsewhere.

const KEYS = [..."1234567890abcdefghijklmnopqrstuvwyz"]; // x clears all labels
const at = (id) => document.getElementById(id);
const drafts = new Map(); // number -> ticks that were changed and not saved

let desk, number, shown, ticks;
let saved = new Set(), unread = new Map();
let isBusy = false;

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer: start the command again. Nothing that was saved is lost.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function showState(state) {
  saved = new Set(state.saved);
  unread = new Map(state.unread);
  const left = unread.size ? `, ${unread.size} cannot be read` : "";
  at("count").textContent = `${saved.size} of ${desk.total} saved${left}`;
  at("progress").max = Math.max(1, desk.total - [...unread.keys()].filter((one) => !saved.has(one)).length);
  at("progress").value = saved.size;
  at("unread").hidden = !unread.size;
  at("unread").querySelector("summary").textContent = `Cannot be read: ${unread.size}`;
  at("unread").querySelector("ul").replaceChildren(...[...unread].map(([one, reason]) => {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.textContent = `image ${one + 1}`;
    button.addEventListener("click", () => go(one));
    item.append(button, `: ${reason}`);
    return item;
  }));
  const isDone = next(-1) === undefined;
  at("done").hidden = !isDone;
  at("done").textContent = "Every image is saved. Close the page and stop the command, or go back to correct something.";
}

function next(from) { // the nearest image after this one that is neither saved nor unreadable
  for (let step = 1; step <= desk.total; step += 1) {
    const one = (from + step + desk.total) % desk.total;
    if (!saved.has(one) && !unread.has(one)) return one;
  }
  return undefined;
}

async function go(to) {
  if (isBusy || to < 0 || to >= desk.total) return;
  number = to;
  at("desk").classList.add("loading");
  let answer;
  try {
    answer = await ask(`images/${to}`);
  } catch (error) {
    fault(error.message);
    return;
  }
  if (number !== to) return; // a faster key came first
  shown = answer;
  ticks = { ...(drafts.get(to) ?? shown.ticks) };
  showState(shown);
  at("desk").hidden = false;
  at("desk").classList.toggle("unread", unread.has(to));
  fault(unread.has(to) ? `It cannot be read: ${unread.get(to)}` : "");
  at("name").textContent = shown.name;
  at("notes").replaceChildren(...shown.notes.map((note) => Object.assign(document.createElement("span"), { textContent: note })));
  if (unread.has(to)) at("image").removeAttribute("src");
  else at("image").src = `pictures/${to}`;
  at("image").alt = shown.name;
  at("back").disabled = to === 0;
  at("forward").disabled = to === desk.total - 1;
  render();
}

function render() {
  const isUnread = unread.has(number);
  desk.labels.forEach((label, place) => {
    const box = at("labels").children[place].querySelector("input");
    box.checked = ticks[label] === 1;
    box.indeterminate = ticks[label] === null && !isUnread;
    box.disabled = isUnread;
  });
  const chosen = desk.labels.filter((label) => ticks[label] === 1);
  const isOpen = desk.labels.some((label) => ticks[label] === null);
  at("desk").classList.toggle("none", !isUnread && !chosen.length && !isOpen);
  at("answer").textContent = isUnread ? "No picture" : chosen.join(", ") || (isOpen ? "Left open" : desk.nothing);
  const state = drafts.has(number) ? "changed, not saved" : saved.has(number) ? "saved" : "a suggestion, not saved";
  at("state").textContent = `Image ${number + 1} of ${desk.total}${isUnread ? "" : `: ${state}`}`;
  at("save").disabled = isUnread;
}

function isEditable() { // the picture is there, with its own ticks: never labels of one that nobody has seen
  return !isBusy && !unread.has(number) && !at("desk").classList.contains("loading");
}

function change(label, value) {
  if (!isEditable()) return;
  ticks[label] = value;
  drafts.set(number, ticks);
  render();
}

function clearAll() {
  if (!isEditable()) return;
  const isClear = desk.labels.every((label) => ticks[label] === 0);
  const before = isClear ? shown.ticks : Object.fromEntries(desk.labels.map((label) => [label, 0]));
  ticks = { ...before };
  drafts.set(number, ticks);
  render();
}

async function save() {
  if (isBusy) return;
  if (unread.has(number)) { // nothing to save: only go on
    const following = next(number);
    if (following !== undefined) await go(following);
    return;
  }
  if (!isEditable()) return;
  isBusy = true;
  try {
    showState(await ask(`images/${number}`, { image_id: shown.image_id, ticks }));
    drafts.delete(number);
    shown.ticks = { ...ticks };
  } catch (error) {
    fault(error.message);
    return;
  } finally {
    isBusy = false;
  }
  const following = next(number);
  if (following === undefined) render();
  else await go(following);
}

function fault(text) {
  at("fault").hidden = !text;
  at("fault").textContent = text;
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !desk) return;
  const key = /^Digit\d$/.test(event.code) && event.shiftKey ? event.code.at(-1) : event.key.toLowerCase();
  if (key === "enter") {
    if (event.target.closest("summary, #unread button, #back, #forward")) return;
    event.preventDefault();
    if (!event.repeat) save();
  } else if (key === "arrowleft" || key === "arrowright") {
    event.preventDefault();
    go(number + (key === "arrowleft" ? -1 : 1));
  } else if (key === "x") {
    clearAll();
  } else if (KEYS.includes(key) && KEYS.indexOf(key) < desk.labels.length) {
    event.preventDefault();
    const label = desk.labels[KEYS.indexOf(key)];
    if (event.shiftKey && desk.may_leave_open) change(label, ticks[label] === null ? 0 : null);
    else change(label, ticks[label] === 1 ? 0 : 1);
  }
}

function makeLabels() {
  at("labels").classList.toggle("many", desk.labels.length > 12);
  at("labels").replaceChildren(...desk.labels.map((label, place) => {
    const row = at("label").content.cloneNode(true);
    row.querySelector("kbd").textContent = KEYS[place] ?? "";
    row.querySelector(".word").textContent = label;
    const box = row.querySelector("input");
    box.addEventListener("click", (event) => isEditable() || event.preventDefault()); // which leaves the box as it was
    box.addEventListener("change", () => change(label, box.checked ? 1 : 0));
    return row;
  }));
}

function makeKeys() {
  const open = desk.may_leave_open ? [["Shift", " with a label's key leaves it open: not annotated"]] : [];
  const keys = [["1", " … or a letter ticks a label"], ...open, ["x", ` removes every tick: ${desk.nothing.toLowerCase()}`], ["Enter", " saves and goes on"],
    ["←", " and"], ["→", " move without saving"]];
  document.querySelector(".keys").replaceChildren(...keys.flatMap(([key, text]) => {
    const shape = document.createElement("kbd");
    shape.textContent = key;
    const part = document.createElement("span");
    part.append(shape, text);
    return [part, " "];
  }));
}

desk = await ask("desk");
document.title = `${desk.title} – tailorset`;
at("title").textContent = desk.title;
at("help").textContent = desk.help;
at("desk").classList.toggle("annotating", desk.may_leave_open);
makeLabels();
makeKeys();
at("image").addEventListener("load", () => at("desk").classList.remove("loading"));
at("image").addEventListener("error", () => {
  if (at("image").hasAttribute("src")) ask(`images/${number}`).then((answer) => {
    showState(answer);
    at("desk").classList.add("unread");
    at("desk").classList.remove("loading");
    fault(`It cannot be read: ${unread.get(number)}`);
    render();
  });
});
at("save").addEventListener("click", save);
at("back").addEventListener("click", () => go(number - 1));
at("forward").addEventListener("click", () => go(number + 1));
document.addEventListener("keydown", press);
showState(desk);
await go(next(-1) ?? 0);
