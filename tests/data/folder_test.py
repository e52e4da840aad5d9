# SPDX-License-Identifier: Apache-2.0
"""A user's own videos are found as `raw_trees` planned them."""

import numpy as np
import pytest

from mdhr_jax.data.builders import folder, recordings
from mdhr_jax.errors import InputError
from tests.data import raw_trees

LABELS = [[0, 1], [1, 9], [None, 0], [-1, 1]]
READ = [[0, 1], [1, -1], [-1, 0], [-1, 1]]


def _plan(**changes):
    return [
        raw_trees.OwnVideo(name="clips/a", labels=LABELS, **({"subject": "anna"} | changes)),
        raw_trees.OwnVideo(name="clips/b", labels=LABELS[::-1], **({"subject": "ben"} | changes)),
    ]


def _shown(recording):
    frames = recording.source.frames(recording.numbers, pytest.fail)
    return {number: raw_trees.read_blobs(frame.picture).frame for frame, number, _ in frames}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"one_csv": False},
        {"as_video": False},
        {"one_csv": False, "as_video": False, "line_end": "\r\n"},
        {"video_column": "file", "codec": "mjpeg"},
    ],
)
def test_videos_pictures_and_labels_are_those_of_the_plan(tmp_path, options):
    raw_trees.write_folder(tmp_path, _plan(), **options)
    found, layout = folder.find(tmp_path)
    assert layout.aus == (1, 12)
    assert [recording.subject for recording in found.recordings] == ["anna", "ben"]
    assert len({recording.name for recording in found.recordings}) == 2
    assert [recording.subject for recording in found.recordings] == ["anna", "ben"]
    for recording, labels in zip(found.recordings, [READ, READ[::-1]], strict=True):
        np.testing.assert_array_equal(recording.labels, labels)
        assert _shown(recording) == {1: 0, 2: 1, 3: 2, 4: 3}


def test_openface_tables_take_the_person_from_the_folder(tmp_path):
    plan = [raw_trees.OwnVideo(name="anna/a", labels=LABELS, failed=frozenset({2}))]
    raw_trees.write_folder(tmp_path, plan, one_csv=False, headers="openface", openface_r=True)
    found, layout = folder.find(tmp_path)
    (recording,) = found.recordings
    assert (recording.subject, recording.name) == ("anna", "anna/a")
    assert layout.aus == (1, 12)
    assert recording.numbers.tolist() == [1, 3, 4]


def test_frames_between_labels_are_left_out(tmp_path):
    plan = [raw_trees.OwnVideo(name="a", labels=LABELS, subject="anna", first=3, frames=9)]
    raw_trees.write_folder(tmp_path, plan)
    (recording,) = folder.find(tmp_path)[0].recordings
    assert _shown(recording) == {3: 2, 4: 3, 5: 4, 6: 5}


def test_other_tables_are_left_alone(tmp_path):
    raw_trees.write_folder(tmp_path, _plan())
    (tmp_path / "notes.csv").write_text("who,when\nanna,today\n")
    assert len(folder.find(tmp_path)[0].recordings) == 2


def _write(tmp_path, *lines):
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["video,frame,AU01", "a,1,1"], "line 2: person ''"),
        (["video,frame,subject,AU01", "a,1,an na,1"], "line 2: person 'an na'"),
        (["video,frame,subject,AU01", "a,1,anna,2"], "line 2, column 4: label '2'"),
        (["video,frame,subject,AU01", "a,x,anna,1"], "line 2: frame 'x'"),
        (["video,frame,subject,AU01", "a,1,anna"], "line 2: 3 values"),
        (["video,frame,subject,AU01", "a,1,anna,1", "a,1,anna,1"], "line 3: frame 1 of a"),
        (["video,frame,subject,AU01", "../a,1,anna,1"], "lies outside"),
        (["video,frame,subject,AU01", "/a,1,anna,1"], "names no video in"),
        (["video,frame,subject,AU01,AU01_c", "a,1,anna,1,0"], "line 1: two columns for one AU"),
        (["video,frame,subject,AU01", "none,1,anna,1"], "found nothing"),
        (["video,frame,subject,AU01", ",1,anna,1"], "line 2: '' names no video"),
        (["video,frame,subject,AU01", "..,1,anna,1"], "line 2: '..' names no video"),
        (["video,frame,subject,AU01", "a\x00b,1,anna,1"], "line 2"),
        (["frame,label", "1,1"], "no CSV file with the columns"),
    ],
)
def test_broken_tables_are_refused(tmp_path, lines, message):
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match=message):
        folder.find(_write(tmp_path, *lines))


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/1.png").write_bytes(b"")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="lies outside"):
        folder.find(_write(inside, "video,frame,subject,AU01", "a,1,anna,1"))


