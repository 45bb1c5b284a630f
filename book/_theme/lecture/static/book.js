// Menu, colours, copy buttons, scroll regions, place in the chapter. A page reads well without it.
(function () {
  "use strict";
  var root = document.documentElement, narrow = matchMedia("(max-width: 63.99rem)");
  function all(selector, inside) { return Array.prototype.slice.call((inside || document).querySelectorAll(selector)); }
  function say(text) { document.getElementById("said").textContent = text; }

  // The phone menu: a drawer that keeps the focus while it is open.
  var button = document.querySelector(".menu-button"), menu = document.getElementById("navigation");
  var curtain = document.querySelector(".curtain");
  var behind = all("main, .foot, .top-title, .skip");
  function setMenu(open, returnFocus) {
    button.setAttribute("aria-expanded", String(open));
    root.classList.toggle("menu-open", open);
    curtain.hidden = !open;
    behind.forEach(function (part) { part.inert = open; });
    if (open) {
      var first = all("input, a, button", menu).filter(function (stop) { return stop.offsetParent; })[0];
      if (first) first.focus();
    } else if (returnFocus) button.focus();
  }
  button.addEventListener("click", function () { setMenu(button.getAttribute("aria-expanded") !== "true", true); });
  curtain.addEventListener("click", function () { setMenu(false, true); });
  document.addEventListener("keydown", function (event) {
    if (event.key === "Escape" && root.classList.contains("menu-open")) setMenu(false, true);
  });
  menu.addEventListener("click", function (event) {
    if (root.classList.contains("menu-open") && event.target.closest("a")) setMenu(false, false);
  });
  narrow.addEventListener("change", function () { setMenu(false, false); });

  // Light, dark, or what the system says.
  var choice = document.querySelector(".theme");
  function stored() { try { return localStorage.getItem("theme"); } catch (error) { return null; } }
  all("input", choice).forEach(function (input) {
    input.checked = input.value === (stored() || "auto");
    input.addEventListener("change", function () {
      if (input.value === "auto") delete root.dataset.theme; else root.dataset.theme = input.value;
      try {
        if (input.value === "auto") localStorage.removeItem("theme"); else localStorage.setItem("theme", input.value);
      } catch (error) { /* not remembered, still set */ }
    });
  });

  // What scrolls sideways can be reached by keyboard; what does not is no stop on the way.
  var scrollers = all(".equation-body, .highlight pre, .table, .output pre, .figure-body");
  function more(box) { box.toggleAttribute("data-more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2); }
  function reachable() {
    scrollers.forEach(function (box) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0; else box.removeAttribute("tabindex");
      more(box);
    });
  }
  scrollers.forEach(function (box) { box.addEventListener("scroll", function () { more(box); }, { passive: true }); });
  reachable();
  addEventListener("resize", reachable);
  if (document.fonts && document.fonts.ready) document.fonts.ready.then(reachable);
  document.addEventListener("toggle", reachable, true);

  // Copy a cell.
  if (navigator.clipboard) all(".cell_input .highlight, .text > section div[class*=highlight-] > .highlight, .source .highlight").forEach(function (box) {
    if (box.querySelector(".copy")) return;
    var copy = document.createElement("button");
    copy.type = "button";
    copy.className = "copy";
    copy.textContent = "Copy";
    copy.setAttribute("aria-label", "Copy the code");
    copy.addEventListener("click", function () {
      navigator.clipboard.writeText(box.querySelector("pre").textContent.replace(/\n$/, "")).then(function () {
        copy.textContent = "Copied";
        say("The code is copied.");
        setTimeout(function () { copy.textContent = "Copy"; }, 1500);
      }, function () { say("The browser refused to copy."); });
    });
    box.appendChild(copy);
  });

  // The section in view is marked in the contents.
  var links = all(".tree a[href^='#']").filter(function (link) { return link.hash.length > 1; });
  var marked = null;
  function place() {
    var found = null;
    links.forEach(function (link) {
      var section = document.getElementById(decodeURIComponent(link.hash.slice(1)));
      if (section && section.getBoundingClientRect().top < innerHeight * 0.3) found = link;
    });
    if (found === marked) return;
    if (marked) marked.removeAttribute("aria-current");
    if (found) found.setAttribute("aria-current", "location");
    marked = found;
  }
  if (links.length) {
    var waiting = false;
    addEventListener("scroll", function () {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(function () { waiting = false; place(); });
    }, { passive: true });
    place();
  }

  // Opened from a folder, a page cannot fetch another one: results are then titles alone.
  if (typeof DOCUMENTATION_OPTIONS !== "undefined" && location.protocol === "file:") {
    DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  }

  // What a search shows of a page: mathematics once, as it is seen, not also as it is spoken and written.
  if (typeof Search !== "undefined" && Search.htmlToText) {
    var text = Search.htmlToText;
    Search.htmlToText = function (html, anchor) {
      var parsed = new DOMParser().parseFromString(html, "text/html");
      all(".katex-mathml, .equation-number, .bar, .onward", parsed).forEach(function (part) { part.remove(); });
      return text.call(Search, parsed.documentElement.outerHTML, anchor && "#" + CSS.escape(anchor.slice(1)));
    };
  }

  // Paper has no buttons: what is folded is printed open.
  var folded = [];
  addEventListener("beforeprint", function () {
    folded = all("details:not([open])");
    folded.forEach(function (box) { box.open = true; });
  });
  addEventListener("afterprint", function () { folded.forEach(function (box) { box.open = false; }); });

  // A link into a folded box opens it.
  function reveal() {
    var target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (var box = target; box; box = box.parentElement) if (box.tagName === "DETAILS") box.open = true;
    if (target && target.closest("details")) target.scrollIntoView();
  }
  addEventListener("hashchange", reveal);
  reveal();

  // The contents list shows where the reader is, also in a long book.
  var current = menu.querySelector("a.current");
  if (current && current.offsetTop > menu.clientHeight * 0.7 && !narrow.matches) {
    menu.scrollTop = Math.max(0, current.offsetTop - menu.clientHeight / 3);
  }
})();
