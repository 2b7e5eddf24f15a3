// Light, dark, or what the system says. The choice is kept in this browser.

const KEY = "redfs-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : system.matches;
}

/** Switches between light and dark. Choosing what the system says anyway gives the choice back to the system. */
export function toggleTheme() {
  const wanted = isDark() ? "light" : "dark";
  const followsSystem = (wanted === "dark") === system.matches;
  if (followsSystem) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = wanted;
  try {
    if (followsSystem) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, wanted);
  } catch {
    // Storage may be forbidden; the choice then lasts as long as the page.
  }
  dispatchEvent(new Event("themechange"));
}

system.addEventListener("change", () => dispatchEvent(new Event("themechange")));
