"""The pages of the manual, ``chargen/manual/TOPIC.md``."""

from __future__ import annotations

import re
from importlib.resources import files

# In the order in which they are listed: from the first run to the questions that people ask.
TOPICS = (
    *("start", "texts", "training", "choices", "quality", "speed", "sampling", "python", "export", "evaluation"),
    *("machines", "lab", "contributing", "faq"),
)
PAGE_WIDTH = 80  # columns of a page in a pipe, and at most on a terminal
OPTIONS = re.compile(r"^<!-- options: ([a-z ]+) -->$", re.M)  # a line that stands for a command's options


def page(topic: str) -> str:
    """Return a page as it was written, in Markdown."""
    return (files("chargen") / "manual" / f"{topic}.md").read_text("utf-8")


def topic_of(command: str) -> str | None:
    """Return the topic whose page lists the options of a command, such as ``bench train``; None if there is none."""
    return next((topic for topic in TOPICS if command in OPTIONS.findall(page(topic))), None)