@pytest.mark.parametrize("link", ["a.mp4", "b/1.png"])
def test_a_video_or_picture_that_is_a_link_out_of_the_folder_is_refused(tmp_path, link):
    (tmp_path / "outside").write_bytes(b"")
    inside = tmp_path / "inside"
    (inside / "b").mkdir(parents=True)
    (inside / link).symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match=rf"{link}: lies outside"):
        folder.find(_write(inside, "video,frame,subject,AU01", f"{link[0]},1,anna,1"))


@pytest.mark.parametrize(
    "text",
    [
        "9",
        "-1",
        "",
        "nan",
        "NaN",
        "NA",
        "N/A",
        "#N/A",
        "-nan(ind)",
        "1.#QNAN",
        "None",
        ".",
        "#NV",
        "#REF!",
    ],
)
def test_labels_that_nobody_coded_are_unknown(tmp_path, text):
    (tmp_path / "a").mkdir()
    lines = ["video,frame,subject,AU01", f"a,1,anna,{text}", "a,2,anna,1"]
    (recording,) = folder.find(_write(tmp_path, *lines))[0].recordings
    assert recording.labels.tolist() == [[-1], [1]]


def test_tables_of_spreadsheets_are_read(tmp_path):
    """A byte order mark and Windows line ends."""
    (tmp_path / "a").mkdir()
    table = b"\xef\xbb\xbfframe,subject,AU01\r\n1,anna,1\r\n"
    (tmp_path / "a.csv").write_bytes(table)
    (recording,) = folder.find(tmp_path)[0].recordings
    assert (recording.numbers.tolist(), recording.labels.tolist()) == ([1], [[1]])


def test_a_table_with_a_line_end_in_its_name_is_seen(tmp_path):
    table = "video,frame,subject,AU01\na.mp4,1,anna,1\n"
    assert list(_found(tmp_path, {"my\nlabels.csv": table, "a.mp4": ""})[0]) == [("anna", "a.mp4")]


def test_a_table_that_is_not_text_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"frame,subject,AU01\n1,anna,1\n2,\x81,1\n")
    with pytest.raises(InputError, match=r"a\.csv, line 3: this is not text"):
        folder.find(tmp_path)


def test_files_with_other_aus_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("frame,subject,AU01\n1,anna,1\n")
    (tmp_path / "b.csv").write_text("frame,subject,AU02\n1,anna,1\n")
    with pytest.raises(InputError, match="label the same ones"):
        folder.find(tmp_path)


def test_two_videos_of_one_name_are_refused(tmp_path):
    for suffix in (".avi", ".mp4"):
        (tmp_path / f"a{suffix}").write_bytes(b"")
    with pytest.raises(InputError, match=r"found a\.avi, a\.mp4"):
        folder.find(_write(tmp_path, "video,frame,subject,AU01", "a,1,anna,1"))


def test_videos_of_one_name_in_two_folders_are_two_recordings(tmp_path):
    plan = [
        raw_trees.OwnVideo(name=f"{d}/cam", labels=LABELS, subject="anna") for d in ("s1", "s2")
    ]
    raw_trees.write_folder(tmp_path, plan, video_column="file")
    found, _ = folder.find(tmp_path)
    assert len({recording.name for recording in found.recordings}) == 2


def test_frame_0_of_a_video_is_refused(tmp_path):
    raw_trees.write_folder(tmp_path, _plan())
    file = tmp_path / "labels.csv"
    header, first, *rows = file.read_text().splitlines()
    column = header.split(",").index("frame")
    cells = first.split(",")
    file.write_text(
        "\n".join([header, ",".join([*cells[:column], "0", *cells[column + 1 :]]), *rows])
    )
    with pytest.raises(InputError, match="frames of a video count from 1"):
        folder.find(tmp_path)


def _tree(root, files):
    """Files by name; films without content do where nobody decodes them."""
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def _found(root, files):
    """What is found of each recording: frames to labels; and the notes."""
    found, _ = folder.find(_tree(root, files))
    read = {
        (each.subject, each.name): dict(
            zip(each.numbers.tolist(), each.labels.tolist(), strict=True)
        )
        for each in found.recordings
    }
    return read, found.notes


