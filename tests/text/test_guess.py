"""A text that is not UTF-8 is read by a sure guess, and refused where no guess is sure."""

import pytest

from chargen import ChargenError
from chargen.config import TrainConfig
from chargen.text import encodings
from chargen.text.corpus import read
from tests.conftest import invoke

TEXTS = {
    "cp1252": "“It’s the café,” she said — “the old one.” He didn’t know it, naïve as he was, and she wouldn’t wait.\n",
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy a děti se smály, když šel kolem našeho domu.\n",
    "iso8859_2": "Příliš žluťoučký kůň úpěl ďábelské ódy a děti se smály, když šel kolem našeho domu.\n",
    "mac_roman": "L’été dernier, à la campagne, nous avons mangé des pêches très mûres près de la rivière.\n",
    "cp850": "Die Bäume blühen früh, und die Mädchen hören müde zu; später öffnet er das Fenster für die Vögel.\n",
    "cp1251": "Мороз и солнце, день чудесный! Ещё ты дремлешь, друг прелестный, пора, красавица, проснись.\n",
    "koi8_r": "Мороз и солнце, день чудесный! Ещё ты дремлешь, друг прелестный, пора, красавица, проснись.\n",
    "cp1253": "Η μέρα ήταν κρύα και κανείς δεν είχε σκεφτεί να φέρει τη λάμπα, κι έτσι περπάτησαν στο σκοτάδι.\n",
    "cp1254": "Sabah çok soğuktu ve hiç kimse lambayı getirmeyi düşünmemişti; bütün yolu karanlıkta yürüdüler.\n",
    "cp932": "寒い朝だった。誰もランプを持って来ることを思いつかなかったので、暗い道をずっと歩いて行った。\n",
    "gb18030": "那是一个寒冷的早晨，谁也没有想到要带灯来，所以他们一路在黑暗中走到水闸，谈论着那条船。\n",
    "cp949": "추운 아침이었고 아무도 등불을 가져올 생각을 하지 못해서 그들은 어둠 속을 끝까지 걸어갔다.\n",
}


def found_in(path, **settings):
    corpus = read([str(path)], TrainConfig(**settings))
    return corpus.vocabulary.decode(corpus.ids), corpus.notes


@pytest.mark.parametrize("encoding", TEXTS)
def test_a_text_in_another_encoding_is_read_and_the_guess_is_told(tmp_path, encoding):
    written = "ASCII comes first.\n" * 2000 + TEXTS[encoding] * 3
    (tmp_path / "a.txt").write_bytes(written.encode(encoding))
    text, notes = found_in(tmp_path / "a.txt")
    assert text == written
    assert len(notes) == 1
    assert notes[0].startswith(f"not UTF-8, and read by a guess: {tmp_path / 'a.txt'} as ")


@pytest.mark.parametrize("size", [1, 100, 1 << 14])
def test_the_guess_does_not_depend_on_where_blocks_end(size):
    written = ("plain\n" * 40 + TEXTS["cp1252"] * 4).encode("cp1252")
    guessed = list[str]()
    blocks = (written[n : n + size] for n in range(0, len(written), size))
    text = "".join(encodings.decoded(blocks, "a", "utf-8", None, guessed.append))
    assert (text, guessed) == (written.decode("cp1252"), ["cp1252"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"just one \xe9\n", "is not utf-8: byte 0xe9 at offset 9 is invalid; --encoding cp1252 would read it"),
        (bytes(range(0x80, 0x100)) * 9, "is not utf-8: byte 0x80 at offset 0 is invalid"),
        ("Mostly UTF-8: é “”\n".encode() * 9999 + b"\xe9", "is not utf-8: byte 0xe9 at offset"),
        (TEXTS["cp1252"].encode("cp1252") + b"\0", "is a binary file"),
    ],
)
def test_an_unsure_guess_is_refused_with_advice(tmp_path, data, message):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(ChargenError) as error:
        found_in(tmp_path / "a.txt")
    assert f"{tmp_path / 'a.txt'} {message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_is_guessed_where_an_encoding_is_given(tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXTS["cp1251"].encode("cp1251") * 9)
    with pytest.raises(ChargenError, match="is not utf-8"):
        found_in(tmp_path / "a.txt", encoding="utf-8")
    text, notes = found_in(tmp_path / "a.txt", encoding="cp1252")
    assert text.startswith("Ìîðîç")
    assert notes == ()


def test_a_folder_may_mix_encodings(tmp_path):
    encodings = ["cp1252", "cp1251", "utf-8", "cp932", "utf-16", "koi8_r"]
    for n, encoding in enumerate(encodings):
        (tmp_path / f"{n}.txt").write_bytes((TEXTS.get(encoding, "Ünïcode\n") * 3).encode(encoding))
    (tmp_path / "9.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    text, notes = found_in(tmp_path)
    assert text == "".join(TEXTS.get(encoding, "Ünïcode\n") * 3 for encoding in encodings)
    assert set(notes) == {
        f"{tmp_path / '9.jpg'} is not utf-8: left out",
        "4 files are not UTF-8, and read by a guess: 1 as cp1252, 1 as cp1251, 1 as cp932, 1 as koi8_r; "
        "if it is wrong, give --encoding",
    }


def test_a_page_and_a_markdown_file_are_guessed_too(tmp_path):
    for name, form in (("a.html", "<html><p>{}</p></html>"), ("a.md", "# A\n\n{}")):
        (tmp_path / name).write_bytes(form.format(TEXTS["cp1252"] * 2).encode("cp1252"))
        text, notes = found_in(tmp_path / name)
        assert "naïve as he was" in text
        assert f"{tmp_path / name} as cp1252" in notes[0]


def test_eval_tells_its_guess(trained, here):
    (here / "new.txt").write_bytes(TEXTS["cp1252"].encode("cp1252") * 2)
    result = invoke("eval", "new.txt", "--model", trained, "--json")
    assert result.exit_code == 0
    assert "read by a guess: new.txt as cp1252" in result.stderr
