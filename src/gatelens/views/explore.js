// the index: every gate's line, searched, filtered, sorted; cards opened from packs; features; keys; pins; copies
(function () {
  var root = document.querySelector(".gl"), original = document.getElementById("mine") && document.documentElement.outerHTML;
  var all = function (selector, from) { return Array.prototype.slice.call((from || document).querySelectorAll(selector)); };
  var make = function (tag, kind, text) { var e = document.createElement(tag); if (kind) { e.className = kind; } if (text !== undefined) { e.textContent = text; } return e; };
  var BATCH = 60, PACK = 40, parts = {}, packs = {}, cards = {};
  function inflate(name) {
    if (!packs[name]) {
      var bytes = Uint8Array.from(atob(document.getElementById("pack-" + name).textContent), function (c) { return c.charCodeAt(0); });
      packs[name] = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
    }
    return packs[name];
  }
  var piece = function (name, place) { return inflate(name + "-" + Math.floor(place / PACK)).then(function (pack) { return pack[place % PACK]; }); };
  // what the page was made with was escaped then; nothing else is ever put in as markup
  function fill(element, text) { element.innerHTML = text; }

  function part(section) {
    var list = section.querySelector(".cards"), form = section.querySelector("form[data-list]"), said = form.querySelector("output");
    var more = make("button", "more", "Show more"), p = { id: section.id, rows: [], limit: BATCH, shown: [] };
    all(".card", list).forEach(function (card) { cards[card.id] = card; });
    more.type = "button";
    list.after(more);
    p.ready = inflate("index-" + section.id).then(function (index) {
      p.index = index;
      p.rows = index.rows.map(function (r, rank) {
        return { anchor: r[0], out: r[1], kind: r[2], grade: r[3], mcc: r[4], n: r[5], r2: r[6], apart: r[7], inputs: r[8], text: r[9], summary: r[10], body: r[11], rank: rank, part: p };
      });
      p.by = {};
      p.rows.forEach(function (row) { p.by[row.anchor] = row; });
      form.hidden = false;
      apply();
    });
    function word(row, w) {
      var id = /^(if|of)?_?(\d+)$/.exec(w);
      if (id) {
        var number = +id[2];
        if (id[1] === "if") { return row.inputs.indexOf(number) >= 0; }
        if (id[1] === "of") { return row.out === number; }
        return row.out === number || row.inputs.indexOf(number) >= 0 || (" " + row.text + " ").indexOf(" " + w + " ") >= 0;
      }
      return row.text.indexOf(w) >= 0 || named(row, w);
    }
    function named(row, w) {
      return (saved.names[p.id + ".OF_" + row.out] || "").toLowerCase().indexOf(w) >= 0 ||
        row.inputs.some(function (i) { return (saved.names[p.id + ".IF_" + i] || "").toLowerCase().indexOf(w) >= 0; });
    }
    function apply() {
      var words = form.q.value.toLowerCase().split(/\s+/).filter(Boolean), key = form.sort.value;
      p.shown = p.rows.filter(function (row) {
        return (!form.kind.value || row.kind === form.kind.value) && (!form.grade.value || row.grade === form.grade.value) &&
          words.every(function (w) { return word(row, w); });
      });
      var up = key === "rank" || key === "out";
      if (key !== "rank") { p.shown.sort(function (a, b) { return (up ? 1 : -1) * (a[key] - b[key]) || a.rank - b.rank; }); }
      p.limit = BATCH;
      draw();
    }
    function draw() {
      var chosen = p.shown.slice(0, p.limit);
      list.replaceChildren.apply(list, chosen.map(card));
      more.hidden = p.shown.length <= p.limit;
      more.textContent = "Show " + Math.min(BATCH, p.shown.length - p.limit) + " more";
      said.textContent = p.shown.length.toLocaleString("en") + " of " + p.rows.length.toLocaleString("en") + " gates";
    }
    p.bring = function (row) {
      if (p.shown.indexOf(row) < 0) { form.q.value = ""; form.kind.value = ""; form.grade.value = ""; apply(); }
      var place = p.shown.indexOf(row);
      if (place >= p.limit) { p.limit = place + 20; }
      draw();
      return card(row);
    };
    p.apply = apply;
    more.addEventListener("click", function () { p.limit += BATCH; draw(); });
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    form.q.addEventListener("input", apply);
    ["kind", "grade", "sort"].forEach(function (name) { form[name].addEventListener("change", apply); });
    return p;
  }
  function card(row) {
    if (!cards[row.anchor]) {
      var element = make("details", "card"), summary = make("summary"), body = make("div", "body");
      element.id = row.anchor;
      fill(summary, row.summary);
      element.append(summary, body);
      cards[row.anchor] = element;
    }
    cards[row.anchor].row = row;
    return cards[row.anchor];
  }
  // what is seen of an open card: its body out of its pack, its inputs' examples out of theirs, and its tools
  function opened(element) {
    var row = element.row, body = element.querySelector(".body");
    if (element.full || !row) { return Promise.resolve(); }
    element.full = true;
    var ready = Promise.resolve();
    if (!body.firstChild && row.body >= 0) {
      ready = piece(row.part.id, row.body).then(function (text) { fill(body, text); });
    } else if (!body.firstChild) {
      body.append(make("p", "soft", "No picture of this gate is in this file. gatelens view RUN --set views.max_cards=" + row.part.rows.length + " draws all of them."));
      body.append(links(row.part, row.inputs));
    }
    return ready.then(function () {
      if (!body.querySelector(".tools")) { body.prepend(tools(row, body)); }
      if (window.glPanels) { window.glPanels(body); }
      return Promise.all(all(".arm[data-f]:empty", body).map(function (slot) { return example(row.part, +slot.dataset.f, slot); }));
    }).then(function () { connect(row, body); });
  }
  function example(p, feature, slot) {
    var place = p.index.features[feature];
    if (place === undefined) { return Promise.resolve(); }
    return piece(p.id + "f", place).then(function (text) { fill(slot, text); });
  }
  function links(p, inputs) {
    var line = make("p", "soft", "Wires from ");
    inputs.forEach(function (i, k) { line.append(k ? ", " : "", link("#" + p.id + ".IF_" + i, "IF_" + i)); });
    return line;
  }
  function link(href, text) { var a = make("a", "", text); a.setAttribute("href", href); return a; }
  // names of features become links to their own pages
  function connect(row, body) {
    all(".arm[data-f]", body).forEach(function (arm) {
      var name = arm.querySelector(".fname");
      if (name && !name.querySelector("a")) { name.replaceChildren(link("#" + row.part.id + ".IF_" + arm.dataset.f, name.textContent)); }
    });
    all(".pic [data-i]", body).forEach(function (input) {
      input.addEventListener("click", function () { go("#" + row.part.id + ".IF_" + input.dataset.i); });
    });
  }
  function go(hash) { if (location.hash === hash) { reveal(); } else { location.hash = hash; } }
  function setHash(hash) { try { history.replaceState(null, "", hash); } catch (e) { /* framed pages may not */ } }
  document.addEventListener("toggle", function (event) {
    var element = event.target;
    if (!element.classList || !element.classList.contains("card")) { return; }
    if (element.open) { opened(element); if (element.dataset.led !== "1") { setHash("#" + element.id); } element.dataset.led = ""; }
  }, true);

  // a gate's tools: a link to it, its picture as a file, a pin
  function tools(row, body) {
    var bar = make("div", "tools"), picture = function () { return body.querySelector(".pic svg"); };
    var button = function (text, act) { var b = make("button", "", text); b.type = "button"; b.addEventListener("click", function () { act(b); }); bar.append(b); return b; };
    button("Copy link", function (b) {
      var address = location.href.split("#")[0] + "#" + row.anchor;
      var said = function () { b.textContent = "Copied"; setTimeout(function () { b.textContent = "Copy link"; }, 1500); };
      if (navigator.clipboard) { navigator.clipboard.writeText(address).then(said, function () { prompt("The link:", address); }); } else { prompt("The link:", address); }
    });
    if (picture()) {
      button("SVG", function () { keep(new Blob([alone(picture())], { type: "image/svg+xml" }), row.anchor + ".svg"); });
      button("PNG", function () { png(picture(), row.anchor + ".png"); });
    }
    pinButton(button("", function () { pin(row.part.id + ".OF_" + row.out); }), row.part.id + ".OF_" + row.out);
    return bar;
  }
  function keep(blob, name) {
    var a = make("a"), url = URL.createObjectURL(blob);
    a.href = url;
    a.download = name;
    a.click();
    setTimeout(function () { URL.revokeObjectURL(url); }, 10000);
  }
  function alone(svg) {
    var copy = svg.cloneNode(true), style = document.createElementNS("http://www.w3.org/2000/svg", "style"), box = svg.viewBox.baseVal;
    var rules = all("style").map(function (s) { return Array.prototype.map.call(s.sheet.cssRules, function (r) { return r.cssText; }); });
    style.textContent = [].concat.apply([], rules).filter(function (r) { return r.indexOf(".gp") === 0; }).join("");
    copy.prepend(style);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", box.width);
    copy.setAttribute("height", box.height);
    return new XMLSerializer().serializeToString(copy);
  }
  function png(svg, name) {
    var image = new Image(), box = svg.viewBox.baseVal;
    image.onload = function () {
      var canvas = make("canvas"), pen = canvas.getContext("2d");
      canvas.width = 3 * box.width;
      canvas.height = 3 * box.height;
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(function (blob) { keep(blob, name); });
    };
    image.src = "data:image/svg+xml;base64," + btoa(unescape(encodeURIComponent(alone(svg))));
  }

  // pins and names of one's own, kept in the file by "Save a copy"
  var holder = document.getElementById("saved"), saved = { groups: [], names: {} };
  try { saved = Object.assign(saved, JSON.parse(holder.textContent)); } catch (e) { /* a page without them */ }
  var mine = document.getElementById("mine"), active = 0;
  function pinned(item) { return saved.groups.some(function (g) { return g.items.indexOf(item) >= 0; }); }
  function pin(item) {
    if (pinned(item)) { saved.groups.forEach(function (g) { g.items = g.items.filter(function (i) { return i !== item; }); }); } else {
      if (!saved.groups.length) { saved.groups.push({ name: "Pinned", items: [] }); }
      saved.groups[Math.min(active, saved.groups.length - 1)].items.push(item);
    }
    changed();
  }
  function pinButton(b, item) { b.dataset.pin = item; b.textContent = pinned(item) ? "Unpin" : "Pin"; b.setAttribute("aria-pressed", pinned(item)); }
  function changed() {
    all("button[data-pin]").forEach(function (b) { pinButton(b, b.dataset.pin); });
    if (!mine) { return; }
    var box = mine.querySelector(".groups");
    mine.hidden = !saved.groups.length && !Object.keys(saved.names).length;
    box.replaceChildren.apply(box, saved.groups.map(function (group, k) {
      var line = make("div", "group"), pick = make("input"), name = make("input"), drop = make("button", "", "Remove");
      pick.type = "radio"; pick.name = "group"; pick.checked = k === Math.min(active, saved.groups.length - 1);
      pick.setAttribute("aria-label", "pin into this group");
      pick.addEventListener("change", function () { active = k; });
      name.value = group.name; name.setAttribute("aria-label", "name of the group"); name.maxLength = 80;
      name.addEventListener("input", function () { group.name = name.value; });
      drop.type = "button";
      drop.addEventListener("click", function () { saved.groups.splice(k, 1); changed(); });
      line.append(pick, name, drop);
      group.items.forEach(function (item) {
        var ends = item.split("."), own = saved.names[item];
        var href = ends[1].slice(0, 3) === "OF_" ? "#g" + ends[0].slice(1) + "-" + ends[1].slice(3) : "#" + item;
        line.append(link(href, ends[1] + (own ? " (" + own + ")" : "")));
      });
      return line;
    }));
  }
  if (mine) {
    mine.querySelector("[name=add]").addEventListener("click", function () { saved.groups.push({ name: "Group " + (saved.groups.length + 1), items: [] }); active = saved.groups.length - 1; changed(); });
    mine.querySelector("[name=keep]").addEventListener("click", function () {
      var text = JSON.stringify(saved).replace(/[<>&\u2028\u2029]/g, function (c) { return "\\u" + ("000" + c.charCodeAt(0).toString(16)).slice(-4); });
      var copy = original.replace(/(<script type="application\/json" id="saved">)[^<]*(<\/script>)/, function (_, a, b) { return a + text + b; });
      keep(new Blob(["<!doctype html>\n" + copy], { type: "text/html" }), "gatelens.html");
    });
  }

  // a feature by itself: what it responds to, the gates that it feeds, the gate that feeds it
  var about = document.getElementById("feature");
  function feature(p, id) {
    var key = p.id + ".IF_" + id, box = make("div"), fed = p.rows.filter(function (row) { return row.inputs.indexOf(id) >= 0; });
    var head = make("h2", "", "IF_" + id), bar = make("div", "tools"), own = make("input"), b = make("button"), slot = make("div", "arm");
    own.value = saved.names[key] || ""; own.placeholder = "a name of your own"; own.setAttribute("aria-label", "a name of your own for this feature"); own.maxLength = 80;
    own.addEventListener("input", function () { if (own.value) { saved.names[key] = own.value; } else { delete saved.names[key]; } changed(); });
    b.type = "button"; b.addEventListener("click", function () { pin(key); }); pinButton(b, key);
    var close = make("button", "", "Close"); close.type = "button"; close.addEventListener("click", function () { about.hidden = true; setHash("#" + p.id); });
    bar.append(own, b, close);
    box.append(head, bar, slot);
    if (p.index.fed) { var from = make("p", "soft", "Fed by the gate "); from.append(link("#g" + p.index.fed.slice(1) + "-" + id, "OF_" + id), " of the segment before."); box.append(from); }
    box.append(make("h3", "", fed.length ? "Gates that it feeds: " + fed.length.toLocaleString("en") : "It feeds no gate."));
    var list = make("ul", "fedlist");
    fed.slice(0, 200).forEach(function (row) { var li = make("li"), a = link("#" + row.anchor, ""); fill(a, row.summary); li.append(a); list.append(li); });
    box.append(list);
    if (fed.length > 200) { box.append(make("p", "soft", "The first 200 are listed; search the index for IF_" + id + " to see all.")); }
    about.replaceChildren(box);
    about.hidden = false;
    return example(p, id, slot).then(function () {
      if (!slot.firstChild) { slot.append(make("p", "soft", "Its examples are not in this file: no gate with a card has it among its first inputs.")); }
      about.scrollIntoView(); head.tabIndex = -1; head.focus({ preventScroll: true });
    });
  }

  // a link to a card opens it and scrolls to its head; a link to a feature shows it
  function reveal() {
    var hash = decodeURIComponent(location.hash.slice(1)), asked = /^(s\d+)\.IF_(\d+)$/.exec(hash), gate = /^g(\d+)-\d+$/.exec(hash);
    var p = parts[asked ? asked[1] : gate ? "s" + gate[1] : ""];
    if (!p) { return; }
    p.ready.then(function () {
      if (asked) { return feature(p, +asked[2]); }
      var row = p.by[hash];
      if (!row) { return null; }
      about.hidden = true;
      var element = p.bring(row);
      element.dataset.led = element.open ? "" : "1";
      element.open = true;
      return opened(element).then(function () {
        element.scrollIntoView();
        requestAnimationFrame(function () { element.scrollIntoView(); });
        element.querySelector("summary").focus({ preventScroll: true });
      });
    });
  }
  all("main > section").forEach(function (section) { if (section.querySelector("form[data-list]")) { parts[section.id] = part(section); } });
  window.addEventListener("hashchange", reveal);
  changed();
  Object.keys(parts).forEach(function (id) { parts[id].ready.then(function () { all(".card[open]", document.getElementById(id)).forEach(opened); }); });
  reveal();

  // keys: / to search, j and k from gate to gate, p to pin, Escape to close
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey) { return; }
    var typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName), heads = all(".cards .card > summary"), at = heads.indexOf(document.activeElement);
    if (event.key === "Escape") { if (about && !about.hidden) { about.hidden = true; } if (typing) { event.target.blur(); } return; }
    if (typing) { return; }
    if (event.key === "/") { var q = document.querySelector("form[data-list] [name=q]"); if (q) { q.focus(); event.preventDefault(); } }
    if (event.key === "j" && heads.length) { heads[Math.min(at + 1, heads.length - 1)].focus(); }
    if (event.key === "k" && heads.length) { heads[Math.max(at - 1, 0)].focus(); }
    if (event.key === "p" && at >= 0) { var row = heads[at].parentElement.row; if (row) { pin(row.part.id + ".OF_" + row.out); } }
  });
})();
