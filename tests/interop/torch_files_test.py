# SPDX-License-Identifier: Apache-2.0
"""Torch files written by hand, instruction by instruction: honest ones and hostile ones."""

import io
import pickle
import random
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from mdhr_jax import pickles
from mdhr_jax.errors import InputError
from mdhr_jax.interop import torch_files

VALUES = np.arange(6, dtype=np.float32)
BYTES = VALUES.tobytes()


def _text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _int(value):
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else _long(value)


def _long(value):
    raw = pickle.encode_long(value)
    return b"\x8a" + bytes([len(raw)]) + raw


def _tuple(*items):
    return b"(" + b"".join(items) + b"t"


def _ints(values):
    return _tuple(*map(_int, values))


def _name(module, name):
    return f"c{module}\n{name}\n".encode()


def _call(module, name, *arguments):
    return _name(module, name) + _tuple(*arguments) + b"R"


def _dict(**entries):
    return b"}(" + b"".join(_text(k) + v for k, v in entries.items()) + b"u"


def _storage(key="0", kind="FloatStorage", numel=6):
    return (
        _tuple(_text("storage"), _name("torch", kind), _text(key), _text("cpu"), _int(numel)) + b"Q"
    )


def _tensor(storage=None, offset=0, shape=(2, 3), strides=(3, 1)):
    return _call(
        "torch._utils",
        "_rebuild_tensor_v2",
        storage or _storage(),
        _int(offset),
        shape if isinstance(shape, bytes) else _ints(shape),
        strides if isinstance(strides, bytes) else _ints(strides),
        b"\x89",
        _call("collections", "OrderedDict"),
    )


def _whole(contents):
    return b"\x80\x02" + contents + b"."


