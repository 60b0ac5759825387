"""Posts: listing, writing, reading, changing, replacing and deleting them."""

from datetime import UTC, datetime, timedelta

import pytest

from models import Post
from models.base import db
from tests.factories.post import PostFactory
from tests.factories.user import UserFactory
from tests.resources.answers import anonymous_form, links, pointers

POSTS = "/api/v1/posts"
NOBODY = "/api/v1/users/999999/posts"


def posts_of(user):
    return f"/api/v1/users/{user.id}/posts"


def a_post(**fields):
    return {"title": "A title", "content": "Some words.", **fields}


def ids(response):
    return [post["id"] for post in response.json["posts"]]


@pytest.fixture
def post(member):
    """Return a post of the member."""
    return PostFactory(author=member, title="Mine")


@pytest.fixture
def foreign(other):
    """Return a post of the other member."""
    return PostFactory(author=other, title="Not yours")


# Lists


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("sort", ["id", "created_at", "updated_at"])
def test_every_sort_goes_forwards_and_back_over_ties(as_member, member, sort, sign):
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    for number in range(5):
        PostFactory(author=member, created_at=noon, updated_at=noon + timedelta(days=number % 2))
    everything = as_member.get(posts_of(member)).json["posts"]
    ordered = sorted(everything, key=lambda post: (post[sort], post["id"]), reverse=bool(sign))

    first = as_member.get(f"{posts_of(member)}?per_page=3&sort={sign}{sort}")
    second = as_member.get(links(first)["next"])
    back = as_member.get(links(second)["prev"])

    assert ids(first) + ids(second) == [post["id"] for post in ordered]
    assert (len(ids(first)), len(ids(second))) == (3, 2)
    assert ids(back) == ids(first)
    assert "prev" not in links(back) and "next" not in links(second)


def test_list_holds_only_the_users_own_posts(as_member, member, post, foreign):
    listed = as_member.get(f"{posts_of(member)}?page=1")

    assert ids(listed) == [post.id]
    assert (listed.json["page"], listed.json["pages"], listed.json["total"]) == (1, 1, 1)


def test_list_of_a_user_without_posts_is_empty(as_member, member):
    listed = as_member.get(posts_of(member))

    assert listed.json == {"posts": [], "next_cursor": None}


def test_cursor_of_another_users_posts_is_refused(as_admin, member, other):
    PostFactory.create_batch(2, author=member)
    PostFactory.create_batch(2, author=other)
    cursor = as_admin.get(f"{posts_of(member)}?per_page=1").json["next_cursor"]

    response = as_admin.get(f"{posts_of(other)}?per_page=1&cursor={cursor}")

    assert response.problem == (400, "invalid_parameter")
    assert pointers(response) == ["/query/cursor"]


@pytest.mark.parametrize(
    "query", ["sort=title", "sort=content", "fields=author", "q=a", "user_id=1", "per_page=0", "per_page=101", "page=0"]
)
def test_bad_parameter_is_named(as_member, member, query):
    response = as_member.get(f"{posts_of(member)}?{query}")

    assert response.problem == (400, "invalid_parameter")
    assert pointers(response) == [f"/query/{query.partition('=')[0]}"]


def test_fields_leaves_only_those(as_member, member, post):
    listed = as_member.get(f"{posts_of(member)}?fields=title,id")
    read = as_member.get(f"{POSTS}/{post.id}?fields=title")

    assert listed.json["posts"] == [{"id": post.id, "title": "Mine"}]
    assert read.json == {"title": "Mine"}
    assert "ETag" not in read.headers


def test_other_members_list_looks_like_a_missing_users(as_member, foreign, other):
    foreign_list = as_member.get(posts_of(other))
    missing = as_member.get(NOBODY)

    assert foreign_list.problem == (404, "not_found")
    assert anonymous_form(foreign_list) == anonymous_form(missing)


@pytest.mark.parametrize("who", ["support", "admin"])
def test_those_permitted_list_and_read_what_others_wrote(client, request, who, member, post):
    caller = client.as_(request.getfixturevalue(who))

    assert ids(caller.get(posts_of(member))) == [post.id]
    assert caller.get(f"{POSTS}/{post.id}").json["title"] == "Mine"
    assert caller.get(NOBODY).problem == (404, "not_found")


@pytest.mark.parametrize("state", ["suspended", "deleted"])
def test_posts_go_with_a_deleted_user_and_stay_with_a_suspended_one(as_admin, state):
    author = UserFactory(**{state: True})
    post = PostFactory(author=author)
    expected = 404 if state == "deleted" else 200

    assert as_admin.get(posts_of(author)).status_code == expected
    assert as_admin.get(f"{POSTS}/{post.id}").status_code == expected
    assert as_admin.patch(f"{POSTS}/{post.id}", json={"title": "New"}).status_code == expected


