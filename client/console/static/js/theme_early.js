// Sets the chosen theme before anything is painted, so that a dark page never flashes light.
// A plain script, not a module: modules run after the first paint. theme.js does the rest.
(() => {
  try {
    const chosen = localStorage.getItem("redfs-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be forbidden; then the system's theme holds.
  }
})();
