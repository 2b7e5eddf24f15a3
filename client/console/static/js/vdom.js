// A small view layer: views describe what should be there as plain data (`h`), `render` makes the document so.
//
// Elements are kept and changed in place, so what a person is doing survives a refresh: focus, selection, scroll,
// what was typed. Inputs belong to the person: `initial` sets their value when they are made, never again.
// Nothing is ever parsed as HTML, and no style attribute is written, so a strict content security policy holds.

const SVG = "http://www.w3.org/2000/svg";

/** A wanted element. Children: texts, numbers, elements, arrays of them; null and false hold a place for nothing. */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, children, key: props?.key };
}

/** Makes the children of `container` what is wanted. */
export function render(container, ...wanted) {
  const svg = container.namespaceURI === SVG;
  container.vnodes = reconcile(container, container.vnodes ?? new Map(), wanted, svg);
}

/** [name of the place, wanted] for every child that is there; places tell which old child is meant. */
function places(children, prefix, found) {
  children.forEach((child, index) => {
    if (child === null || child === undefined || child === false || child === true || child === "") return;
    if (Array.isArray(child)) places(child, `${prefix}${index}.`, found);
    else found.set(child.key === undefined ? `${prefix}${index}` : `key ${child.key}`, child);
  });
  return found;
}

function reconcile(parent, before, children, svg) {
  const wanted = places(children, "", new Map());
  // What goes away goes first: then those that stay are in order mostly, and need not move (moving loses focus).
  for (const [place, old] of before) {
    const next = wanted.get(place);
    if (next === undefined || !sameKind(old.vnode, next)) {
      old.node.remove();
      old.vnode.props?.gone?.(old.node);
      before.delete(place);
    }
  }
  const after = new Map();
  let cursor = parent.firstChild;
  for (const [place, next] of wanted) {
    const old = before.get(place);
    const kept = old ? update(old, next, svg) : create(next, svg);
    if (kept.node === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(kept.node, cursor);
    after.set(place, kept);
  }
  return after;
}

function isText(vnode) {
  return typeof vnode === "string" || typeof vnode === "number";
}

function sameKind(a, b) {
  return isText(a) ? isText(b) : !isText(b) && a.tag === b.tag;
}

function create(vnode, svgAround) {
  if (isText(vnode)) return { vnode, node: document.createTextNode(String(vnode)), children: new Map() };
  const svg = svgAround || vnode.tag === "svg";
  const node = svg ? document.createElementNS(SVG, vnode.tag) : document.createElement(vnode.tag);
  const kept = { vnode, node, children: new Map() };
  setProps(node, {}, vnode.props);
  kept.children = reconcile(node, kept.children, vnode.children, svg);
  // After the children: a select takes its value only when its options are there.
  if ("initial" in vnode.props) {
    if (node.type === "checkbox" || node.type === "radio") node.checked = vnode.props.initial;
    else node.value = vnode.props.initial;
  }
  vnode.props.ref?.(node);
  return kept;
}

function update(kept, next, svgAround) {
  const { node, vnode } = kept;
  if (isText(next)) {
    if (String(next) !== node.data) node.data = String(next);
    return { vnode: next, node, children: kept.children };
  }
  const svg = svgAround || next.tag === "svg";
  setProps(node, vnode.props, next.props);
  return { vnode: next, node, children: reconcile(node, kept.children, next.children, svg) };
}

const OWN_PROPS = new Set(["key", "initial", "ref", "gone"]);

function setProps(node, before, after) {
  for (const name of Object.keys(before)) if (!(name in after)) setProp(node, name, before[name], undefined);
  for (const [name, value] of Object.entries(after)) {
    if (value !== before[name]) setProp(node, name, before[name], value);
  }
}

function setProp(node, name, before, value) {
  if (OWN_PROPS.has(name)) return;
  if (name.startsWith("on")) listen(node, name.slice(2).toLowerCase(), value);
  else if (name === "style") setStyle(node, before ?? {}, value ?? {});
  else if (name.startsWith(".")) node[name.slice(1)] = value;
  else if (value === undefined || value === null || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : value);
}

function listen(node, type, handler) {
  node.handlers ??= new Map();
  if (!node.handlers.has(type)) node.addEventListener(type, (event) => node.handlers.get(type)?.(event));
  node.handlers.set(type, handler);
}

function setStyle(node, before, after) {
  for (const name of Object.keys(before)) if (!(name in after)) node.style.removeProperty(name);
  for (const [name, value] of Object.entries(after)) if (before[name] !== value) node.style.setProperty(name, value);
}
