// Numbers, times and places as people read them. Times are UTC, with how long ago; the clock is the server's.

import { el } from "./elements.js";

let ahead = 0; // the server's clock minus this one's, s
export const setClock = (now) => { ahead = now - Date.now() / 1000; };
export const now = () => Date.now() / 1000 + ahead;

export const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en-GB"));
export const fixed = (value, digits, unit = "") => (value === null || value === undefined ? "–" : value.toFixed(digits) + unit);

export const span = (seconds) => {
  const s = Math.max(0, seconds);
  if (s < 1) return "0 s";
  if (s < 100) return `${Math.floor(s)} s`;
  if (s < 6000) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
};

export const clock = (time) => new Date(time * 1000).toISOString().slice(11, 19);
export const day = (time) => new Date(time * 1000).toISOString().slice(0, 19).replace("T", " ");

// A time that keeps saying how long ago it was.
export const when = (time, { full = false } = {}) => {
  if (time === null || time === undefined) return el("span", {}, "–");
  const said = el("time", { datetime: new Date(time * 1000).toISOString(), title: `${day(time)} UTC`, "data-at": time });
  if (full) said.dataset.full = "";
  return tick(said);
};

const tick = (element) => {
  const at = Number(element.dataset.at);
  const ago = `${span(now() - at)} ago`;
  const text = "full" in element.dataset ? `${day(at)} UTC, ${ago}` : ago;
  if (element.textContent !== text) element.textContent = text;
  return element;
};
export const tickAll = () => document.querySelectorAll("time[data-at]").forEach(tick);

export const place = (ra, dec) => {
  if (ra === null || ra === undefined || dec === null || dec === undefined) return "no position";
  return `${ra.toFixed(5)}, ${dec < 0 ? "−" : "+"}${Math.abs(dec).toFixed(5)}`;
};

// East through North: words for a direction on the sky.
export const heading = (degrees) => {
  if (degrees === null || degrees === undefined) return "–";
  const names = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];
  return `${degrees.toFixed(0)}° ${names[Math.round(degrees / 45) % 8]}`;
};

export const frameName = (frame) => [frame.exposure, frame.ccd].filter(Boolean).join(" / ") || frame.source || frame.frame;