@pytest.mark.parametrize("kind", ["AU01_p,AU01_c", "au1_P", "AU01,AU01_p"])
def test_scores_of_a_model_are_no_labels(tmp_path, kind):
    scores = f"frame,timestamp,{kind}\n1,0.0,0.9{',1' * kind.count(',')}\n"
    labels = "video,frame,subject,AU01\nanna/a.mp4,1,anna,0\n"
    files = {"anna/a.csv": scores, "labels.csv": labels, "anna/a.mp4": ""}
    read, notes = _found(tmp_path, files)
    assert read == {("anna", "anna/a.mp4"): {1: [0]}}
    (note,) = notes
    assert note.startswith("anna/a.csv: these are scores that a model gave")


def test_scores_of_a_model_alone_are_refused(tmp_path):
    files = {"anna/a.csv": "frame,AU01_p\n1,0.9\n", "anna/a.mp4": ""}
    with pytest.raises(InputError, match=r"no CSV file .* \(anna/a\.csv: these are scores"):
        _found(tmp_path, files)


@pytest.mark.parametrize(
    "name", ["anna/a.mp4", "anna/a", "./anna//a.mp4", "anna\\a.mp4", "ln/a.mp4"]
)
def test_a_film_labelled_twice_is_refused_by_whatever_name(tmp_path, name):
    (tmp_path / "ln").symlink_to(tmp_path / "anna")
    files = {
        "a.csv": f"video,frame,subject,AU01\n{name},1,anna,0\n",
        "b.csv": "video,frame,subject,AU01\nanna/a.mp4,1,anna,1\n",
        "anna/a.mp4": "",
    }
    with pytest.raises(InputError, match=r"b\.csv, line 2: frame 1 of .* before, in .*a\.csv"):
        _found(tmp_path, files)


def test_a_film_may_be_labelled_in_parts(tmp_path):
    header = "video,frame,subject,AU01\n"
    files = {"1.csv": f"{header}a,1,anna,0\n", "2.csv": f"{header}a.mp4,2,anna,1\n", "a.mp4": ""}
    assert _found(tmp_path, files) == ({("anna", "a"): {1: [0], 2: [1]}}, ())


def test_a_film_of_two_people_is_refused(tmp_path):
    table = "video,frame,subject,AU01\na,1,anna,0\na,2,ben,1\n"
    with pytest.raises(InputError, match=r"line 3: a shows ben, but anna in .*, line 2"):
        _found(tmp_path, {"labels.csv": table, "a.mp4": ""})


@pytest.mark.parametrize(
    ("shown", "lost"),
    [
        *(("1", "0"), ("1", ""), ("1", "nan"), ("1", "NA"), ("1", "-nan(ind)"), ("1", "#VALUE!")),
        *(("1.0", "0.0"), ("1.0", "0.00"), ("1.0", ".00")),
        *(("True", "False"), ("True", "FALSE"), ("True", "no")),
    ],
)
def test_rows_without_a_face_are_left_out_and_counted(tmp_path, lost, shown):
    table = f"frame,success,AU01_c\n1,{shown},1.0\n2,{lost},0.0\n3,{lost},0.0\n"
    read, notes = _found(tmp_path, {"anna/a.csv": table, "anna/a.mp4": ""})
    assert read == {("anna", "anna/a"): {1: [1]}}
    assert notes == ("anna/a.csv: 2 of 3 rows show no face (success 0), left out",)


@pytest.mark.parametrize(
    ("file", "first", "message"),
    [
        ("a.mp4", 0, r"anna/a: its table has a frame 0, but frames of a video count from 1"),
        ("a/{}.png", 1, r"labels are of the frames 1 to 10, the pictures' names end in 0 to 9"),
        ("a/{}.png", 5, r"labels are of the frames 5 to 14, the pictures' names end in 0 to 9"),
    ],
)
@pytest.mark.parametrize("faceless", [{0}, {0, 1, 2}, {0, 9}])
def test_numbers_of_rows_without_a_face_are_checked_as_well(
    tmp_path, file, first, message, faceless
):
    """Else all labels would be one frame late."""
    rows = [f"{first + row},{int(row not in faceless)},1\n" for row in range(10)]
    files = dict.fromkeys([f"anna/{file.format(number)}" for number in range(10)], "")
    files["anna/a.csv"] = f"frame,success,AU01\n{''.join(rows)}"
    with pytest.raises(InputError, match=message):
        recordings.check_numbers(folder.find(_tree(tmp_path, files))[0].recordings)