def _archive(contents, storages=None, compression=zipfile.ZIP_STORED, more=()):
    """A zip file with the pickle of `contents` and the storages, `VALUES` by default."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", _whole(contents))
        archive.writestr("archive/byteorder", "little")
        for key, data in (storages or {"0": BYTES}).items():
            archive.writestr(f"archive/data/{key}", data)
        for name, data in more:
            archive.writestr(name, data)
    return file.getvalue()


def _legacy(contents, keys=("0",), numel=6, data=BYTES, listed=None):
    """The row of pickles that torch wrote before version 1.6."""
    machine = _dict(protocol_version=_int(1001), little_endian=b"\x88")
    listed = listed or b"](" + b"".join(map(_text, keys)) + b"e"
    pickled = [_long(0x1950A86A20F9469CFC6C), _int(1001), machine, contents, listed]
    return b"".join(map(_whole, pickled)) + struct.pack("<q", numel) + data


def _legacy_storage(view=b"N", numel=6):
    return (
        _tuple(
            _text("storage"),
            _name("torch", "FloatStorage"),
            _text("0"),
            _text("cpu"),
            _int(numel),
            view,
        )
        + b"Q"
    )


def _patched(offset, value):
    """An honest archive in which two bytes of each entry of the central directory are replaced."""
    raw = bytearray(_archive(_dict(a=_tensor())))
    position = -1
    while (position := raw.find(b"PK\x01\x02", position + 1)) >= 0:
        raw[position + offset : position + offset + len(value)] = value
    return bytes(raw)


def _with_version(version):
    return _patched(6, struct.pack("<H", version))


def _with_flags(flags):
    return _patched(8, struct.pack("<H", flags))


def _with_sizes(size):
    return _patched(20, struct.pack("<II", size, size))


def _read(tmp_path, raw):
    file = tmp_path / "file.pth"
    file.write_bytes(raw)
    return torch_files.read_state_dict(file)


ODD_NESTS = b"]" * 40 + b"a" * 39
HONEST = {
    "alone": _archive(_dict(a=_tensor())),
    "in a checkpoint": _archive(_dict(epoch=_int(3), state_dict=_dict(a=_tensor()))),
    "from Swin": _archive(_dict(model=_dict(a=_tensor()))),
    "old format": _legacy(_dict(a=_tensor(_legacy_storage()))),
    "as a parameter": _archive(
        _dict(a=_call("torch._utils", "_rebuild_parameter", _tensor(), b"\x88", b"}"))
    ),
    "with attributes": _archive(_dict(a=_tensor()) + _dict(_metadata=b"}") + b"b"),
}


@pytest.mark.parametrize("raw", HONEST.values(), ids=HONEST)
def test_honest_files_are_read(tmp_path, raw):
    (item,) = _read(tmp_path, raw).items()
    assert item[0] == "a"
    np.testing.assert_array_equal(item[1], VALUES.reshape(2, 3))


def test_strides_and_offsets_are_followed(tmp_path):
    turned = _tensor(shape=(3, 2), strides=(1, 3))
    np.testing.assert_array_equal(
        _read(tmp_path, _archive(_dict(a=turned)))["a"], VALUES.reshape(2, 3).T
    )
    part = _tensor(offset=2, shape=(3,), strides=(1,))
    np.testing.assert_array_equal(_read(tmp_path, _archive(_dict(a=part)))["a"], VALUES[2:5])


def test_what_is_written_is_read_back(tmp_path):
    arrays = {
        "whole": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "steps": np.array(7, np.int64),
        "half": np.ones(2, np.float16),
    }
    torch_files.write(tmp_path / "out.pth", arrays)
    found = torch_files.read_state_dict(tmp_path / "out.pth")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


TOUCH = _text("touch CANARY")
NAMES_NOT_ALLOWED = {
    "os.system": _call("os", "system", TOUCH),
    "posix.system": _call("posix", "system", TOUCH),
    "builtins.eval": _call("builtins", "eval", _text("open('CANARY', 'w')")),
    "builtins.exec": _call("builtins", "exec", _text("open('CANARY', 'w')")),
    "__builtin__.eval": _call("__builtin__", "eval", _text("open('CANARY', 'w')")),
    "builtins.getattr": _call("builtins", "getattr", b"N", _text("x")),
    "builtins.open": _call("builtins", "open", _text("CANARY"), _text("w")),
    "subprocess.Popen": _call("subprocess", "Popen", TOUCH),
    "pickle.loads": _call("pickle", "loads", _text("")),
    "runpy._run_code": _call("runpy", "_run_code", _text("open('CANARY', 'w')"), b"}"),
    "pathlib.Path.touch": _call("pathlib", "Path.touch", _text("CANARY")),
    "collections.OrderedDict.__init__": _call("collections", "OrderedDict.__init__"),
    "torch.hub.load": _call("torch.hub", "load", _text("x"), _text("y")),
    "torch.load": _call("torch", "load", _text("x")),
    "torch._utils._rebuild_sparse_tensor": _call("torch._utils", "_rebuild_sparse_tensor"),
    "torch.nn.modules.linear.Linear": _call("torch.nn.modules.linear", "Linear"),
    "numpy.core.multiarray._reconstruct": _call("numpy.core.multiarray", "_reconstruct"),
    "os.popen": _name("os", "popen") + _tuple(TOUCH) + b"\x81",  # NEWOBJ
    "shutil.rmtree": _text("shutil") + _text("rmtree") + b"\x93" + _tuple(_text(".")) + b"R",
}
INSTRUCTIONS_NOT_ALLOWED = {
    "INST": b"(" + TOUCH + b"ios\nsystem\n",
    "OBJ": b"(" + _name("collections", "OrderedDict") + b"o",
    "EXT1": b"\x82\x01",
    "PERSID": b"Pstorage\n",
    "STRING": b"S'\\x41'\n",
    "INT": b"I1\n",
    "BINBYTES8": b"\x8e" + struct.pack("<Q", 1) + b"x",
}
LAUGHS = b")" + b"q\x00h\x00h\x00\x86" * 60  # a tuple of two of the last one, sixty times
WIDE = b"](](" + b"N" * 30000 + b"eq\x00" + b"h\x00" * 30000 + b"e"  # a list in a list, often
FALSE_CLAIMS = {  # names that are allowed, numbers that are not true
    "more numbers than the storage holds": (_tensor(shape=(3, 3)), "which holds 6"),
    "an offset behind the end": (_tensor(offset=4, shape=(3,), strides=(1,)), "which holds"),
    "a large offset": (_tensor(offset=2**39, shape=(1,), strides=(1,)), "which holds 6"),
    "a large shape of stride 0": (_tensor(shape=(2**39,), strides=(0,)), "which holds 6"),
    "a huge offset": (_tensor(offset=2**62, shape=(1,), strides=(1,)), "a tensor of shape"),
    "a huge offset of nothing": (_tensor(offset=2**70, shape=(0,), strides=(1,)), "of shape"),
    "a huge shape": (_tensor(shape=(2**40, 2**40), strides=(2**40, 1)), "a tensor of shape"),
    "a huge shape of nothing": (_tensor(shape=(2**62, 0), strides=(1, 1)), "a tensor of shape"),
    "a shape beyond 64 bits": (_tensor(shape=(2**70, 0), strides=(1, 1)), "a tensor of shape"),
    "large lengths of nothing": (_tensor(shape=(2**39,) * 7 + (0,), strides=(1,) * 8), "of shape"),
    "a huge stride of one": (_tensor(shape=(1, 6), strides=(2**62, 1)), "a tensor of shape"),
    "a huge stride of nothing": (_tensor(shape=(0,), strides=(2**70,)), "a tensor of shape"),
    "a length that is true": (_tensor(shape=_tuple(b"\x88", _int(6)), strides=(6, 1)), "of shape"),
    "a stride that is false": (_tensor(shape=(1, 6), strides=_tuple(b"\x89", _int(1))), "of shape"),
    "a repeated number": (_tensor(shape=(6,), strides=(0,)), "gaps or overlaps"),
    "rows that overlap": (_tensor(shape=(2, 3), strides=(1, 1)), "gaps or overlaps"),
    "strides that leave the storage": (_tensor(shape=(2, 3), strides=(60, 1)), "gaps or over"),
    "a negative stride": (_tensor(shape=(6,), strides=(-1,)), "a tensor of shape"),
    "a negative length": (_tensor(shape=(-6,), strides=(1,)), "a tensor of shape"),
    "a negative offset": (_tensor(offset=-1, shape=(6,), strides=(1,)), "a tensor of shape"),
    "a length that is no number": (_tensor(shape=_tuple(_text("6")), strides=(1,)), "of shape"),
    "a shape that is no tuple": (_tensor(shape=_int(6), strides=(1,)), "without a storage"),
    "fewer strides than axes": (_tensor(shape=(2, 3), strides=(1,)), "a tensor of shape"),
    "a hundred axes": (_tensor(shape=(1,) * 100, strides=(1,) * 100), "a tensor of shape"),
    "a storage larger than its member": (_tensor(_storage(numel=7)), "said to hold 7"),
    "a storage smaller than its member": (_tensor(_storage(numel=5)), "said to hold 5"),
    "a storage of another type": (_tensor(_storage(kind="DoubleStorage")), "x float64"),
    "a storage of huge size": (_tensor(_storage(numel=2**63)), "said to hold 9223372"),
    "a storage of negative size": (_tensor(_storage(numel=-6)), "describes no storage"),
    "a storage that is missing": (_tensor(_storage("1")), "which is not in the archive"),
    "a storage outside": (_tensor(_storage("../../etc/passwd")), "not in the archive"),
    "a tensor of a tuple": (_tensor(_ints([1])), "without a storage"),
    "a tensor without arguments": (_call("torch._utils", "_rebuild_tensor_v2"), "broken pickle"),
    "a parameter of a number": (_call("torch._utils", "_rebuild_parameter", _int(1)), "a param"),
    "a call of a storage type": (_call("torch", "FloatStorage", _int(9)), "torch.FloatStorage"),
    "an ordered dict of numbers": (_call("collections", "OrderedDict", _ints([1])), "but pairs"),
}
STREAMS = {
    "doubled tuples as an identifier": (_archive(LAUGHS + b"Q"), "describes no storage"),
    "doubled tuples as a shape": (
        _archive(_dict(a=_tensor(shape=_tuple(LAUGHS), strides=(1,)))),
        "a tensor of shape",
    ),
    "doubled tuples as a name": (_archive(LAUGHS + LAUGHS + b"\x93"), "a name that is no text"),
    "doubled tuples as storages": (
        _legacy(_dict(a=_tensor(_legacy_storage())), listed=b"](" + LAUGHS + b"e"),
        "storages that are not those",
    ),
    "one list many times over": (_archive(_dict(a=_tensor(), b=WIDE)), "no state|instructions"),
    "a name of two lines": (
        _archive(_text("os\nsystem") + _text("x") + b"\x93"),
        r"the name 'os\\nsystem",
    ),
    "an entry of two lines": (_archive(_dict(**{"a\nb": _tensor()})), "no state_dict"),
    "one storage, two types": (
        _archive(_dict(a=_tensor(), b=_tensor(_storage(kind="IntStorage")))),
        "described in two ways",
    ),
    "old format, a size beyond 64 bits": (
        _legacy(_dict(a=_tensor(_legacy_storage(numel=2**70)))),
        "cut off after",
    ),
    "old format, text of claimed 2^62 bytes": (
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62),
        "broken pickle",
    ),
    "members of claimed 4 GB": (_with_sizes(2**32 - 2), "are expected|said to hold"),
    "an encrypted member": (_with_flags(1), "encrypted"),
    "a member for a later zip": (_with_version(99), "zip file version"),
    "nested lists": (_archive(_dict(a=_tensor(), b=ODD_NESTS)), "nested more than"),
    "a list in itself": (_archive(_dict(a=_tensor(), b=b"]q\x00h\x00a")), "'b' among tensors"),
    "endless instructions": (_archive(b"]" + b"Na" * 2**18), "instructions"),
    "a huge memo slot": (_archive(b"}r\xff\xff\xff\xff" + b"j\xfe\xff\xff\xff"), "broken pickle"),
    "text of claimed 4 GB": (_archive(b"X\xff\xff\xff\xffabc"), "broken pickle"),
    "text of claimed 2^63 bytes": (_archive(b"\x8d" + b"\xff" * 7 + b"\x7f"), "broken pickle"),
    "an empty stack": (_archive(b"R"), "broken pickle"),
    "two values": (_archive(b"}}"), "broken pickle"),
    "no end": (_archive(b"}").replace(b"}.", b"}}"), "broken"),
    "a name twice": (_archive(b"}(" + (_text("a") + _tensor()) * 2 + b"u"), "two entries named"),
    "keys that are tensors": (_archive(b"}" + _tensor() + b"Ns"), "a dict key of type Tensor"),
    "two tensors, one storage": (_archive(_dict(a=_tensor(), b=_tensor())), "overlap, a and b"),
    "no tensors": (_archive(_dict(a=_int(1))), "no state_dict"),
    "no dict": (_archive(_tensor()), "no state_dict"),
    "a compressed pickle": (
        _archive(_dict(a=_tensor()), {"0": BYTES}, zipfile.ZIP_DEFLATED),
        "a compressed member",
    ),
    "two structures": (
        _archive(_dict(a=_tensor()), more=[("other/data.pkl", _whole(b"}"))]),
        "2 members",
    ),
    "a false sum": (
        _archive(_dict(a=_tensor())).replace(BYTES, VALUES[::-1].tobytes()),
        "Bad CRC",
    ),
    "a cut archive": (_archive(_dict(a=_tensor()))[:-30], "cut off after 504 of 505 bytes or more"),
    "old format, a view": (
        _legacy(_dict(a=_tensor(_legacy_storage(_tuple(_text("v"), _int(0), _int(3)))))),
        "a view of another one",
    ),
    "old format, numbers missing": (
        _legacy(_dict(a=_tensor(_legacy_storage())), data=VALUES[:5].tobytes()),
        "cut off after 275 of 279 bytes",
    ),
    "old format, another size": (
        _legacy(_dict(a=_tensor(_legacy_storage())), numel=2**40),
        "not there",
    ),
    "old format, other storages": (
        _legacy(_dict(a=_tensor(_legacy_storage())), keys=("1",)),
        "storages that are not those",
    ),
    "old format, a call in the magic number": (
        _whole(NAMES_NOT_ALLOWED["os.system"]) + _legacy(_dict(a=_tensor())),
        "os.system",
    ),
    "plain pickle": (_whole(_dict(a=_int(1))), "being no torch file"),
    "text": (b"state_dict\n", "broken pickle|no torch file"),
    "an unknown escape": (b"P\\J\n", "the instruction PERSID"),
    "nothing": (b"", "broken pickle"),
}
HOSTILE = (
    {f"name {k}": (_archive(_dict(a=v)), f"the name {k};") for k, v in NAMES_NOT_ALLOWED.items()}
    | {
        f"instruction {k}": (_archive(_dict(a=v)), f"the instruction {k};|the name")
        for k, v in INSTRUCTIONS_NOT_ALLOWED.items()
    }
    | {k: (_archive(_dict(a=v)), message) for k, (v, message) in FALSE_CLAIMS.items()}
    | STREAMS
)


@pytest.mark.parametrize(("raw", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_by_name(tmp_path, monkeypatch, raw, message):
    monkeypatch.chdir(tmp_path)
    # The type checks of these tests slow every instruction down.
    monkeypatch.setattr(pickles, "MAX_INSTRUCTIONS", 1000)
    with pytest.raises(InputError, match=message) as refused:
        _read(tmp_path, raw)
    assert "\n" not in str(refused.value)
    assert [file.name for file in tmp_path.iterdir()] == ["file.pth"]


def test_what_else_a_checkpoint_holds_is_passed_over_and_named(tmp_path, monkeypatch, capsys):
    """Lightning's callbacks and settings, numbers of NumPy, and a call that is not made."""
    monkeypatch.chdir(tmp_path)
    scalar = _call("numpy.core.multiarray", "scalar", _call("numpy", "dtype", _text("f8")))
    settings = (
        _call("argparse", "Namespace") + _dict(rate=scalar, size=_name("torch", "Size")) + b"b"
    )
    default = _call("collections", "defaultdict", _name("builtins", "list"))
    filled = default + b"(" + _text("x") + _call("builtins", "set", b"]") + b"u"
    callbacks = b"}" + _name("callbacks", "Best") + _dict(score=_tensor()) + b"s"
    beside = {
        "epoch": scalar,
        "best": _call("posix", "system", TOUCH),
        "callbacks": callbacks,
        "optimizer_states": b"]"
        + _dict(state=b"}" + _int(0) + _dict(average=_tensor()) + b"s")
        + b"a",
        "hyper_parameters": settings,
        "filled": filled,
        "partly": _call("functools", "partial", _name("torch.optim", "AdamW")) + b")R",
        "deque": _call("collections", "deque") + b"(" + _int(1) + b"e",
    }
    raw = _archive(_dict(**beside, state_dict=_dict(a=_tensor())))
    (array,) = _read(tmp_path, raw).values()
    np.testing.assert_array_equal(array, VALUES.reshape(2, 3))
    (line,) = capsys.readouterr().err.splitlines()
    assert "left out and not run: argparse.Namespace, builtins.list, builtins.set, ..." in line

    raw = _archive(_dict(best=beside["best"], weights=_dict(a=_tensor())))
    assert list(_read(tmp_path, raw)) == ["a"]
    assert "left out and not run: posix.system\n" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["file.pth"]


