"""A page's salient text and images in DOM order, without navigation and other boilerplate.

Paper: appendix on data (M3W): "salient text plus any images at the same level of the HTML tree",
their places from the DOM. lxml parses, and mends what is broken as libxml2 does; the walk is ours,
since libraries made for text lose images: trafilatura 2.3.1 keeps 18 of 238 on a sample of pages of
GIMP's manual. What is dropped: elements that HTML or ARIA call navigation and the like, or whose
class or id does; blocks that are mostly links; what is hidden.
"""

import dataclasses
import re
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from lxml import etree, html

from data_pipelines.building import page_encoding
from data_pipelines.errors import BadRecord

_MAX_IMAGES = 1000  # of one page; what has more is a catalogue
_LINK_SHARE = 0.6  # of a block's characters; above it is a list of links
_GUARD_SHARE = 0.5  # an element with more of the page's text is not dropped for its class or id
_SAFE_BASES = ("http", "https", "file", "")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BLOCKS = _names(
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset "
    "figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr legend li main menu nav ol p "
    "pre section summary table tbody td tfoot th thead tr ul"
)
_DROPPED = _names(
    "aside audio button canvas dialog embed footer form frame frameset head iframe input map math "
    "menu nav noembed noframes noscript object optgroup option script select style svg template "
    "textarea title video"
)
_DROPPED_ROLES = _names(
    "alert alertdialog banner complementary contentinfo dialog menu menubar navigation search "
    "tablist toolbar tooltip"
)
_NEVER_DROPPED = frozenset(("html", "body", "main", "article", "img"))
_FURNITURE = re.compile(
    r"(?:^|[\s_-])(?:ads?|advert\w*|banner|breadcrumbs?|byline|comments?|cookies?|disclaimer|"
    r"disqus|footer|hidden|login|masthead|menu|metanav|mobile-?nav|modal|nav|navbar|navbox|"
    r"navfooter|navheader|navigation|newsletter|outbrain|pager|pagination|paywall|popup|print-?only"
    r"|promo|related|rss|share|sharing|sidebar|sidenav|sign-?up|skip-?link|social|sponsor\w*|"
    r"subnav|subscribe|taboola|toc|toolbar|topbar|topnav|widget)(?:$|[\s_-])",
    re.IGNORECASE,
)
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_LAZY = ("data-src", "data-original", "data-lazy-src", "data-lazy", "data-url", "src")
_BREAK = "\n"


@dataclasses.dataclass(frozen=True)
class PageImage:
    """An `<img>` at its place; `urls` are absolute where the page has an address, best first."""

    position: int  # byte offset into the page's text
    urls: tuple[str, ...]
    alt: str


@dataclasses.dataclass(frozen=True)
class Page:
    """What is left of an HTML page. Paragraphs of `text` are apart by an empty line."""

    text: str
    images: tuple[PageImage, ...]
    title: str
    language: str  # as the page declares it, "" where it does not
    licence: str  # where `rel="license"` leads, "" without
    num_boilerplate_images: int


@dataclasses.dataclass
class _Block:
    """Text and images between two boundaries of block elements."""

    pieces: list[str | tuple[tuple[str, ...], str]] = dataclasses.field(default_factory=list)
    num_characters: int = 0
    num_link_characters: int = 0

    def add(self, text: str | None, in_link: bool) -> None:
        if text:
            self.pieces.append(text)
            count = len("".join(text.split()))
            self.num_characters += count
            self.num_link_characters += count * in_link

    @property
    def is_links(self) -> bool:
        return self.num_link_characters > _LINK_SHARE * max(1, self.num_characters)

    @property
    def num_images(self) -> int:
        return sum(not isinstance(piece, str) for piece in self.pieces)


def extract(data: bytes, url: str = "", charset: str = "") -> Page:
    """The page in `data`; `charset` is what HTTP said, `url` what relative addresses start from.

    Raises BadRecord with the reason `empty`, `too_large`, `not_html`, `too_deep` or
    `too_many_images`.
    """
    root = _parse(page_encoding.decode(data, charset))
    base = _base(root, url)
    blocks, num_dropped = _blocks(root, base)
    kept = []
    for block in blocks:
        if block.is_links:
            num_dropped += block.num_images
        else:
            kept.append(block)
    text, images = _assemble(kept)
    if len(images) > _MAX_IMAGES:
        raise BadRecord("too_many_images", f"{len(images)} images on one page")
    return Page(
        text=text,
        images=images,
        title=" ".join((root.findtext(".//title") or "").split()),
        language=(root.get("lang") or root.get("{http://www.w3.org/XML/1998/namespace}lang") or ""),
        licence=_licence(root, base),
        num_boilerplate_images=num_dropped,
    )


def _parse(text: str) -> html.HtmlElement:
    # huge_tree: elements in 2048 others, where libxml2 would end a page at 256 without a word.
    settings = {"remove_comments": True, "remove_pis": True, "huge_tree": True}
    parser = html.HTMLParser(encoding="utf-8", **settings)
    try:
        root = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (etree.LxmlError, ValueError, AssertionError) as error:
        raise BadRecord("not_html", f"page cannot be parsed: {error}") from error
    if parser.error_log.filter_types(etree.ErrorTypes.ERR_RESOURCE_LIMIT):
        raise BadRecord("too_deep", "elements in over 2000 others, behind which nothing is read")
    if root.find(".//*") is None:
        raise BadRecord("not_html", "page has no elements")
    return root


