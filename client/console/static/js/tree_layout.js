// Where every node of the volume tree goes. Pure and deterministic: the same volumes give the same picture.
//
// A live volume and its snapshots are one row in time order: the snapshots are points that it passed, and it stands one
// step ahead of the newest. What branches off starts a row of its own, further down and further right: a clone of a
// snapshot at that snapshot, a direct clone of a live volume between the nodes that it was made between, a new volume at
// the zero volume on the far left. Rows below one another are ordered by their branch points, the rightmost on top, so
// that the lines down (trunks) never cross a box: what lies between starts to the right of them.

export const MEASURES = {
  rowHeight: 58,
  boxHeight: 34,
  gap: 52, // between columns
  padding: 15, // between a box's edge and its text
  leastBox: 44,
  mostBox: 172,
  radius: 18, // of the curves
  margin: 28, // around all
};

/**
 * volumes: [{volume_id, kind, name, parent_id, created_ns, ...}], in any order.
 * measure: (volume) -> width of its label.
 * Returns {boxes, lines, trunks, elbows, rows, width, height, byId}:
 *   boxes  [{id, volume, row, column, x, y, width, height}] by row, then column
 *   lines  [{row, y, x1, x2}] along rows
 *   trunks [{x, y1, y2, dot}] down from branch points; dot: the branch is between two nodes
 *   elbows [{x1, y1, x2, y2, straight}] from a trunk into the row that begins there
 */
export function layoutTree(volumes, measure, measures = MEASURES) {
  const sorted = [...volumes].sort((a, b) => a.created_ns - b.created_ns || a.volume_id - b.volume_id);
  const byId = new Map(sorted.map((volume) => [volume.volume_id, volume]));
  const zero = sorted.find((volume) => volume.kind === "zero");
  const rows = gatherRows(sorted, byId, zero);
  const order = placeRows(rows, zero);
  return draw(order, measure, measures);
}

/** Rows by owner's id: {id, nodes, branch: {row, at, between}}, without places yet. */
function gatherRows(sorted, byId, zero) {
  const rows = new Map();
  const rowOf = (id) => {
    if (!rows.has(id)) rows.set(id, { id, nodes: [], children: [], branch: null, y: -1, start: 0 });
    return rows.get(id);
  };
  // Snapshots first: their row's owner comes after all of them.
  for (const volume of sorted) if (volume.kind === "snapshot") rowOf(volume.parent_id).nodes.push(volume);
  for (const volume of sorted) if (volume.kind !== "snapshot") rowOf(volume.volume_id).nodes.push(volume);
  for (const row of rows.values()) {
    const owner = byId.get(row.id);
    if (row.id === zero?.volume_id) continue;
    row.born = owner?.created_ns ?? row.nodes[0].created_ns;
    const parent = owner ? byId.get(owner.parent_id) : undefined;
    // What has no known parent is drawn as if it came from the zero volume: better seen than lost.
    const from = parent ?? zero;
    if (!from || from.volume_id === row.id) continue;
    const parentRow = rows.get(from.kind === "snapshot" ? from.parent_id : from.volume_id);
    const index = parentRow.nodes.indexOf(from);
    if (from.kind === "live") {
      const at = parentRow.nodes.findIndex((node) => node === from || node.created_ns > row.born);
      row.branch = { row: parentRow, at, between: true };
    } else {
      row.branch = { row: parentRow, at: index, between: false };
    }
    parentRow.children.push(row);
  }
  return rows;
}

/** Gives each row its line (y) and its first column (start), parents before children; returns them in that order. */
function placeRows(rows, zero) {
  const order = [];
  const roots = zero ? [rows.get(zero.volume_id)] : [];
  for (const row of rows.values()) if (!row.branch && row.id !== zero?.volume_id) roots.push(row);
  // A stack, not recursion: clones of clones may be thousands of steps deep.
  let line = 0;
  const visit = (root) => {
    const stack = [root];
    while (stack.length) {
      const row = stack.pop();
      if (row.y >= 0) continue;
      const first = row.branch && isFirstOfZero(row, zero);
      if (!first && order.length) line += 1;
      row.y = line;
      row.start = row.branch ? row.branch.row.start + row.branch.at + (row.branch.between ? 0 : 1) : 0;
      order.push(row);
      const position = (child) => child.branch.at - (child.branch.between ? 0.5 : 0);
      const nearest = [...row.children].sort(
        (a, b) => position(b) - position(a) || a.born - b.born || a.id - b.id,
      );
      for (const child of nearest.reverse()) stack.push(child);
    }
  };
  for (const root of roots) visit(root);
  // Rows in a circle of parents cannot be (the coordinator checks); were they there, they would still be shown.
  for (const row of rows.values()) {
    if (row.y >= 0) continue;
    row.branch = null;
    visit(row);
  }
  return order;
}

