// Watches the first card for `enough` frames (or 20 s) and says where boxes and pixels disagree. The one thing painted red in
// each picture is what its one box is around, so the canvas must be red in the box and not red beyond it.
(async (enough) => {
  const card = document.querySelector(".card");
  const canvas = card.querySelector("canvas");
  const context = canvas.getContext("2d");
  const red = (x, y) => {
    const [r, g, b] = context.getImageData(Math.round(x), Math.round(y), 1, 1).data;
    return r > 150 && g < 110 && b < 110;
  };
  const wrong = [];
  const frames = new Set();
  const start = performance.now();
  while (frames.size < enough && performance.now() - start < 20_000) {
    await new Promise(requestAnimationFrame);
    const box = card.querySelector(".box");
    if (!box) continue;
    const [outer, inner] = [canvas.getBoundingClientRect(), box.getBoundingClientRect()];
    const scale = canvas.width / outer.width;
    const [x1, y1] = [(inner.left - outer.left) * scale, (inner.top - outer.top) * scale];
    const [x2, y2] = [(inner.right - outer.left) * scale, (inner.bottom - outer.top) * scale];
    const [cx, cy] = [(x1 + x2) / 2, (y1 + y2) / 2];
    const checks = {
      centre: red(cx, cy), "left edge": red(x1 + 8, cy), "right edge": red(x2 - 8, cy), "top edge": red(cx, y1 + 8),
      "bottom edge": red(cx, y2 - 8), "outside left": !red(x1 - 8, cy), "outside right": !red(x2 + 8, cy),
      "outside top": !red(cx, y1 - 8), "outside bottom": !red(cx, y2 + 8),
    };
    for (const [name, good] of Object.entries(checks)) if (!good) wrong.push(`${name} at frame ${card.dataset.seq}`);
    frames.add(card.dataset.seq);
  }
  return { frames: frames.size, wrong };
})