@pytest.mark.parametrize(
    ("places", "taken"),
    [
        (["model_state_dict"], "model_state_dict"),
        (["ema"], "ema"),
        (["model_ema", "model"], "model"),
        (["state_dict_ema", "model", "state_dict"], "state_dict"),
    ],
)
def test_of_several_state_dicts_the_customary_one_is_taken_and_said(
    tmp_path, capsys, places, taken
):
    storages = {str(number): (VALUES + number).tobytes() for number in range(len(places))}
    dicts = {place: _dict(a=_tensor(_storage(str(n)))) for n, place in enumerate(places)}
    (array,) = _read(tmp_path, _archive(_dict(epoch=_int(1), **dicts), storages)).values()
    np.testing.assert_array_equal(array, VALUES.reshape(2, 3) + places.index(taken))
    said = capsys.readouterr().err
    others = [place for place in places if place != taken]
    assert said == (f"{tmp_path}/file.pth: takes {taken!r}, not {others}\n" if others else "")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (
            _call("__main__", "Net") + _dict(training=b"\x88") + b"b",
            "a whole model, the name __mai",
        ),
        (
            _dict(epoch=_int(1), model=_call("__main__", "Net")),
            "a whole model, the name __main__.N",
        ),
        (_dict(state_dict=_dict(a=_call("x", "Sparse"))), "the name x.Sparse"),
        (_dict(epoch=_int(1), model=_dict(a=_tensor(), b=_int(2))), "'b' among tensors, which is"),
        (_dict(teacher=_dict(a=_tensor()), student=_dict(a=_tensor())), "several state_dicts"),
        (_dict(a=_tensor(_storage(kind="ComplexFloatStorage"))), "of the type torch.ComplexFloat"),
    ],
)
def test_files_without_one_state_dict_are_refused_by_what_they_hold(tmp_path, contents, message):
    expected = rf"refused for .*{message}.*torch.save\(model.state_dict\(\), FILE\)"
    with pytest.raises(InputError, match=expected):
        _read(tmp_path, _archive(contents))


