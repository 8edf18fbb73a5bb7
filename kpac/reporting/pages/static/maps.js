"use strict";

// Maps in false colours: absolute errors, scale attention, blur.
kpac.maps = (() => {
  const PERCENTILE = 0.995; // percentile of the input's error that gets the brightest colour

  // Mean over the channels of the absolute difference, in steps of 1/255; one value per pixel.
  function errors(image, target) {
    const [a, b] = [kpac.images.pixels(image), kpac.images.pixels(target)];
    const found = new Float32Array(a.length / 4);
    for (let pixel = 0, at = 0; pixel < found.length; pixel += 1, at += 4) {
      found[pixel] = (Math.abs(a[at] - b[at]) + Math.abs(a[at + 1] - b[at + 1]) + Math.abs(a[at + 2] - b[at + 2])) / 3;
    }
    return found;
  }

  // The error that gets the brightest colour; the same for all images of a scene.
  function brightest(input, target) {
    const found = errors(input, target).sort();
    return found[Math.floor((found.length - 1) * PERCENTILE)] || 1;
  }

  // Values between 0 and 1 in false colours.
  //
  // colors: 256 RGB triples in one array.
  function colored(values, width, height, colors) {
    const canvas = kpac.element("canvas", { width, height });
    const context = canvas.getContext("2d");
    const data = context.createImageData(width, height);
    for (let pixel = 0; pixel < values.length; pixel += 1) {
      const color = 3 * Math.round(255 * Math.min(1, Math.max(0, values[pixel])));
      data.data.set([colors[color], colors[color + 1], colors[color + 2], 255], 4 * pixel);
    }
    context.putImageData(data, 0, 0);
    return canvas;
  }

  function errorMap(image, target, top, colors) {
    const values = errors(image, target).map((value) => value / top);
    return colored(values, image.width, image.height, colors);
  }

  // A map of the page: 0 to 255 stand for facts.low to facts.high.
  function storedMap(map, colors) {
    const data = kpac.images.pixels(map);
    const values = new Float32Array(map.width * map.height).map((_, pixel) => data[4 * pixel] / 255);
    return colored(values, map.width, map.height, colors);
  }

  // The value of a map at a pixel of the image.
  function valueAt(map, x, y) {
    const { low, high, factor } = map.facts;
    const [column, row] = [Math.floor(x / factor), Math.floor(y / factor)];
    return low + ((high - low) * kpac.images.pixels(map, column, row, 1, 1)[0]) / 255;
  }

  // Draws the colours from low to high.
  function legend(canvas, colors) {
    const values = Float32Array.from({ length: canvas.width }, (_, place) => place / (canvas.width - 1));
    canvas.getContext("2d").drawImage(colored(values, canvas.width, 1, colors), 0, 0);
  }

  return { brightest, errorMap, storedMap, valueAt, legend };
})();
