"use strict";
document.documentElement.classList.add("js");
const token = document.querySelector("meta[name=csrf]").content;
const said = document.getElementById("said");
const texts = document.body.dataset;

/* Judge: each photograph is sent by itself, so that the first verdict is there while the others wait. */
const form = document.getElementById("judge");
let waiting = [], running = false, count = 0;

async function judgeNext() {
  running = true;
  while (waiting.length) {
    const file = waiting.shift();
    said.textContent = texts.judging.replace("{name}", file.name).replace("{left}", waiting.length);
    const body = new FormData(form);
    body.delete("photographs");
    body.append("photographs", file, file.name);
    try {
      const answer = await fetch("/judge", {
        method: "POST", body, headers: {"X-Fragment": "1", "X-CSRF-Token": token}, credentials: "same-origin"});
      const text = await answer.text();
      const page = new DOMParser().parseFromString(text, "text/html");
      let found = page.querySelectorAll("article.part");
      if (!answer.ok || !found.length) {
        const reason = page.querySelector(".warning");
        throw new Error(reason ? reason.textContent : text.slice(0, 300));
      }
      const parts = document.getElementById("parts");
      for (const part of [...found].reverse()) {
        const old = part.dataset.sha256 && parts.querySelector(`[data-sha256="${part.dataset.sha256}"]`);
        if (old) old.remove();
        parts.prepend(part);
      }
      count += 1;
      look();
    } catch (error) {
      const line = document.createElement("p");
      line.className = "warning";
      line.setAttribute("role", "alert");
      line.textContent = `${file.name}: ${error instanceof TypeError ? texts.failed : error.message}`;
      document.getElementById("parts").prepend(line);
    }
  }
  said.textContent = texts.done.replace("{count}", count);
  running = false;
}

function take(files) {
  waiting.push(...files);
  if (!running && waiting.length) { count = 0; judgeNext(); }
}

if (form) {
  for (const input of form.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => { take([...input.files]); input.value = ""; });
  }
  form.addEventListener("submit", (event) => { event.preventDefault(); });
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

/* A name is asked once on a device. */
for (const input of document.querySelectorAll("[data-who]")) {
  input.value = localStorage.getItem("who") || "";
  input.addEventListener("change", () => localStorage.setItem("who", input.value));
}
