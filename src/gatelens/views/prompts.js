// prompts: a token that is chosen in a strip shows what fires there; circuitsvis draws the strip; tabs where a page has both parts
(function () {
  var all = function (selector, from) { return Array.prototype.slice.call((from || document).querySelectorAll(selector)); };
  all(".read").forEach(function (read) {
    var plain = read.querySelector(".strip"), links = all("a", plain), places = all(".place", read), drawn = [];
    if (!links.length) { return; }
    read.classList.add("picked");
    function choose(k) {
      places.forEach(function (place, n) { place.open = n === k; });
      [links, drawn].forEach(function (row) { row.forEach(function (token, n) { if (n === k) { token.setAttribute("aria-current", "true"); } else { token.removeAttribute("aria-current"); } }); });
    }
    function listen(token, k) { token.addEventListener("click", function (event) { event.preventDefault(); choose(k); try { history.replaceState(null, "", links[k].hash); } catch (e) { /* framed pages may not */ } }); }
    links.forEach(listen);
    var asked = links.map(function (link) { return link.hash; }).indexOf(location.hash);
    // at first the last place at which something fires
    var last = places.length - 1;
    while (last > 0 && !places[last].querySelector(".fires")) { last -= 1; }
    choose(asked >= 0 ? asked : last > 0 ? last : places.length - 1);
    window.addEventListener("hashchange", function () { var k = links.map(function (link) { return link.hash; }).indexOf(location.hash); if (k >= 0) { choose(k); } });
    // the same strip drawn by circuitsvis: its tokens are buttons, as soon as they are there
    var data = document.getElementById(plain.id.replace("-plain", "")), place = document.createElement("div");
    if (!data || !window.CircuitsVis) { return; }
    place.className = "cv";
    place.id = data.id + "-drawn";
    plain.before(place);
    window.CircuitsVis.render(place.id, window.CircuitsVis.ColoredTokens, JSON.parse(data.textContent));
    window.glTokens(place, links.length, function (found) {
      if (!found) { place.remove(); return; }
      drawn = found;
      drawn.forEach(function (token, k) {
        token.tabIndex = 0;
        token.setAttribute("role", "button");
        token.setAttribute("aria-label", "token " + k + ": " + links[k].textContent);
        listen(token, k);
        token.addEventListener("keydown", function (event) {
          if (event.key === "Enter" || event.key === " ") { event.preventDefault(); token.click(); }
          var to = event.key === "ArrowRight" ? k + 1 : event.key === "ArrowLeft" ? k - 1 : -1;
          if (drawn[to]) { drawn[to].focus(); drawn[to].click(); }
        });
      });
      plain.hidden = true;
      choose(Math.max(places.findIndex(function (p) { return p.open; }), 0));
    });
  });
  var tabs = all(".tabs [role=tab]"), root = document.querySelector(".gl");
  if (!tabs.length) { return; }
  tabs[0].parentNode.hidden = false;
  function turn(k) {
    root.classList.add("tabbed");
    root.classList.toggle("on-prompts", k === 1);
    tabs.forEach(function (tab, n) { tab.setAttribute("aria-selected", n === k); tab.tabIndex = n === k ? 0 : -1; });
  }
  function follow() {
    if (location.hash.length < 2) { return; }
    var prompts = /^#p(rompts$|\d)/.test(location.hash);
    turn(prompts ? 1 : 0);
    // what stood above is hidden now, so that the browser's own jump went too far, or goes too far yet
    if (prompts) { head(); window.addEventListener("load", function () { setTimeout(head, 0); }); }
  }
  function head() {
    var at = document.getElementById(location.hash.slice(1)), prompted = at && at.closest(".prompted");
    if (prompted) { prompted.open = true; }
    (prompted || tabs[0].parentNode).scrollIntoView();
  }
  tabs.forEach(function (tab, k) {
    tab.addEventListener("click", function () { turn(k); });
    tab.addEventListener("keydown", function (event) { if (/^Arrow(Left|Right)$/.test(event.key)) { turn(1 - k); tabs[1 - k].focus(); } });
  });
  window.addEventListener("hashchange", follow);
  turn(0);
  follow();
})();
