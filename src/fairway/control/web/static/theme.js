// Light or dark, before anything is drawn: what was chosen here before, else what the system prefers.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem("fairway-theme"); } catch { return null; } };
  const apply = () => {
    root.dataset.theme = kept() ?? (system.matches ? "dark" : "light");
    document.dispatchEvent(new Event("fairway:theme"));
  };
  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const say = () => { button.textContent = root.dataset.theme === "dark" ? "Light" : "Dark"; };
    button.hidden = false;
    button.setAttribute("aria-label", "Change between light and dark");
    button.addEventListener("click", () => {
      const next = root.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("fairway-theme", next); } catch { /* not kept, shown all the same */ }
      root.dataset.theme = next;
      say();
      document.dispatchEvent(new Event("fairway:theme"));
    });
    say();
  });
})();
