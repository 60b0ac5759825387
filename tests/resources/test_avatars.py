"""Avatars: uploading, what is taken and what is not, the pictures made of it, and that no file outlives its reason."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from PIL import Image, ImageFile
from sqlalchemy import bindparam, update
from sqlalchemy.exc import IntegrityError

from models import Avatar, Job
from models.base import now
from models.rows import insert_row
from models.statements import execute, unit_of_work
from service import avatars, pictures, storage
from service.jobs import queue, runner
from tests.factories.avatar import AvatarFactory
from tests.factories.user import UserFactory
from tests.pictures import TYPES, a_picture, claiming, encoded, middle, of_many_scans, opened, quarters
from tests.resources.answers import anonymous_form, pointers

USERS = "/api/v1/users"
NOBODY = f"{USERS}/999999/avatar"
HTML = b"<!DOCTYPE html><script>alert('canary')</script>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert("canary")</script></svg>'
PUT_FORWARD = update(Job).values(run_at=bindparam("moment"))
OFTEN_TRIED = update(Job).values(attempts=queue.MOST_ATTEMPTS - 1)


class Killed(BaseException):
    """The end of a process, which no code of ours is told of."""


@pytest.fixture(autouse=True)
def files(app, tmp_path):
    """Keep files in a folder of the test's own, and return a function that lists them."""
    app.config["STORAGE_URL"] = tmp_path.as_uri()
    return lambda: sorted(path.name for path in tmp_path.rglob("*") if path.is_file())


@pytest.fixture
def work(app):
    """Return a function that runs all jobs that are due; with `later`, also those that are due some day."""

    def run(*, later=False):
        with app.app_context():
            if later:
                with unit_of_work():
                    execute(PUT_FORWARD, moment=now() - timedelta(seconds=1))
            return runner.drain()

    return run


@pytest.fixture
def untouched(files, nothing_changes):
    """Return a context in which neither a row nor a file may change."""

    @contextmanager
    def context():
        before = files()
        with nothing_changes():
            yield
        assert files() == before

    return context


def avatar_of(user):
    return f"{USERS}/{user.id}/avatar"


def put(client, user, content=None, kind="image/png", **headers):
    content = a_picture() if content is None else content
    return client.put(avatar_of(user), data=content, headers={"Content-Type": kind, **headers})


def paths(response):
    """Return the addresses of the pictures, without the host."""
    return {int(size): url.removeprefix("http://localhost") for size, url in response.json["urls"].items()}


def shown(client, user):
    """Return the pictures of a user as everybody sees them, by size."""
    anybody = client.with_token(None)
    return {size: anybody.get(path) for size, path in paths(client.get(avatar_of(user))).items()}


def events(snapshot):
    """Return what was told of avatars: the state, and who did it."""
    rows = snapshot()["events"]
    return [(row[-2]["state"], row[6]) for row in rows if row[2] == "user.avatar_changed"]


# What becomes of an upload


@pytest.mark.parametrize(("kind", "options"), [(kind, {}) for kind in TYPES] + [("JPEG", {"progressive": True})])
def test_an_uploaded_picture_is_shown_when_it_has_been_made(as_member, member, work, files, snapshot, kind, options):
    taken = put(as_member, member, a_picture(kind, (900, 700), "crimson", **options), TYPES[kind])

    assert taken.status_code == 202
    assert taken.json == as_member.get(avatar_of(member)).json
    assert list(taken.json) == ["user_id", "state", "urls", "error", "created_at", "updated_at"]
    assert (taken.json["user_id"], taken.json["state"], taken.json["urls"]) == (member.id, "processing", None)

    work()

    made = as_member.get(avatar_of(member))
    assert (made.status_code, made.json["state"], made.json["error"]) == (200, "ready", None)
    for size, answer in shown(as_member, member).items():
        assert (opened(answer.data).format, opened(answer.data).size) == ("WEBP", (size, size))
        assert middle(answer.data) == (14, 1, 4, 16)
    assert files() == sorted(path.removeprefix("/avatars/") for path in paths(made).values())
    assert events(snapshot) == [("processing", member.id), ("ready", None)]