/** The oldest volume goes straight on from the zero volume, on its line. */
function isFirstOfZero(row, zero) {
  if (row.branch.row.id !== zero?.volume_id) return false;
  row.straight = row.branch.row.children.every((other) => other === row || other.y < 0);
  return row.straight;
}

function draw(order, measure, m) {
  const widths = [];
  const sized = new Map();
  for (const row of order) {
    row.nodes.forEach((volume, index) => {
      const width = Math.ceil(Math.min(m.mostBox, Math.max(m.leastBox, measure(volume) + 2 * m.padding)));
      sized.set(volume, width);
      const column = row.start + index;
      widths[column] = Math.max(widths[column] ?? 0, width);
    });
  }
  const left = [];
  let x = m.margin;
  for (let column = 0; column < widths.length; column += 1) {
    left[column] = x;
    x += (widths[column] ?? m.leastBox) + m.gap;
  }
  const middle = (row) => m.margin + row.y * m.rowHeight + m.boxHeight / 2;
  const boxes = [];
  const lines = [];
  const trunks = new Map();
  const elbows = [];
  const byId = new Map();
  for (const row of order) {
    const y = middle(row);
    row.nodes.forEach((volume, index) => {
      const column = row.start + index;
      const box = {
        id: volume.volume_id, volume, row: row.y, column, branchRow: row,
        x: left[column], y: y - m.boxHeight / 2, width: sized.get(volume), height: m.boxHeight,
      }; // prettier-ignore
      boxes.push(box);
      byId.set(volume.volume_id, box);
    });
    const ends = [boxes.at(-row.nodes.length), boxes.at(-1)];
    if (row.nodes.length > 1) lines.push({ row: row.y, y, x1: ends[0].x + ends[0].width, x2: ends[1].x });
    if (!row.branch) continue;
    const { row: parentRow, at, between } = row.branch;
    const source = byId.get(parentRow.nodes[at].volume_id);
    // A trunk starts below its box, or on the line before it.
    const trunkX = between ? source.x - m.gap / 2 : source.x + Math.min(source.width / 2, 22);
    const sourceY = middle(parentRow);
    elbows.push(
      row.straight
        ? { x1: source.x + source.width, y1: y, x2: ends[0].x, y2: y, straight: true }
        : { x1: trunkX, y1: y - m.radius, x2: ends[0].x, y2: y, straight: false },
    );
    if (row.straight) continue;
    const place = `${parentRow.id} ${at} ${between}`;
    const y1 = between ? sourceY : sourceY + m.boxHeight / 2;
    const trunk = trunks.get(place) ?? { x: trunkX, y1, y2: y1, dot: between };
    trunk.y2 = Math.max(trunk.y2, y - m.radius);
    trunks.set(place, trunk);
  }
  const right = boxes.reduce((most, box) => Math.max(most, box.x + box.width), 0);
  const lowest = order.at(-1)?.y ?? 0;
  return {
    boxes,
    lines,
    trunks: [...trunks.values()],
    elbows,
    byId,
    rows: order,
    width: right + m.margin,
    height: 2 * m.margin + lowest * m.rowHeight + m.boxHeight,
  };
}

/** The node that a key leads to from `id`: along the row, into the branch, or to the row above or below. */
export function neighbour(layout, id, key) {
  const box = layout.byId.get(id);
  if (!box) return null;
  const row = box.branchRow;
  const index = box.column - row.start;
  if (key === "ArrowLeft") {
    if (index > 0) return row.nodes[index - 1].volume_id;
    if (!row.branch) return null;
    // From a branch between two nodes one goes back to the earlier of them.
    const { row: parentRow, at, between } = row.branch;
    return parentRow.nodes[between ? Math.max(0, at - 1) : at].volume_id;
  }
  if (key === "ArrowRight") {
    if (index < row.nodes.length - 1) return row.nodes[index + 1].volume_id;
    const branch = row.children.find((child) => !child.branch.between && child.branch.at === index);
    return branch ? branch.nodes[0].volume_id : null;
  }
  const step = key === "ArrowDown" ? 1 : key === "ArrowUp" ? -1 : 0;
  const near = layout.boxes.filter((other) => other.row === box.row + step);
  if (!step || !near.length) return null;
  const distance = (other) => Math.abs(other.x + other.width / 2 - box.x - box.width / 2);
  return near.reduce((best, other) => (distance(other) < distance(best) ? other : best)).id;
}
