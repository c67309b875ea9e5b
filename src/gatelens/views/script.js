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
  // a link to a card opens it
  function reveal() {
    var target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") { target.hidden = false; target.open = true; target.scrollIntoView(); }
  }
  window.addEventListener("hashchange", reveal);
  // bodies of packed cards: inflated when the first of their pack is opened; they were escaped when the page was made
  var packs = {};
  function unpack(name) {
    if (!packs[name]) {
      var bytes = Uint8Array.from(atob(document.getElementById("pack-" + name).textContent), function (c) { return c.charCodeAt(0); });
      var stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      packs[name] = new Response(stream).json();
    }
    return packs[name];
  }
  document.addEventListener("toggle", function (event) {
    var body = event.target.open && event.target.querySelector(".body[data-pack]");
    if (!body) { return; }
    unpack(body.dataset.pack).then(function (bodies) {
      body.innerHTML = bodies[+body.dataset.place];
      body.removeAttribute("data-pack");
      if (window.CircuitsVis) { panels(body); }
    });
  }, true);
  // search, filter, sort
  all("form[data-list]").forEach(function (form) {
    var list = document.getElementById(form.dataset.list);
    var cards = all(".card", list), said = form.querySelector("output");
    form.hidden = false;
    var texts = cards.map(function (card) { return card.dataset.text; });
    function apply() {
      var words = form.q.value.toLowerCase().split(/\s+/).filter(Boolean), kind = form.kind.value, verified = form.verified.checked, shown = 0;
      cards.forEach(function (card, i) {
        var fits = (!kind || card.dataset.kind === kind) && (!verified || card.dataset.verified === "true") &&
          words.every(function (word) { return texts[i].indexOf(word) >= 0; });
        card.hidden = !fits;
        if (fits) { shown += 1; }
      });
      said.textContent = shown + " of " + cards.length + " shown";
    }
    function sort() {
      var key = form.sort.value, up = key === "rank" || key === "id";
      cards.slice().sort(function (a, b) { return (up ? 1 : -1) * (a.dataset[key] - b.dataset[key]) || a.dataset.rank - b.dataset.rank; })
        .forEach(function (card) { list.appendChild(card); });
    }
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    form.q.addEventListener("input", apply);
    form.kind.addEventListener("change", apply);
    form.verified.addEventListener("change", apply);
    form.sort.addEventListener("change", sort);
    apply();
  });
  // the layer map: a threshold, and the wires of one feature
  all(".layermap").forEach(function (map) {
    var left = JSON.parse(map.dataset.left), form = map.querySelector("form"), range = form.querySelector("input"), said = form.querySelector("output");
    var drawing = map.querySelector(".wires"), edges = all(".e", drawing);
    form.hidden = false;
    function cut() {
      var step = left[+range.value];
      edges.forEach(function (edge) { edge.classList.toggle("gone", +edge.dataset.w < step[0]); });
      said.textContent = "at least " + step[0].toPrecision(3) + ": " + step[1].toLocaleString("en") + " of " + left[0][1].toLocaleString("en") + " wires left";
    }
    function light(event) {
      var on = event.target.closest("text"), side = on && ("i" in on.dataset ? "i" : "o");
      drawing.classList.toggle("lit", Boolean(on));
      edges.forEach(function (edge) { edge.classList.toggle("hit", Boolean(on) && edge.dataset[side] === on.dataset[side]); });
    }
    range.addEventListener("input", cut);
    ["pointerover", "focusin"].forEach(function (kind) { drawing.addEventListener(kind, light); });
    ["pointerleave", "focusout"].forEach(function (kind) {
      drawing.addEventListener(kind, function () { drawing.classList.remove("lit"); });
    });
    cut();
  });
  // token panels of circuitsvis, drawn when they are in sight: closed cards cost nothing
  function panels(from) {
    all(".cv:empty", from).forEach(function (place) {
      var data = document.getElementById(place.id + "-data");
      if (data && place.offsetParent) { window.CircuitsVis.render(place.id, window.CircuitsVis.ColoredTokens, JSON.parse(data.textContent)); }
    });
  }
  if (window.CircuitsVis) {
    panels(document);
    document.addEventListener("toggle", function (event) { panels(event.target); }, true);
  }
  reveal();
})();
