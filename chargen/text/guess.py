"""The encoding of a text that is not UTF-8, guessed by charset-normalizer and the alphabets of languages.

charset-normalizer leaves out the encodings in which the bytes are no text. It often cannot tell those that share most
letters, such as cp1250 and cp1252. They are told apart by the letters beyond ASCII: in the right encoding these are the
letters of one language.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

# In the order of preference among encodings that read the bytes as the same text.
CANDIDATES = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "iso8859_2", "iso8859_7"),
    *("koi8_r", "iso8859_5", "cp866", "mac_roman", "cp850"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
)
LATIN = {  # letters beyond ASCII, in lower case
    "English": "",
    "Catalan": "àçéèíïóòúü·",
    "Croatian": "čćđšž",
    "Czech": "áčďéěíňóřšťúůýž",
    "Danish": "æøåé",
    "Dutch": "éèëïóöüáíúêç",
    "Estonian": "äõöüšž",
    "Finnish": "äöå",
    "French": "àâæçéèêëîïôœùûüÿ",
    "German": "äöüß",
    "Hungarian": "áéíóöőúüű",
    "Icelandic": "áðéíóúýþæö",
    "Italian": "àèéìíîòóùú",
    "Latvian": "āčēģīķļņšūž",
    "Lithuanian": "ąčęėįšųūž",
    "Polish": "ąćęłńóśźż",
    "Portuguese": "áâãàçéêíóôõúü",
    "Romanian": "ăâîşţșț",
    "Slovak": "áäčďéíĺľňóôŕšťúýž",
    "Spanish": "áéíñóúü",
    "Swedish": "åäöé",
    "Turkish": "çğıöşüâîû",
}
OTHERS = {
    "Russian": "абвгдежзийклмнопрстуфхцчшщъыьэюяё",
    "Ukrainian": "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя",
    "Serbian": "абвгдђежзијклљмнњопрстћуфхцчџш",
    "Greek": "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ",
    "Hebrew": "אבגדהוזחטיךכלםמןנסעףפץצקרשת",
    "Arabic": "ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىيپچژگ",
}
# The characters of a script without letter case, and what has to be among them, in which share. The misread bytes of
# one look like rare characters of another, without kana, spaces or punctuation.
IDEOGRAPHS = "\u3000-\u303f\u4e00-\u9fff\uff01-\uff5e"
SCRIPTS = (
    (f"[{IDEOGRAPHS}\u3040-\u30ff\uff66-\uff9f]", "[\u3041-\u30ff]", 0.15),  # Japanese
    (f"[{IDEOGRAPHS}]", "[\u3001\u3002\uff0c]", 0.01),  # Chinese
    (f"[{IDEOGRAPHS}\uac00-\ud7a3]", "[\uac00-\ud7a3] ", 0.1),  # Korean
)
PUNCTUATION = "‘’‚“”„«»‹›–—…•·°§©®™€£¡¿ªº¹²³½¼¾×´¨\u00a0\u00ad"  # in texts of any language
MOST_UNKNOWN = 0.03  # of the characters beyond ASCII are not those of one language, in the right encoding
CLEARLY_MORE = 3  # and twice as many in the wrong one
CLEARLY_LIKELIER = 0.1  # of the coherence
FEWEST_CHARACTERS, FEWEST_FOREIGN = 12, 100  # beyond ASCII, in Latin script and in others
FEWEST_LIKELY = 0.2  # of the coherence; charset-normalizer knows no frequencies of Chinese, Japanese and Korean
FOREIGN_SHARE = 0.25  # of the letters of a text in another script are of that script
MOST_CHAOS = 0.2  # charset-normalizer's own limit


class Guess(NamedTuple):
    """An encoding in which bytes are a text."""

    encoding: str
    text: str
    unknown: int  # characters beyond ASCII that are not those of one language
    coherence: float  # how well its letters' frequencies are those of one language, by charset-normalizer
    chaos: float  # how little it looks like a text, by charset-normalizer
    latin: bool

    def beats(self, other: Guess) -> bool:
        """Return whether this is clearly the better guess, or the same text."""
        fewer = CLEARLY_MORE + 2 * self.unknown <= other.unknown
        more = CLEARLY_MORE + 2 * other.unknown <= self.unknown
        ahead = self.coherence - other.coherence
        better = (fewer and ahead > -CLEARLY_LIKELIER) or (ahead >= CLEARLY_LIKELIER and not more)
        # What is text of one language in a frequent encoding is hardly ever that by chance.
        preferred = CANDIDATES.index(self.encoding) < CANDIDATES.index(other.encoding) and self.latin
        equal = not more and ahead > -CLEARLY_LIKELIER and self.chaos <= other.chaos
        return better or (preferred and equal) or self.text == other.text


def guess(sample: bytes) -> str:
    """Return the encoding of a sample of a text, such as "cp1252"; empty if it is not sure.

    ``sample`` holds the lines that are not ASCII.
    """
    found = _guesses(sample)
    return next((one.encoding for one in found if all(map(one.beats, found))), "")


def _guesses(sample: bytes) -> list[Guess]:
    """Return the encodings that may be right, in the order of preference."""
    from charset_normalizer import from_bytes

    matches = from_bytes(sample, cp_isolation=list(CANDIDATES), threshold=MOST_CHAOS, enable_fallback=False)
    found = []
    for match in matches:
        text, likely = str(match), match.coherence >= FEWEST_LIKELY
        beyond = "".join(c for c in text if not c.isascii())
        foreign = sum(map(str.isalpha, beyond)) >= FOREIGN_SHARE * sum(map(str.isalpha, text))
        latin = _known(beyond, LATIN.values()) if likely and len(beyond) >= FEWEST_CHARACTERS else 0
        other = _known(beyond, OTHERS.values()) if likely else 0
        other = max(other, _spaceless(text)) if foreign and len(beyond) >= FEWEST_FOREIGN else 0
        unknown = len(beyond) - max(latin, other)
        if unknown <= MOST_UNKNOWN * len(beyond):
            names = match.could_be_from_charset
            found += [Guess(n, text, unknown, match.coherence, match.chaos, latin >= other) for n in names]
    return sorted(found, key=lambda one: CANDIDATES.index(one.encoding))


def _spaceless(text: str) -> int:
    """Return how many characters are of a Chinese, Japanese or Korean text; 0 if it looks like none."""
    counts = [(len(re.findall(known, text)), len(re.findall(needed, text)), share) for known, needed, share in SCRIPTS]
    return max(known * (needed >= share * known) for known, needed, share in counts)


def _known(characters: str, alphabets: Iterable[str]) -> int:
    """Return how many characters are letters of one of the alphabets, or punctuation."""
    return max(sum(c in PUNCTUATION or c.lower() in alphabet for c in characters) for alphabet in alphabets)
