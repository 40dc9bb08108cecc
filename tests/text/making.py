"""The same paragraphs as files of all kinds, made by hand so that their text is known."""

import io
import struct
import textwrap
import zipfile
from collections.abc import Callable
from html import escape

CONTAINER = (
    '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="book/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
OPF = (
    '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"><manifest>{items}'
    "</manifest><spine>{spine}</spine>{guide}</package>"
)
PAGE = (
    '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml" '
    'xmlns:epub="http://www.idpf.org/2007/ops"><head><title>A title</title></head><body>{}</body></html>'
)
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "urn:oasis:names:tc:opendocument:xmlns"
LINES_OF_A_PAGE, COLUMNS = 40, 66


def zipped(files, method=zipfile.ZIP_DEFLATED):
    """A ZIP with the files, by their names."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as package:
        for name, content in files.items():
            package.writestr(name, content)
    return data.getvalue()


def html(paragraphs):
    """A web page with navigation, a script and a style, which are no text."""
    body = "".join(f"<p>{escape(one)}</p>\n" for one in paragraphs)
    return (
        "<!DOCTYPE html><html><head><meta charset=utf-8><title>No</title><style>p {color: red}</style></head>"
        f"<body><nav><a href='/'>Home</a></nav><script>if (a < b) document.write('<p>no</p>')</script>{body}"
        "</body></html>"
    ).encode()


def epub(paragraphs, pages=3, **more):
    """An EPUB with a cover, contents and some pages, of which the spine names the first twice."""
    step = -(-len(paragraphs) // pages) or 1
    files = {"mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER}
    parts = [paragraphs[n : n + step] for n in range(0, len(paragraphs), step)]
    contents = "".join(f'<li><a href="{n}.xhtml">Part {n}</a></li>' for n in range(len(parts)))
    files["book/nav.xhtml"] = PAGE.format(f'<nav epub:type="toc"><ol>{contents}</ol></nav>')
    files["book/cover.xhtml"] = PAGE.format("<p>Cover</p>")
    for n, part in enumerate(parts):
        files[f"book/{n}.xhtml"] = PAGE.format("".join(f"<p>{escape(one)}</p>" for one in part))
    items = '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
    items += '<item id="cover" href="cover.xhtml" media-type="application/xhtml+xml"/>'
    items += "".join(
        f'<item id="p{n}" href="{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(parts))
    )
    spine = '<itemref idref="cover"/><itemref idref="nav"/>' + "".join(
        f'<itemref idref="p{n}"/>' for n in [*range(len(parts)), 0]
    )
    guide = '<guide><reference type="cover" href="cover.xhtml"/></guide>'
    files["book/content.opf"] = OPF.format(items=items, spine=spine, guide=guide)
    return zipped(files | more)


def docx(paragraphs, body="", **more):
    """A Word file."""
    text = "".join(f'<w:p><w:r><w:t xml:space="preserve">{escape(one)}</w:t></w:r></w:p>' for one in paragraphs)
    relation = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship '
        'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
        'Target="word/document.xml"/></Relationships>'
    )
    files = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "_rels/.rels": relation,
        "word/document.xml": f'<w:document xmlns:w="{WORD}"><w:body>{text}{body}</w:body></w:document>',
    }
    return zipped(files | more)


def flat_odt(paragraphs, body=""):
    """The XML of an OpenDocument text."""
    text = "".join(f"<text:p>{escape(one)}</text:p>" for one in paragraphs)
    return (
        f'<?xml version="1.0"?>\n<office:document xmlns:office="{OFFICE}:office:1.0" xmlns:text="{OFFICE}:text:1.0" '
        f'xmlns:table="{OFFICE}:table:1.0"><office:body><office:text>{text}{body}</office:text></office:body>'
        "</office:document>"
    ).encode()


def odt(paragraphs, body="", **more):
    """An OpenDocument text."""
    content = flat_odt(paragraphs, body).replace(b"office:document", b"office:document-content")
    return zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content} | more)


def rtf(paragraphs, body=""):
    """An RTF file with tables of fonts and colours."""

    def written(text):
        for mark in "\\{}":
            text = text.replace(mark, "\\" + mark)
        units = struct.unpack(f"<{len(text.encode('utf-16-le')) // 2}h", text.encode("utf-16-le"))
        return "".join(chr(unit) if 0 < unit < 0x80 else f"\\u{unit}?" for unit in units)

    text = "\n".join(f"\\pard {written(one)}\\par" for one in paragraphs)
    return (
        "{\\rtf1\\ansi\\ansicpg1252\\deff0{\\fonttbl{\\f0\\froman\\fcharset0 Times;}}"
        "{\\colortbl;\\red0\\green0\\blue0;}"
        f"{{\\info{{\\title No}}}}\n{text}{body}}}"
    ).encode("latin-1")


def markdown(paragraphs):
    """A Markdown file; its first paragraph is a heading."""
    return ("# " + "\n\n".join(paragraphs) + "\n").encode()


def pdf(pages):
    """A PDF. A page is a list of lines in Courier; an empty string is a gap, and a tuple a line with its left end."""
    objects = [
        b"",
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"",
        b"<</Type/Font/Subtype/Type1/BaseFont/Courier/Encoding/WinAnsiEncoding>>",
    ]
    kids = []
    for lines in pages:
        content, height = b"", 780.0
        for line in lines:
            left, text = line if isinstance(line, tuple) else (72.0, line)
            escaped = text.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
            content += b"BT /F1 10 Tf %.1f %.1f Td (%s) Tj ET\n" % (left, height, escaped)
            height -= 12.0
        kids.append(len(objects))
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F1 3 0 R>>>>/Contents %d 0 R>>"
            % (len(objects) + 1)
        )
        objects.append(b"<</Length %d>>stream\n%sendstream" % (len(content), content))
    objects[2] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(kids), b" ".join(b"%d 0 R" % n for n in kids))
    return pdf_of(objects[1:])


def pdf_of(objects):
    """A PDF of objects, of which the first is the catalog."""
    data, places = b"%PDF-1.4\n", []
    for number, written in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, written)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(data))
    return data + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + trailer


def printed(paragraphs, title="A YARD AND TWO INCHES"):
    """A PDF of a book as it is printed: indented paragraphs, a title and a number on each page."""
    lines = []
    for one in paragraphs:
        wrapped = textwrap.wrap(one, COLUMNS - 3, initial_indent="   ", break_on_hyphens=False, break_long_words=False)
        lines += [(72.0 + 18.0, line.strip()) if n == 0 else line for n, line in enumerate(wrapped)]
    pages = [lines[n : n + LINES_OF_A_PAGE] for n in range(0, len(lines), LINES_OF_A_PAGE)]
    return pdf([[title, "", *page, "", (280.0, f"{n}")] for n, page in enumerate(pages, 1)])


MAKERS: dict[str, Callable[[list[str]], bytes]] = {
    **{"epub": epub, "docx": docx, "odt": odt, "fodt": flat_odt},
    **{"rtf": rtf, "html": html, "md": markdown},
}
