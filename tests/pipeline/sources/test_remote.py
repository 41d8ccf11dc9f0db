"""Images behind URLs: what is found, how often a server is asked, what happens when it fails."""

import pickle
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.images import read_ahead
from lpipstore.pipeline.images.decode import content_hash
from lpipstore.pipeline.images.loader import decode_images
from lpipstore.pipeline.images.preparation import Preparation
from lpipstore.pipeline.images.survey import survey
from lpipstore.pipeline.sources.formats.object_identity import identity_of
from lpipstore.pipeline.sources.formats.remote_errors import cause_of
from lpipstore.pipeline.sources.kinds.remote import is_folder, is_one_object, pattern_in
from lpipstore.pipeline.sources.names import folder_of, has_password, without_password
from lpipstore.pipeline.sources.source import ImageError
from lpipstore.pipeline.sources.sources import Sources


@pytest.fixture
def picture(draw, tmp_path):
    """The bytes of a picture."""
    return draw(tmp_path / "one", 1)[0].read_bytes()


@pytest.fixture
def store(tmp_path):
    with FeatureStore(tmp_path / "store") as store:
        yield store


KEYS = ("z.png", "a.PNG", "b/x.jpg", "a.b/c.webp", ".hidden.png", ".git/d.png", "notes.txt", "b/.e")
LISTED = ["a.PNG", "z.png", "a.b/c.webp", "b/x.jpg"]


def test_a_prefix_is_listed_as_a_folder_is(memory, s3, tmp_path, picture):
    for key in KEYS:
        path = tmp_path / "folder" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
        memory.pipe(f"/set/{key}", picture)
    prefix = s3.upload(tmp_path / "folder", "photos")
    s3.put("photos/", b"")  # what some tools leave for a folder
    s3.put("photos2/other.png", picture)
    s3.requests.clear()
    local = Sources().find([tmp_path / "folder"])
    assert local.within == LISTED
    for place in (prefix, prefix.rstrip("/"), "memory://set", "memory://set/"):
        found = Sources().find([place])
        assert found.within == LISTED
        assert found.names == [f"{place.rstrip('/')}/{name}" for name in LISTED]
    assert s3.requests == [("GET", f"/{s3.bucket}")] * 2
    url = f"file://{tmp_path}/folder"
    assert Sources().find([url]).names == [f"{url}/{name}" for name in LISTED]


def test_patterns(s3, memory, picture):
    for key in ("a/1.png", "a/2.jpg", "a/b/3.png", "c/4.png", "c/t.txt", "x[1].png", "x1.png"):
        s3.put(key, picture)
        memory.pipe(f"/p/{key}", picture)
    for root in (s3.url, "memory://p"):

        def names(pattern, root=root):
            return [n.removeprefix(f"{root}/") for n in Sources().find([f"{root}/{pattern}"]).names]

        assert names("**/*.png") == ["a/1.png", "a/b/3.png", "c/4.png", "x1.png", "x[1].png"]
        assert names("a/*") == ["a/1.png", "a/2.jpg", "a/b/3.png"]
        assert names("[ac]") == ["a/1.png", "a/2.jpg", "a/b/3.png", "c/4.png"]
        assert names("?/*.png") == ["a/1.png", "c/4.png"]
        assert names("x[1].png") == ["x[1].png"]  # an exact name wins over a pattern
        assert names("x?.png") == ["x1.png"]
        with pytest.raises(UsageError, match="no image matches the pattern"):
            names("*.gif")


def test_what_a_url_looks_like():
    assert is_one_object("https://host/picture?id=3")
    assert is_one_object("https://host/a.png?sig=x/y/")
    assert is_folder("https://host/pictures/")
    assert is_folder("s3://bucket")
    assert is_folder("s3://bucket/photos")
    assert not is_folder("s3://bucket/photos/*")
    assert pattern_in("s3://bucket/a/b*/c.png") == "b*/c.png"
    assert pattern_in("s3://bucket/a/b?.png") == "b?.png"
    assert pattern_in("https://host/a.png?b=*") == ""
    assert pattern_in("https://host/a/*.png?b=c") == "*.png?b=c"
    assert folder_of("https://host/a/b.png?sig=x/y") == "https://host/a"
    assert folder_of("s3://bucket/a#b/c.png") == "s3://bucket/a#b"


def test_passwords_are_refused_and_not_shown():
    for url in (
        "s3://key:secret@bucket/a.png",
        "https://user:secret@host/x/",
        "http://secret@host/",
    ):
        assert has_password(url)
        assert "secret" not in without_password(url)
        for ask in (lambda u: Sources().find([u]), Sources().version, Sources().read):
            with pytest.raises(UsageError, match="has a password in it") as raised:
                ask(url)
            assert "secret" not in str(raised.value)
    assert not has_password("abfs://container@account.host/a.png")
    assert not has_password("s3://bucket/a@b:c.png")
    assert not has_password("https://host?mail=a@b")


