(function () {
  document.querySelectorAll(".gl-host").forEach(function (host) {
    var page = host.querySelector(".gl"), at = host, colour = null, style = document.createElement("style");
    if (!host.shadowRoot && page) {
      style.textContent = "STYLE";
      page.querySelectorAll("img.drawing").forEach(function (img) {
        var code = Uint8Array.from(atob(img.src.split(",")[1]), function (c) { return c.charCodeAt(0); });
        var svg = document.importNode(new DOMParser().parseFromString(new TextDecoder().decode(code), "image/svg+xml").documentElement, true);
        if (svg.classList.contains("alone")) { svg.querySelector("style").remove(); }
        svg.classList.remove("alone");
        svg.style.background = "";
        img.replaceWith(svg);
      });
      host.attachShadow({ mode: "open" }).append(style, page);
    }
    var root = host.shadowRoot && host.shadowRoot.querySelector(".gl");
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
