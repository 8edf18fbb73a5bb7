"use strict";

// Shared by all pages: loading data from scripts, making elements without HTML, formatting numbers.
const kpac = (() => {
  const received = new Map();
  const loading = new Map();

  // The value of a data script, such as "data/index"; fresh reads it again.
  function load(key, fresh = false) {
    if (!loading.has(key) || fresh) {
      loading.set(key, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = fresh ? `${key}.js?${Date.now()}` : `${key}.js`;
        const fail = () => reject(new Error(`${key}.js cannot be read: copy the whole folder, or write it again with kpac view`));
        script.onload = () => {
          script.remove();
          const value = received.get(key);
          received.delete(key);
          value === undefined ? fail() : resolve(value);
        };
        script.onerror = fail;
        document.head.append(script);
      }));
    }
    return loading.get(key);
  }

  // Forgets a data script, so that its memory is freed.
  function forget(key) {
    loading.delete(key);
  }

  // An element; children are elements, or text that is never read as HTML.
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(key, value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  // Strict JSON has no infinity; the data has a string instead.
  function number(value) {
    return value === null || value === undefined ? NaN : Number(value);
  }

  function text(value, digits, sign = false) {
    const given = number(value);
    if (Number.isNaN(given)) return "-";
    const printed = Number.isFinite(given) ? given.toFixed(digits) : given > 0 ? "∞" : "-∞";
    return sign && given >= 0 ? `+${printed}` : printed;
  }

  // Gain in PSNR over the input, NaN where there is none.
  function gain(scores, input) {
    return scores ? number(scores.psnr) - number(input.psnr) : NaN;
  }

  function problem(error) {
    const place = document.getElementById("problem");
    place.textContent = error.message || String(error);
    place.hidden = false;
  }

  const receive = (key, value) => received.set(key, value);
  return { receive, load, forget, element, number, text, gain, problem };
})();
