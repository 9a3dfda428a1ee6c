# SPDX-License-Identifier: Apache-2.0
"""`image import` from an HTTP server, and `image verify` on what came out of it. No VM."""
import functools
import hashlib
import http.server
import subprocess
import threading

import pytest
from harness import IMAGE


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "serve" / "native-0.1.0.tar.gz"
    path.parent.mkdir()
    subprocess.run(["tar", "-czf", path, "--transform", "s,^\\.,native-0.1.0,", "-C", IMAGE, "--exclude=packages.lock", "."],
                   check=True)
    return path


@pytest.fixture
def url(archive):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(archive.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{archive.name}"
    server.shutdown()
    server.server_close()


def test_an_archive_is_fetched_unpacked_and_verified(host, archive, url):
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    result = host.command("image", "import", url, "--sha256", digest)
    assert "native-0.1.0" in result.stdout
    assert host.command("image", "verify", "native-0.1.0").returncode == 0
    assert [entry.name for entry in host.cwd.iterdir()] == ["native-0.1.0"]


def test_a_wrong_digest_leaves_nothing(host, url):
    result = host.command("image", "import", url, "--sha256", "0" * 64, check=False)
    assert result.returncode == 9 and "SHA-256" in result.stderr
    assert list(host.cwd.iterdir()) == []


def test_a_missing_file_on_the_server_is_said_and_leaves_nothing(host, url):
    result = host.command("image", "import", url + ".gone", "--sha256", "0" * 64, check=False)
    assert result.returncode != 0 and "404" in result.stderr
    assert list(host.cwd.iterdir()) == []
