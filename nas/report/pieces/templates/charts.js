// Draws every figure of the page with Vega-Lite, at the width it has; switches hide a method in all of them at once.
"use strict";
(() => {
  const hidden = new Set();
  const charts = [];
  const right = 14;

  const room = (figure) => Math.max(120, figure.clientWidth - Number(figure.dataset.left) - right);
  const shown = (names) => names.filter((name) => !hidden.has(name));

  const resize = ({ figure, view }) => view.signal("width", room(figure)).runAsync();
  const filter = ({ names, view }) => names && view.signal("shown", shown(names)).runAsync();

  const draw = async (figure) => {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const names = spec.params?.find((param) => param.name === "shown")?.value;
    const { view } = await vegaEmbed(figure.querySelector(".drawing"), spec, {
      actions: false,
      ast: true, // expressions are interpreted, so that the page's policy need not allow eval
      renderer: "svg", // takes its colours from the style sheet, light and dark
      tooltip: { disableDefaultStyle: true },
      patch: (vega) => ({ ...vega, width: room(figure) }),
    });
    charts.push({ figure, names, view });
    figure.dataset.drawn = "true";
  };

  const press = (button) => {
    const { name } = button.dataset;
    if (!hidden.delete(name)) hidden.add(name);
    for (const one of document.querySelectorAll(".switches button")) {
      one.setAttribute("aria-pressed", String(!hidden.has(one.dataset.name)));
    }
    charts.forEach(filter);
  };

  for (const button of document.querySelectorAll(".switches button")) {
    button.addEventListener("click", () => press(button));
  }
  let waiting;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => charts.forEach(resize), 100);
  });
  for (const figure of document.querySelectorAll("figure.chart")) {
    draw(figure).catch((error) => console.error(`a chart cannot be drawn: ${error}`));
  }
})();
