// The live page: asks the server every second or two what is new, and shows it.

import { by, say } from "./elements.js";
import { setEpoch } from "./drawing.js";
import { route } from "./details.js";
import * as sections from "./sections.js";
import { count, now, setClock, tickAll } from "./words.js";

const ASK_MS = 1500;
const HIDDEN_MS = 10000; // nobody looks
const NEWS_S = 30;

let state = null;
let version = null;
let lostSince = null;
let news = { at: 0, examined: 0, streaks: 0, words: null };

const show = () => {
  if (!state) return;
  for (const section of ["totals", "gauges", "plane", "newest", "alerts", "objects", "tracks", "refusals"]) sections[section](state);
};

// To those who listen: what is wrong at once, what is new now and then.
const announce = (trouble) => {
  if (trouble && !news.words) say(by("news"), trouble);
  if (!trouble && news.words) say(by("news"), "Following again.");
  news.words = trouble;
  if (!state || trouble || now() - news.at < NEWS_S) return;
  const { examined, streaks } = state.totals;
  if (news.at && examined > news.examined) say(by("news"), `${count(examined - news.examined)} more frames examined, ${count(streaks - news.streaks)} streaks.`);
  news = { ...news, at: now(), examined, streaks };
};

const ask = async () => {
  try {
    const answer = await fetch("state", { headers: version ? { "If-None-Match": version } : {}, cache: "no-store" });
    if (answer.status === 200) {
      state = await answer.json();
      version = answer.headers.get("ETag");
      setClock(state.now);
      setEpoch(state.epoch);
      const first = lostSince === null && !document.body.dataset.ready;
      show();
      document.body.dataset.ready = "";
      if (first) route(state);
    }
    lostSince = null;
  } catch {
    lostSince ??= now();
  }
  announce(sections.status(state, lostSince));
  setTimeout(ask, document.hidden ? HIDDEN_MS : ASK_MS);
};

setInterval(() => {
  sections.clockTick();
  tickAll();
  sections.status(state, lostSince);
}, 1000);
window.addEventListener("hashchange", () => { if (state) route(state); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && state) sections.plane(state); });
by("field").addEventListener("change", () => { if (state) sections.tracks(state); });
sections.clockTick();
ask();