# Writing


def test_member_writes_a_post(as_member, member):
    response = as_member.post(posts_of(member), json=a_post())

    assert response.status_code == 201
    post = response.json
    assert list(post) == ["id", "user_id", "title", "content", "version", "created_at", "updated_at"]
    assert (post["title"], post["content"], post["user_id"]) == ("A title", "Some words.", member.id)
    assert post["version"] == 1 and post["created_at"] == post["updated_at"]
    assert response.headers["Location"] == f"http://localhost{POSTS}/{post['id']}"
    assert response.headers["ETag"] == '"1"'
    assert response.headers["Cache-Control"] == "no-store"
    assert as_member.get(f"{POSTS}/{post['id']}").json == post


def test_admin_writes_for_another(as_admin, member):
    response = as_admin.post(posts_of(member), json=a_post())

    assert response.status_code == 201
    assert response.json["user_id"] == member.id


@pytest.mark.parametrize(("who", "problem"), [("member", (404, "not_found")), ("support", (403, "permission_denied"))])
def test_others_cannot_write_for_a_user(client, request, nothing_changes, other, who, problem):
    caller = client.as_(request.getfixturevalue(who))

    with nothing_changes():
        foreign = caller.post(posts_of(other), json=a_post())
        missing = caller.post(NOBODY, json=a_post())

    assert foreign.problem == problem
    assert anonymous_form(foreign) == anonymous_form(missing)


