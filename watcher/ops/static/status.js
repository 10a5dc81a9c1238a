"use strict";
// Fetches the same page again and puts its parts in the place of the old ones. Without it the page reloads by itself.
const EVERY_MS = 5000;
const NAMES = ["header", "main"];

async function refresh() {
  const busy = document.activeElement && document.activeElement.matches("input, button");
  if (document.hidden || busy) return;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const name of NAMES) {
      const old = document.querySelector(name);
      const replacement = fresh.querySelector(name);
      if (replacement && old.innerHTML !== replacement.innerHTML) old.replaceWith(replacement);
    }
    document.documentElement.removeAttribute("data-stale");
  } catch {
    document.documentElement.setAttribute("data-stale", "");
  }
}

if (document.body.hasAttribute("data-refresh")) setInterval(refresh, EVERY_MS);
