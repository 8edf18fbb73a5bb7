"use strict";

// OpenSeadragon with several images in one place: they are zoomed and moved together, and one of them is seen.
kpac.Viewer = class {
  // place: the element to show in. onPointer({x, y} or null): the image's pixel under the pointer, or at the centre.
  constructor(place, onPointer) {
    this.place = place;
    this.onPointer = onPointer;
    this.layers = new Map(); // name -> TiledImage
    this.shownName = null;
    this.pair = null; // { left, right, fraction } while the slider is on
    this.overlayLayer = null;
    this.osd = OpenSeadragon({
      element: place,
      showNavigationControl: false,
      drawer: "canvas",
      crossOriginPolicy: false,
      immediateRender: true,
      blendTime: 0,
      animationTime: 0.25,
      maxZoomPixelRatio: 32,
      minZoomImageRatio: 0.8,
      visibilityRatio: 0.3,
      preserveImageSizeOnResize: true,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
    // Tiles would overlap by a pixel to hide seams: an image of one tile would be drawn a pixel too large.
    this.osd.drawer.minimumOverlapRequired = () => false;
    this.osd.canvas.setAttribute("aria-label", "Image; arrow keys move it, plus and minus zoom");
    this.osd.canvas.setAttribute("role", "application");
    // Letters and digits are the page's; arrows stay with the viewer.
    this.osd.addHandler("canvas-key", (event) => {
      if (!event.originalEvent.key.startsWith("Arrow")) event.preventDefaultAction = true;
    });
    this.osd.addHandler("zoom", () => this.#sharpen());
    this.osd.addHandler("resize", () => this.#sharpen());
    this.osd.addHandler("update-viewport", () => this.#clip());
    this.osd.addHandler("animation-finish", () => { if (!this.pointed) this.#report(this.#centre()); });
    place.addEventListener("pointermove", (event) => { this.pointed = true; this.#report(this.#at(event)); });
    place.addEventListener("pointerleave", () => { this.pointed = false; });
  }

  get item() {
    return this.osd.world.getItemAt(0);
  }

  // Adds an image that is not seen yet, below the overlay.
  async add(name, url) {
    this.layers.set(name, await this.#place(url, 1, this.layers.size));
  }

  // index: from the bottom; undefined for the top.
  #place(url, width, index) {
    return new Promise((resolve, reject) => {
      this.osd.addTiledImage({
        tileSource: { type: "image", url },
        index,
        x: 0,
        y: 0,
        width,
        opacity: 0,
        preload: true,
        success: ({ item }) => resolve(item),
        error: ({ message }) => reject(new Error(message)),
      });
    });
  }

  clear() {
    this.osd.world.removeAll();
    this.osd.clearOverlays();
    this.layers.clear();
    this.overlayLayer = this.shownName = this.pair = null;
  }

  // Shows one image in the place of another, at the same zoom.
  show(name) {
    this.shownName = name;
    this.#update();
  }

  // Shows one image left of a border and another right of it; fraction: of the viewer's width.
  split(pair) {
    this.pair = pair;
    this.#update();
  }

  // Shows a map over the images, or none; url: of an image; width: in widths of the first image.
  async overlay(url, width, opacity) {
    const before = this.overlayLayer;
    this.overlayLayer = null;
    if (url) {
      this.overlayLayer = await this.#place(url, width);
      this.overlayLayer.setOpacity(opacity);
    }
    if (before && this.osd.world.getIndexOfItem(before) >= 0) this.osd.world.removeItem(before);
  }

  fit() {
    this.osd.viewport.goHome();
  }

  // One pixel of the image on one pixel of the screen, exactly: between two of them, some would be drawn twice.
  actualSize() {
    if (!this.item) return;
    const { viewport } = this.osd;
    const ratio = OpenSeadragon.pixelDensityRatio;
    viewport.zoomTo(this.item.imageToViewportZoom(1 / ratio), null, true);
    const corner = this.item.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
    const moved = (place) => place - Math.round(place * ratio) / ratio;
    viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(moved(corner.x), moved(corner.y))), true);
  }

  zoomBy(factor) {
    this.osd.viewport.zoomBy(factor);
    this.osd.viewport.applyConstraints();
  }

  // The pixel of the image at a place in the viewer, not limited to the image.
  imagePoint(x, y) {
    return this.item.viewerElementToImageCoordinates(new OpenSeadragon.Point(x, y));
  }

  // Marks a box of the image.
  mark({ top, left, height, width }) {
    this.osd.clearOverlays();
    const location = this.item.imageToViewportRectangle(left, top, width, height);
    this.osd.addOverlay({ element: kpac.element("div", { class: "marked" }), location });
  }

  #update() {
    for (const [name, item] of this.layers) {
      const seen = this.pair ? name === this.pair.left || name === this.pair.right : name === this.shownName;
      item.setOpacity(seen ? 1 : 0);
      item.setClip(null);
    }
    this.#clip();
  }

  // The upper one of the two images is cut at the border, wherever that lies in the image now.
  #clip() {
    const [left, right] = this.pair ? [this.layers.get(this.pair.left), this.layers.get(this.pair.right)] : [];
    if (!left || !right || left === right) return;
    const isLeft = this.osd.world.getIndexOfItem(left) > this.osd.world.getIndexOfItem(right);
    const upper = isLeft ? left : right;
    const { x: width, y: height } = upper.source.dimensions;
    const border = Math.min(width, Math.max(0, this.imagePoint(this.pair.fraction * this.place.clientWidth, 0).x));
    const clip = isLeft ? [0, 0, border, height] : [border, 0, width - border, height];
    const before = upper.getClip();
    const same = before && [before.x, before.y, before.width, before.height].every((value, at) => value === clip[at]);
    if (!same) upper.setClip(new OpenSeadragon.Rect(...clip));
  }

  // Enlarged pixels keep their edges; an image that is made smaller is averaged.
  #sharpen() {
    const zoom = this.item ? this.item.viewportToImageZoom(this.osd.viewport.getZoom()) : 1;
    this.osd.drawer.setImageSmoothingEnabled(zoom * OpenSeadragon.pixelDensityRatio < 1);
  }

  #at(event) {
    const box = this.place.getBoundingClientRect();
    return this.item ? this.imagePoint(event.clientX - box.left, event.clientY - box.top) : null;
  }

  #centre() {
    return this.item ? this.imagePoint(this.place.clientWidth / 2, this.place.clientHeight / 2) : null;
  }

  #report(point) {
    const size = this.item?.source.dimensions;
    if (!point || !size) return;
    const [x, y] = [Math.floor(point.x), Math.floor(point.y)];
    this.onPointer(x >= 0 && y >= 0 && x < size.x && y < size.y ? { x, y } : null);
  }
};
