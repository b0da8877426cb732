// The live pictures of the cameras that a pasted key may see. The key lives in `key` and nowhere else.
"use strict";

// A browser opens six connections to one host: a few moving pictures, and the rest as stills that take turns.
const MOVING = 3;
const STILL_SECONDS = 2;
const LIST_SECONDS = 10;
const AGAIN_SECONDS = 5;

let key = "";
let generation = 0; // rises when the key is forgotten: what was begun with it ends
const shown = new Map(); // device → its card

const element = (id) => document.getElementById(id);
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

function tell(text) {
  element("told").textContent = text;
}

async function ask(method, path, body) {
  const headers = { Authorization: `Bearer ${key}` };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
  }
  const options = { method, headers, cache: "no-store", credentials: "omit", body: body && JSON.stringify(body) };
  const response = await fetch(path, options);
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    const error = new Error(problem.detail || problem.error || `${response.status}`);
    error.status = response.status;
    throw error;
  }
  return response;
}

function makeCard(camera) {
  const card = document.createElement("article");
  const head = document.createElement("header");
  const name = document.createElement("h2");
  const state = document.createElement("span");
  const image = document.createElement("img");
  const problem = document.createElement("p");
  image.alt = camera.name;
  head.append(name, state);
  card.append(head, image, problem);
  element("cameras").append(card);
  return { card, name, state, image, problem, status: "", still: "" };
}

function removeCard(device) {
  const item = shown.get(device);
  item.image.onerror = null;
  item.image.removeAttribute("src");
  if (item.still) {
    URL.revokeObjectURL(item.still);
  }
  item.card.remove();
  shown.delete(device);
}

async function openLive(device, item, mine) {
  // The ticket is good for a minute and this camera; the picture it opens lasts as long as the key.
  if (mine !== generation || shown.get(device) !== item || item.status !== "CONNECTED") {
    return;
  }
  item.image.onerror = () => setTimeout(() => openLive(device, item, mine), AGAIN_SECONDS * 1000);
  try {
    const ticket = await (await ask("POST", "/api/tickets", { device })).json();
    if (mine === generation && shown.get(device) === item) {
      item.problem.textContent = "";
      item.image.src = ticket.urls.live;
    }
  } catch (error) {
    item.problem.textContent = error.message;
    item.image.onerror();
  }
}

async function takeStills(mine) {
  while (mine === generation) {
    for (const [device, item] of [...shown].slice(MOVING)) {
      if (item.status !== "CONNECTED" || mine !== generation) {
        continue;
      }
      try {
        const path = `/api/cameras/${encodeURIComponent(device)}/snapshot.jpg`;
        const picture = URL.createObjectURL(await (await ask("GET", path)).blob());
        if (mine !== generation || shown.get(device) !== item) {
          URL.revokeObjectURL(picture);
          continue;
        }
        item.image.src = picture;
        item.problem.textContent = "";
        if (item.still) {
          URL.revokeObjectURL(item.still);
        }
        item.still = picture;
      } catch (error) {
        item.problem.textContent = error.message;
      }
    }
    await pause(STILL_SECONDS);
  }
}

function show(cameras, mine) {
  const present = new Set(cameras.map((camera) => camera.camera_id));
  for (const device of [...shown.keys()]) {
    if (!present.has(device)) {
      removeCard(device);
    }
  }
  for (const camera of cameras) {
    const device = camera.camera_id;
    const item = shown.get(device) || makeCard(camera);
    shown.set(device, item);
    const returned = item.status !== "CONNECTED" && camera.status === "CONNECTED";
    item.name.textContent = camera.name;
    item.state.textContent = `${device} ${camera.status.toLowerCase()}`;
    item.image.alt = camera.name;
    item.status = camera.status;
    if (returned && [...shown.keys()].indexOf(device) < MOVING) {
      openLive(device, item, mine);
    }
  }
  tell(cameras.length ? "" : "This key may see no camera, or none is there.");
}

async function follow(mine) {
  while (mine === generation) {
    try {
      const list = await (await ask("GET", "/api/cameras")).json();
      if (mine !== generation) {
        return;
      }
      show(list.cameras, mine);
    } catch (error) {
      if (mine !== generation) {
        return;
      }
      if (error.status === 401 || error.status === 403) {
        forget(error.message);
        return;
      }
      tell(`No answer: ${error.message}`);
    }
    await pause(LIST_SECONDS);
  }
}

function forget(why) {
  generation += 1;
  key = "";
  [...shown.keys()].forEach(removeCard);
  element("enter").hidden = false;
  element("leave").hidden = true;
  tell(why);
}

element("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  key = element("key").value.trim();
  element("key").value = "";
  if (!/^[\x21-\x7e]+$/.test(key)) {
    forget("That is no key and no token.");
    return;
  }
  element("enter").hidden = true;
  element("leave").hidden = false;
  tell("Asking…");
  generation += 1;
  follow(generation);
  takeStills(generation);
});

element("leave").addEventListener("click", () => forget("The key is forgotten."));
