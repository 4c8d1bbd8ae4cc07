// Values of charts on hover. A chart is a picture; Python knows where its points lie, as shares of its width and height.

/**
 * Show the nearest point's value under the pointer, or step through the points by the arrow keys.
 * A point is [x, y, text] or [x, y, row number]; x and y count thousandths of the picture's width and height.
 * @param {(row: number) => string} describe - What to say of a row.
 * @param {(row: number) => void} open - Called with the row of a point that is clicked, or entered by the Enter key.
 */
function hoverCharts(describe = String, open = () => {}) {
  for (const chart of document.querySelectorAll(".chart")) {
    const spots = JSON.parse(chart.querySelector("script").textContent);
    if (!spots.length) continue;
    const leads = typeof spots[0][2] === "number";
    const dot = document.createElement("span"), tip = document.createElement("output");
    dot.className = "dot";
    tip.className = "tip";
    dot.hidden = tip.hidden = true;
    chart.append(dot, tip);
    chart.classList.toggle("leads", leads);
    chart.tabIndex = 0;
    chart.setAttribute("role", "group");
    chart.setAttribute("aria-label", "Chart: the left and right arrows read its points" + (leads ? ", Enter opens a row" : ""));
    spots.sort((a, b) => a[0] - b[0]);
    let now = -1;

    const show = (place) => {
      now = place;
      dot.hidden = tip.hidden = place < 0;
      if (place < 0) return;
      const [x, y, what] = spots[place];
      tip.textContent = leads ? describe(what) : what;
      for (const part of [dot, tip]) part.style.top = `${y / 10}%`;
      dot.style.left = `${x / 10}%`;
      tip.style.left = x < 500 ? `calc(${x / 10}% + 12px)` : "auto";
      tip.style.right = x < 500 ? "auto" : `calc(${100 - x / 10}% + 12px)`;
    };
    const nearest = (event) => {
      const box = chart.getBoundingClientRect();
      let best = -1, least = (leads ? 12 : 40) ** 2; // pixels
      spots.forEach(([x, y], place) => {
        const far = ((x / 1e3) * box.width - event.clientX + box.left) ** 2 + ((y / 1e3) * box.height - event.clientY + box.top) ** 2;
        if (far < least) [best, least] = [place, far];
      });
      return best;
    };
    chart.addEventListener("pointermove", (event) => show(nearest(event)));
    chart.addEventListener("pointerleave", () => show(-1));
    chart.addEventListener("blur", () => show(-1));
    chart.addEventListener("click", (event) => {
      show(nearest(event));
      if (leads && now >= 0) open(spots[now][2]);
    });
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) show(now < 0 ? (step > 0 ? 0 : spots.length - 1) : Math.min(Math.max(now + step, 0), spots.length - 1));
      else if (event.key === "Enter" && leads && now >= 0) open(spots[now][2]);
      else return;
      event.preventDefault();
    });
  }
}