def test_a_program_of_torchscript_is_refused_as_such(tmp_path):
    raw = _archive(_dict(a=_tensor()), more=[("archive/constants.pkl", b"")])
    with pytest.raises(InputError, match="refused for being a TorchScript program"):
        _read(tmp_path, raw)


NUMBERS = [0, 1, 2, 3, 5, 6, 7, -1, 2**31, 2**39, 2**40, 2**62, 2**63, 2**64, 2**70]
ODD = [b"\x88", b"N", _text("6"), b")", b"G\x7f\xf0" + bytes(6), b"h\x00", b"R", b"Q", b"0", b"("]


def _mutated(rng):
    """A file whose tensor claims odd numbers, or an honest one with some bytes replaced."""

    def numbers():
        count = rng.choice([0, 1, 2, 2, 3, 8])
        return _tuple(*(rng.choice(ODD + [_int(x) for x in NUMBERS] * 5) for _ in range(count)))

    if rng.random() < 0.5:
        numel, offset = rng.choice(NUMBERS + [6] * 30), rng.choice(NUMBERS + [0] * 30)
        shape, strides = ((2, 3), (3, 1)) if rng.random() < 0.2 else (numbers(), numbers())
        if rng.random() < 0.3:
            tensor = _tensor(_legacy_storage(numel=numel), offset, shape, strides)
            return _legacy(_dict(a=tensor), numel=min(abs(numel), 2**62))
        return _archive(_dict(a=_tensor(_storage(numel=numel), offset, shape, strides)))
    raw = bytearray(rng.choice(list(HONEST.values())))
    for _ in range(rng.randint(1, 4)):
        place, other = rng.randrange(len(raw)), rng.randrange(len(raw))
        piece = rng.choice([bytes([rng.randrange(256)]), rng.choice(ODD), raw[other : other + 40]])
        raw[place : place + rng.choice([0, 1, 2, 40])] = piece
    return bytes(raw)