def test_nobody_writes_for_a_deleted_user(as_admin, nothing_changes):
    author = UserFactory(deleted=True)

    with nothing_changes():
        response = as_admin.post(posts_of(author), json=a_post())

    assert response.problem == (404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        a_post(title="t", content="c"),
        a_post(title="t" * 200, content="c" * 30_000),
        a_post(title="😀" * 200, content="😀" * 30_000),
        a_post(content="lines\nand\ttabs\r\n"),
        a_post(content=" edge spaces stay "),
        a_post(title="{{7*7}} <b>'; --", content="<script>alert(1)</script>"),
    ],
    ids=["shortest", "longest", "emoji", "lines", "spaces", "markup"],
)
def test_text_comes_back_as_it_was_given(as_member, member, body):
    response = as_member.post(posts_of(member), json=body)

    assert response.status_code == 201
    assert {name: response.json[name] for name in body} == body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""),
        ("title", "t" * 201),
        ("title", " title"),
        ("title", "two\nlines"),
        ("title", "tab\there"),
        ("title", "\u202etitle"),
        ("title", None),
        ("title", 5),
        ("content", ""),
        ("content", "c" * 30_001),
        ("content", "nul\0"),
        ("content", "escape\x1b[2J"),
        ("content", "a\u2028b"),
        ("content", None),
        ("content", ["c"]),
        ("id", 1),
        ("user_id", 1),
        ("version", 1),
        ("created_at", "2026-01-01T00:00:00Z"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_bad_field_is_named(as_member, member, post, nothing_changes, field, value):
    with nothing_changes():
        answers = [
            as_member.post(posts_of(member), json=a_post(**{field: value})),
            as_member.put(f"{POSTS}/{post.id}", json=a_post(**{field: value})),
            as_member.patch(f"{POSTS}/{post.id}", json={field: value}),
        ]

    for response in answers:
        assert response.problem == (422, "invalid")
        assert pointers(response) == [f"/json/{field}"]


@pytest.mark.parametrize("missing", ["title", "content"])
def test_whole_post_needs_every_field(as_member, member, post, nothing_changes, missing):
    body = a_post()
    del body[missing]

    with nothing_changes():
        answers = [as_member.post(posts_of(member), json=body), as_member.put(f"{POSTS}/{post.id}", json=body)]

    for response in answers:
        assert response.problem == (422, "invalid")
        assert pointers(response) == [f"/json/{missing}"]


# One post


def test_post_is_read_with_its_etag(as_member, post):
    got = as_member.get(f"{POSTS}/{post.id}")
    known = as_member.get(f"{POSTS}/{post.id}", headers={"If-None-Match": got.headers["ETag"]})
    head = as_member.head(f"{POSTS}/{post.id}")

    assert got.status_code == 200 and got.headers["ETag"] == '"1"'
    assert got.headers["Cache-Control"] == "private, no-cache"
    assert known.status_code == 304
    assert head.status_code == 200 and head.data == b""
    assert head.headers["Content-Length"] == got.headers["Content-Length"]


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize("headers", [{}, {"If-Match": '"1"'}, {"If-Match": '"7"'}])
def test_other_members_post_looks_like_a_missing_one(as_member, foreign, nothing_changes, method, headers):
    with nothing_changes():
        refused = as_member.send(method, f"{POSTS}/{foreign.id}", json=a_post(), headers=headers)
        missing = as_member.send(method, f"{POSTS}/999999", json=a_post(), headers=headers)

    assert refused.problem == (404, "not_found")
    assert anonymous_form(refused) == anonymous_form(missing)


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_support_reads_posts_but_does_not_change_them(as_support, post, nothing_changes, method):
    with nothing_changes():
        response = as_support.send(method, f"{POSTS}/{post.id}", json=a_post())

    assert response.status_code in (403, 404)


@pytest.mark.parametrize(
    "spelling", ["0", "-1", "01", "1.0", "0x1", "１", "9223372036854775808", "1%20", "1%00", "1;x"]
)
def test_odd_spelling_of_an_id_is_not_found(as_admin, spelling):
    response = as_admin.get(f"{POSTS}/{spelling}")

    assert response.problem == (404, "not_found")


@pytest.mark.parametrize("who", ["member", "admin"])
def test_post_is_changed_by_its_owner_and_by_those_permitted(client, request, who, post):
    caller = client.as_(request.getfixturevalue(who))

    response = caller.patch(f"{POSTS}/{post.id}", json={"title": "Better"})

    assert response.status_code == 200
    assert (response.json["title"], response.json["content"]) == ("Better", post.content)
    assert response.json["version"] == 2 and response.headers["ETag"] == '"2"'
    assert datetime.fromisoformat(response.json["updated_at"]) > post.updated_at
    assert datetime.fromisoformat(response.json["created_at"]) == post.created_at
    assert caller.get(f"{POSTS}/{post.id}").json == response.json


def test_put_replaces_the_post(as_member, post):
    response = as_member.put(f"{POSTS}/{post.id}", json=a_post(title="Whole"))

    assert response.status_code == 200
    assert (response.json["title"], response.json["content"], response.json["version"]) == ("Whole", "Some words.", 2)


@pytest.mark.parametrize("body", [{}, {"title": "Mine"}, {"title": "Mine", "content": "Some words."}], ids=str)
def test_change_that_changes_nothing_keeps_the_version(as_member, post, nothing_changes, body):
    with nothing_changes():
        response = as_member.patch(f"{POSTS}/{post.id}", json=body)

    assert response.status_code == 200
    assert response.headers["ETag"] == '"1"'


@pytest.mark.parametrize("tag", ['"2"', '"another"', 'W/"9"', "garbage"])
def test_change_is_refused_when_the_etag_is_not_current(as_member, post, nothing_changes, tag):
    with nothing_changes():
        answers = [
            as_member.patch(f"{POSTS}/{post.id}", json={"title": "New"}, headers={"If-Match": tag}),
            as_member.put(f"{POSTS}/{post.id}", json=a_post(), headers={"If-Match": tag}),
            as_member.delete(f"{POSTS}/{post.id}", headers={"If-Match": tag}),
        ]

    assert [response.problem for response in answers] == [(412, "version_mismatch")] * 3


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', "*", '"9", "1"'])
def test_change_is_made_when_the_etag_is_current(as_member, post, tag):
    changed = as_member.patch(f"{POSTS}/{post.id}", json={"title": "New"}, headers={"If-Match": tag})
    deleted = as_member.delete(f"{POSTS}/{post.id}", headers={"If-Match": changed.headers["ETag"]})

    assert (changed.status_code, deleted.status_code) == (200, 204)


def test_if_match_is_demanded_where_it_is_required(app, as_member, post, nothing_changes):
    app.config["REQUIRE_IF_MATCH"] = True

    with nothing_changes():
        answers = [
            as_member.patch(f"{POSTS}/{post.id}", json={"title": "New"}),
            as_member.put(f"{POSTS}/{post.id}", json=a_post()),
            as_member.delete(f"{POSTS}/{post.id}"),
        ]

    assert [response.problem for response in answers] == [(428, "precondition_required")] * 3


@pytest.mark.parametrize("who", ["member", "admin"])
def test_deleted_post_is_gone(client, app, request, who, member, post):
    caller = client.as_(request.getfixturevalue(who))

    response = caller.delete(f"{POSTS}/{post.id}")

    assert response.status_code == 204
    assert caller.delete(f"{POSTS}/{post.id}").problem == (404, "not_found")
    assert caller.get(f"{POSTS}/{post.id}").problem == (404, "not_found")
    assert ids(caller.get(posts_of(member))) == []
    with app.app_context():
        assert db.session.get(Post, post.id) is None
