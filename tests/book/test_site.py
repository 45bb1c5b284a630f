"""The built site in a browser: quiet, accessible, still, and its controls do what they say."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
# Everything that axe knows, or the contrast of colours alone. Of formulas and words of code that look alike and stand
# on the same ground, all but three are hidden meanwhile: there are ten thousand on some pages.
AUDIT = """async (only) => {
  const ground = part => {
    for (let box = part; box; box = box.parentElement) {
      const colour = getComputedStyle(box).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
  };
  const seen = {}, alike = [];
  for (const part of document.querySelectorAll(".highlight pre span[class], .katex")) {
    const look = getComputedStyle(part);
    const key = [part.className, look.color, look.fontSize, look.fontWeight, look.opacity, ground(part)].join();
    seen[key] = (seen[key] || 0) + 1;
    if (seen[key] > 3) alike.push(part);
  }
  alike.forEach(part => { part.style.visibility = "hidden"; });
  const options = { resultTypes: ["violations"] };
  if (only) options.runOnly = [only];
  const result = await axe.run(document, options);
  alike.forEach(part => { part.style.visibility = ""; });
  return result.violations.map(v => v.id + ": " + v.nodes.slice(0, 3).map(n => n.html.slice(0, 160)).join(" | "));
}"""
SHIFT = """() => new Promise(done => {
  let total = 0;
  new PerformanceObserver(list => list.getEntries().forEach(e => { if (!e.hadRecentInput) total += e.value; }))
    .observe({ type: "layout-shift", buffered: true });
  document.fonts.ready.then(() => setTimeout(() => done(total), 100));
})"""


def sideways(tab) -> int:
    """By how many pixels the page, not a box inside it, is wider than the window."""
    return tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")


@pytest.fixture(scope="session")
def chapter(site) -> str:
    """The page with the most equations."""
    count = {page: page.read_text(encoding="utf-8").count('class="verified"') for page in site.rglob("*.html")}
    best = max(sorted(count), key=lambda page: count[page])
    if not count[best]:
        pytest.fail("no page of the site has a marked equation")
    return best.relative_to(site).as_posix()


def test_page_is_quiet_still_and_accessible(visit, page, width):
    """No foreign request, no error, no sideways scroll, no shift, nothing that axe finds, in light and in dark.

    Colours are all that changes with the light, so that axe then looks at contrast alone.
    """
    tab = visit(page, width, "light", bypass_csp=True)  # only to let axe in; the policy itself is tested below
    assert tab.evaluate(SHIFT) < 0.02
    assert sideways(tab) <= 0
    tab.evaluate("document.querySelectorAll('details').forEach(box => { box.open = true; })")
    tab.wait_for_timeout(100)
    tab.add_script_tag(path=str(AXE))
    assert tab.evaluate(AUDIT) == []
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert tab.evaluate(AUDIT, "color-contrast") == []
    assert sideways(tab) <= 0
    assert tab.complaints == []


def test_a_pale_word_among_its_like_is_found(visit, chapter):
    """The last of many names in code, all of one look, is made pale. (In formulas axe passes over single letters.)"""
    tab = visit(chapter, bypass_csp=True)
    tab.evaluate("document.querySelectorAll('details').forEach(box => { box.open = true; })")
    tab.add_script_tag(path=str(AXE))
    assert tab.evaluate(AUDIT, "color-contrast") == []
    pale = "words => { words.at(-1).style.color = '#ddd'; return words.length; }"
    assert tab.locator(".highlight pre span.n").evaluate_all(pale) > 20
    assert len(tab.evaluate(AUDIT, "color-contrast")) == 1


def test_fonts_asked_for_early_are_used(visit, page):
    """A face that is preloaded and not used is a wasted request; the browser would say so after some seconds."""
    tab = visit(page)
    early = "[...document.querySelectorAll('link[rel=preload]')].map(link => link.href.split('/').pop())"
    faces = {
        "text.woff2": "400 16px Book",
        "text-600.woff2": "600 16px Book",
        "text-italic.woff2": "italic 400 16px Book",
        "ui.woff2": "16px 'Book UI'",
        "KaTeX_Main-Regular.woff2": "16px KaTeX_Main",
        "KaTeX_Math-Italic.woff2": "italic 16px KaTeX_Math",
    }
    asked = tab.evaluate(early)
    assert {"text.woff2", "text-600.woff2", "ui.woff2"} <= set(asked)
    loaded = tab.evaluate(
        "() => document.fonts.ready.then(fonts => [...fonts].filter(f => f.status === 'loaded')"
        ".map(f => `${f.style === 'italic' ? 'italic ' : ''}${f.weight} ${f.family.replaceAll('\"', '')}`))"
    )
    for name in asked:
        words = faces[name].replace("16px ", "").replace("'", "").split()
        wanted = [word for word in words if word not in ("400", "600")]
        assert any(all(word in face for word in wanted) for face in loaded), f"{name} is not used: {loaded}"


def test_page_hardly_moves_where_fonts_come_late(visit, slow_address, chapter, width):
    """Each font 0.4 s late: only the mathematics may still find its place."""
    tab = visit(chapter, width, base=slow_address)
    assert tab.evaluate(SHIFT) < 0.05


def test_page_keeps_its_own_security_policy(visit, chapter):
    """Under the policy of the page, styles and scripts of the site work, and a foreign script does not."""
    tab = visit(chapter)
    assert tab.complaints == []
    tab.evaluate("""() => { const s = document.createElement('script'); s.src = 'https://example.org/x.js';
                           document.head.appendChild(s); }""")
    tab.wait_for_timeout(200)
    assert any("Content Security Policy" in complaint for complaint in tab.complaints)


def test_first_page_leads_into_the_book(visit):
    tab = visit("index.html")
    tab.wait_for_url(re.compile(r"/(?!index)[\w-]+\.html$"))
    assert tab.locator("main h1").count() == 1


def test_menu_opens_and_closes_by_click(visit, chapter):
    tab = visit(chapter, 390)
    button, menu = tab.locator(".menu-button"), tab.locator("#navigation")
    assert not menu.is_visible()
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    menu.wait_for(state="visible")
    assert button.get_attribute("aria-expanded") == "true"
    tab.wait_for_timeout(300)
    tab.mouse.click(380, 500)  # beside the menu
    menu.wait_for(state="hidden")
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    menu.locator(".tree a").first.click()
    tab.wait_for_load_state("load")
    assert not tab.locator("#navigation").is_visible()
    assert tab.complaints == []


def test_menu_opens_and_closes_by_keyboard(visit, chapter):
    tab = visit(chapter, 390)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "menu-button"
    tab.keyboard.press("Enter")
    tab.locator("#navigation").wait_for(state="visible")
    assert tab.evaluate("document.activeElement.closest('#navigation') !== null")
    for _ in range(60):  # the focus never gets behind the open menu
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.closest('main') === null")
    tab.keyboard.press("Escape")
    tab.locator("#navigation").wait_for(state="hidden")
    assert tab.evaluate("document.activeElement.className") == "menu-button"


def test_skip_link_leads_to_the_text(visit, chapter):
    tab = visit(chapter)
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "content"


def test_search_finds_a_word_of_a_chapter(visit, chapter):
    tab = visit(chapter)
    title = tab.locator("main h1").evaluate(
        "h => [...h.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join('')"
    )
    word = max(re.findall(r"[A-Za-z]+", title), key=len)
    tab.locator("#find").fill(word)
    tab.keyboard.press("Enter")
    hit = tab.locator(f"#search-results li a[href*='{chapter.rpartition('/')[2]}']").first
    hit.wait_for()
    tab.wait_for_timeout(300)
    assert tab.locator("input[type=search]").count() == 1
    assert sideways(tab) <= 0
    assert tab.complaints == []
    hit.click()
    tab.wait_for_url(re.compile(re.escape(chapter)))


def test_chosen_colours_are_remembered_and_set_before_the_first_paint(visit, chapter):
    tab = visit(chapter, scheme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(paper)
    tab.locator(".theme label", has_text="Dark").click()
    dark = tab.evaluate(paper)
    assert dark != light
    tab.context.add_init_script(
        "document.addEventListener('readystatechange', () => {"
        " window.early = document.documentElement.dataset.theme; }, { once: true })"
    )
    tab.reload()
    assert tab.evaluate("window.early") == "dark"
    assert tab.evaluate(paper) == dark
    assert tab.locator(".theme input:checked").get_attribute("value") == "dark"
    tab.locator(".theme label", has_text="Auto").click()
    assert tab.evaluate(paper) == light
    tab.reload()
    assert tab.evaluate(paper) == light


def test_figures_take_the_colours_of_the_page(visit, site):
    """The ink of a figure is the ink of the page, in light and in dark."""
    with_figure = next(
        (p for p in sorted(site.rglob("*.html")) if 'class="figure-body"' in p.read_text(encoding="utf-8")), None
    )
    assert with_figure is not None, "no page has a figure"
    for scheme in ("light", "dark"):
        tab = visit(with_figure.relative_to(site).as_posix(), scheme=scheme)
        inks = tab.evaluate("""() => { const all = [...document.querySelectorAll('.figure-body svg *')];
            return [...new Set(all.flatMap(e => [getComputedStyle(e).stroke, getComputedStyle(e).fill]))]; }""")
        assert tab.evaluate("getComputedStyle(document.body).color") in inks
        assert "rgb(28, 28, 28)" not in inks


def test_mark_beside_an_equation_leads_to_its_test(visit, chapter):
    tab = visit(chapter)
    mark = tab.locator(".verified").first
    name = mark.get_attribute("aria-label")
    test = re.fullmatch(r"Equation [\d.]+ is checked by (\w+), largest residual \S+", name)
    assert test, name
    mark.click()
    tab.wait_for_url(re.compile(rf"/tests/equations/\w+\.html#{test[1]}$"))
    shown = tab.locator(f"#{test[1]}").inner_text()
    assert f"def {test[1]}(" in shown
    assert "@equation(" in shown
    tab.locator("table a").first.click()  # and back to an equation
    tab.wait_for_url(re.compile(r"#equation-"))
    assert tab.complaints == []


def test_every_link_of_a_mark_has_its_test(site):
    """Without a browser: each mark's target exists, on each page."""
    for path in site.rglob("*.html"):
        for href in re.findall(r'class="verified" href="([^"]+)"', path.read_text(encoding="utf-8")):
            target, _, anchor = href.partition("#")
            assert f'id="{anchor}"' in (path.parent / target).resolve().read_text(encoding="utf-8")


def test_notebook_of_a_chapter_can_be_downloaded(visit, chapter, tmp_path):
    tab = visit(chapter)
    with tab.expect_download() as waiting:
        tab.get_by_role("link", name="Notebook").click()
    waiting.value.save_as(tmp_path / "chapter.ipynb")
    notebook = nbformat.read(tmp_path / "chapter.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 2
    assert "import lecturecode" in code[0].source
    compile(code[0].source.replace("%pip", "pass  #"), "first cell", "exec")


def test_long_equation_scrolls_in_its_own_box_and_by_keyboard(visit, chapter):
    tab = visit(chapter, 390)
    boxes = tab.evaluate(
        "[...document.querySelectorAll('.equation-body')].map(b => [b.scrollWidth - b.clientWidth > 1, b.tabIndex])"
    )
    assert any(wide for wide, _ in boxes), "no equation of this chapter is wider than a phone"
    assert all((index == 0) == wide for wide, index in boxes)


def test_code_is_copied(visit, chapter):
    tab = visit(chapter, permissions=["clipboard-read", "clipboard-write"])
    box = tab.locator(".cell_input .highlight").first
    box.hover()
    box.locator(".copy").click()
    tab.locator(".copy", has_text="Copied").wait_for()
    assert tab.evaluate("navigator.clipboard.readText()").strip() == box.locator("pre").inner_text().strip()


def test_site_reads_from_files(visit, site, chapter):
    """Opened from a folder, without a server: styled, quiet, with working links."""
    tab = visit((site / chapter).as_uri())
    assert "Book" in tab.evaluate("getComputedStyle(document.body).fontFamily")
    assert tab.evaluate("document.fonts.check('16px Book')")
    tab.locator(".onward a").first.click()
    tab.wait_for_load_state("load")
    assert tab.locator("main h1").count() == 1
    tab.locator("#find").fill("equation")
    tab.keyboard.press("Enter")
    tab.locator("#search-results li a").first.wait_for()
    assert tab.complaints == []


def test_page_reads_without_scripts(visit, chapter):
    tab = visit(chapter, 390, java_script_enabled=False)
    assert tab.locator("#navigation .tree").is_visible()
    assert tab.locator(".katex-display").first.is_visible()
    assert not tab.locator(".menu-button").is_visible()
    assert not tab.locator(".theme").is_visible()


def test_paper_shows_the_text_alone(visit, chapter):
    tab = visit(chapter, scheme="dark")
    tab.emulate_media(media="print")
    assert not tab.locator("#navigation").is_visible()
    assert not tab.locator(".bar").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"


def test_nothing_moves_for_those_who_ask_for_rest(visit, chapter):
    tab = visit(chapter, 390, reduced_motion="reduce")
    assert tab.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert tab.evaluate("parseFloat(getComputedStyle(document.getElementById('navigation')).transitionDuration)") == 0
