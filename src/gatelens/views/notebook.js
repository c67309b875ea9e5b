(function () {
  document.querySelectorAll(".gl-host").forEach(function (host) {
    var held = host.querySelector("template");
    if (!host.shadowRoot && held) { host.attachShadow({ mode: "open" }).appendChild(held.content); }
    var root = host.shadowRoot && host.shadowRoot.querySelector(".gl"), at = host, colour = null;
    while (at && !colour) {
      var found = /rgba?\((\d+), (\d+), (\d+)(?:, ([\d.]+))?/.exec(getComputedStyle(at).backgroundColor);
      if (found && found[4] !== "0") { colour = found; }
      at = at.parentElement;
    }
    if (root && colour) {
      var dark = +colour[1] + +colour[2] + +colour[3] < 384;
      root.classList.toggle("dark", dark);
      root.classList.toggle("light", !dark);
    }
  });
})();
