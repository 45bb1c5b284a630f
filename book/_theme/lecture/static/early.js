// Runs before the first paint: sets the colours, and asks for the fonts of the first view at once.
(function () {
  "use strict";
  var root = document.documentElement, here = document.currentScript.src.replace(/early\.js.*$/, "");
  var theme = null;
  try { theme = localStorage.getItem("theme"); } catch (error) { /* storage refused: follow the system */ }
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  root.classList.add("js");
  if (location.protocol === "file:") return;  // a preload from a file is a request to another origin
  ["fonts/text.woff2", "fonts/text-italic.woff2", "fonts/text-600.woff2", "fonts/ui.woff2"].forEach(function (name) {
    var link = document.createElement("link");
    link.rel = "preload";
    link.as = "font";
    link.type = "font/woff2";
    link.crossOrigin = "anonymous";
    link.href = here + name;
    document.head.appendChild(link);
  });
})();
