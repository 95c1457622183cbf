"use strict";
document.documentElement.classList.add("js");
const token = document.querySelector("meta[name=csrf]").content;
const said = document.getElementById("said");
const texts = document.body.dataset;

/* Judge: each photograph is sent by itself, so that the first verdict is there while the others wait. */
const form = document.getElementById("judge");
let waiting = [], running = false, count = 0, refused = 0, there = 0;

/* Where a name is asked for, it is asked once, before anything is sent; what was chosen waits. */
function nameless() {
  const who = form.elements.who;
  if (!who || who.value.trim()) return false;
  said.className = "warning";
  said.textContent = texts.nameless.replace("{count}", waiting.length);
  who.focus();
  return true;
}

async function judgeNext() {
  running = true;
  while (waiting.length && !nameless()) {
    said.className = "";
    const file = waiting.shift();
    said.textContent = texts.judging.replace("{name}", file.name).replace("{left}", waiting.length);
    const body = new FormData(form);
    body.delete("photographs");
    body.append("photographs", file, file.name);
    try {
      const answer = await fetch(form.action, {
        method: "POST", body, headers: {"X-Fragment": "1", "X-CSRF-Token": token}, credentials: "same-origin"});
      const text = await answer.text();
      const page = new DOMParser().parseFromString(text, "text/html");
      let found = page.querySelectorAll("article.part");
      if (!answer.ok || !found.length) {
        const reason = page.querySelector(".warning");
        throw new Error(reason ? reason.textContent : text.slice(0, 300));
      }
      for (const part of [...found].reverse()) show(part);
      if (found[0].matches(".refused")) refused += 1;
      else if (found[0].dataset.double !== undefined) there += 1;
      else count += 1;
      look();
    } catch (error) {
      refused += 1;
      const line = document.createElement("p");
      line.className = "warning";
      line.setAttribute("role", "alert");
      line.textContent = `${file.name}: ${error instanceof TypeError ? texts.failed : error.message}`;
      document.getElementById("parts").prepend(line);
    }
  }
  running = false;
  if (waiting.length) return;
  const told = [[texts.done, count], ...[[texts.there, there], [texts.refused, refused]].filter(([, number]) => number)];
  said.textContent = told.map(([text, number]) => text.replace("{count}", number)).join(" ");
  count = refused = there = 0;
  goOn();
}

/* The first start: how many parts there are, and what can be done with them. */
async function goOn() {
  if (form.dataset.collects === undefined) return;
  try {
    const page = new DOMParser().parseFromString(await (await fetch("/")).text(), "text/html");
    for (const id of ["so_far", "first_model"]) {
      const now = page.getElementById(id);
      if (!now) { location.reload(); return; }
      document.getElementById(id).replaceWith(now);
    }
    named();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; /* the page is away; the next part asks again */
  }
}

function show(part) {
  const parts = document.getElementById("parts");
  const old = part.dataset.sha256 && parts.querySelector(`[data-sha256="${part.dataset.sha256}"]`);
  if (old) old.remove();
  parts.prepend(part);
  while (parts.children.length > 48) parts.lastElementChild.remove();
  named();
}

function take(files) {
  waiting.push(...files);
  if (!running && waiting.length) judgeNext();
}

if (form) {
  for (const input of form.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => { take([...input.files]); input.value = ""; });
  }
  form.addEventListener("submit", (event) => { event.preventDefault(); });
  if (form.elements.who) form.elements.who.addEventListener("change", () => take([]));
  const drop = document.getElementById("drop");
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
}

/* How strongly heat maps are laid over photographs. */
const strength = document.getElementById("strength"), outline = document.getElementById("outline");
function look() {
  const main = document.getElementById("main");
  if (strength) {
    for (const image of document.querySelectorAll(".heat")) image.style.opacity = strength.value / 100;
    main.classList.toggle("no-heat", strength.value === "0");
  }
  if (outline) main.classList.toggle("no-outline", !outline.checked);
}
if (strength) strength.addEventListener("input", look);
if (outline) outline.addEventListener("change", look);
look();

/* Threshold: the counts follow what is moved. */
const limits = document.getElementById("threshold");
if (limits) {
  const slide = document.getElementById("slide"), save = document.getElementById("save");
  const line = document.querySelector(".scale .threshold"), zone = document.querySelector(".scale .zone");
  const field = (name) => limits.elements[name];
  const x = (value) => 100 * (value - limits.dataset.low) / (limits.dataset.high - limits.dataset.low);
  let timer = 0, asked = 0;
  async function count() {
    const number = ++asked, query = new URLSearchParams(new FormData(limits));
    const answer = await fetch(`/threshold?${query}`, {headers: {"X-Fragment": "1"}});
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (number === asked) document.getElementById("counts").replaceChildren(...page.body.childNodes);
  }
  function moved() {
    const value = Number(field("value").value);
    for (const name of ["value", "low", "high"]) if (field(name)) save.elements[name].value = field(name).value;
    for (const end of ["x1", "x2"]) line.setAttribute(end, x(value));
    if (zone) {
      zone.setAttribute("x", x(field("low").value));
      zone.setAttribute("width", Math.max(0, x(field("high").value) - x(field("low").value)));
    }
    clearTimeout(timer);
    timer = setTimeout(count, 250);
  }
  slide.addEventListener("input", () => {
    const value = Number(slide.value);
    field("value").value = value;
    if (field("low")) {
      field("low").value = Math.min(field("low").value, value);
      field("high").value = Math.max(field("high").value, value);
    }
    moved();
  });
  for (const name of ["value", "low", "high"]) if (field(name)) field(name).addEventListener("input", moved);
  limits.addEventListener("submit", (event) => { event.preventDefault(); count(); });
}

