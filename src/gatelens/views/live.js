// the live prompt in a notebook: a box to type in, sliders to steer; everything that is shown is made by the kernel, nothing is fetched
export default {
  render({ model, el }) {
    const make = (tag, text) => { const e = document.createElement(tag); if (text) { e.textContent = text; } return e; };
    const host = make("div"), root = host.attachShadow({ mode: "open" }), style = make("style"), page = make("div"), body = make("div");
    const form = make("form"), box = make("input"), read = make("button", "Read"), said = make("p");
    const steer = make("form"), gate = make("select"), slider = make("input"), strength = make("output"), written = make("pre");
    style.textContent = model.get("style");
    page.className = "gl nb";
    const paint = () => {
      const found = /rgba?\((\d+), (\d+), (\d+)/.exec(getComputedStyle(document.body).backgroundColor);
      const dark = Boolean(found) && +found[1] + +found[2] + +found[3] < 384;
      page.classList.toggle("dark", dark);
      page.classList.toggle("light", !dark);
    };
    form.className = steer.className = "bar-tools";
    box.type = "search"; box.value = model.get("text"); box.setAttribute("aria-label", "the prompt"); box.style.flex = "1 1 260px"; box.style.maxWidth = "none";
    said.className = "soft"; said.setAttribute("role", "status");
    gate.setAttribute("aria-label", "the gate that is held");
    Object.assign(slider, { type: "range", min: "0", max: "4", step: "0.5", value: "1" });
    slider.setAttribute("aria-label", "how many times its typical level it is held at");
    written.setAttribute("aria-live", "polite"); written.style.whiteSpace = "pre-wrap";
    form.append(box, read);
    steer.append("hold", gate, "at", slider, strength);
    page.append(form, said, body, make("h3", "Steer: hold a gate while the model writes on"), steer, written);
    root.append(style, page);
    el.append(host);
    const show = () => {
      // markup of the kernel's, in which every text is escaped; the box and the sentences are set as text
      body.innerHTML = model.get("html");
      const places = [...body.querySelectorAll(".place")], links = [...body.querySelectorAll(".strip a")];
      const choose = (k) => {
        places.forEach((place, n) => { place.open = n === k; });
        links.forEach((link, n) => { if (n === k) { link.setAttribute("aria-current", "true"); } else { link.removeAttribute("aria-current"); } });
      };
      const all = body.querySelector(".read");
      if (all) { all.classList.add("picked"); }
      links.forEach((link, k) => link.addEventListener("click", (event) => { event.preventDefault(); choose(k); }));
      const fire = places.map((place) => Boolean(place.querySelector(".fires"))).lastIndexOf(true);
      choose(fire < 0 ? places.length - 1 : fire);
    };
    const choices = () => gate.replaceChildren(...model.get("gates").map(([value, name]) => { const o = make("option", name); o.value = value; return o; }));
    const level = () => { strength.textContent = slider.value + " × its typical level"; };
    let soon = 0; // keys move the slider a step at a time: where it rests is asked, not each step
    const send = () => model.send({ kind: "steer", gate: gate.value, strength: +slider.value });
    const ask = () => { level(); if (gate.value) { clearTimeout(soon); soon = setTimeout(send, 400); written.textContent = "…"; } };
    form.addEventListener("submit", (event) => { event.preventDefault(); said.textContent = "reading …"; model.send({ kind: "read", text: box.value }); });
    steer.addEventListener("submit", (event) => event.preventDefault());
    slider.addEventListener("input", level);
    slider.addEventListener("change", ask);
    gate.addEventListener("change", ask);
    model.on("change:html", show);
    model.on("change:gates", choices);
    model.on("change:answers", () => { said.textContent = model.get("said"); written.textContent = model.get("written"); });
    paint(); show(); choices(); level();
  },
};
