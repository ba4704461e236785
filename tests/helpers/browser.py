"""A browser that shows pages, and how tests read what it shows."""

import math
import time

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
By = pytest.importorskip("selenium.webdriver.common.by").By
StaleElementReferenceException = pytest.importorskip("selenium.common").StaleElementReferenceException
ActionChains, Keys = webdriver.ActionChains, webdriver.Keys


def find(parent, selector):
    return parent.find_element(By.CSS_SELECTOR, selector)


def click(browser, selector):
    """Click what may be drawn anew meanwhile, as the rows of the list are when its size changes."""
    for _ in range(20):
        try:
            return find(browser, selector).click()
        except StaleElementReferenceException:
            time.sleep(0.1)
    find(browser, selector).click()


def find_all(parent, selector):
    return parent.find_elements(By.CSS_SELECTOR, selector)


def text(node):
    """All of a node's text, hidden or not, line breaks as the completion has them."""
    return node.get_attribute("textContent").replace("⏎", "\n")


def to_number(shown):
    return math.nan if shown == "–" else float(shown.replace("−", "-"))


def tip(browser):
    """The tooltip's rows by name."""
    box = find(browser, "#tip")
    assert box.is_displayed()
    names, values = ([node.text for node in find_all(box, tag)] for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def columns(browser, count):
    nodes = find_all(browser, "article.completion")
    assert len(nodes) == count
    return nodes
