"use strict";

// The images of scenes: decoded exactly, with their pixels readable.
kpac.images = (() => {
  // An image by its key, such as "images/12/input".
  //
  // Returns { url, blob, canvas, width, height, facts }: a URL for the viewer, a canvas for reading pixels, and the facts
  // of a map.
  async function load(key) {
    const { type, data, ...facts } = await kpac.load(key);
    kpac.forget(key);
    const bytes = bytesOf(data);
    const blob = new Blob([bytes], { type });
    // Values as they are in the file: no colour management, no premultiplication.
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    const { width, height } = bitmap;
    const canvas = kpac.element("canvas", { width, height });
    canvas.getContext("2d", { willReadFrequently: true }).drawImage(bitmap, 0, 0);
    bitmap.close();
    return { url: URL.createObjectURL(blob), blob, canvas, width, height, facts };
  }

  // A loop, since Uint8Array.from with a function takes ten times as long for the millions of bytes of a frame.
  function bytesOf(base64) {
    const letters = atob(base64);
    const bytes = new Uint8Array(letters.length);
    for (let at = 0; at < bytes.length; at += 1) bytes[at] = letters.charCodeAt(at);
    return bytes;
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
