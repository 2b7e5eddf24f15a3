// Moving and zooming by pointer, wheel and touch. Knows nothing of trees: it moves a scene and says when it was tapped.

/** A pointer that moved less than this was a click. */
const DRAG_PX = 4;
const WHEEL_ZOOM = 0.0022;
/** A mouse wheel's lines and pages, in pixels. */
const LINE_PX = 18;
const PAGE_PX = 400;

/** Keeps the point (x, y) of the window where it is while the zoom changes. */
export function zoomAt(scene, factor, x, y) {
  const { view } = scene;
  const scale = Math.min(2.5, Math.max(0.01, view.scale * factor));
  const real = scale / view.scale;
  scene.moveTo({ scale, x: x - (x - view.x) * real, y: y - (y - view.y) * real });
}

export function panBy(scene, dx, dy) {
  scene.moveTo({ ...scene.view, x: scene.view.x + dx, y: scene.view.y + dy });
}

/** Listens on `surface`. onTap(x, y) in the surface's own pixels; onMoved after anything that a person moved. */
export function attachGestures(surface, scene, { onTap, onMoved }) {
  const pointers = new Map();
  let travelled = 0;
  let pinch = null;

  const local = (event) => {
    const frame = surface.getBoundingClientRect();
    return { x: event.clientX - frame.left, y: event.clientY - frame.top };
  };

  surface.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 && event.pointerType === "mouse") return;
    surface.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, local(event));
    if (pointers.size === 1) travelled = 0;
    pinch = pointers.size === 2 ? pinchOf(pointers) : null;
  });

  surface.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = local(event);
    pointers.set(event.pointerId, now);
    travelled += Math.hypot(now.x - before.x, now.y - before.y);
    if (pointers.size === 2 && pinch) {
      const next = pinchOf(pointers);
      panBy(scene, next.x - pinch.x, next.y - pinch.y);
      zoomAt(scene, next.distance / pinch.distance, next.x, next.y);
      pinch = next;
      onMoved();
    } else if (travelled > DRAG_PX) {
      surface.classList.add("dragging");
      panBy(scene, now.x - before.x, now.y - before.y);
      onMoved();
    }
  });

  const ended = (event) => {
    const known = pointers.delete(event.pointerId);
    pinch = null;
    if (pointers.size) return;
    surface.classList.remove("dragging");
    if (known && event.type === "pointerup" && travelled <= DRAG_PX) {
      const at = local(event);
      onTap(at.x, at.y);
    }
  };
  surface.addEventListener("pointerup", ended);
  surface.addEventListener("pointercancel", ended);

  surface.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const unit = event.deltaMode === 1 ? LINE_PX : event.deltaMode === 2 ? PAGE_PX : 1;
      const at = local(event);
      if (event.ctrlKey || event.metaKey) {
        const by = Math.max(-100, Math.min(100, event.deltaY * unit));
        zoomAt(scene, Math.exp(-by * WHEEL_ZOOM * (event.deltaMode ? 1 : 2)), at.x, at.y);
      } else {
        const sideways = event.shiftKey && !event.deltaX;
        panBy(scene, -(sideways ? event.deltaY : event.deltaX) * unit, sideways ? 0 : -event.deltaY * unit);
      }
      onMoved();
    },
    { passive: false },
  );
}

function pinchOf(pointers) {
  const [a, b] = [...pointers.values()];
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, distance: Math.max(1, Math.hypot(a.x - b.x, a.y - b.y)) };
}
