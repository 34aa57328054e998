"""Files that somebody else made: they can be wrong, and be refused, but run nothing and take no more than they may."""

import ast
import io
import json
import pickle
import struct
import tarfile
import warnings
import zlib
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from ddpm_jax.data import image_folder, load, source
from ddpm_jax.data.decode import BrokenImageError, decode
from ddpm_jax.data.source import Record, Records
from ddpm_jax.evaluation import bits_per_dim, results
from ddpm_jax.metrics import inception
from ddpm_jax.runtime import foreign_files

ROOT = Path(__file__).parents[1]
SOURCES = [*ROOT.glob("*.py"), *(ROOT / "ddpm_jax").rglob("*.py"), *(ROOT / "configs").glob("*.py")]
# A reader that imports nothing a pickle names; tests/interop attack it.
RESTRICTED = {"torch_file.py": {"pickle"}}
RUN_WHAT_THEY_READ = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "torch"}


def encode(image, file_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *, extra=b"", depth=8, colour=2, pixels=bytes(10)):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def with_size(encoded, offset, layout, *size):
    return encoded[:offset] + struct.pack(layout, *size) + encoded[offset + struct.calcsize(layout) :]


def frames(file_format, count=3):
    pictures = [Image.new("RGB", (4, 4), (80 * i, 0, 0)) for i in range(count)]
    return encode(pictures[0], file_format, save_all=True, append_images=pictures[1:], lossless=True)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_of_ours_reads_what_could_run_code():
    assert len(SOURCES) > 30
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call):
                allowed = [keyword.value for keyword in node.keywords if keyword.arg == "allow_pickle"]
                assert all(isinstance(value, ast.Constant) and value.value is False for value in allowed), path
                assert getattr(node.func, "id", "") not in ("eval", "exec"), path
                assert getattr(node.func, "attr", "") not in ("extractall", "extract"), path
            found = {name.split(".")[0] for name in names} & RUN_WHAT_THEY_READ
            assert found <= RESTRICTED.get(path.name, set()), path


def test_numpy_unpickles_nothing_unasked(tmp_path):
    """`foreign_files.py` reads .npz, `resumable.py` maps .npy: as here."""
    made = tmp_path / "made"
    array = np.array([Payload(made)], dtype=object)
    np.savez(tmp_path / "hostile.npz", arr_0=array)
    np.save(tmp_path / "hostile.npy", array)
    with np.load(tmp_path / "hostile.npz") as arrays, pytest.raises(ValueError, match="allow_pickle=False"):
        arrays["arr_0"]
    with pytest.raises(ValueError, match="Python objects"):
        np.lib.format.open_memmap(tmp_path / "hostile.npy", mode="r+")
    assert not made.exists()
    pickle.loads(pickle.dumps(Payload(made)))  # the payload works
    assert made.exists()


@pytest.mark.parametrize(
    "encoded",
    [
        png(2**31 - 1, 2**31 - 1),
        png(50_000, 50_000, depth=16, colour=0),
        png(1, 2**28),
        with_size(encode(Image.new("P", (4, 4)), "GIF"), 6, "<HH", 65535, 65535),
        with_size(encode(Image.new("RGB", (4, 4)), "BMP"), 18, "<ii", 60_000, 60_000),
        with_size(encode(Image.new("RGB", (4, 4)), "BMP"), 18, "<ii", 4, -(2**31)),
        encode(Image.new("RGB", (64, 64)), "JPEG").replace(b"\x08\0\x40\0\x40\x03", b"\x08\xff\xff\xff\xff\x03"),
        b"P6 65535 65535 255\n",
    ],
    ids=["png", "png of 16 bits", "a strip", "gif", "bmp", "bmp upside down", "jpeg", "ppm"],
)
def test_a_huge_picture_is_refused_by_its_header(encoded):
    with pytest.raises(BrokenImageError, match=r"(?i)pixels.*(exceed|more than)"):
        decode(encoded, image_shape=(8, 8, 3))


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_small_picture_with_a_huge_text_or_profile_is_refused(kind):
    bomb = chunk(kind, b"k\0\0" + zlib.compress(bytes(2**27)))
    with pytest.raises(BrokenImageError, match="too large"):
        decode(png(4, 4, extra=bomb), image_shape=(4, 4, 3))


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_counts(file_format):
    if file_format == "TIFF":
        pages = [Image.new("RGB", (4, 4), (80 * i, 0, 0)) for i in range(3)]
        encoded = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    else:
        encoded = frames(file_format)
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.n_frames == 3
    np.testing.assert_array_equal(decode(encoded, image_shape=(4, 4, 3)), 0)


def test_16_bits_of_colour_keep_their_upper_eight():
    rows = b"".join(b"\0" + struct.pack(">6H", 0, 256 * 10 + 3, 65535, 256 * 200, 0, 0) for _ in range(2))
    image = decode(png(2, 2, depth=16, pixels=rows), image_shape=(2, 2, 3))
    np.testing.assert_allclose(image, [[[0, 10, 255], [200, 0, 0]]] * 2, atol=1)