def test_a_film_of_which_no_row_shows_a_face_is_named(tmp_path):
    lost = "frame,success,AU01\n0,0,0\n1,0,0\n"
    files = {"anna/a.csv": PLAIN, "anna/a.mp4": "", "anna/b.csv": lost, "anna/b.mp4": ""}
    read, notes = _found(tmp_path, files)
    assert list(read) == [("anna", "anna/a")]
    assert len(notes) == 2 and notes[-1].endswith("without labels, left out: anna/b.mp4")


@pytest.mark.parametrize("table", ["frame;AU01\n{};1\n", "frame\tAU01\n{}\t1\n"])
@pytest.mark.parametrize("number", ["1.000", "1,000", "12,000"])
def test_a_thousand_is_not_one(tmp_path, table, number):
    """Excel and others part thousands so."""
    with pytest.raises(InputError, match=r"line 2: is frame .*\.000 .* or 12?000\?"):
        _found(tmp_path, {"anna/a.csv": table.format(number)})


@pytest.mark.parametrize("number", ["12", "12.", "12,0", "12.00", "12.000000"])
def test_whole_numbers_as_programs_write_them(tmp_path, number):
    table = f"frame;AU01\n0,000;1,000\n{number};0.000\n"
    files = {"anna/a.csv": table, "anna/a/0.png": "", "anna/a/12.png": ""}
    assert _found(tmp_path, files)[0] == {("anna", "anna/a"): {0: [1], 12: [0]}}


@pytest.mark.parametrize("success", ["2", "0.98", "maybe"])
def test_success_is_yes_or_no(tmp_path, success):
    with pytest.raises(InputError, match=f"line 2: success '{success}' is neither"):
        _found(tmp_path, {"anna/a.csv": f"frame,success,AU01\n1,{success},1\n"})


@pytest.mark.parametrize(
    "name",
    [
        "AU04",
        "AU4",
        "au4",
        "AU_04",
        "AU 4",
        "AU-4",
        "AU.4",
        "AU4_c",
        "AU_04_C",
        "AU004",
        "\uff21\uff35\uff14",
    ],
)
def test_columns_of_aus_in_every_spelling(tmp_path, name):
    table = f"frame,AU01,{name},AU12_r,AU12_c,audio,tau2,AUs\n1,0,1,2.5,True,0.1,0.2,3\n"
    _tree(tmp_path, {"anna/a.csv": table, "anna/a.mp4": ""})
    found, layout = folder.find(tmp_path)
    assert layout.aus == (1, 4, 12)
    assert found.recordings[0].labels.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("AU01,AU_04,AU12L,AU12R", "line 1: is AU12L, AU12R the label of an AU"),
        ("AU01,L_AU12", "is L_AU12"),
        ("AU01,AU12_std", "is AU12_std"),
        ("AU01,labelAU12", "is labelAU12"),
        ("AU01,AU6+12", r"is AU6\+12"),
        ("AU01,Action Unit 12", "is Action Unit 12"),
        ("AU01,AU L12,AU R12", "is AU L12, AU R12"),
        ("AU01,AUL12", "is AUL12"),
        ("AU01,AU_R_04", "is AU_R_04"),
        ("AU01,AUR12_c", "is AUR12_c"),
        ("AU01,AUs12", "is AUs12"),
        ("AU01,aul12", "is aul12"),
        ("AU01,Au-Left-12", "is Au-Left-12"),
        ("AU01,AU (right) 12", r"is AU \(right\) 12"),
        ("AU01,12AU", "is 12AU"),
        ("AU01,12_au_L", "is 12_au_L"),
        ("AU01,AU99", "is AU99"),
        ("AU01,AU3", "is AU3 "),
        ("AU01,AU0", "is AU0 "),
        ("AU01 AU12", "is frame|is AU01 AU12"),
        ("AU01,AU12_r", "AU12_r are intensities without labels"),
        ("AU04,AU_4", "two columns for one AU, AU04 and AU_4"),
        ("AU01,frame", "two columns frame"),
    ],
)
def test_columns_that_may_be_labels_are_refused_by_name(tmp_path, columns, message):
    with pytest.raises(InputError, match=message):
        _found(tmp_path, {"anna/a.csv": f"frame,{columns}\n", "anna/a.mp4": ""})


