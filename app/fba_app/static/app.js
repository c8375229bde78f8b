// What makes the pages livelier; each of them works without it.

/** How many tasks are watched at once: a browser opens few connections to one server. */
const WATCHED = 3;
/** Milliseconds to wait after the server has refused to tell of a task. */
const REFUSED = 5000;
const ENDED = ["succeeded", "failed", "cancelled"];
const STATES = {
  queued: "Queued",
  running: "Running",
  waiting: "Running",
  retrying: "Retrying",
  succeeded: "Succeeded",
  failed: "Failed",
  cancelled: "Cancelled",
};

const live = document.getElementById("live");

/** Have a screen reader say something when it has nothing else to say. */
function announce(text) {
  live.textContent = text;
}

/** Show the times of the server in the time zone of whoever reads them. */
function localTimes(root) {
  const today = new Date().toDateString();
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    const whole = moment.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
    const isToday = moment.toDateString() === today;
    time.textContent = isToday
      ? `Today, ${moment.toLocaleTimeString(undefined, { timeStyle: "short" })}`
      : moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    time.title = whole;
  }
}

/** Replace a part of the page by what the server shows of it now. */
async function renew(part) {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector(`[data-part="${part.dataset.part}"]`);
  if (!fresh) return;
  const focused = part.contains(document.activeElement);
  localTimes(fresh);
  part.replaceWith(fresh);
  if (focused) fresh.querySelector("h1, a")?.focus({ preventScroll: true });
}

/** Show how a task stands, and say so aloud when its state changes. */
function show(part, task) {
  const percent = `${Math.round(task.progress)} %`;
  const field = (name) => part.querySelector(`[data-show="${name}"]`);
  field("bar").value = task.progress;
  field("percent").textContent = percent;
  field("message").textContent = task.message;
  const state = field("state");
  if (state.classList.contains(task.state)) return;
  state.className = `state ${task.state}`;
  state.textContent = STATES[task.state];
  announce(`${part.dataset.name}: ${STATES[task.state]}`);
}

const sources = new Map();

/** Watch the first tasks of the page that have not ended, while somebody can see it. */
function watch() {
  const parts = document.hidden ? [] : [...document.querySelectorAll("[data-watch]")].slice(0, WATCHED);
  for (const [part, source] of sources) {
    if (!parts.includes(part)) {
      source.close();
      sources.delete(part);
    }
  }
  for (const part of parts) {
    if (!sources.has(part)) sources.set(part, listen(part));
  }
}

function listen(part) {
  const source = new EventSource(`/api/v1/tasks/${part.dataset.watch}/events`);
  const leave = async () => {
    source.close();
    sources.delete(part);
    delete part.dataset.watch;
    await renew(part);
    watch();
  };
  source.addEventListener("task", (event) => {
    const task = JSON.parse(event.data);
    show(part, task);
    if (ENDED.includes(task.state)) leave();
  });
  // The browser tries again by itself, unless the server refuses: then the page says why.
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(leave, REFUSED);
  });
  return source;
}

/** Draw by dragging, and move with the arrow keys, so that the Tab key has one stop here and not 64. */
function drawing(grid) {
  const pixels = [...grid.querySelectorAll("input")];
  const stopAt = (pixel) => pixels.forEach((each) => (each.tabIndex = each === pixel ? 0 : -1));
  let ink = null;
  stopAt(pixels[0]);
  grid.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -8, ArrowDown: 8 }[event.key];
    const at = pixels.indexOf(event.target);
    if (!step || at < 0) return;
    event.preventDefault();
    const to = at + step;
    if (to < 0 || to > 63 || (Math.abs(step) === 1 && to >> 3 !== at >> 3)) return;
    stopAt(pixels[to]);
    pixels[to].focus();
  });
  grid.addEventListener("pointerdown", (event) => {
    if (!pixels.includes(event.target)) return;
    event.preventDefault();
    ink = !event.target.checked;
    event.target.checked = ink;
    stopAt(event.target);
    event.target.focus();
  });
  addEventListener("pointermove", (event) => {
    if (ink === null) return;
    const pixel = document.elementFromPoint(event.clientX, event.clientY);
    if (pixels.includes(pixel)) pixel.checked = ink;
  });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => (ink = null));
  // What the press of a mouse or finger has drawn, its click would take back; the click of a key has no detail.
  grid.addEventListener("click", (event) => {
    if (event.detail > 0) event.preventDefault();
  });
}

/** Upload with a bar that shows how far it is; the answer is the next page, or this one with what is wrong. */
function upload(form) {
  const bar = form.querySelector('[data-show="upload"]');
  const broken = form.querySelector('[data-show="broken"]');
  const button = form.querySelector("button");
  const input = form.querySelector("input[type=file]");
  input.addEventListener("change", () => {
    const size = input.files[0]?.size ?? 0;
    input.setCustomValidity(size > Number(form.dataset.largest) ? "This file is too large." : "");
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const request = new XMLHttpRequest();
    const fail = () => {
      bar.hidden = true;
      button.disabled = false;
      button.focus();
      broken.hidden = false;
      announce(broken.textContent);
    };
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "text/html");
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      const percent = Math.round((100 * loaded) / total);
      bar.querySelector("progress").value = percent;
      bar.querySelector("output").textContent = `${percent} %`;
    });
    request.addEventListener("error", fail);
    request.addEventListener("load", () => {
      if (request.status < 300) {
        location.assign(request.responseURL);
        return;
      }
      const page = new DOMParser().parseFromString(request.responseText, "text/html");
      const main = page.querySelector("main");
      if (!main) {
        fail();
        return;
      }
      document.title = page.title;
      document.querySelector("main").replaceWith(main);
      enhance(main);
      main.querySelector(".errors")?.focus();
    });
    bar.hidden = false;
    broken.hidden = true;
    button.disabled = true;
    announce("Uploading");
    request.send(new FormData(form));
  });
}

function enhance(root) {
  localTimes(root);
  root.querySelectorAll(".drawing").forEach(drawing);
  root.querySelectorAll("form[data-upload]").forEach(upload);
}

// A page that is loaded again does not say again what was done.
const here = new URL(location.href);
if (here.searchParams.has("done")) {
  here.searchParams.delete("done");
  history.replaceState(null, "", here);
}

enhance(document);
document.addEventListener("visibilitychange", watch);
watch();
