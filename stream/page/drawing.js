// Pictures with their marks, sparklines, and the sky.

import { el, svg } from "./elements.js";

const EDGE = ["edge", "crosses"];
let epoch = "";
export const setEpoch = (value) => { epoch = value; };

// --- frames ----------------------------------------------------------------------------------------------------------

// Corners of the box that keeps clear of the line between two ends; y of the picture runs down.
const box = ([x0, y0, x1, y1], height, margin) => {
  const [ax, ay, bx, by] = [x0 + 0.5, height - y0 - 0.5, x1 + 0.5, height - y1 - 0.5];
  const length = Math.hypot(bx - ax, by - ay);
  const [ux, uy] = length > 0 ? [(bx - ax) / length, (by - ay) / length] : [1, 0];
  const [sx, sy, tx, ty] = [ux * margin, uy * margin, -uy * margin, ux * margin];
  const corners = [[ax - sx + tx, ay - sy + ty], [bx + sx + tx, by + sy + ty], [bx + sx - tx, by + sy - ty], [ax - sx - tx, ay - sy - ty]];
  return corners.map((corner) => corner.map((value) => value.toFixed(1)).join(",")).join(" ");
};

export const framePicture = (seen, { size = "small", chosen = null, alt }) => {
  const image = el("img", { src: `picture/${seen.key}?size=${size}&v=${epoch}`, alt, loading: "lazy", decoding: "async" });
  if (!seen.shape) return el("span", { class: "picture" }, image);
  const [height, width] = seen.shape;
  [image.width, image.height] = [width, height]; // the space is kept while it loads
  const margin = Math.max(width, height) / (size === "small" ? 50 : 110);
  const complete = (ends) => ends.slice(0, 4).every((value) => value !== null);
  const marks = [
    ...seen.candidates.filter(complete).map((ends) => svg("polygon", { class: "candidate", points: box(ends, height, margin) })),
    ...seen.streaks.filter((one) => complete(one.ends)).map((one) => svg("polygon", {
      class: one.id === chosen ? "chosen" : one.flags.some((flag) => EDGE.includes(flag)) ? "edge" : "streak",
      points: box(one.ends, height, margin),
    })),
    ...seen.objects.filter((one) => one.ends).map((one) => svg("circle", {
      class: one.id === chosen ? "chosen" : one.kind, cx: one.x + 0.5, cy: height - one.y - 0.5, r: 1.5 * margin,
    })),
  ];
  return el("span", { class: "picture" }, image, svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, marks));
};

export const cutout = (frame, ends, { alt = "", single = false } = {}) => el("img", {
  class: single ? "cutout single" : "cutout", alt, width: 56, height: 56, loading: "lazy", decoding: "async",
  src: `cutout/${frame}?ends=${ends.join(",")}&v=${epoch}`,
});

// --- the last hour ---------------------------------------------------------------------------------------------------

const known = (values) => values.filter((value) => value !== null);

export const bars = (values, label) => {
  const top = Math.max(1, ...known(values));
  const rects = values.map((value, n) => (value ? svg("rect", { x: n, width: 0.8, y: 40 - (38 * value) / top, height: (38 * value) / top }) : null));
  return chart(values.length, label, rects);
};

export const lines = (several, label) => {
  const top = Math.max(1e-9, ...several.flatMap(known));
  const paths = several.map((values, which) => {
    let path = "";
    let pen = "M";
    values.forEach((value, n) => {
      if (value === null) return;
      // A single point has no length: a dash makes it seen. Steps without a frame are bridged.
      path += `${pen}${n},${(40 - (38 * value) / top).toFixed(2)}${pen === "M" ? "h0.6" : ""}`;
      pen = "L";
    });
    return path ? svg("path", { d: path, class: which ? "second" : null }) : null;
  });
  return chart(several[0].length, label, paths);
};

const chart = (width, label, marks) => svg("svg", { class: "spark", viewBox: `0 0 ${width} 41`, preserveAspectRatio: "none", role: "img", "aria-label": label },
  svg("line", { x1: 0, x2: width, y1: 40.5, y2: 40.5 }), marks);

// --- the sky ---------------------------------------------------------------------------------------------------------

const SIDE = 420;
const PAD = 34;

export const sky = (tracks, href) => {
  const points = tracks.flatMap((track) => track.sightings).filter((one) => one.ra !== null);
  if (!points.length) return null;
  const first = points[0].ra;
  const near = (ra) => first + ((((ra - first + 180) % 360) + 360) % 360) - 180; // across 0 h without a tear
  const middle = (values) => (Math.min(...values) + Math.max(...values)) / 2;
  const [ra0, dec0] = [middle(points.map((one) => near(one.ra))), middle(points.map((one) => one.dec))];
  const squeeze = Math.max(0.01, Math.cos((dec0 * Math.PI) / 180));
  const reach = Math.max(1 / 3600, ...points.map((one) => Math.max(Math.abs(near(one.ra) - ra0) * squeeze, Math.abs(one.dec - dec0)))) * 1.06;
  const scale = (SIDE / 2 - PAD) / reach;
  const x = (ra) => SIDE / 2 - (near(ra) - ra0) * squeeze * scale; // East is left
  const y = (dec) => SIDE / 2 - (dec - dec0) * scale;
  const digits = Math.max(1, Math.min(5, 1 - Math.floor(Math.log10(reach))));
  const grid = [-0.8, 0, 0.8].flatMap((part) => {
    const [ra, dec] = [ra0 + (part * reach) / squeeze, dec0 + part * reach];
    const [gx, gy] = [SIDE / 2 - part * reach * scale, y(dec)];
    return [
      svg("line", { class: "grid", x1: gx, x2: gx, y1: 8, y2: SIDE - 22 }),
      svg("line", { class: "grid", x1: 8, x2: SIDE - 8, y1: gy, y2: gy }),
      svg("text", { x: gx, y: SIDE - 8, "text-anchor": "middle" }, `${(((ra % 360) + 360) % 360).toFixed(digits)}°`),
      svg("text", { x: 10, y: gy - 4 }, `${dec.toFixed(digits)}°`),
    ];
  });
  const paths = tracks.map((track) => {
    const seen = track.sightings.filter((one) => one.ra !== null);
    const d = seen.map((one, n) => `${n ? "L" : "M"}${x(one.ra).toFixed(2)},${y(one.dec).toFixed(2)}`).join("");
    return svg("a", { href: href(track), tabindex: "-1" },
      svg("title", {}, `${track.name}, ${track.sightings.length} sightings`),
      svg("path", { class: "hit", d, fill: "none" }), svg("path", { class: "path", d, fill: "none" }),
      seen.map((one, n) => svg("circle", { cx: x(one.ra), cy: y(one.dec), r: n === seen.length - 1 ? 2.6 : 1.4 })));
  });
  // The table beside it says the same to those who do not see it.
  return svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, "aria-hidden": "true" }, grid, paths,
    svg("text", { x: SIDE - 10, y: 18, "text-anchor": "end" }, "North up, East left; the larger dot is the last sighting"));
};
