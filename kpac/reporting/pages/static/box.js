"use strict";

// A box of the image: drawn or typed, as a command for `kpac figure comparison`, and as a strip of crops.
kpac.box = (() => {
  // Lets the mouse draw a box in a layer over the viewer; done({top, left, height, width} in pixels of the image).
  function drawable(layer, viewer, size, done) {
    let start = null;
    const shape = kpac.element("div");
    const place = (event) => {
      const box = layer.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    layer.addEventListener("pointerdown", (event) => {
      start = place(event);
      layer.setPointerCapture(event.pointerId);
      layer.replaceChildren(shape);
      shape.style.cssText = "";
      event.preventDefault();
    });
    layer.addEventListener("pointermove", (event) => {
      if (!start) return;
      const now = place(event);
      shape.style.left = `${Math.min(start.x, now.x)}px`;
      shape.style.top = `${Math.min(start.y, now.y)}px`;
      shape.style.width = `${Math.abs(start.x - now.x)}px`;
      shape.style.height = `${Math.abs(start.y - now.y)}px`;
    });
    layer.addEventListener("pointerup", (event) => {
      if (!start) return;
      const ends = [start, place(event)].map(({ x, y }) => viewer.imagePoint(x, y));
      start = null;
      layer.replaceChildren();
      done(inside(between(...ends), size()));
    });
    layer.addEventListener("pointercancel", () => { start = null; layer.replaceChildren(); });
  }

  // The pixels that a rectangle between two points touches.
  function between(a, b) {
    const [left, right] = [Math.floor(Math.min(a.x, b.x)), Math.ceil(Math.max(a.x, b.x))];
    const [top, bottom] = [Math.floor(Math.min(a.y, b.y)), Math.ceil(Math.max(a.y, b.y))];
    return { top, left, height: bottom - top, width: right - left };
  }

  // The part of a box that lies in the image, or null.
  function inside({ top, left, height, width }, size) {
    const [first, last] = [Math.max(0, top), Math.min(size.height, top + height)];
    const [start, end] = [Math.max(0, left), Math.min(size.width, left + width)];
    if (!(last > first && end > start)) return null;
    return { top: first, left: start, height: last - first, width: end - start };
  }

  // Draws crops side by side without gaps, magnified by a whole factor.
  function strip(canvas, images, { top, left, height, width }, scale) {
    canvas.width = images.length * width * scale;
    canvas.height = height * scale;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    images.forEach((image, place) => {
      context.drawImage(image.canvas, left, top, width, height, place * width * scale, 0, width * scale, height * scale);
    });
  }

  // Quotes a word for a POSIX shell.
  function quoted(word) {
    return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
  }

  // The command that draws the box as a figure.
  function command(results, scene, { top, left, height, width }) {
    // With "=", a name that begins with a dash is no flag.
    const name = scene.startsWith("-") ? `--scene=${quoted(scene)}` : `--scene ${quoted(scene)}`;
    return `kpac figure comparison ${results.join(" ")} ${name} --box ${[top, left, height, width].join(",")} --output figure.png`;
  }

  return { drawable, inside, strip, command };
})();