/* A name is asked once on a device, also for forms that come later. */
function named() {
  for (const input of document.querySelectorAll("[data-who]")) input.value ||= localStorage.getItem("who") || "";
}
named();
document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-who]")) return;
  localStorage.setItem("who", event.target.value);
  for (const input of document.querySelectorAll("[data-who]")) input.value = event.target.value;
});

/* A button that is pressed twice asks once; what takes its time is seen to be on its way. */
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return;
  setTimeout(() => { for (const button of event.target.querySelectorAll("button")) button.disabled = true; });
});
addEventListener("pageshow", () => { for (const button of document.querySelectorAll("button")) button.disabled = false; });

/* Review: a stroke marks the region, a button labels, the part goes. */
for (const part of document.querySelectorAll(".review .part")) {
  const box = part.querySelector(".draw"), form = part.querySelector("form.label"), clear = part.querySelector(".clear");
  const canvas = document.createElement("canvas"), photograph = box.querySelector("img");
  canvas.setAttribute("aria-hidden", "true");
  const shape = [Number(photograph.getAttribute("width")), Number(photograph.getAttribute("height"))];
  const scale = Math.min(1, 1000 / Math.max(...shape));
  [canvas.width, canvas.height] = shape.map((side) => Math.max(1, Math.round(side * scale)));
  box.append(canvas);
  const pen = canvas.getContext("2d");
  let stroke = null, drawn = false;
  /* A finger scrolls the page until it is asked to draw. */
  const mark = part.querySelector(".mark");
  mark.addEventListener("click", () => {
    const on = box.classList.toggle("drawing");
    mark.setAttribute("aria-pressed", on);
  });
  const place = (event) => {
    const frame = canvas.getBoundingClientRect();
    return [(event.clientX - frame.left) * canvas.width / frame.width,
            (event.clientY - frame.top) * canvas.height / frame.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    stroke = [place(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!stroke) return;
    const to = place(event), from = stroke[stroke.length - 1];
    pen.strokeStyle = pen.fillStyle = "#ff00c8";
    pen.lineWidth = Math.max(2, 0.03 * Math.max(canvas.width, canvas.height));
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath(); pen.moveTo(...from); pen.lineTo(...to); pen.stroke();
    stroke.push(to);
    drawn = true;
    clear.hidden = false;
  });
  const end = () => {
    if (stroke && stroke.length > 8) {
      const [first, last] = [stroke[0], stroke[stroke.length - 1]];
      // A ring that comes back to where it began is around the defect.
      if (Math.hypot(first[0] - last[0], first[1] - last[1]) < 0.08 * Math.max(canvas.width, canvas.height)) {
        pen.beginPath(); for (const point of stroke) pen.lineTo(...point); pen.closePath(); pen.fill();
      }
    }
    stroke = null;
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  clear.addEventListener("click", () => {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    drawn = false;
    clear.hidden = true;
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const who = document.getElementById("who");
    if (!who.value.trim()) { said.textContent = texts.nameless; said.className = "warning"; who.focus(); return; }
    const body = new FormData(form, event.submitter);
    body.set("who", who.value);
    body.set("mask", drawn ? canvas.toDataURL("image/png") : "");
    const name = part.querySelector("h2").textContent;
    try {
      const answer = await fetch("/labels", {method: "POST", body, headers: {"X-CSRF-Token": token}, redirect: "manual"});
      if (answer.type !== "opaqueredirect" && !answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        throw new Error(page.querySelector(".warning").textContent);
      }
      said.className = "done";
      said.textContent = texts.labelled.replace("{name}", name).replace("{label}", event.submitter.textContent);
      part.remove();
      if (!document.querySelector(".review .part")) location.reload();
    } catch (error) {
      said.className = "warning";
      said.textContent = `${name}: ${error instanceof TypeError ? texts.failed : error.message}`;
    }
  });
}

/* Judge: the newest part of what is watched. */
const watched = document.getElementById("watched");
if (watched) {
  const state = () => watched.querySelector("#source").dataset;
  setInterval(async () => {
    const before = state().state;
    if (!["runs", "lost"].includes(before)) return;
    try {
      const answer = await fetch(state().refresh, {headers: {"X-Fragment": "1"}});
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const open = watched.querySelector("#events")?.open;
      watched.replaceChildren(page.getElementById("source"), ...page.querySelectorAll("#events"));
      if (open) watched.querySelector("#events").open = true;
      const part = page.querySelector("article.part");
      const first = document.querySelector("#parts .part");
      if (part && (!first || first.dataset.sha256 !== part.dataset.sha256)) { show(part); look(); goOn(); }
      if (!["runs", "lost"].includes(state().state)) location.reload();
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; /* the page is away; it is asked again */
    }
  }, 1000);
}

/* Improve: the state of a fit that runs is looked at again and again. */
const jobs = document.getElementById("jobs");
if (jobs) {
  setInterval(async () => {
    if (!jobs.querySelector("[data-state=running]")) return;
    try {
      const answer = await fetch(jobs.dataset.refresh, {headers: {"X-Fragment": "1"}});
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!answer.ok) return;
      for (const old of jobs.querySelectorAll("[data-state=running]")) old.replaceWith(page.getElementById(old.id));
      named();
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; /* the page is away; it is asked again */
    }
  }, 3000);
}