def test_columns_that_are_not_read_are_named(tmp_path):
    """A person is named in a column subject, not Participant; OpenFace's columns are known."""
    openface = "face_id,timestamp,gaze_0_x,eye_lmk_X_12,pose_Tx,X_0,p_rx,p_12,AU01_r"
    table = f"frame,Participant,AU01,{openface},\n1,anna,1{',0.5' * 9},\n"
    films = dict.fromkeys(["s1/a.mp4", "s2/a.mp4", "s3/a.mp4"], "")
    tables = {"s1/a.csv": table, "s2/a.csv": table, "s3/a.csv": table.replace("Part", "Id,Part")}
    tables["s3/a.csv"] = tables["s3/a.csv"].replace("1,anna", "1,7,anna")
    read, notes = _found(tmp_path, films | tables)
    assert len(read) == 3
    assert notes == (
        "s1/a.csv, s2/a.csv: not read are the columns Participant",
        "s3/a.csv: not read are the columns Id, Participant",
    )


def test_labels_without_a_column_frame_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.csv, line 1: names AUs, but no column frame"):
        _found(tmp_path, {"anna/a.csv": "frame_nr,AU01\n1,0\n", "anna/a.mp4": ""})


PLAIN = "frame,AU01\n1,0\n2,1\n"


@pytest.mark.parametrize(
    "table",
    [
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", " | "),
        PLAIN.replace(",", "\u00a0,"),
        "sep=;\r\nframe;AU01\r\n1;0\r\n2;1\r\n",
        "frame;AU01\n1,0;0,0\n2,0;1,0\n",
        "frame\tAU01\n1\t,00\n2\t1,00\n",  # SPSS
        "frame,AU01\n1,.00\n2,1.00\n",
        '"frame";"AU01"\n"1";"0"\n"2";"1"\n',
        PLAIN.encode("utf-16"),
        PLAIN.replace(",", ";").encode("utf-16-be").join([b"\xfe\xff", b""]),
        PLAIN.replace(",", ";").encode("utf-8-sig"),
        PLAIN.replace("\n", "\r"),
        "frame,AU01,who\n1,0,Müller\n2,1,\n".encode("latin-1"),
        "frame,AU01\r\n1,0\r\n2,1\r\n,\r\n",
        "frame;AU01\n1;0\n2;1\n ; \n;;\n\x1a",
        "\nframe,AU01\n1,0,,\n2,1,\n",
    ],
)
def test_tables_as_programs_save_them(tmp_path, table):
    files = {"anna/a.csv": PLAIN, "anna/a.mp4": "", "ben/a.csv": table, "ben/a.mp4": ""}
    labels = {1: [0], 2: [1]}
    assert _found(tmp_path, files)[0] == {("anna", "anna/a"): labels, ("ben", "ben/a"): labels}


@pytest.mark.parametrize(
    "name",
    [
        "talk [x1]",
        "50% *new*",
        "who?",
        "a.b",
        "x: y",
        "{1,2}",
        "Jos\u00e9",
        "Jose\u0301",
        "\u91d1\u66dc",
    ],
)
@pytest.mark.parametrize("written", ["{}.mp4", "{}"])
def test_a_name_is_a_name(tmp_path, name, written):
    files = {
        "labels.csv": f'video,frame,subject,AU01\n"{written.format(name)}",1,anna,1\n',
        f"{name}.mp4": "",
        **dict.fromkeys(["talk x.mp4", "talk 1.mp4", "Jose.mp4", "50% new.mp4", "whom.mp4"], ""),
    }
    read, _ = _found(tmp_path, files)
    assert list(read) == [("anna", written.format(name))]


@pytest.mark.parametrize(("film", "table"), [("1", "clip[1]"), ("one", "cli?"), ("2", "clip*")])
def test_labels_go_to_the_film_of_their_own_name(tmp_path, film, table):
    """Read as a pattern the table's name would fit another film."""
    files = {f"clip{film}.mkv": "", "clip.mkv": "", f"{table}.mkv": "", f"{table}.csv": PLAIN}
    _tree(tmp_path / "anna", files)
    (recording,) = folder.find(tmp_path)[0].recordings
    assert recording.source.file.name == f"{table}.mkv"


@pytest.mark.parametrize(
    ("written", "lies"),
    [("Jos\u00e9/a\u0308.mp4", "Jose\u0301/\u00e4.mp4"), ("Jose\u0301/a", "Jos\u00e9/a.mp4")],
)
def test_both_unicode_forms_of_a_name(tmp_path, written, lies):
    table = f"video,frame,subject,AU01\n{written},1,anna,1\n"
    _tree(tmp_path, {"labels.csv": table, lies: ""})
    (recording,) = folder.find(tmp_path)[0].recordings
    assert recording.source.file == tmp_path / lies


