"""The language of a passage, by its most frequent words or by its script."""

from __future__ import annotations

import re

FEWEST_WORDS = 40  # of a passage whose language is recognised by words
FEWEST_KNOWN = 0.13  # of its words are among the most frequent of its language
AHEAD = 1.25  # times as many as of any other
SCRIPT_SHARE = 0.5  # of the letters of a passage are of its script

WORDS = {
    "English": "the and to of a in that was he it his is with as for had you not be her on at by which this she from",
    "German": "der die das und ist nicht ein eine sie ich zu den mit von auf dem sich auch es in er im des so wie war",
    "French": "de la le et les des en un une que est pour qui dans pas du au sur ce il ne se plus par je vous à",
    "Spanish": "de la que el en y los del se las por un para con no una su al lo como más pero sus le o este",
    "Italian": "di e che il la un a per in una non sono con si le da del al come dei della era anche",
    "Portuguese": "de a o que e do da em um para com não uma os no se na por mais as dos ao",
    "Catalan": "de la i el que a en els les un per una amb del no és al són es",
    "Romanian": "de și la în nu că pe este un din sau cu să care a o pentru se",
    "Latin": "et in est non ad quod cum sed ut qui ex ac quae esse sunt",
    "Dutch": "de het een van en niet dat zijn voor op te met ik je aan in is of hij er om",
    "Swedish": "och att det som en är inte på för med den jag av han i till de ett om var",
    "Danish or Norwegian": "og at det er en ikke på som til af den jeg med han for i de et kan var",
    "Finnish": "ja on ei se että hän oli mutta niin kun kuin ole tai",
    "Polish": "i w nie na się z że do to jest jak po za jego",
    "Czech": "a se na je že v to s o i za nebo pro do jako",
    "Hungarian": "a az és hogy nem egy is ez volt meg de van",
    "Turkish": "ve bir bu da için çok ne de ile olarak veya",
    "Vietnamese": "và của là có các cho không một được này với trong",
    "Indonesian": "dan yang di untuk dari ini dengan tidak pada akan",
}
SCRIPTS = {
    "Cyrillic script": "\u0400-\u052f",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Hebrew": "\u0590-\u05ff",
    "Arabic script": "\u0600-\u06ff",
    "an Indian script": "\u0900-\u0dff",
    "Thai": "\u0e00-\u0e7f",
    "Japanese": "\u3040-\u30ff",
    "Korean": "\uac00-\ud7a3",
    "Chinese": "\u4e00-\u9fff",
}

_WORDS = {name: frozenset(words.split()) for name, words in WORDS.items()}
_SCRIPTS = {name: re.compile(f"[{ranges}]") for name, ranges in SCRIPTS.items()}
_WORD = re.compile(r"[^\W\d_]+")
_KANA_SHARE = 0.1  # of the letters of a Japanese passage


def language(passage: str) -> str:
    """Return the language of a passage, or its script; empty if it is not sure."""
    if not passage.isascii():
        letters = sum(map(str.isalpha, passage))
        counts = {name: len(script.findall(passage)) for name, script in _SCRIPTS.items()}
        if counts["Japanese"] > _KANA_SHARE * letters:
            counts["Japanese"] += counts.pop("Chinese")
        script = max(counts, key=lambda name: counts[name])
        if letters and counts[script] >= SCRIPT_SHARE * letters:
            return script
    words = _WORD.findall(passage.lower())
    if len(words) < FEWEST_WORDS:
        return ""
    hits = sorted(((sum(word in known for word in words), name) for name, known in _WORDS.items()), reverse=True)
    (most, best), (second, _) = hits[:2]
    return best if most >= FEWEST_KNOWN * len(words) and most >= AHEAD * second else ""