def test_a_photo_is_turned_upright_and_says_nothing_of_where_it_was_taken(as_member, member, work):
    photo = Image.new("RGB", (400, 300), "white")
    photo.paste("black", (0, 0, 400, 150))
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "canary of a camera"  # The top is on the right.
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.34), 29: "canary of a day"})
    upload = encoded(photo, "JPEG", exif=exif)
    assert upload.count(b"canary") == 2

    put(as_member, member, upload, "image/jpeg")
    work()

    for answer in shown(as_member, member).values():
        assert b"canary" not in answer.data and not opened(answer.data).getexif()
        assert quarters(answer.data) == [False, True, False, True][::-1]


def test_the_type_that_counts_is_that_of_the_content(as_member, member, work):
    assert put(as_member, member, a_picture("JPEG"), "image/gif").status_code == 202
    work()

    assert as_member.get(avatar_of(member)).json["state"] == "ready"


def test_remarks_on_a_picture_that_cannot_be_read_do_no_harm(as_member, member, work):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    photo = a_picture("JPEG", exif=exif)
    at = photo.index(b"Exif\0\0") + 6
    put(as_member, member, photo[: at + 8] + b"\xff" * 20 + photo[at + 28 :], "image/jpeg")
    work()

    assert as_member.get(avatar_of(member)).json["state"] == "ready"


# What is no picture


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0", HTML, SVG, b"GIF", b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x10\0\0\0WEBP"),
        *(
            b"GIF89a" + HTML,
            b"\x89PNG\r\n\x1a\n" + HTML,
            b"\xff\xd8\xff\xe0" + HTML,
            b"RIFF" + HTML,
            HTML + a_picture(),
        ),
        *(encoded(Image.new("RGB", (9, 9)), kind) for kind in ("BMP", "TIFF", "ICO", "PPM", "PDF")),
        *(claiming("PNG", 0, 9), claiming("JPEG", 9, 0), b"RIFF" + SVG + b"WEBPVP8X"),
    ],
    ids=lambda content: repr(content[:14]),
)
def test_what_is_no_picture_of_ours_is_refused(as_member, member, untouched, content):
    with untouched():
        response = put(as_member, member, content)

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/body"]
    assert response.json["errors"][0]["code"] in {"unsupported_image", "too_many_pixels"}


@pytest.mark.parametrize(
    ("kind", "width", "height"),
    [
        *(("PNG", 60_000, 60_000), ("PNG", 2**31 - 1, 2**31 - 1), ("PNG", 5000, 5001), ("JPEG", 65_500, 65_500)),
        *(("GIF", 65_535, 65_535), ("GIF", 5001, 5000), ("WEBP", 16_384, 16_384), ("WEBP", 5000, 5001)),
    ],
)
def test_too_many_pixels_are_refused_by_the_header(as_member, member, untouched, monkeypatch, kind, width, height):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    bomb = claiming(kind, width, height).ljust(1_048_576, b"\0")
    began = time.monotonic()

    with untouched():
        response = put(as_member, member, bomb)

    assert response.problem == (422, "invalid")
    assert (pointers(response), response.json["errors"][0]["code"]) == (["/body"], "too_many_pixels")
    assert time.monotonic() - began < 2


def test_a_picture_that_would_take_minutes_is_refused(as_member, member, untouched):
    with untouched():
        response = put(as_member, member, of_many_scans(5000), "image/jpeg")

    assert response.problem == (422, "invalid")


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        *(("text/html", {}), ("image/svg+xml", {}), ("image/*", {}), ("image", {}), ("application/json", {})),
        *(("application/octet-stream", {}), ("multipart/form-data; boundary=x", {}), ("image/bmp", {}), ("", {})),
        ("image/png", {"Content-Encoding": "gzip"}),
    ],
)
def test_a_type_that_is_no_picture_is_refused(as_member, member, untouched, kind, headers):
    with untouched():
        response = put(as_member, member, a_picture(), kind, **headers)

    assert response.problem == (415, "unsupported_media_type")