def _blocks(root: html.HtmlElement, base: str) -> tuple[list[_Block], int]:
    """Blocks in DOM order, and how many images stood in what was dropped. Not recursive: pages may
    be nested deeper than Python's stack."""
    blocks, num_dropped, num_links, depth_main = [_Block()], 0, 0, 0
    shares = _furniture(root)
    walk = etree.iterwalk(root, events=("start", "end"))
    skipped = None
    for event, element in walk:
        tag = element.tag
        if event == "start":
            if _is_dropped(element, shares, depth_main):
                num_dropped += sum(1 for _ in element.iter("img", "amp-img"))
                walk.skip_subtree()
                skipped = element
                continue
            num_links += tag == "a"
            depth_main += tag in ("article", "main")
            if tag in _BLOCKS:
                blocks.append(_Block())
            if tag in ("img", "amp-img"):
                blocks[-1].pieces.append(_image(element, base))
            elif tag == "br":
                blocks[-1].pieces.append(_BREAK)
            else:
                blocks[-1].add(element.text, num_links > 0)
            continue
        if element is skipped:
            skipped = None
        else:
            num_links -= tag == "a"
            depth_main -= tag in ("article", "main")
        if tag in _BLOCKS:
            blocks.append(_Block())
        if element is not root:
            blocks[-1].add(element.tail, num_links > 0)
    return blocks, num_dropped


def _furniture(root: html.HtmlElement) -> dict[html.HtmlElement, float]:
    """What role, class or id calls furniture, with its share of the page's text; in one walk."""
    before: dict[html.HtmlElement, int] = {}
    sizes: dict[html.HtmlElement, int] = {}
    total = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if event == "start":
            if element.attrib and _is_furniture(element.attrib):
                before[element] = total
            total += len(element.text or "")
        else:
            if element in before:
                sizes[element] = total - before[element]
            total += len(element.tail or "")
    return {element: size / max(1, total) for element, size in sizes.items()}


def _is_furniture(attributes: Mapping[str, str]) -> bool:
    return (
        attributes.get("role", "").lower() in _DROPPED_ROLES
        or attributes.get("aria-hidden") == "true"
        or bool(_FURNITURE.search(f"{attributes.get('class', '')} {attributes.get('id', '')}"))
    )


def _is_dropped(
    element: html.HtmlElement, furniture: Mapping[html.HtmlElement, float], depth_main: int
) -> bool:
    tag = element.tag
    if not isinstance(tag, str) or tag in _DROPPED:
        return True
    if tag in _NEVER_DROPPED:
        return False
    if tag == "header" and not depth_main:
        return True
    attributes = element.attrib
    if not attributes:
        return False
    if "hidden" in attributes or _HIDING.search(attributes.get("style", "")):
        return True
    return furniture.get(element, 1.0) < _GUARD_SHARE


def _image(element: html.HtmlElement, base: str) -> tuple[tuple[str, ...], str]:
    """Addresses of an image, those of lazy loading before `src`, which is then a placeholder."""
    found = [element.get(name) for name in _LAZY]
    found += [_largest(element.get(name)) for name in ("data-srcset", "srcset")]
    parent = element.getparent()
    while parent is not None and parent.tag == "source":  # libxml2 does not know that it is empty
        parent = parent.getparent()
    if parent is not None and parent.tag == "picture":
        found += [_largest(source.get("srcset")) for source in parent.iter("source")]
    urls = (_absolute(base, url) for url in found if url and url.strip())
    alt = " ".join((element.get("alt") or "").split())
    return tuple(dict.fromkeys(url for url in urls if url)), alt


def _largest(srcset: str | None) -> str | None:
    """The address of a `srcset` with the greatest width or density."""
    best = max(
        (part.split() for part in re.split(r",\s+", srcset or "") if part.strip()),
        key=lambda words: _number(words[1]) if len(words) > 1 else 1.0,
        default=None,
    )
    return best[0].rstrip(",") if best else None


def _number(descriptor: str) -> float:
    try:
        return float(descriptor.rstrip("wxh,"))
    except ValueError:
        return 0.0


def _absolute(base: str, url: str) -> str:
    """The address against the page's; "" for one that is none."""
    url = url.strip()
    if url[:5].lower() == "data:":
        return url
    try:
        return urljoin(base, url).partition("#")[0]
    except ValueError:
        return ""


def _base(root: html.HtmlElement, url: str) -> str:
    element = root.find(".//base[@href]")
    base = _absolute(url, element.get("href")) if element is not None else url
    try:
        return base if urlsplit(base).scheme in _SAFE_BASES else url
    except ValueError:
        return url


def _licence(root: html.HtmlElement, base: str) -> str:
    for element in root.iter("a", "link"):
        if "license" in (element.get("rel") or "").lower().split():
            return _absolute(base, element.get("href") or "")
    return ""


def _assemble(blocks: list[_Block]) -> tuple[str, tuple[PageImage, ...]]:
    """One text, in which a separator stands before what it separates, behind any image there."""
    parts: list[str] = []
    images, size = [], 0
    for block in blocks:
        separator = "\n\n"
        for piece in block.pieces:
            if not isinstance(piece, str):
                images.append(PageImage(size, *piece))
                continue
            words = " ".join(piece.split())
            if piece == _BREAK:
                separator = "\n" if separator in ("", " ") else separator
            elif not words:
                separator = separator or " "
            else:
                if piece[0].isspace():
                    separator = separator or " "
                text = (separator if parts else "") + words
                parts.append(text)
                size += len(text.encode())
                separator = " " if piece[-1].isspace() else ""
    return "".join(parts), tuple(images)