@pytest.mark.parametrize("file_format", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=60)
def test_damaged_files_are_pictures_or_broken_and_nothing_else(file_format, data):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    encoded = bytearray(encode(Image.fromarray(noise), file_format))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, min(len(encoded) - 1, 200)))] = data.draw(st.integers(0, 255))
    del encoded[data.draw(st.integers(1, len(encoded))) :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged tags
        try:
            image = decode(bytes(encoded), image_shape=(8, 8, 3))
        except BrokenImageError:
            return
    assert image.shape == (8, 8, 3)
    assert image.dtype == np.uint8


def test_a_file_of_any_size_is_read_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(image_folder, "_MAX_FILE_BYTES", 10_000)
    for i in range(150):
        (tmp_path / f"{i:03}.png").write_bytes(encode(Image.new("L", (4, 4), i)))
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)  # of no blocks on disk; read whole, it would not fit into memory
    loaded = load(
        "image_folder", data_dir=str(tmp_path), image_size=(4, 4), channels=1, memory_limit_gib=1.0
    )  # fmt: skip
    np.testing.assert_array_equal(loaded.images[:, 0, 0, 0], range(150))
    assert len(loaded.broken) == 1


def test_a_scan_does_not_read_far_ahead_of_the_decoding(monkeypatch):
    monkeypatch.setattr(source, "_MAX_WAITING_BYTES", 1000)
    waiting, most = 0, 0

    def slow_decode(encoded, image_shape, **_):
        nonlocal waiting
        waiting -= len(encoded)
        return np.zeros(image_shape, np.uint8)

    def scan():
        nonlocal waiting, most
        for i in range(100):
            waiting += 400
            most = max(most, waiting)
            yield i, Record(bytes(400), 0)

    monkeypatch.setattr(source, "decode", slow_decode)
    records = Records(size=100, class_names=(), name=str, read=None, scan=scan)
    assert len(source.load_into_memory(records, image_shape=(2, 2, 1))) == 100
    assert waiting == 0
    assert most <= 1400  # the limit, and the one just read


@pytest.mark.parametrize("packing", ["tar", "tar.gz"])
def test_a_link_in_a_tar_to_a_file_of_ours_reads_nothing(tmp_path, packing):
    secret = tmp_path / "secret.png"
    secret.write_bytes(encode(Image.new("L", (4, 4), 77)))
    path = tmp_path / f"a.{packing}"
    with tarfile.open(path, "w:gz" if packing.endswith("gz") else "w") as tar:
        for i, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE)):
            for j, target in enumerate((str(secret), "secret.png", "../secret.png", "good.png")):
                member = tarfile.TarInfo(f"{i}{j}.png")
                member.type, member.linkname = kind, target
                tar.addfile(member)
        member, encoded = tarfile.TarInfo("good.png"), encode(Image.new("L", (4, 4), 5))
        member.size = len(encoded)
        tar.addfile(member, io.BytesIO(encoded))
    loaded = load(
        "image_folder", data_dir=str(path), image_size=(4, 4), channels=1, memory_limit_gib=1.0
    )  # fmt: skip
    np.testing.assert_array_equal(loaded.images, np.full((1, 4, 4, 1), 5))


