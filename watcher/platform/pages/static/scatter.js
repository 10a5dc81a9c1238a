"use strict";
// Points come as n x 2 float32 and a byte each that marks the picks. They are drawn straight into pixels, so a hundred
// thousand take some milliseconds; a grid finds the nearest one under the pointer.
(async () => {
  const canvas = document.getElementById("scatter");
  const state = document.getElementById("state");
  const answer = await fetch(canvas.dataset.points);
  if (!answer.ok) { state.textContent = "The points could not be read."; return; }
  const buffer = await answer.arrayBuffer();
  const n = buffer.byteLength / 9;
  const points = new Float32Array(buffer, 0, 2 * n);
  const marks = new Uint8Array(buffer, 8 * n, n);
  const width = canvas.width, height = canvas.height, margin = 12;
  let low = [Infinity, Infinity], high = [-Infinity, -Infinity];
  for (let i = 0; i < 2 * n; i++) {
    low[i & 1] = Math.min(low[i & 1], points[i]);
    high[i & 1] = Math.max(high[i & 1], points[i]);
  }
  const scale = Math.min((width - 2 * margin) / (high[0] - low[0] || 1), (height - 2 * margin) / (high[1] - low[1] || 1));
  const x = new Float32Array(n), y = new Float32Array(n);
  for (let i = 0; i < n; i++) {
    x[i] = margin + (points[2 * i] - low[0]) * scale;
    y[i] = height - margin - (points[2 * i + 1] - low[1]) * scale;
  }
  const context = canvas.getContext("2d");
  const size = n > 20000 ? 2 : 4;
  context.fillStyle = "#7a8aa0";
  for (let i = 0; i < n; i++) if (!marks[i]) context.fillRect(x[i] - size / 2, y[i] - size / 2, size, size);
  let picks = 0;
  context.fillStyle = "#e4572e";
  for (let i = 0; i < n; i++) if (marks[i]) { picks++; context.fillRect(x[i] - 3, y[i] - 3, 6, 6); }
  state.textContent = `${n} samples, ${picks} highlighted`;
  canvas.dataset.ready = String(n);

  const cell = 16, columns = Math.ceil(width / cell);
  const grid = new Map();
  for (let i = 0; i < n; i++) {
    const key = Math.floor(y[i] / cell) * columns + Math.floor(x[i] / cell);
    const bucket = grid.get(key);
    if (bucket) bucket.push(i); else grid.set(key, [i]);
  }
  const thumbnail = document.getElementById("thumbnail");
  const label = document.getElementById("position");
  let shown = -1;
  const show = (event) => {
    const box = canvas.getBoundingClientRect(), zoom = width / box.width;
    const px = (event.clientX - box.left) * zoom, py = (event.clientY - box.top) * zoom;
    const cx = Math.floor(px / cell), cy = Math.floor(py / cell);
    // As near on the screen, however small the plot is there; a finger needs more room than a mouse.
    const reach = Math.max(cell, (event.pointerType === "touch" ? 24 : cell) * zoom), cells = Math.ceil(reach / cell);
    let best = -1, distance = reach * reach;
    for (let dy = -cells; dy <= cells; dy++) for (let dx = -cells; dx <= cells; dx++)
      for (const i of grid.get((cy + dy) * columns + cx + dx) || []) {
        // Picks win over what lies under them.
        const d = (x[i] - px) ** 2 + (y[i] - py) ** 2 - (marks[i] ? 9 : 0);
        if (d < distance) { distance = d; best = i; }
      }
    if (best < 0 || best === shown) return;
    shown = best;
    thumbnail.hidden = false;
    thumbnail.src = canvas.dataset.thumbnail + best;
    label.textContent = `Sample ${best}${marks[best] ? ", picked" : ""}`;
  };
  for (const kind of ["pointermove", "pointerdown"]) canvas.addEventListener(kind, show);
})();
