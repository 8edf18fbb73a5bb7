"use strict";

// The images of scenes: decoded exactly, with their pixels readable.
kpac.images = (() => {
  // An image by its key, such as "images/12/input".
  //
  // Gives { url, blob, canvas, width, height, facts }: a URL that a viewer can show, a canvas that pixels are read from,
  // and what the script says of a map.
  async function load(key) {
    const { type, data, ...facts } = await kpac.load(key);
    kpac.forget(key);
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const blob = new Blob([bytes], { type });
    // Values as they are in the file: no colour management, no premultiplication.
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    const { width, height } = bitmap;
    const canvas = kpac.element("canvas", { width, height });
    canvas.getContext("2d", { willReadFrequently: true }).drawImage(bitmap, 0, 0);
    bitmap.close();
    return { url: URL.createObjectURL(blob), blob, canvas, width, height, facts };
  }

  // Red, green, blue and alpha of a rectangle, row by row.
  function pixels(image, left = 0, top = 0, width = image.width, height = image.height) {
    return image.canvas.getContext("2d").getImageData(left, top, width, height).data;
  }

  function free(image) {
    URL.revokeObjectURL(image.url);
    image.canvas.width = image.canvas.height = 0;
  }

  const blobOf = (canvas) => new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });

  return { load, pixels, free, blobOf };
})();