def packed(path, *members):
    """A tar of (kind, bytes that the header claims, content); of a picture after them, too."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for kind, size, content in (*members, (tarfile.REGTYPE, None, encode(Image.new("L", (4, 4), 5)))):
            member = tarfile.TarInfo("good.png")
            member.type, member.size = kind, len(content) if size is None else size
            tar.fileobj.write(member.tobuf(tarfile.GNU_FORMAT))  # of a size that no octal number holds, too
            tar.fileobj.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
        tar.offset = tar.fileobj.tell()
    return load("image_folder", data_dir=str(path), image_size=(4, 4), channels=1, memory_limit_gib=1.0)


@pytest.mark.parametrize(
    ("kind", "usual"),
    [
        (tarfile.XHDTYPE, b"17 path=long.png\n"),
        (tarfile.XGLTYPE, b"16 comment=this\n"),
        (tarfile.GNUTYPE_LONGNAME, b"long.png\0"),
        (tarfile.GNUTYPE_LONGLINK, b"long.png\0"),
    ],
    ids=["pax", "global pax", "long name", "long link"],
)
@pytest.mark.parametrize("packing", ["tar", "tar.gz"])
def test_a_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path, kind, usual, packing):
    with pytest.raises(ValueError, match=f"a header of {2**33} bytes"):
        packed(tmp_path / f"a.{packing}", (kind, 2**33, bytes(1024)))
    assert len(packed(tmp_path / f"b.{packing}", (kind, None, usual))) == 1


@pytest.mark.parametrize("size", [-1024, -512, -1])
@pytest.mark.parametrize("packing", ["tar", "tar.gz"])
def test_a_size_below_zero_does_not_lead_back_for_ever(tmp_path, size, packing):
    record = f" size={size}\n"
    record = f"{len(record) + 2}{record}".encode()
    with pytest.raises(ValueError, match="not a folder, nor a whole and readable tar"):
        packed(tmp_path / f"a.{packing}", (tarfile.XHDTYPE, None, record))
    with pytest.raises(ValueError, match="not a folder, nor a whole and readable tar"):
        packed(tmp_path / f"b.{packing}", (tarfile.REGTYPE, size, b""))


def test_headers_of_headers_without_end_are_refused(tmp_path):
    with pytest.raises(ValueError, match="readable tar of images .*recursion"):
        packed(tmp_path / "a.tar", *[(tarfile.XHDTYPE, None, b"16 comment=this\n")] * 1000)


@pytest.mark.parametrize("packing", ["gz", "xz", "bz2"])
@pytest.mark.parametrize("name", ["bomb.bin", "bomb.png"])
def test_a_few_bytes_that_unpack_to_many_are_not_unpacked(tmp_path, monkeypatch, packing, name):
    path, picture = tmp_path / f"a.tar.{packing}", encode(Image.new("L", (4, 4), 5))

    def pack():
        with tarfile.open(path, f"w:{packing}") as tar:
            for name_, content in ((name, bytes(2**22)), ("good.png", picture)):
                member = tarfile.TarInfo(name_)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    pack()
    image_folder.open_image_folder(str(path), split="train")  # of 4 MiB, which are no harm
    monkeypatch.setattr(foreign_files, "_MOST_BYTES", 2**20)
    with pytest.raises(ValueError, match=f"its {path.stat().st_size} bytes unpack to more than 1048576"):
        image_folder.open_image_folder(str(path), split="train")


def test_a_map_of_holes_without_end_is_not_read(tmp_path):
    member = tarfile.TarInfo("holes.png")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[482] = 1
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 256 + sum(header[156:]))
    (tmp_path / "a.tar").write_bytes(header + bytes(10**5))
    with pytest.raises(ValueError, match="map of holes may have any length"):
        image_folder.open_image_folder(str(tmp_path / "a.tar"), split="train")
    with tarfile.open(tmp_path / "b.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("holes.png")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        member.size = 10**5
        tar.addfile(member, io.BytesIO(b"99999999\n" + b"1\n" * 50_000))
    with pytest.raises(ValueError, match="map of holes may have any length"):
        image_folder.open_image_folder(str(tmp_path / "b.tar"), split="train")


@pytest.mark.parametrize("packing", ["tar", "tar.gz"])
def test_names_in_an_archive_say_nothing_to_the_terminal(tmp_path, caplog, packing):
    path, picture = tmp_path / f"a.{packing}", encode(Image.new("L", (4, 4), 5))
    with tarfile.open(path, "w:gz" if packing.endswith("gz") else "w") as tar:
        members = [(f"c/{i}.png", picture) for i in range(150)]
        for name, content in [*members, ("c/\x1b]0;owned\x07.png", b"broken"), ("/\x1b[2J", b"")]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    source_ = load("image_folder", data_dir=str(path), image_size=(4, 4), channels=1)
    assert len(source_.broken) == 1
    assert r"c/\x1b]0;owned\x07.png" in caplog.text
    assert r"first: /\x1b[2J" in caplog.text
    assert all(record.getMessage().isprintable() for record in caplog.records)


def entry(**fields):
    return json.dumps([dict(metric="fid", name="FID", value=1.0, error=None, error_name="", settings={}) | fields])


@pytest.mark.parametrize(
    "entries",
    [
        b"", b"{", b"\xff", b"[1]", b'[{"metric": "fid", "name": "FID", "value": 1}]', b'{"a": 1}', b"null",
        entry(settings=3).encode(), entry(value="1").encode(), entry(settings={"samples": {"step": "x"}}).encode(),
        entry(error=[1]).encode(), entry(metric=1).encode(), entry(settings={"reference": 3}).encode(),
    ],
)  # fmt: skip
def test_damaged_scores_are_refused_and_kept(tmp_path, entries):
    file = tmp_path / "metrics.json"
    file.write_bytes(entries)
    for use in (results.read, lambda file: results.write(file, [results.Score("fid", "FID", 1.0)], settings={})):
        with pytest.raises(ValueError, match="metrics.json' is no list of scores"):
            use(file)
    assert file.read_bytes() == entries


@pytest.mark.parametrize("table", ["{}", "3", '{"settings": 1}', '{"settings": {"step": 1}}'])
def test_a_damaged_table_of_the_bound_is_refused(tmp_path, table):
    (tmp_path / "bpd_step1.json").write_text(table)
    with pytest.raises(ValueError, match="bpd_step1.json' is no table of the bound"):
        bits_per_dim.read_tables(tmp_path)


def test_weights_that_are_empty_are_called_so(tmp_path):
    (tmp_path / "w.pth").touch()
    with pytest.raises(ValueError, match="w.pth' is not .* weights that can be read .it is empty.*"):
        inception.read(tmp_path / "w.pth")
