import io
import tracemalloc
import zipfile

import pytest

from mrcnn_jax.weights.zips import memory_limit, open_zip, read_entry


def zip_of(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", content)
    return stream.getvalue()


def with_stated_size(data: bytes, old: int, new: int) -> bytes:
    """The archive with another size stated in its central directory and in the entry's header."""
    return data.replace(old.to_bytes(4, "little"), new.to_bytes(4, "little"))


def test_an_entry():
    assert read_entry(open_zip(zip_of(b"content")), "a") == b"content"


def test_the_limit_is_64_mib_or_20_times_the_file():
    assert memory_limit(100) == 2**26 and memory_limit(10**8) == 2 * 10**9


def test_an_entry_that_unpacks_to_too_much():
    data = zip_of(bytes(2**27))
    assert len(data) < 2**20
    with pytest.raises(ValueError, match=f"its {len(data)} bytes would unpack to 134217728"):
        open_zip(data)


@pytest.mark.parametrize("sizes", [(2**26,), (2**26 + 1,), (2**25, 2**25), (2**25, 2**25 + 1)])
def test_the_limit_is_that_of_all_entries(sizes):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number, _ in enumerate(sizes):
            archive.writestr(str(number), bytes(100 + number))
    data = stream.getvalue()
    for number, size in enumerate(sizes):
        data = with_stated_size(data, 100 + number, size)
    if sum(sizes) > 2**26:
        with pytest.raises(ValueError, match=f"would unpack to {sum(sizes)}, more than weights do"):
            open_zip(data)
    else:
        assert len(open_zip(data).namelist()) == len(sizes)


def test_an_entry_that_is_larger_than_it_says():
    size = 0x07654321  # bytes that occur nowhere else in the archive
    data = with_stated_size(zip_of(bytes(size)), size, 1000)
    tracemalloc.start()
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        read_entry(open_zip(data), "a")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20  # bytes: what it does not say is not unpacked


def test_an_entry_that_is_smaller_than_it_says():
    size = 0x00012345
    data = with_stated_size(zip_of(bytes(size)), size, 2 * size)
    with pytest.raises(ValueError, match=f"a has {size} bytes, must have {2 * size}"):
        read_entry(open_zip(data), "a")