def test_a_file_over_a_mebibyte_is_refused(as_member, member, untouched, work):
    with untouched():
        response = put(as_member, member, a_picture() + bytes(1_048_577))

    assert response.problem == (413, "payload_too_large")
    assert put(as_member, member, a_picture().ljust(1_048_576, b"\0")).status_code == 202


# Of a WebP, the header says how much there must be, so that a part of one is refused at once.
@pytest.mark.parametrize("kind", sorted(TYPES.keys() - {"WEBP"}))
def test_a_part_of_a_picture_fails_and_leaves_what_was_shown(as_member, member, work, files, snapshot, kind):
    before = AvatarFactory(user=member)
    kept = files()
    whole = encoded(Image.effect_noise((300, 300), 90).convert("RGB"), kind)

    assert put(as_member, member, whole[: len(whole) // 2], TYPES[kind]).status_code == 202
    work()

    answer = as_member.get(avatar_of(member))
    assert (answer.json["state"], answer.json["error"]) == ("failed", "broken_image")
    assert events(snapshot) == [("processing", member.id), ("failed", None)]
    assert before.name in answer.json["urls"]["64"] and files() == kept
    assert snapshot()["jobs"] == []


@pytest.mark.parametrize("kind", TYPES)
def test_of_a_picture_that_is_also_something_else_only_the_picture_is_served(as_member, member, work, kind):
    put(as_member, member, a_picture(kind) + HTML, TYPES[kind])
    work()

    for answer in shown(as_member, member).values():
        assert b"canary" not in answer.data and opened(answer.data).format == "WEBP"


# Who


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_another_members_avatar_looks_like_a_missing_users(as_member, other, untouched, method):
    AvatarFactory(user=other)
    sent = {"data": a_picture(), "headers": {"Content-Type": "image/png"}} if method == "PUT" else {}

    with untouched():
        foreign = as_member.send(method, avatar_of(other), **sent)
        missing = as_member.send(method, NOBODY, **sent)

    assert foreign.problem == (404, "not_found")
    assert anonymous_form(foreign) == anonymous_form(missing)


def test_support_sees_avatars_but_does_not_change_them(as_support, member, untouched):
    AvatarFactory(user=member)

    assert as_support.get(avatar_of(member)).json["state"] == "ready"
    with untouched():
        assert put(as_support, member).problem == (403, "permission_denied")
        assert as_support.delete(avatar_of(member)).problem == (403, "permission_denied")


def test_an_admin_changes_and_removes_the_avatars_of_others(as_admin, admin, member, work, files, snapshot):
    assert put(as_admin, member).status_code == 202
    work()
    assert as_admin.delete(avatar_of(member)).status_code == 204
    work()

    assert files() == []
    assert events(snapshot) == [("processing", admin.id), ("ready", None), ("removed", admin.id)]


def test_nobody_gives_a_deleted_user_a_picture(as_admin, untouched):
    user = UserFactory(deleted=True)
    AvatarFactory(user=user)

    with untouched():
        answers = [
            as_admin.get(avatar_of(user)),
            put(as_admin, user),
            as_admin.delete(avatar_of(user)),
            put(as_admin, user),
        ]

    assert [answer.problem for answer in answers] == [(404, "not_found")] * 4


def test_who_has_none_is_told_so(as_member, member, untouched):
    with untouched():
        answers = [as_member.get(avatar_of(member)), as_member.delete(avatar_of(member))]

    assert [answer.problem for answer in answers] == [(404, "not_found")] * 2


# Replacing, removing, erasing


def test_another_picture_has_other_addresses_and_the_first_is_gone(client, as_member, member, work, files):
    put(as_member, member, a_picture(colour="red"))
    work()
    first = as_member.get(avatar_of(member))

    replaced = put(as_member, member, a_picture(colour="blue"))

    assert (replaced.json["state"], replaced.json["urls"]) == ("processing", first.json["urls"])
    assert client.get(paths(first)[64]).status_code == 200
    work()
    second = as_member.get(avatar_of(member))
    assert not {*paths(first).values()} & {*paths(second).values()}
    assert {client.get(path).problem for path in paths(first).values()} == {(404, "not_found")}
    assert middle(shown(as_member, member)[512].data) == (0, 0, 16, 16)
    assert len(files()) == 4


def test_of_pictures_in_a_row_the_last_is_shown(as_member, member, work, files, snapshot):
    for colour in ("red", "lime", "blue"):
        put(as_member, member, a_picture(colour=colour))
    work()

    assert middle(shown(as_member, member)[64].data) == (0, 0, 16, 16)
    assert len(files()) == 4 and snapshot()["jobs"] == []
    assert [state for state, _ in events(snapshot)] == ["processing"] * 3 + ["ready"]


def test_pictures_at_once_make_one_avatar(client, member, work, files, snapshot):
    callers = [client.as_(member) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(lambda caller: put(caller, member), callers)]
    work()

    assert {answer.status_code for answer in answers} == {202}
    assert len(snapshot()["avatars"]) == 1 and len(files()) == 4


@pytest.mark.parametrize("is_made", [True, False])
def test_a_removed_avatar_leaves_nothing(client, as_member, member, work, files, snapshot, is_made):
    put(as_member, member)
    if is_made:
        work()
    before = as_member.get(avatar_of(member)).json["urls"] or {}

    assert as_member.delete(avatar_of(member)).status_code == 204

    assert as_member.get(avatar_of(member)).problem == (404, "not_found")
    assert as_member.delete(avatar_of(member)).problem == (404, "not_found")
    work()
    assert files() == [] and snapshot()["jobs"] == [] and snapshot()["avatars"] == []
    assert all(client.get(url).status_code == 404 for url in before.values())


@pytest.mark.parametrize("is_made", [True, False])
def test_a_deleted_users_picture_stays_until_they_are_erased(client, as_admin, member, work, files, snapshot, is_made):
    put(as_admin, member)
    if is_made:
        work()

    as_admin.delete(f"{USERS}/{member.id}")
    work()

    assert len(files()) == 4
    as_admin.post(f"{USERS}/{member.id}/restore")
    picture = paths(as_admin.get(avatar_of(member)))[64]
    assert client.get(picture).status_code == 200
    as_admin.delete(f"{USERS}/{member.id}")
    assert client.get(picture).status_code == 200
    as_admin.post(f"{USERS}/{member.id}/erase")
    assert snapshot()["avatars"] == []
    work()
    assert files() == [] and snapshot()["jobs"] == []
    assert client.get(picture).problem == (404, "not_found")


def test_who_is_erased_while_their_picture_is_made_leaves_nothing(app, as_admin, member, work, files, monkeypatch):
    put(as_admin, member)
    made = pictures.squares

    def slow(content):
        as_admin.delete(f"{USERS}/{member.id}")
        as_admin.post(f"{USERS}/{member.id}/erase")
        return made(content)

    monkeypatch.setattr(pictures, "squares", slow)
    work()

    assert files() == []


def test_a_person_is_given_what_is_held_of_their_avatar(as_member, member, work):
    assert as_member.get("/api/v1/me/export").json["avatars"] == []
    put(as_member, member)
    work()

    assert as_member.get("/api/v1/me/export").json["avatars"] == [as_member.get(avatar_of(member)).json]


# Whatever happens on the way


@contextmanager
def killed_at(monkeypatch, number):
    """End the process at the step of that number: with a file, or with the row."""
    steps = iter(range(1000))

    def ending(work):
        def step(*args, **kwargs):
            if next(steps) == number:
                raise Killed
            result = work(*args, **kwargs)
            if next(steps) == number:
                raise Killed
            return result

        return step

    with monkeypatch.context() as patch:
        for name in ("put", "get", "delete"):
            patch.setattr(storage, name, ending(getattr(storage, name)))
        patch.setattr(avatars, "_finish", ending(avatars._finish))
        yield


@pytest.mark.parametrize("number", range(24))
def test_a_job_that_was_killed_anywhere_has_its_effect_once(
    as_member, member, work, files, snapshot, monkeypatch, number
):
    AvatarFactory(user=member)
    put(as_member, member, a_picture(colour="lime"))
    with killed_at(monkeypatch, number), pytest.raises(Killed):
        work()
    answer = as_member.get(avatar_of(member))
    assert all(opened(answer.data) for answer in shown(as_member, member).values()), answer.json["state"]

    work(later=True)

    assert as_member.get(avatar_of(member)).json["state"] == "ready"
    assert middle(shown(as_member, member)[64].data) == (0, 16, 0, 16)
    assert len(files()) == 4 and snapshot()["jobs"] == []
    assert [state for state, _ in events(snapshot)] == ["processing", "ready"]


@pytest.mark.parametrize("number", range(14))
def test_whoever_removes_it_meanwhile_leaves_nothing(as_member, member, work, files, snapshot, monkeypatch, number):
    put(as_member, member)
    with killed_at(monkeypatch, number), pytest.raises(Killed):
        work()

    as_member.delete(avatar_of(member))
    work(later=True)

    assert files() == [] and snapshot()["jobs"] == []


def test_the_file_of_a_request_that_broke_off_is_removed(as_member, member, work, files, snapshot, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(avatars, "insert_row", lambda *_, **__: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            put(as_member, member)
    assert len(files()) == 1 and snapshot()["avatars"] == []

    assert work() == 0
    assert work(later=True) == 1

    assert files() == [] and snapshot()["jobs"] == []


def test_a_job_that_runs_twice_changes_nothing(app, as_member, member, work, files, snapshot):
    put(as_member, member)
    with app.app_context():
        job = queue.claim()
        runner.run(job)
        before = files(), snapshot()
        runner.run(job)

    assert (files(), snapshot()) == before


def test_storage_that_is_away_refuses_uploads_and_puts_off_jobs(app, as_member, member, work, tmp_path, snapshot):
    place = app.config["STORAGE_URL"]
    (tmp_path / "away").touch()
    app.config["STORAGE_URL"] = (tmp_path / "away" / "files").as_uri()

    assert put(as_member, member).problem == (503, "unavailable")
    assert snapshot()["avatars"] == [] and events(snapshot) == []
    avatar = AvatarFactory.build(user=member)
    assert as_member.get(f"/avatars/{avatar.name}-64.webp").problem == (503, "unavailable")

    app.config["STORAGE_URL"] = place
    put(as_member, member)
    app.config["STORAGE_URL"] = (tmp_path / "away" / "files").as_uri()
    work()
    assert as_member.get(avatar_of(member)).json["state"] == "processing"
    app.config["STORAGE_URL"] = place
    work(later=True)
    assert as_member.get(avatar_of(member)).json["state"] == "ready"


def test_what_was_tried_too_often_is_given_up(app, as_member, member, work, files, snapshot, monkeypatch):
    put(as_member, member)
    with app.app_context(), unit_of_work():
        execute(OFTEN_TRIED)
    monkeypatch.setattr(pictures, "squares", lambda content: pytest.fail("tried again"))

    work()

    answer = as_member.get(avatar_of(member)).json
    assert (answer["state"], answer["error"], answer["urls"]) == ("failed", "not_processed", None)
    assert files() == []


def test_an_upload_that_was_lost_fails(as_member, member, work, tmp_path):
    put(as_member, member)
    (upload,) = (tmp_path / "uploads").iterdir()
    upload.unlink()

    work()

    assert as_member.get(avatar_of(member)).json["error"] == "not_processed"


def test_without_a_place_for_files_there_are_no_avatars(app, client, as_member, member, untouched):
    avatar = AvatarFactory(user=member)
    app.config["STORAGE_URL"] = ""

    with untouched():
        assert put(as_member, member).problem == (403, "storage_missing")

    assert client.get(f"/avatars/{avatar.name}-64.webp").problem == (404, "not_found")
    assert as_member.get(avatar_of(member)).json["state"] == "ready"
    assert as_member.delete(avatar_of(member)).status_code == 204


# The pictures themselves


def test_a_picture_is_kept_for_ever_and_can_do_nothing(client, member):
    avatar = AvatarFactory(user=member)

    answer = client.get(f"/avatars/{avatar.name}-64.webp")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/webp"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert answer.headers["ETag"] == f'"{avatar.name}-64"'
    assert "Set-Cookie" not in answer.headers


def test_a_picture_that_is_known_is_not_sent_again(client, member):
    avatar = AvatarFactory(user=member)
    path, tag = f"/avatars/{avatar.name}-128.webp", f'"{avatar.name}-128"'

    known = client.get(path, headers={"If-None-Match": tag})
    unknown = client.get(path, headers={"If-None-Match": f'"{avatar.name}-64"'})
    head = client.head(path)

    assert (known.status_code, known.headers["ETag"]) == (304, tag)
    assert known.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert (unknown.status_code, head.status_code, head.data) == (200, 200, b"")
    assert head.headers["Content-Length"] == unknown.headers["Content-Length"]


@pytest.mark.parametrize(
    "file",
    [
        *("", ".", "..", "../uploads/{name}", "..%2fuploads%2f{name}", "%2e%2e/{name}-64.webp", "{name}", "{name}-64"),
        *("{name}-65.webp", "{name}-64.webp%00", "{name}-64.webp%0a", "{name}-64.WEBP", "{upper}-64.webp"),
        *("{name}-064.webp", "{name}-６4.webp", "{name}-64.webp/", "{name}-64.webp/x", "x{name}-64.webp", "etc/passwd"),
        *("0" * 32 + "-64.webp", "%2fetc%2fpasswd", "{name}-64.webp;x", "a" * 5000),
    ],
)
def test_nothing_else_is_served(client, member, tmp_path, file):
    avatar = AvatarFactory(user=member, name="abcdef0123456789" * 2)
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / avatar.name).write_bytes(b"canary")

    answer = client.get("/avatars/" + file.format(name=avatar.name, upper=avatar.name.upper()))

    assert answer.problem == (404, "not_found")


def test_no_two_names_are_alike_nor_do_they_tell_of_the_user(as_member, member, work):
    names = set()
    for _ in range(5):
        put(as_member, member)
        work()
        names |= {*re.findall(r"/avatars/([0-9a-f]{32})-64\.webp", as_member.get(avatar_of(member)).json["urls"]["64"])}

    assert len(names) == 5


def test_files_of_ours_are_nobody_elses_on_the_machine(as_member, member, tmp_path):
    put(as_member, member)

    assert {folder.name: folder.stat().st_mode & 0o077 for folder in Path(tmp_path).iterdir()} == {
        "uploads": 0,
        "drafts": 0,
    }


@pytest.mark.parametrize(
    "fields",
    [
        *({"state": "ready"}, {"state": "ready", "name": "a", "upload": "b"}, {"state": "processing", "name": "a"}),
        *({"state": "failed", "upload": "a"}, {"state": "shown", "name": "a"}),
    ],
    ids=str,
)
def test_no_row_says_that_there_are_pictures_where_there_are_none(app, member, fields):
    with app.app_context(), pytest.raises(IntegrityError), unit_of_work():
        insert_row(Avatar, user_id=member.id, **fields)
