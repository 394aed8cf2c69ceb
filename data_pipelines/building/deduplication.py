"""Middle steps of a build: which pictures are on too many pages, and which pages repeat another.

A picture that stands, itself or one with its perceptual hash, on more than ten pages is furniture:
a logo, a button, an advertisement (OBELICS drops the same, Laurençon et al. 2023). Of pages that
share a text key the one with the smallest hash stays, so the result depends neither on the order
nor on the grouping of the input. A page that lost its last picture does not count as one to stay.
"""

import numpy as np
from etils import epath

from data_pipelines.building.sorted_rows import read_rows, write_rows
from data_pipelines.building.staging import IMAGE_ROW, PAGE_ROW, Job

REMOVAL_ROW = np.dtype([("key", "<u8"), ("media", "<u8")])  # a page and a picture that it loses
REPEAT_ROW = np.dtype([("key", "<u8"), ("similar", "u1")])  # a page that goes; 0: an equal text
_TEXT_ROW = np.dtype([("key", "<u8"), ("page", "<u8"), ("similar", "u1")])
MAX_PAGES_OF_AN_IMAGE = 10


def find_common_images(job: Job, part: int, num_parts: int) -> None:
    """From rows of pictures to `removals`: pictures that stand on too many pages."""
    target = job.file("removals", f"{part:04d}.removals")
    if epath.Path(target).exists():
        return
    rows = np.unique(read_rows(job.files("chunks", "images"), part, num_parts, IMAGE_ROW))
    # Rows are sorted by key, then page: a new page of a key is where either changes.
    is_new_key = np.diff(rows["key"], prepend=~rows["key"][:1]) != 0
    is_new_page = is_new_key | (np.diff(rows["page"], prepend=~rows["page"][:1]) != 0)
    key_number = np.cumsum(is_new_key) - 1
    num_pages = np.bincount(key_number, weights=is_new_page)
    found = rows[num_pages[key_number] > MAX_PAGES_OF_AN_IMAGE]
    removals = np.zeros(len(found), REMOVAL_ROW)
    removals["key"], removals["media"] = found["page"], found["media"]
    write_rows(target, np.unique(removals))


def list_texts(job: Job, part: int, num_parts: int) -> None:
    """From pages to `texts`: the text keys of those that still have a picture."""
    target = job.file("texts", f"{part:04d}.texts")
    if epath.Path(target).exists():
        return
    pages = read_pages(job, part, num_parts)
    removals = read_rows(job.files("removals", "removals"), part, num_parts, REMOVAL_ROW)
    removed = np.searchsorted(removals["key"], pages["key"], "right") - np.searchsorted(
        removals["key"], pages["key"], "left"
    )
    pages = pages[removed < pages["num_media"]]
    num_keys = pages["texts"].shape[1]
    texts = np.zeros(len(pages) * num_keys, _TEXT_ROW)
    texts["key"] = pages["texts"].reshape(-1)
    texts["page"] = np.repeat(pages["key"], num_keys)
    texts["similar"] = np.tile(np.arange(num_keys) > 0, len(pages))
    write_rows(target, texts)


def find_repeated_pages(job: Job, part: int, num_parts: int) -> None:
    """From text keys to `repeats`: all pages of a key but the one with the smallest hash."""
    target = job.file("repeats", f"{part:04d}.repeats")
    if epath.Path(target).exists():
        return
    rows = np.unique(read_rows(job.files("texts", "texts"), part, num_parts, _TEXT_ROW))
    is_first = np.diff(rows["key"], prepend=~rows["key"][:1]) != 0
    later = rows[~is_first]
    repeats = np.zeros(len(later), REPEAT_ROW)
    repeats["key"], repeats["similar"] = later["page"], later["similar"]
    write_rows(target, np.unique(repeats))


def read_pages(job: Job, part: int, num_parts: int) -> np.ndarray:  # PAGE_ROW[n]
    """The pages of a range, one for each key: equal ids hold equal records."""
    pages = read_rows(job.files("chunks", "pages"), part, num_parts, PAGE_ROW)
    return pages[np.diff(pages["key"], prepend=~pages["key"][:1]) != 0]
