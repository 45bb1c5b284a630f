"""The download of MNIST against a server on the loopback, with small files in the place of the real ones."""

import gzip
import hashlib
import http.server
import os
import stat
import struct
import sys
import threading

import pytest
import torch

from lecturecode.data import mnist

module = sys.modules["lecturecode.data.mnist"]  # the attribute of that name is the function


def idx(array: torch.Tensor) -> bytes:
    """A compressed IDX file of bytes, built from the format's description."""
    header = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + bytes(array.flatten().tolist()), mtime=0)


def small(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 28, 28), generator=rng), torch.randint(0, 10, (count,), generator=rng)


CONTENT = {"training": small(7, 1), "test": small(3, 2)}


class Server:
    """A file server that counts its requests and can be told to misbehave."""

    def __init__(self, files: dict[str, bytes]):
        self.files, self.requests, self.cut, self.altered = files, [], False, False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.lstrip("/")
                outer.requests.append(name)
                if name not in outer.files:
                    self.send_error(404)
                    return
                raw = outer.files[name] + (b"!" if outer.altered else b"")
                self.send_response(200)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw[: len(raw) // 2] if outer.cut else raw)

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    files = {}
    for part, (images, labels) in CONTENT.items():
        files[f"{module.PREFIX[part]}-images-idx3-ubyte.gz"] = idx(images)
        files[f"{module.PREFIX[part]}-labels-idx1-ubyte.gz"] = idx(labels)
    assert set(files) == set(module.FILES)
    monkeypatch.setattr(module, "FILES", {n: hashlib.sha256(files[n]).hexdigest() for n in module.FILES})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(files) as running:
        yield running


@pytest.mark.parametrize("part", ["training", "test"])
def test_what_is_served_is_what_is_read(server, tmp_path, part):
    images, labels = mnist(tmp_path / "new" / "folder", part, server.address)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert torch.equal(images.long(), CONTENT[part][0])
    assert torch.equal(labels, CONTENT[part][1])
    images.zero_()  # a copy of its own, writable without a warning


def test_it_is_downloaded_once_and_only_the_part_that_is_asked_for(server, tmp_path):
    mnist(tmp_path, "test", server.address)
    assert sorted(server.requests) == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
    mnist(str(tmp_path), "test", server.address)
    assert len(server.requests) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(server.requests)


def test_only_the_missing_file_is_fetched_again(server, tmp_path):
    mnist(tmp_path, "test", server.address)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    server.requests.clear()
    mnist(tmp_path, "test", server.address)
    assert server.requests == ["t10k-labels-idx1-ubyte.gz"]


def test_an_altered_download_is_refused_and_not_kept(server, tmp_path):
    server.altered = True
    with pytest.raises(ValueError, match=r"t10k-images.* has the checksum .{12}…, not .{12}…; nothing was kept"):
        mnist(tmp_path / "data", "test", server.address)
    assert list(tmp_path.rglob("*.gz*")) == []
    server.altered = False
    mnist(tmp_path / "data", "test", server.address)


def test_an_interrupted_download_leaves_nothing(server, tmp_path):
    server.cut = True
    with pytest.raises(ConnectionError, match=r"cannot be downloaded from http://127.*IncompleteRead.*connect once"):
        mnist(tmp_path / "data", "test", server.address)
    assert list(tmp_path.rglob("*.gz*")) == []


def test_an_interrupted_write_leaves_nothing(server, tmp_path, monkeypatch):
    def stop(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        mnist(tmp_path, "test", server.address)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_on_disk_is_refused_and_named(server, tmp_path):
    mnist(tmp_path, "test", server.address)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"t10k-images.*; delete .*{path.name} and call again"):
        mnist(tmp_path, "test", server.address)
    assert len(server.requests) == 2


def test_offline_it_says_what_is_missing_and_where(server, tmp_path):
    address = server.address
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(ConnectionError, match=r"t10k-images.* is not in .* cannot be downloaded from .*copy the file"):
        mnist(tmp_path, "test", address)


def test_a_missing_page_is_a_connection_error(server, tmp_path):
    server.files.clear()
    with pytest.raises(ConnectionError, match="404"):
        mnist(tmp_path, "test", server.address)


def test_offline_with_the_files_at_hand(server, tmp_path):
    mnist(tmp_path, "test", server.address)
    images, _ = mnist(tmp_path, "test", "http://127.0.0.1:9/")
    assert len(images) == 3


def test_several_at_once_end_with_one_good_file(server, tmp_path):
    failures = []

    def load():
        try:
            images, _ = mnist(tmp_path, "test", server.address)
            assert torch.equal(images.long(), CONTENT["test"][0])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_shared_folder_can_be_read_by_others(server, tmp_path):
    mnist(tmp_path, "test", server.address)
    beside = tmp_path / "beside"
    beside.write_bytes(b"")
    for path in tmp_path.glob("*.gz"):
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(beside.stat().st_mode)


def test_another_part_is_refused(tmp_path):
    with pytest.raises(ValueError, match="part is 'validation'; MNIST has the parts training, test"):
        mnist(tmp_path, "validation")


def test_the_checksums_are_sha256():
    assert set(module.FILES) == {
        f"{a}-{b}" for a in ("train", "t10k") for b in ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")
    }
    assert all(len(digest) == 64 and int(digest, 16) for digest in module.FILES.values())
    assert module.ADDRESS.startswith("https://")
