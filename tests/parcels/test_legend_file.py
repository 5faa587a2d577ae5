"""Legends that users write."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cropray.core.errors import InputError
from cropray.core.hcat import is_hcat
from cropray.core.legend import EXCLUDED, IGNORE
from cropray.parcels.legend_file import MOST_CLASSES, read_legend, require_codes

ANY_YEAR = 1999


def write(folder, text):
    path = folder / "legend.csv"
    path.write_text(text, encoding="utf-8")
    return path


def refuse(folder, text, *said):
    with pytest.raises(InputError) as error:
        read_legend(write(folder, text))
    for part in ("legend.csv'", *said):
        assert part in str(error.value)


def ids(legend, *codes):
    found = legend.class_id_of_code(ANY_YEAR, codes)
    return [found.get(code) for code in codes]


def test_codes_classes_names_colours_and_levels(tmp_path):
    legend = read_legend(
        write(
            tmp_path,
            "code,class,name,colour,level_1,level_2,note\n"
            "088,fallow,Brache,#ABCDEF,land,bare,\n"
            ' 12 , wheat ,"Weizen, weich",,crops,cereals,Winterweizen\n'
            "\n"
            "13,wheat,,,,,\n"
            "7,EXCLUDED,,,,,under glass\n",
        )
    )
    fallow, wheat = legend.classes
    assert (fallow.id, fallow.name, fallow.label_en, fallow.colour) == (0, "fallow", "Brache", "#abcdef")
    assert (wheat.id, wheat.name, wheat.label_en, wheat.levels) == (1, "wheat", "Weizen, weich", ("crops", "cereals"))
    assert re.fullmatch("#[0-9a-f]{6}", wheat.colour)
    assert ids(legend, "088", "12", "13", "7", "88", "99") == [0, 1, 1, IGNORE, None, None]
    assert {code: crop.label for code, crop in legend.codes_of(ANY_YEAR).items() if crop.label} == {
        "12": "Winterweizen",
        "7": "under glass",
    }


def test_the_same_file_is_the_same_legend_and_each_change_another(tmp_path):
    text = "code,class,name,colour,level_1,level_2,level_3\n1,a,A,#000000,x,y,z\n2,b,B,#111111,x,y,w\n"
    changes = [("1,a", "3,a"), ("1,a", "1,c"), (",A,", ",C,"), ("#111111", "#222222"), ("y,w", "y,v")]
    hashes = [read_legend(write(tmp_path, text.replace(*change))).hash() for change in [("", ""), *changes]]
    assert len(set(hashes)) == len(hashes)
    assert read_legend(write(tmp_path, text)).hash() == hashes[0]
    below = (
        "hcat,class\n3301000000,a\n",
        "hcat,class\n3301010000,a\n",
        "hcat,class\n3301000000,EXCLUDED\n3301010000,a\n",
    )
    assert len({read_legend(write(tmp_path, text)).hash() for text in below}) == 3


@pytest.mark.parametrize(
    ("header", "row", "levels"),
    [
        ("code,class", "1,a", ("a", "a")),
        ("code,class,level_1", "1,a,crops", ("crops", "crops")),
        ("code,class,level_1,level_2", "1,a,crops,", ("crops", "crops")),
        ("code,class,level_1,level_2", "1,a,,", ("a", "a")),
        ("code,class,level_2,level_1,level_3", "1,a,B,A,C", ("A", "B", "C")),
        ("code,class,hcat", "1,a,3301020304", ("3301000000", "3301020000", "3301020300")),
        ("code,class,hcat", "1,a,", ("a", "a")),
        ("code,class,hcat,level_1", "1,a,3301020304,crops", ("crops", "crops")),  # what is said goes before the digits
        ("hcat,code,class", ",1,a\n3301020304,,b", ("a", "a", "a")),  # all classes have as many
        ("code,class", "3301020304,a", ("3301000000", "3301020000", "3301020300")),
    ],
)
def test_levels_are_given_or_follow_from_hcat(tmp_path, header, row, levels):
    assert read_legend(write(tmp_path, f"{header}\n{row}\n")).classes[0].levels == levels


@pytest.mark.parametrize("column", ["hcat", "code"])
def test_an_hcat_code_takes_all_codes_below_it_and_the_longest_decides(tmp_path, column):
    rows = ["3302000000,grass", "3301010000,cereal", "3301000000,arable", "3301010600,maize", f"3301070000,{EXCLUDED}"]
    legend = read_legend(write(tmp_path, "\n".join([f"{column},class", *rows])))
    codes = ["3301010101", "3301010000", "3301010600", "3301010601", "3301990000", "3301000000", "3302010203"]
    grass, cereal, arable, maize = range(4)
    assert ids(legend, *codes) == [cereal, cereal, maize, maize, arable, arable, grass]
    assert ids(legend, "3301070101", "3303000000", "330101", "33010101011") == [IGNORE, None, None, None]


def test_codes_of_a_register_and_hcat_codes_may_stand_in_one_file(tmp_path):
    legend = read_legend(write(tmp_path, "code,hcat,class\n138,3301010101,wheat\n,3301010000,cereal\n"))
    assert ids(legend, "138", "3301010101", "3301019900") == [0, 1, 1]  # a line with a code counts for that alone


codes = st.one_of(
    st.text("ABCxyz0159-é, \"'", min_size=1, max_size=4).map(str.strip).filter(bool),
    st.integers(0, 99_999_999).map(lambda n: f"33{n:08d}"),
)
classes = st.text("abcdeü 7", min_size=1, max_size=5).map(str.strip).filter(bool)


@given(st.dictionaries(codes, st.one_of(classes, st.just(EXCLUDED)), min_size=1, max_size=30), st.randoms())
def test_what_was_written_is_read(tmp_path_factory, table, random):
    if set(table.values()) == {EXCLUDED}:
        return
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["class", "code"])
    for code, name in table.items():
        for _ in range(random.choice((1, 1, 2))):  # a line may stand twice
            writer.writerow([name, code])
    legend = read_legend(write(tmp_path_factory.getbasetemp(), text.getvalue()))
    assert set(legend.names) == set(table.values()) - {EXCLUDED}
    assert len({crop.colour for crop in legend.classes}) == len(legend.names)
    found = legend.class_id_of_code(ANY_YEAR, table)
    for code, name in table.items():
        assert found[code] == (IGNORE if name == EXCLUDED else legend.names.index(name))
    assert set(found) == set(table) | {code for code in found if is_hcat(code)}


@given(st.lists(st.integers(0, 253), min_size=1, max_size=60, unique=True))
def test_ids_follow_the_file_or_the_numbers(tmp_path_factory, order):
    folder = tmp_path_factory.getbasetemp()
    numbers = read_legend(write(folder, "code,class\n" + "".join(f"c{n},{n}\n" for n in order)))
    names = read_legend(write(folder, "code,class\n" + "".join(f"c{n},k{n}\n" for n in order)))
    assert numbers.names == tuple(map(str, sorted(order)))
    assert names.names == tuple(f"k{n}" for n in order)


def test_a_drawn_colour_is_none_that_is_given(tmp_path):
    drawn = read_legend(write(tmp_path, "code,class\n1,a\n")).classes[0].colour
    legend = read_legend(write(tmp_path, f"code,class,colour\n1,a,\n2,b,{drawn}\n3,c,\n"))
    assert len({crop.colour for crop in legend.classes}) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("code,name\n1,a\n", ["lacks the columns ['class']"]),
        ("class,name\na,A\n", ["neither a column 'code' nor 'hcat'"]),
        ("code,class\n", ["no rows"]),
        ("code,class,color\n1,a,#000000\n", ["column 'color', which is not read", "did you mean 'colour'?"]),
        ("code,class,level_2\n1,a,x\n", ["['level_2']", "number them ['level_1']"]),
        ("code,class\n1,a\n2,\n", ["line 3 has no class", "EXCLUDED"]),
        ("code,class\n1,a\n\n\n,b\n", ["line 5 has neither code nor hcat"]),
        ('code,class,name\n1,a,"A\nor B"\n2,,\n', ["line 4 has no class"]),
        ("code,class\n1,a\n7,b\n1,b\n", ["lines 2 and 4: code '1' has the classes 'a' and 'b'", "keep one"]),
        ("code,class\n1,a\n1,EXCLUDED\n", ["lines 2 and 3", "'a' and 'EXCLUDED'"]),
        ("hcat,class\n3301000000,a\n3301000000,b\n", ["lines 2 and 3", "3301000000"]),
        ("code,class,colour\n1,a,#12345\n", ["line 2 has colour '#12345'", "#f0d04c"]),
        ("code,class,colour\n1,a,red\n", ["line 2 has colour 'red'"]),
        ("code,class,hcat\n1,a,330101\n", ["line 2 has hcat '330101'", "ten digits"]),
        ("code,class,hcat\n1,a,3.30101E+09\n", ["line 2 has hcat"]),
        ("code,class,name\n1,a,Wheat\n2,a,\n3,a,Rye\n", ["lines 2 and 4: class 'a' has name 'Wheat' and 'Rye'"]),
        ("code,class,colour\n1,a,\n2,a,#000000\n3,a,#000001\n", ["lines 3 and 4: class 'a' has colour"]),
        ("code,class,level_1\n1,a,x\n2,a,y\n", ["lines 2 and 3: class 'a' has level_1 'x' and 'y'"]),
        ("code,class,level_1,level_2\n1,a,x,z\n2,b,y,z\n", ["level_2 'z' lies in level_1 'x'", "'a'", "'y'", "'b'"]),
        ("code,class\n1,EXCLUDED\n", ["has no class"]),
        ("code,class\n1,a,b\n", ["line 2 has 3 cells for 2 columns"]),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(tmp_path, text, said):
    refuse(tmp_path, text, *said)


def test_there_is_room_for_254_classes(tmp_path):
    rows = [f"c{n},k{n}" for n in range(MOST_CLASSES)]
    assert len(read_legend(write(tmp_path, "\n".join(["code,class", *rows, "again,k7"]))).classes) == 254
    refuse(tmp_path, "\n".join(["code,class", *rows, "again,k7", "more,one"]), "line 257", "'one'", "254")


def test_a_missing_file_names_the_setting(tmp_path):
    with pytest.raises(InputError, match=r"legend '.*none.csv' does not exist; set parcels.legend"):
        read_legend(tmp_path / "none.csv")


def test_a_legend_without_any_code_of_the_register_is_refused(tmp_path):
    path = write(tmp_path, "code,class\nBTH,wheat\nMIS,maize\n")
    legend = read_legend(path)
    pieces = iter([["1", "2"], ["MIS", "3"], ["never read"]])
    require_codes(legend, pieces, path)
    assert next(pieces) == ["never read"]
    with pytest.raises(
        InputError, match=r"register has '1', '2', '3', the legend 'BTH', 'MIS'; set parcels.code_column"
    ):
        require_codes(legend, [["1", "2"], ["3"]], path)
    with pytest.raises(InputError, match="HCAT codes of a legend count where 'code' is empty"):
        require_codes(legend, [["3301010101"]], path)
    below = read_legend(write(tmp_path, "hcat,class\n3301000000,arable\n"))
    require_codes(below, [["3302000000"], ["3301010101"]], path)