@pytest.mark.slow
@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, monkeypatch, count):
    monkeypatch.chdir(tmp_path)
    rng, refused = random.Random(0), 0
    for _ in range(count):
        try:
            (array,) = _read(tmp_path, _mutated(rng)).values()
            assert array.size <= 6
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 1000
    assert 0.9 * count < refused < count
    assert [file.name for file in tmp_path.iterdir()] == ["file.pth"]


READ_ALL = """
import pathlib, sys, time
from mdhr_jax import pickles
from mdhr_jax.interop import torch_files
for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    start = time.perf_counter()
    try:
        torch_files.read_state_dict(file)
    except ValueError:
        print(file.name, time.perf_counter() - start)
"""


def test_refusing_takes_less_than_a_second(tmp_path):
    # In a process of its own, without the type checks of these tests.
    files, elsewhere = tmp_path / "files", tmp_path / "elsewhere"
    files.mkdir(), elsewhere.mkdir()
    for number, (raw, _) in enumerate(HOSTILE.values()):
        (files / str(number)).write_bytes(raw)
    command = [sys.executable, "-c", READ_ALL, files]
    lines = subprocess.run(
        command, cwd=elsewhere, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    seconds = {name: float(took) for name, took in map(str.split, lines)}
    assert len(seconds) == len(HOSTILE)
    assert max(seconds.values()) < 1
    assert not list(elsewhere.iterdir())


def test_the_canary_would_sing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(_whole(NAMES_NOT_ALLOWED["posix.system"]))
    assert (tmp_path / "CANARY").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.pth: cannot be read"):
        torch_files.read_state_dict(tmp_path / "gone.pth")