def test_packages_that_are_missing(monkeypatch):
    with pytest.raises(UsageError, match="no URLs of the kind nothing://"):
        Sources().find(["nothing://host/a/"])

    def missing(protocol):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(UsageError, match=r"pip install 'lpipstore\[remote\]'$"):
        Sources().find(["s3://bucket/"])
    with pytest.raises(UsageError, match="Install s3fs"):
        Sources().find(["gs://bucket/"])
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"pip install 'lpipstore\[remote\]'$"):
        Sources().read("gs://bucket/a.png")


def test_containers_are_refused(s3):
    for name in ("shard.tar", "samples.npz", "set.parquet", "clip.MP4", "a.tar.gz"):
        with pytest.raises(UsageError, match="download it first"):
            Sources().find([f"{s3.url}/{name}"])
    with pytest.raises(ImageError, match="no such file"):
        Sources().read(f"{s3.url}/shard.tar#cat.jpg")


def test_what_is_not_there(s3, memory, picture, impatient):
    s3.put("a.png", picture)
    with pytest.raises(UsageError, match="no such file or folder: s3://.*/none/"):
        Sources().find([f"{s3.url}/none/"])
    with pytest.raises(UsageError, match="no such bucket"):
        Sources().find(["s3://no-such-bucket-here/"])
    with pytest.raises(UsageError, match="no such file or folder"):
        Sources().find(["memory://none"])
    sources = Sources()
    with pytest.raises(OSError, match="no such file"):
        sources.version(f"{s3.url}/b.png")
    with pytest.raises(ImageError, match="cannot be read: no such file"):
        sources.read(f"{s3.url}/b.png")


