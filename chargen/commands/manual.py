"""The pages of the manual, ``chargen/manual/TOPIC.md``."""

from __future__ import annotations

import re
from importlib.resources import files

# In the order in which they are listed: from the first run to the questions that people ask.
TOPICS = (
    *("start", "texts", "training", "choices", "quality", "speed", "sampling", "serving", "python", "export"),
    *("evaluation", "machines", "lab", "contributing", "faq"),
)
PAGE_WIDTH = 80  # columns of a page in a pipe, and at most on a terminal
OPTIONS = re.compile(r"^<!-- options: ([a-z ]+) -->$", re.M)  # a line that stands for a command's options


def page(topic: str) -> str:
    """Return a page as it was written, in Markdown."""
    return (files("chargen") / "manual" / f"{topic}.md").read_text("utf-8")


def topic_of(command: str) -> str | None:
    """Return the topic whose page lists the options of a command, or of the commands of a group; None if there is none.

    ``command`` is, for example, ``bench train`` or ``bench``; "" is the program itself, which has no topic.
    """
    listed = re.compile(rf"{re.escape(command)}( .+)?")
    return next((t for t in TOPICS if command and any(map(listed.fullmatch, OPTIONS.findall(page(t))))), None)
