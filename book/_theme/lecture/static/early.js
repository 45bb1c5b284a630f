// Runs before the first paint: sets the colours, and asks for the fonts of the first view at once.
(function () {
  "use strict";
  var root = document.documentElement, here = document.currentScript.src.replace(/early\.js.*$/, "");
  var theme = null;
  try { theme = localStorage.getItem("theme"); } catch (error) { /* storage refused: follow the system */ }
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  root.classList.add("js");
  var needs = document.currentScript.dataset.needs || "";  // what this page shows: italic, math, letters
  var faces = [["fonts/text.woff2", "Book", "400", "normal"], ["fonts/text-600.woff2", "Book", "600", "normal"],
    ["fonts/ui.woff2", "Book UI", "200 900", "normal"]];
  if (/italic/.test(needs)) faces.push(["fonts/text-italic.woff2", "Book", "400", "italic"]);
  if (/math/.test(needs)) faces.push(["katex/fonts/KaTeX_Main-Regular.woff2", "KaTeX_Main", "400", "normal"]);
  if (/letters/.test(needs)) faces.push(["katex/fonts/KaTeX_Math-Italic.woff2", "KaTeX_Math", "400", "italic"]);
  faces.forEach(function (face) {
    if (location.protocol === "file:") {  // a preload would be a request to another origin; take the face when it comes
      document.fonts.add(new FontFace(face[1], "url(" + here + face[0] + ")", { weight: face[2], style: face[3], display: "swap" }));
      return;
    }
    var link = document.createElement("link");
    link.rel = "preload";
    link.as = "font";
    link.type = "font/woff2";
    link.crossOrigin = "anonymous";
    link.href = here + face[0];
    document.head.appendChild(link);
  });
})();