def test_no_credentials(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(LpipstoreError, match="cannot be listed: no credentials .*ACCESS_KEY"):
        Sources().find([f"{s3.url}/photos/"])


# -- versions ------------------------------------------------------------------------------------


def test_what_was_listed_is_read_with_one_request_each(s3, draw, tmp_path, store):
    draw(tmp_path / "pictures", 20)
    prefix = s3.upload(tmp_path / "pictures", "photos")
    sources = Sources()
    names = sources.find([prefix]).names
    records = survey(names, sources, store)
    assert [r.content for r in records] == [
        content_hash(path.read_bytes()) for path in sorted((tmp_path / "pictures").iterdir())
    ]
    assert len(s3.reads()) == len(s3.requests) - 1 == 20
    s3.requests.clear()
    again = Sources()
    assert survey(again.find([prefix]).names, again, store) == records
    assert s3.requests == [("GET", f"/{s3.bucket}")]
    s3.requests.clear()
    assert survey(names, Sources(), store) == records  # by name alone
    assert {method for method, _ in s3.requests} == {"HEAD"}
    assert len(s3.requests) == 20


def test_listing_and_asking_tell_the_same_version(s3, memory, picture, tmp_path):
    s3.put("photos/a.png", picture)
    memory.pipe("/photos/a.png", picture)
    (tmp_path / "a.png").write_bytes(picture)
    for folder in (f"{s3.url}/photos/", "memory://photos/", f"file://{tmp_path}/"):
        listed = Sources()
        listed.find([folder])
        version = listed.version(f"{folder}a.png")
        assert version == Sources().version(f"{folder}a.png")
        assert version.size == len(picture)
        assert abs(version.mtime_ns / 1e9 - time.time()) < 60
        assert version.path == f"{folder}a.png".encode()


def test_a_changed_object_has_another_version(s3, picture):
    s3.put("a.png", picture)
    before = Sources().version(f"{s3.url}/a.png")
    s3.put("a.png", picture[:-1] + b"?")
    after = Sources().version(f"{s3.url}/a.png")
    assert (before.size, before.path) == (after.size, after.path)
    assert before.inode != after.inode
    assert 0 < after.inode < 1 << 63


def test_versions_of_other_stores():
    now = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    ns = int(now.timestamp()) * 10**9
    for info in (
        {"LastModified": now},
        {"last_modified": now.replace(tzinfo=None)},
        {"Last-Modified": "Mon, 06 May 2024 07:08:09 GMT"},
        {"updated": "2024-05-06T07:08:09Z"},
        {"mtime": now.timestamp()},
        {"created": now},
    ):
        version = identity_of("sftp://host/a", {"size": 5, **info}, 7)
        assert (version.size, version.mtime_ns, version.inode, version.seen_ns) == (5, ns, 0, 7)
    tagged = identity_of("gs://bucket/a", {"size": 5, "etag": "x"}, 7)
    assert tagged.mtime_ns == 0
    assert tagged.inode > 0
    assert identity_of("sftp://host/a", {"size": 5}, 7) is None
    assert identity_of("https://host/a", {"size": None, "ETag": "x"}, 7) is None
    assert identity_of("ftp://host/a", {"size": 5, "modify": "20240506"}, 7) is None


# -- many at a time ------------------------------------------------------------------------------


def test_many_requests_are_under_way(s3, draw, tmp_path, store):
    draw(tmp_path / "pictures", 64)
    prefix = s3.upload(tmp_path / "pictures", "photos")
    sources = Sources()
    names = sources.find([prefix]).names
    sources.read(names[0])
    s3.delay = 0.25
    records = survey(names, sources, store)
    assert s3.most > 6
    images = [(record.path, record.content) for record in records]
    for workers in (0, 2):
        s3.most = 0
        batches = [*decode_images(images, sources, Preparation((32, 32)), 32, workers)]
        assert s3.most > 6
        assert [n for batch in batches for n in batch.indices] == [*range(64)]


def test_without_room_nothing_is_read_ahead(s3, draw, tmp_path, store, monkeypatch):
    draw(tmp_path / "pictures", 12)
    sources = Sources()
    names = sources.find([s3.upload(tmp_path / "pictures", "photos")]).names
    images = [(record.path, record.content) for record in survey(names, sources, store)]
    most = max(sources.size(name) for name in names)
    for room in (0, most, 3 * most):
        monkeypatch.setattr(read_ahead, "_ROOM", room)
        for workers in (0, 2):
            batches = [*decode_images(images, sources, Preparation((32, 32)), 4, workers)]
            assert sum(len(batch.indices) for batch in batches) == 12


def test_a_copy_connects_by_itself(s3, picture):
    s3.put("a.png", picture)
    sources = Sources()
    sources.find([f"{s3.url}/"])
    copied = pickle.loads(pickle.dumps(sources))
    assert copied.read(f"{s3.url}/a.png") == picture
    sources.close()
    assert sources.read(f"{s3.url}/a.png") == picture


# -- failures ------------------------------------------------------------------------------------


class Web:
    """A web server whose answers a test decides: `answers` has lists of what comes first.

    An answer is a code, "cut" (the body ends too early) or "dead" (no answer at all); without
    one, the file is served.
    """

    def __init__(self):
        web = self
        self.files, self.answers, self.asked = {}, {}, []
        self.headers = {"ETag": '"1"', "Last-Modified": "Mon, 06 May 2024 07:08:09 GMT"}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, body):
                web.asked.append((self.command, self.path))
                path = self.path.partition("?")[0]
                queue = web.answers.get(path) or web.answers.get("*") or []
                what = queue.pop(0) if queue else 200
                content = web.files.get(path)
                if what == "dead":
                    self.close_connection = True
                elif what not in (200, "cut") or content is None:
                    self.send_error(what if content is not None else 404)
                else:
                    self.serve(path, content, what, body)

            def serve(self, path, content, what, body):
                self.send_response(200)
                for name, value in web.headers.items():
                    self.send_header(name, value)
                kind = "text/html" if content.startswith(b"<a") else "image/png"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body:
                    self.wfile.write(content[: len(content) // 2] if what == "cut" else content)
                self.close_connection = what == "cut"

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # whoever asked may be gone
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def gets(self, path):
        return self.asked.count(("GET", path))


@pytest.fixture
def web(impatient):
    web = Web()
    yield web
    web.server.shutdown()
    web.server.server_close()


def test_pages_that_list_files_are_folders(web, picture):
    links = "".join(f'<a href="{n}">{n}</a>' for n in ("?C=N", "../", "b.png", "a.png", "sub/"))
    web.files |= {
        "/set/": links.encode(),
        "/set/sub": b'<a href="c.png">c</a>',
        **dict.fromkeys(("/set/a.png", "/set/b.png", "/set/sub/c.png"), picture),
    }
    sources = Sources()
    found = sources.find([f"{web.url}/set/"])
    assert found.within == ["a.png", "b.png", "sub/c.png"]
    assert [sources.read(name) for name in found.names] == [picture] * 3
    version = sources.version(found.names[0])
    assert (version.size, version.mtime_ns) == (len(picture), 1714979289 * 10**9)


def test_failures_that_pass_are_tried_again(web, picture):
    web.files["/a.png"] = picture
    for answers in ([503, 503], [429, 500, 502], ["cut"], ["dead", "dead"], [504, "cut", "dead"]):
        web.answers["/a.png"] = [*answers]
        assert Sources().read(f"{web.url}/a.png") == picture
        assert not web.answers["/a.png"]
    web.answers["/a.png"] = [503, 503, 503]
    assert Sources().version(f"{web.url}/a.png").size == len(picture)


def test_failures_that_stay(web, picture):
    web.files["/a.png"] = picture
    for code, reason, attempts in (
        (503, "the server answers 503 Service Unavailable", 4),
        (403, "access denied (403 Forbidden)", 1),
        (401, "access denied (401 Unauthorized)", 1),
        (404, "no such file", 1),
        (400, "the server answers 400 Bad Request", 1),
        ("cut", "the connection broke off", 4),
        ("dead", "the server cannot be reached", 4),
    ):
        web.answers["/a.png"] = [code] * 20
        web.asked.clear()
        with pytest.raises(ImageError) as raised:
            Sources().read(f"{web.url}/a.png?secret=signature")
        assert str(raised.value) == f"cannot be read: {reason}"
        assert web.gets("/a.png?secret=signature") == attempts or code == "dead"
        web.answers["/a.png"] = [code] * 40
        if code not in ("cut", 403):
            with pytest.raises(OSError, match=f"^\\[Errno 0\\] {reason.partition(' (')[0]}"):
                Sources().version(f"{web.url}/a.png")


def test_a_server_that_dies_ends_the_run(web, picture, store):
    web.files |= {f"/{n}.png": picture for n in range(60)}
    names = [f"{web.url}/{n}.png" for n in range(60)]
    sources = Sources()
    assert sources.read(names[0]) == picture
    web.answers["*"] = ["dead"] * 5000
    with pytest.raises(LpipstoreError, match="failed 8 times in a row.*goes on") as raised:
        survey(names, sources, store)
    assert not isinstance(raised.value, ImageError)
    assert len(web.asked) < 60 * 12


def test_what_was_read_before_a_failure_is_not_read_again(web, picture, store):
    web.files |= {f"/{n}.png": picture for n in range(200)}
    names = [f"{web.url}/{n}.png" for n in range(200)]
    # The first answer, to HEAD, tells the version
    web.answers |= {f"/{n}.png": [200] + ["dead"] * 50 for n in range(150, 200)}
    with pytest.raises(LpipstoreError, match="in a row"):
        survey(names, Sources(), store)
    web.answers.clear()
    web.asked.clear()
    assert not any(record.error for record in survey(names, Sources(), store))
    assert web.asked.count(("GET", "/10.png")) == 0
    assert sum(method == "GET" for method, _ in web.asked) < 100


def test_a_few_bad_files_do_not_end_it(web, picture, store):
    web.files |= {f"/{n}.png": picture for n in range(40)}
    web.answers |= {f"/{n}.png": [500] * 50 for n in range(0, 40, 8)}
    records = survey([f"{web.url}/{n}.png" for n in range(40)], Sources(), store)
    assert [bool(record.error) for record in records] == [n % 8 == 0 for n in range(40)]


def test_a_web_server_without_versions_is_read_each_time(web, picture, store):
    web.headers = {}
    web.files["/a.png"] = picture
    for _ in range(2):
        web.asked.clear()
        record = survey([f"{web.url}/a.png"], Sources(), store)[0]
        assert (record.error, record.bytes) == (None, len(picture))
        assert web.gets("/a.png") == 1


def test_causes():
    class Answered(Exception):
        def __init__(self, status):
            self.status = status

    outer = FileNotFoundError("https://host/a.png?sig=secret")
    outer.__cause__ = Answered(403)
    assert cause_of(outer).reason == "access denied (403 Forbidden)"
    assert cause_of(TimeoutError()).passing
    assert cause_of(ConnectionResetError()).passing
    assert cause_of(PermissionError("x")).reason == "access denied"
    assert cause_of(ValueError("Invalid bucket\nmore")).reason == "ValueError: Invalid bucket"
    assert cause_of(ValueError()).reason == "ValueError"
    assert cause_of(Answered(499)).reason == "the server answers 499"

    class Said(Exception):
        def __init__(self, code, status):
            self.response = {
                "Error": {"Code": code},
                "ResponseMetadata": {"HTTPStatusCode": status},
            }

    assert cause_of(Said("NoSuchBucket", 404)).reason == "no such bucket"
    assert cause_of(Said("404", 404)).missing
    assert (
        cause_of(Said("InvalidAccessKeyId", 403)).reason == "access denied (403 InvalidAccessKeyId)"
    )
    assert cause_of(Said("SlowDown", 503)).passing
    assert cause_of(Said("ThrottlingException", 400)).passing
