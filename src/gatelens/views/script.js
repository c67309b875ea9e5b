"use strict";
(function () {
  var root = document.querySelector(".gl");
  var all = function (selector, from) { return Array.prototype.slice.call((from || document).querySelectorAll(selector)); };
  var theme = document.getElementById("theme");
  if (theme) {
    theme.hidden = false;
    theme.addEventListener("click", function () {
      var dark = root.classList.contains("dark") || (!root.classList.contains("light") && matchMedia("(prefers-color-scheme:dark)").matches);
      root.classList.toggle("dark", !dark);
      root.classList.toggle("light", dark);
    });
  }
  // the legend is open until somebody folds it: then it stays so, where the browser lets a file remember
  all("details.how").forEach(function (how) {
    try { how.open = localStorage.getItem("gatelens-legend") !== "folded"; } catch (e) { return; }
    how.addEventListener("toggle", function () {
      try { localStorage.setItem("gatelens-legend", how.open ? "open" : "folded"); } catch (e) { /* it is open again next time */ }
    });
  });
  // the layer map: a threshold and steps of the fit for the matrix, and the wires of one feature, in the drawing and in the matrix
  all(".layermap").forEach(function (map) {
    var read = function (name) { return map.dataset[name] ? JSON.parse(map.dataset[name]) : null; };
    var left = read("left"), steps = read("steps") || [], grid = matrix(map, read("matrix"));
    var form = map.querySelector("form.threshold"), said = form.querySelector("output"), slider = map.querySelector("form.steps");
    var drawing = map.querySelector(".net"), wires = drawing ? all(".e", drawing) : [], seen = map.querySelector(".at"), hits = null;
    form.hidden = !grid;
    function show() {
      var under = left[+form.under.value][0], step = slider && steps[+slider.step.value], now = step && weights(step.cells);
      wires.forEach(function (wire) { wire.classList.toggle("hit", Boolean(hits) && hits(+wire.dataset.i, +wire.dataset.o)); });
      if (drawing) { drawing.classList.toggle("lit", Boolean(hits)); }
      if (grid) { grid.draw(now, under, hits); }
      said.textContent = "at least " + under.toPrecision(3) + (step ? "" : ": " + left[+form.under.value][1].toLocaleString("en") + " of " + left[0][1].toLocaleString("en") + " wires left");
      if (slider) { slider.querySelector("output").textContent = step ? "step " + step.step + ": " + step.all.toLocaleString("en") + " wires in all, " + step.here.toLocaleString("en") + " between these features" + (step.cells.length < 3 * step.here ? " (the strongest " + step.cells.length / 3 + " shown)" : "") : "the finished circuit"; }
    }
    function light(which, text) {
      hits = which;
      if (grid) { seen.hidden = false; seen.textContent = text || "Point at a cell to read it."; }
      show();
    }
    function feature(event) {
      var on = event.target.closest(".v") || (event.target.tagName === "a" && event.target.querySelector(".v"));
      if (!on) { return light(null); }
      var side = "i" in on.dataset ? "i" : "o", id = +on.dataset[side];
      light(function (i, o) { return (side === "i" ? i : o) === id; }, (side === "i" ? "IF_" : "OF_") + id);
    }
    form.addEventListener("input", show);
    if (drawing) {
      ["pointerover", "focusin"].forEach(function (kind) { drawing.addEventListener(kind, feature); });
      ["pointerleave", "focusout"].forEach(function (kind) { drawing.addEventListener(kind, function () { light(null); }); });
    }
    if (slider) { slider.hidden = false; slider.addEventListener("input", show); }
    all("form", map).forEach(function (each) { each.addEventListener("submit", function (event) { event.preventDefault(); }); });
    if (grid) {
      grid.order.addEventListener("change", show);
      grid.canvas.addEventListener("pointermove", function (event) {
        var cell = grid.at(event);
        light(cell && cell.w ? function (i, o) { return i === cell.i && o === cell.o; } : null, cell && "IF_" + cell.i + " → OF_" + cell.o + ": " + (cell.w ? cell.w.toPrecision(3) : "no wire"));
      });
      grid.canvas.addEventListener("pointerleave", function () { light(null); });
    }
    light(null);
  });
  // "output,input" -> weight, from [output, input, weight, ...]
  function weights(cells) {
    var found = {};
    for (var k = 0; k < cells.length; k += 3) { found[cells[k] + "," + cells[k + 1]] = cells[k + 2]; }
    return found;
  }
  // the matrix on a canvas in place of its picture, so that it can be ordered, cut and lit
  function matrix(map, data) {
    if (!data) { return null; }
    var canvas = document.createElement("canvas"), pen = canvas.getContext("2d"), scale = data.scale, image = map.querySelector(".grid img");
    var order = map.querySelector("form.order"), own = {}, ways = { rows: {}, columns: {} }, shown = {}, places = {};
    canvas.width = scale * data.ins.length;
    canvas.height = scale * data.outs.length;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", image.alt);
    image.replaceWith(canvas);
    order.hidden = false;
    for (var k = 0; k < data.cells.length; k += 3) { own[data.outs[data.cells[k]] + "," + data.ins[data.cells[k + 1]]] = data.cells[k + 2]; }
    [["rows", data.outs, 0], ["columns", data.ins, 1]].forEach(function (side) {
      var fan = {}, total = {};
      for (var key in own) { var id = +key.split(",")[side[2]]; fan[id] = (fan[id] || 0) + 1; total[id] = (total[id] || 0) + Math.abs(own[key]); }
      var by = function (value) { return side[1].slice().sort(function (a, b) { return (value[b] || 0) - (value[a] || 0) || a - b; }); };
      ways[side[0]] = { given: side[1], id: side[1].slice().sort(function (a, b) { return a - b; }), fan: by(fan), total: by(total) };
    });
    function shade(w, strength) {
      return (w < 0 ? [179, 88, 6] : [33, 102, 172]).map(function (c) { return Math.round(255 + (c - 255) * strength); }).join(",");
    }
    function draw(now, under, hits) {
      ["rows", "columns"].forEach(function (side) {
        shown[side] = ways[side][order[side].value];
        places[side] = {};
        shown[side].forEach(function (id, k) { places[side][id] = k; });
      });
      now = now || own;
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, canvas.width, canvas.height);
      for (var key in now) {
        var ends = key.split(","), w = now[key], y = places.rows[ends[0]] * scale, x = places.columns[ends[1]] * scale;
        if (Math.abs(w) < under) { continue; }
        var lit = hits && hits(+ends[1], +ends[0]), strength = Math.min(Math.abs(w) / data.top, 1);
        pen.fillStyle = "rgb(" + shade(w, hits && !lit ? 0.12 * strength : strength) + ")";
        pen.fillRect(x, y, scale, scale);
        if (w < 0) { pen.fillStyle = hits && !lit ? "#e4dcd4" : "#4a2200"; pen.fillRect(x + (scale >> 1) - (scale > 9), y + (scale >> 1) - (scale > 9), Math.max(scale / 5 | 0, 1), Math.max(scale / 5 | 0, 1)); }
        if (lit) { pen.strokeStyle = "#1a1f24"; pen.strokeRect(x + 0.5, y + 0.5, scale - 1, scale - 1); }
      }
      draw.now = now;
    }
    return { canvas: canvas, order: order, draw: draw, at: function (event) {
      var o = shown.rows[Math.floor(event.offsetY / scale)], i = shown.columns[Math.floor(event.offsetX / scale)];
      return o === undefined || i === undefined ? null : { o: o, i: i, w: draw.now[o + "," + i] || 0 };
    } };
  }
  // token panels of circuitsvis, drawn when they are in sight: closed cards cost nothing
  window.glPanels = function (from) {
    if (!window.CircuitsVis) { return; }
    all(".cv:empty", from).forEach(function (place) {
      var data = document.getElementById(place.id + "-data");
      if (data && place.offsetParent) {
        var props = JSON.parse(data.textContent);
        window.CircuitsVis.render(place.id, window.CircuitsVis.ColoredTokens, props);
        window.glTokens(place, props.tokens.length, function () { /* their ink was all there was to do */ });
      }
    });
  };
  // the tokens that circuitsvis draws, once they are there; its white on a middling blue is made black, which reads on it
  window.glTokens = function (place, number, then, left) {
    var found = all("span", place).filter(function (span) { return !span.querySelector("span"); });
    if (found.length !== number) {
      if (left === 0) { then(null); } else { setTimeout(window.glTokens, 50, place, number, then, (left || 40) - 1); }
      return;
    }
    found.forEach(function (token) {
      var ground = (getComputedStyle(token).backgroundColor.match(/[\d.]+/g) || [255, 255, 255]).slice(0, 3).map(function (c) {
        return c / 255 <= 0.04045 ? c / 255 / 12.92 : Math.pow((c / 255 + 0.055) / 1.055, 2.4);
      });
      token.style.color = 0.2126 * ground[0] + 0.7152 * ground[1] + 0.0722 * ground[2] > 0.179 ? "#000" : "#fff";
    });
    then(found);
  };
  window.glPanels(document);
  document.addEventListener("toggle", function (event) { window.glPanels(event.target); }, true);
})();
