"use strict";
(() => {
  const svg = document.getElementById("graph");
  const detail = document.getElementById("detail");
  const rows = [...document.querySelectorAll("tr[data-p]")];
  const chips = [...document.querySelectorAll(".chip")];
  let chosen = null;
  const choose = (partition) => {
    chosen = chosen === partition ? null : partition;
    const on = chosen !== null;
    chips.forEach((c) => c.setAttribute("aria-pressed", String(on && c.dataset.p === chosen)));
    rows.forEach((r) => { r.hidden = on && !r.dataset.p.split("\n").includes(chosen); });
    if (!svg) return;
    svg.classList.toggle("filtered", on);
    svg.querySelectorAll(".n").forEach((n) => n.classList.toggle("keep", n.dataset.p === chosen));
  };
  chips.forEach((c) => c.addEventListener("click", () => choose(c.dataset.p)));
  document.querySelectorAll("tr[data-choose]").forEach((r) =>
    r.addEventListener("click", () => choose(r.dataset.choose)));
  if (!svg) return;

  const full = [Number(svg.dataset.width), Number(svg.dataset.height)];
  let view = [0, 0, full[0], full[1]];
  const show = () => svg.setAttribute("viewBox", view.map((v) => v.toFixed(1)).join(" "));
  const size = () => [svg.clientWidth || 800, svg.clientHeight || 560];
  const start = () => {
    const [w, h] = size();
    const scale = Math.min(1.1, Math.max(0.55, w / full[0]));
    const width = w / scale, height = h / scale;
    const middle = scale * full[0] > w ? Number(svg.dataset.first) : full[0] / 2;
    view = [middle - width / 2, height > full[1] ? (full[1] - height) / 2 : 0, width, height];
    show();
  };
  const whole = () => {
    const [w, h] = size();
    const scale = Math.min(w / full[0], h / full[1]);
    view = [(full[0] - w / scale) / 2, (full[1] - h / scale) / 2, w / scale, h / scale];
    show();
  };
  const zoom = (factor, px = 0.5, py = 0.5) => {
    const width = Math.min(Math.max(view[2] * factor, 60), Math.max(full[0], full[1]) * 4);
    const ratio = width / view[2];
    view = [view[0] + view[2] * px * (1 - ratio), view[1] + view[3] * py * (1 - ratio), width, view[3] * ratio];
    show();
  };
  svg.addEventListener("wheel", (e) => {
    if (!e.ctrlKey && !e.metaKey) {
      const scale = view[2] / size()[0];
      view[0] += e.deltaX * scale; view[1] += e.deltaY * scale;
      view[1] = Math.min(Math.max(view[1], -view[3] / 2), full[1] - view[3] / 2);
      show();
    } else {
      const box = svg.getBoundingClientRect();
      zoom(e.deltaY > 0 ? 1.15 : 1 / 1.15, (e.clientX - box.left) / box.width, (e.clientY - box.top) / box.height);
    }
    e.preventDefault();
  }, { passive: false });
  let from = null, moved = false;
  svg.addEventListener("pointerdown", (e) => { from = [e.clientX, e.clientY, view[0], view[1]]; moved = false; });
  addEventListener("pointermove", (e) => {
    if (!from) return;
    const scale = view[2] / size()[0];
    moved = moved || Math.abs(e.clientX - from[0]) + Math.abs(e.clientY - from[1]) > 4;
    view[0] = from[2] - (e.clientX - from[0]) * scale;
    view[1] = from[3] - (e.clientY - from[1]) * scale;
    svg.classList.add("drag");
    show();
  });
  addEventListener("pointerup", () => { from = null; svg.classList.remove("drag"); });
  svg.querySelectorAll(".n").forEach((n) => {
    const tell = () => {
      detail.textContent = n.querySelector("title").textContent;
      svg.querySelectorAll(".n.on").forEach((o) => o.classList.remove("on"));
      n.classList.add("on");
    };
    n.addEventListener("click", () => { if (!moved) tell(); });
    n.addEventListener("dblclick", () => choose(n.dataset.p));
    n.addEventListener("keydown", (e) => { if (e.key === "Enter") tell(); });
  });
  document.getElementById("zoom-in").addEventListener("click", () => zoom(1 / 1.3));
  document.getElementById("zoom-out").addEventListener("click", () => zoom(1.3));
  document.getElementById("zoom-all").addEventListener("click", whole);
  start();
})();