def test_a_name_as_windows_writes_it(tmp_path):
    table = "video,frame,AU01\nanna\\a.mp4,1,1\n"
    read, _ = _found(tmp_path, {"labels.csv": table, "anna/a.mp4": ""})
    assert read == {("anna", "anna/a.mp4"): {1: [1]}}
    with pytest.raises(InputError, match="names no video in"):
        _found(tmp_path, {"labels.csv": table.replace("anna", "C:\\anna")})


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("Anna/A.MP4", "holds anna"),
        ("anna/A.MP4", "anna holds a.mp4"),
        ("anna/a_labels", "anna holds a.mp4, b.avi"),
    ],
)
def test_what_lies_near_is_named(tmp_path, written, near):
    table = f"video,frame,AU01\n{written},1,1\n"
    files = {"anna/a.csv": table, "anna/a.mp4": "", "anna/b.avi": ""}
    with pytest.raises(InputError, match=f"found nothing; .*{near}$"):
        _found(tmp_path, files)


def test_files_of_other_programs_beside_the_film(tmp_path):
    names = ["a.eaf", "a.pfsx", "a.wav", "a.srt", "a.TextGrid", "a.xlsx", "a.hdf5"]
    files = dict.fromkeys([f"anna/{name}" for name in names], b"\0")
    assert len(_found(tmp_path, files | {"anna/a.csv": PLAIN, "anna/a.mp4": ""})[0]) == 1


def test_what_systems_put_beside_is_ignored(tmp_path):
    junk = ["anna/._a.csv", "anna/.DS_Store", "__MACOSX/anna/._a.csv", ".Trash/a.csv", "~$a.csv"]
    files = dict.fromkeys([*junk, "__MACOSX/anna/a.csv", "@eaDir/a.csv"], b"\0\5\x16\7")
    read, notes = _found(tmp_path, files | {"anna/a.csv": PLAIN, "anna/a.mp4": ""})
    assert (list(read), notes) == ([("anna", "anna/a")], ())


def test_what_has_no_labels_is_named(tmp_path):
    films = dict.fromkeys(["anna/a.mp4", "anna/b.MOV", "ben/a.mp4", "cy/p_1.png", "cy/x.png"], "")
    tables = {"anna/a.csv": PLAIN, "ben/a.csv": PLAIN[:11], "who.csv": "who,when\nanna,today\n"}
    _, notes = _found(tmp_path, films | tables)
    assert notes == (
        "ben/a.csv: labels no frame",
        "1 tables without a column such as AU01, left out: who.csv",
        "3 videos or folders of pictures without labels, left out: anna/b.MOV, ben/a.mp4, cy",
    )


def test_pictures_that_are_not_read_are_refused_by_name(tmp_path):
    files = {"anna/a.csv": PLAIN, "anna/a/1.jpg": "", "anna/a/2.jxl": ""}
    with pytest.raises(InputError, match=r"2\.jxl: pictures of this kind are not read"):
        _found(tmp_path, files)
    (tmp_path / "anna/a/2.png").touch()  # frame 2 after all
    assert len(folder.find(tmp_path)[0].recordings) == 1


def test_pictures_one_by_one(tmp_path):
    """Each may show another person; it has its name's number as in a folder."""
    table = "video,frame,subject,AU01\nx/anna.jpg,1,anna,1\nx/p_12.png,12,ben,0\n"
    _tree(tmp_path, {"labels.csv": table, "x/anna.jpg": "", "x/p_12.png": ""})
    anna, ben = folder.find(tmp_path)[0].recordings
    assert anna.source.by_number == {1: tmp_path / "x/anna.jpg"}
    assert ben.source.by_number == {12: tmp_path / "x/p_12.png"}
    assert (anna.subject, ben.subject) == ("anna", "ben")


def test_a_film_beside_its_pictures_is_refused(tmp_path):
    files = {"anna/a.csv": PLAIN, "anna/a.mp4": "", "anna/a/1.jpg": ""}
    with pytest.raises(InputError, match=r"found a\.mp4, a"):
        _found(tmp_path, files)
    (tmp_path / "anna/a/1.jpg").unlink()  # now a folder of whatever
    assert len(folder.find(tmp_path)[0].recordings) == 1


def test_a_folder_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone: cannot be read \(No such file"):
        folder.find(tmp_path / "gone")
