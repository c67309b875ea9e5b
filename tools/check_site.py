"""Looks through a built site: every link and picture leads somewhere within it, and nothing is fetched from the net.

python tools/check_site.py site
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse


class Page(HTMLParser):
    """What a page links to, what it loads, and the places within it that can be linked to."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[k] for k in ("id", "name") if k in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("img", "script", "iframe", "source") and "src" in given:
            self.loaded.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect") and "href" in given:
            self.loaded.append(given["href"])


def faults(site: Path) -> list[str]:
    """A sentence for each link that leads nowhere and each thing that would be fetched."""
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in [*page.links, *page.loaded]:
            parts = urlparse(link)
            if parts.scheme in ("http", "https") or link.startswith("//"):
                if link in page.loaded:
                    found.append(f"{path}: {link} would be fetched from the net")
                continue
            if parts.scheme:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                found.append(f"{path}: {link} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places | {"__top"}:
                found.append(f"{path}: {link}: no such place there")
    return found


def main() -> int:
    site = Path(sys.argv[1]).resolve()
    found = faults(site)
    sys.stdout.write("".join(f"{line}\n" for line in found))
    pages = len(list(site.rglob("*.html")))
    sys.stdout.write(f"{pages} pages, {len(found)} faults\n")
    return 1 if found or not pages else 0


if __name__ == "__main__":
    raise SystemExit(main())
