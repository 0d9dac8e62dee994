// Elements are made here and nowhere else. Text goes in as text: what strangers wrote into a header stays words.

const SVG = "http://www.w3.org/2000/svg";

const fill = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
};

export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const by = (id) => document.getElementById(id);

// Change nothing where nothing changed: selections, focus and screen readers stay undisturbed.
export const say = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

export const put = (element, ...children) => element.replaceChildren(...children.flat().filter((child) => child !== null));

// One child for each item, in order; a child whose item is the same as before is left as it is, focus and all.
export const keyed = (parent, items, keyOf, make) => {
  const held = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const key = String(keyOf(item));
    const content = JSON.stringify(item);
    const before = held.get(key);
    if (before && before.content === content) return before;
    const made = make(item);
    made.dataset.key = key;
    made.content = content;
    if (before && before.contains(document.activeElement)) {
      before.replaceWith(made);
      (made.querySelector("a, button") ?? made).focus({ preventScroll: true });
    }
    return made;
  });
  for (const child of [...parent.children]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((child, place) => {
    if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
  });
};
