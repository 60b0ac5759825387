"""Storage: in a folder and in a bucket, where files are whole or not there; and what happens when it is away."""

import os
import threading
import time
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from service import storage
from service.bucket import Bucket
from service.errors import StorageMissing, Unavailable
from tests.servers import free_port

NAME = "avatars/0123456789abcdef-64.webp"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a key", "AWS_SECRET_ACCESS_KEY": "a secret", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def bucket(monkeypatch):
    """Return a client of S3, as it is imitated in this process, where there is a bucket `kept`."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    storage._place.cache_clear()
    with mock_aws():
        client = boto3.client("s3", region_name="eu-central-1")
        client.create_bucket(Bucket="kept", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield client
    storage._place.cache_clear()


@pytest.fixture(params=["folder", "folder with a space", "bucket", "bucket with a prefix"])
def place(request, app, tmp_path):
    """Let the application keep files in a place of some kind."""
    if request.param.startswith("bucket"):
        request.getfixturevalue("bucket")
        prefix = "/some/prefix" if "prefix" in request.param else ""
        app.config["STORAGE_URL"] = f"s3://kept{prefix}?region=eu-central-1"
    else:
        app.config["STORAGE_URL"] = (tmp_path / request.param).as_uri()
    with app.app_context():
        yield


def test_what_is_put_can_be_got_until_it_is_deleted(place):
    assert storage.get(NAME) is None

    storage.put(NAME, b"one")
    assert storage.get(NAME) == b"one"
    storage.put(NAME, b"\0" * 1_000_000)
    assert storage.get(NAME) == b"\0" * 1_000_000

    storage.delete(NAME)
    assert storage.get(NAME) is None
    storage.delete(NAME)


def test_files_do_not_see_each_other(place):
    storage.put("avatars/one", b"one")
    storage.put("uploads/one", b"two")
    storage.delete("avatars/one")

    assert (storage.get("avatars/one"), storage.get("uploads/one")) == (None, b"two")


def test_the_names_in_a_bucket_stand_below_its_prefix(app, bucket):
    with app.app_context():
        for url in ("s3://kept", "s3://kept/", "s3://kept/a%20prefix/"):
            app.config["STORAGE_URL"] = url + "?region=eu-central-1"
            storage.put(NAME, b"one")

    keys = [found["Key"] for found in bucket.list_objects_v2(Bucket="kept")["Contents"]]

    assert keys == [f"a prefix/{NAME}", NAME]


# A folder


def test_nobody_sees_a_part_of_a_file(app, tmp_path):
    app.config["STORAGE_URL"] = tmp_path.as_uri()
    contents = [letter * 3_000_000 for letter in (b"a", b"b")]
    with app.app_context():
        storage.put(NAME, contents[0])
    ended = threading.Event()

    def write():
        with app.app_context():
            for number in range(20):
                storage.put(NAME, contents[number % 2])
        ended.set()

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    while not ended.is_set():
        assert (tmp_path / NAME).read_bytes() in contents
    for writer in writers:
        writer.join()

    assert [*(tmp_path / "drafts").iterdir()] == []


def test_a_file_that_cannot_be_written_whole_is_as_it_was(app, tmp_path, monkeypatch):
    app.config["STORAGE_URL"] = tmp_path.as_uri()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with app.app_context():
        storage.put(NAME, b"one")
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(Unavailable):
            storage.put(NAME, b"two")

        assert storage.get(NAME) == b"one"
    assert [*(tmp_path / "drafts").iterdir()] == []


def test_what_a_killed_writer_left_is_swept_away_but_not_what_is_being_written(app, tmp_path):
    app.config["STORAGE_URL"] = tmp_path.as_uri()
    drafts = tmp_path / "drafts"
    drafts.mkdir()
    for name, age in (("old", storage.ABANDONED_AFTER + 60), ("new", 60)):
        (drafts / name).write_bytes(b"half")
        os.utime(drafts / name, (time.time() - age,) * 2)

    with app.app_context():
        storage.put(NAME, b"one")

    assert [path.name for path in drafts.iterdir()] == ["new"]


# Where it is away


def test_nothing_is_kept_where_no_place_is_named(app):
    app.config["STORAGE_URL"] = ""
    with app.app_context():
        for ask in (lambda: storage.get(NAME), lambda: storage.put(NAME, b"one"), lambda: storage.delete(NAME)):
            with pytest.raises(StorageMissing):
                ask()

        assert not storage.is_there()


@pytest.mark.parametrize("kind", ["no folder", "no bucket", "nobody there"])
def test_a_place_that_is_away_is_told_of_without_its_name(app, request, monkeypatch, tmp_path, caplog, kind):
    if kind == "nobody there":
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
    (tmp_path / "canary").touch()
    app.config["STORAGE_URL"] = {
        "no folder": (tmp_path / "canary" / "files").as_uri(),
        "no bucket": "s3://canary?region=eu-central-1",
        "nobody there": f"s3://canary?region=eu-central-1&endpoint=http://127.0.0.1:{free_port()}",
    }[kind]
    if kind == "no bucket":
        request.getfixturevalue("bucket")
    with app.app_context():
        for ask in (lambda: storage.get(NAME), lambda: storage.put(NAME, b"one"), lambda: storage.delete(NAME)):
            with pytest.raises(Unavailable) as refused:
                ask()

            assert "canary" not in refused.value.detail
    assert {record.message for record in caplog.records} == {"storage unavailable"}


def test_an_endpoint_is_spoken_to_by_path_and_a_bucket_of_amazon_by_its_region(bucket):
    with_endpoint = Bucket("s3://kept?endpoint=https://files.example:9000&region=local")
    without = Bucket("s3://kept?region=eu-west-1")

    assert with_endpoint.client.meta.endpoint_url == "https://files.example:9000"
    assert with_endpoint.client.meta.config.s3 == {"addressing_style": "path"}
    assert (without.client.meta.region_name, without.prefix) == ("eu-west-1", "")
    assert without.client.meta.config.read_timeout == 10


def test_folders_are_made_for_the_service_alone(app, tmp_path):
    app.config["STORAGE_URL"] = (tmp_path / "files").as_uri()
    with app.app_context():
        storage.put(NAME, b"one")

    folders = [path for path in Path(tmp_path / "files").rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "files", *folders)} == {0}
