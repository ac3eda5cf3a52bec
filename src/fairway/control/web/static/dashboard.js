// The page is asked for again every few seconds (`data-every` of main), and what is different is changed where it stands: what
// is focused, open or typed stays. Not while nobody looks, and not while somebody writes.
"use strict";
(() => {
  const main = () => document.getElementById("content");
  const button = document.getElementById("live");
  const kept = () => { try { return localStorage.getItem("fairway-live") !== "no"; } catch { return true; } };
  let live = kept(), asking = false, due = 0;

  function say(problem) {
    if (!button) return;
    button.hidden = false;
    button.setAttribute("aria-pressed", String(live));
    button.textContent = problem ? "Not connected" : live ? "Live" : "Paused";
    button.classList.toggle("problem", Boolean(problem));
  }
  const writes = () => {
    const at = document.activeElement;
    if (at && main()?.contains(at) && ["INPUT", "SELECT", "TEXTAREA"].includes(at.tagName)) return true;
    return [...(main()?.querySelectorAll("input:not([type=hidden])") ?? [])].some((field) => field.value !== field.defaultValue);
  };
  const later = () => { due = Date.now() + Number(main()?.dataset.every ?? 5) * 1000; };

  if (button) {
    button.addEventListener("click", () => {
      live = !live;
      try { localStorage.setItem("fairway-live", live ? "yes" : "no"); } catch { /* not kept */ }
      due = 0;
      say();
    });
    say();
    later();
    setInterval(() => {
      if (!live || asking || document.hidden || Date.now() < due || writes()) return;
      asking = true;
      htmx.trigger(main(), "refresh");
    }, 500);
  }
  document.addEventListener("htmx:finally:request", () => { asking = false; later(); });
  document.addEventListener("htmx:after:swap", () => {
    fairwayCharts.draw();
    say();
    const now = document.getElementById("as-of");
    if (now) {
      const at = new Date().toISOString();
      now.dateTime = at;
      now.textContent = at.slice(11, 19);
    }
  });
  document.addEventListener("htmx:error", () => say(true));
})();
