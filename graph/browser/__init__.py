"""Neo4j Browser for analysts: links that open it, the guide that it plays, the style that it draws with."""

from graph.browser.guide import GuideAlert, render_guide
from graph.browser.links import browser_link, guide_link

__all__ = ["GuideAlert", "browser_link", "guide_link", "render_guide"]
