"""Users: listing, reading, creating, changing, replacing and deleting them."""

from datetime import UTC, datetime, timedelta
from string import ascii_letters, digits

import orjson
import pytest

from models import User
from models.base import db
from service import normal
from tests.factories.post import PostFactory
from tests.factories.user import PASSWORD, UserFactory
from tests.resources.answers import anonymous_form, links, pointers

USERS = "/api/v1/users"
LOGIN = "/api/v1/auth/login"
NOBODY = f"{USERS}/999999"
LONGEST = "".join(f"{number:04}" for number in range(256))  # As long as a password may be.


def ids(response):
    return [user["id"] for user in response.json["users"]]


def names(response):
    return {user["name"] for user in response.json["users"]}


def a_user(**fields):
    return {"email": "new@example.com", "name": "New Person", "password": "a good password", **fields}


def pages_from(client, path, relation="next"):
    """Follow a relation of the Link header from page to page."""
    pages = [client.get(path)]
    while (address := links(pages[-1]).get(relation)) and len(pages) < 30:
        pages.append(client.get(address))
    return pages


# Lists


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("sort", ["id", "created_at", "updated_at", "name", "email"])
def test_every_sort_goes_forwards_and_back_over_ties(as_admin, sort, sign):
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    for name in ("Ben", "ann", "Élodie", "ANN", "ben", "Zoë"):
        UserFactory(name=name, created_at=noon, updated_at=noon + timedelta(days=len(name)))
    read = {"id": int, "name": normal.key, "email": normal.key}.get(sort, datetime.fromisoformat)
    users = as_admin.get(USERS).json["users"]
    in_order = sorted(users, key=lambda user: (read(user[sort]), user["id"]), reverse=bool(sign))

    forwards = pages_from(as_admin, f"{USERS}?per_page=2&sort={sign}{sort}")
    back = pages_from(as_admin, links(forwards[-1])["prev"], "prev")

    assert [len(ids(page)) for page in forwards] == [2, 2, 2, 1]
    assert [user_id for page in forwards for user_id in ids(page)] == [user["id"] for user in in_order]
    assert [ids(page) for page in [*reversed(back), forwards[-1]]] == [ids(page) for page in forwards]


def test_next_cursor_and_link_lead_to_the_same_page(as_admin):
    UserFactory.create_batch(3)

    first = as_admin.get(f"{USERS}?per_page=2&sort=name")
    by_cursor = as_admin.get(USERS, query_string={"per_page": "2", "sort": "name", "cursor": first.json["next_cursor"]})
    by_link = as_admin.get(links(first)["next"])

    assert by_cursor.json == by_link.json
    assert by_cursor.json["next_cursor"] is None


def test_first_page_has_no_previous_and_last_has_no_next(as_admin):
    UserFactory.create_batch(2)

    first, second = pages_from(as_admin, f"{USERS}?per_page=2")

    assert set(links(first)) == {"first", "next"}
    assert set(links(second)) == {"first", "prev"}
    assert links(second)["first"] == f"{USERS}?per_page=2"
    assert set(first.json) == {"users", "next_cursor"}


def test_page_size_may_change_on_the_way(as_admin):
    UserFactory.create_batch(4)

    first = as_admin.get(f"{USERS}?per_page=2")
    rest = as_admin.get(f"{USERS}?per_page=100&cursor={first.json['next_cursor']}&fields=id")

    assert len(ids(first) + ids(rest)) == len({*ids(first), *ids(rest)}) == 5


def test_list_shows_twenty_where_nothing_is_said(as_admin):
    UserFactory.create_batch(21, password_hash=None)

    response = as_admin.get(USERS)

    assert len(ids(response)) == 20
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert "ETag" not in response.headers


def test_walk_neither_repeats_nor_skips_while_others_write(app, as_admin):
    untouched = [UserFactory(name=f"Keep {number}").id for number in range(6)]
    doomed = [UserFactory(name=f"Keep {number} too") for number in range(6)]
    seen, path = [], f"{USERS}?per_page=3&sort=name"

    while path:
        page = as_admin.get(path)
        seen += ids(page)
        UserFactory(name="Aaron, before all pages")
        UserFactory(name="Zz, behind all pages so far")
        with app.app_context():
            db.session.delete(db.session.merge(doomed.pop(0)))
            db.session.commit()
        path = links(page).get("next") if doomed else None

    assert len(seen) == len(set(seen))
    assert [user_id for user_id in seen if user_id in untouched] == untouched


def test_walk_goes_on_after_the_row_it_stood_on_is_deleted(app, as_admin, admin):
    users = UserFactory.create_batch(3)

    first = as_admin.get(f"{USERS}?per_page=2")
    as_admin.delete(f"{USERS}/{users[0].id}")
    second = as_admin.get(links(first)["next"])

    assert ids(first) == [admin.id, users[0].id]
    assert ids(second) == [users[1].id, users[2].id]


def test_numbered_pages_count_all(as_admin, admin):
    users = UserFactory.create_batch(4)

    first = as_admin.get(f"{USERS}?page=1&per_page=2&sort=-id")
    last = as_admin.get(links(first)["last"])

    assert ids(first) == [users[3].id, users[2].id]
    assert (first.json["page"], first.json["pages"], first.json["total"]) == (1, 3, 5)
    assert set(links(first)) == {"first", "next", "last"}
    assert ids(last) == [admin.id]
    assert last.json["page"] == 3 and last.json["next_cursor"] is None
    assert set(links(last)) == {"first", "prev", "last"}


def test_numbered_page_goes_on_by_cursor(as_admin):
    UserFactory.create_batch(4)

    first = as_admin.get(f"{USERS}?page=1&per_page=3&sort=name")
    rest = as_admin.get(f"{USERS}?per_page=3&sort=name&cursor={first.json['next_cursor']}")

    assert len({*ids(first), *ids(rest)}) == 5


@pytest.mark.parametrize("number", [3, 1_000_000_000])
def test_page_past_the_end_is_empty(as_admin, number):
    response = as_admin.get(f"{USERS}?page={number}&per_page=100")

    assert response.status_code == 200
    assert response.json == {"users": [], "next_cursor": None, "page": number, "pages": 1, "total": 1}
    assert links(response)["prev"] == links(response)["last"] == f"{USERS}?per_page=100&page=1"


def test_empty_list_is_one_empty_page(as_admin):
    response = as_admin.get(f"{USERS}?q=nobody+has+this&page=1")

    assert response.json == {"users": [], "next_cursor": None, "page": 1, "pages": 1, "total": 0}


def test_head_of_a_list_says_what_get_says_without_a_body(as_admin):
    got = as_admin.get(f"{USERS}?per_page=1")

    head = as_admin.head(f"{USERS}?per_page=1")

    assert head.status_code == 200 and head.data == b""
    assert head.headers["Link"] == got.headers["Link"]
    assert head.headers["Content-Length"] == got.headers["Content-Length"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("per_page=0", "per_page"),
        ("per_page=101", "per_page"),
        ("per_page=-1", "per_page"),
        ("per_page=%2B1", "per_page"),
        ("per_page=1.5", "per_page"),
        ("per_page=abc", "per_page"),
        ("per_page=%E2%91%A9", "per_page"),
        ("per_page=%D9%A1", "per_page"),
        ("per_page=01", "per_page"),
        ("per_page=1_0", "per_page"),
        ("per_page=", "per_page"),
        (f"per_page=1{'0' * 20}", "per_page"),
        (f"per_page={'9' * 5000}", "per_page"),
        ("per_page=1&per_page=1", "per_page"),
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=1000000001", "page"),
        (f"page=1{'0' * 20}", "page"),
        ("page=", "page"),
        ("cursor=", "cursor"),
        ("cursor=AAAA", "cursor"),
        ("cursor=a%00b", "cursor"),
        ("cursor=%C3%A9", "cursor"),
        ("cursor=eyJrIjoicGFzc3dvcmRfaGFzaCJ9", "cursor"),
        (f"cursor={'A' * 2000}", "cursor"),
        (f"cursor={'A' * 4096}", "cursor"),
        ("sort=password_hash", "sort"),
        ("sort=-password_hash", "sort"),
        ("sort=", "sort"),
        ("sort=--id", "sort"),
        ("sort=ID", "sort"),
        ("sort=users.id", "sort"),
        ("sort=name+desc--", "sort"),
        ("sort=name,id", "sort"),
        ("sort=(select+1)", "sort"),
        ("sort=__class__", "sort"),
        ("fields=password_hash", "fields"),
        ("fields=id,", "fields"),
        ("fields=", "fields"),
        ("fields=id&fields=name", "fields"),
        ("role=owner", "role"),
        ("role=", "role"),
        ("is_active=1", "is_active"),
        ("is_active=True", "is_active"),
        ("is_active=", "is_active"),
        ("q=", "q"),
        (f"q={'a' * 121}", "q"),
        (f"q={'(a+)+$' * 900}", "q"),
        ("q=a%00b", "q"),
        ("q=a%E2%80%AEb", "q"),
        ("q=a&q=b", "q"),
        ("email=", "email"),
        (f"email={'a' * 321}", "email"),
        ("external_id=", "external_id"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-01-01", "created_after"),
        ("created_after=2026-01-01T00:00:00", "created_after"),
        ("created_after=2026-01-01T00:00:00+01:00", "created_after"),
        ("created_after=2026-02-30T00:00:00Z", "created_after"),
        ("created_after=0000-01-01T00:00:00Z", "created_after"),
        ("created_after=99999-01-01T00:00:00Z", "created_after"),
        ("created_before=2026-01-01T24:30:00Z", "created_before"),
        ("updated_after=2026-01-01T00:00:00%2B24:00", "updated_after"),
        (f"updated_before=2026-01-01T00:00:00.{'1' * 10_000}Z", "updated_before"),
        ("limit=5", "limit"),
        ("owner=1", "owner"),
        ("password_hash=x", "password_hash"),
        ("password_hash__startswith=x", "password_hash__startswith"),
        ("filter%5Bpassword_hash%5D%5Blike%5D=%24argon2", "filter[password_hash][like]"),
        ("access_token=x", "access_token"),
        ("a/b=1", "a~1b"),
        ("=1", ""),
    ],
)
def test_bad_parameter_is_named(as_admin, nothing_changes, query, pointer):
    with nothing_changes():
        response = as_admin.get(f"{USERS}?{query}")

    assert response.problem == (400, "invalid_parameter")
    assert pointers(response) == [f"/query/{pointer}"]


def test_all_bad_parameters_are_named_at_once(as_admin):
    response = as_admin.get(f"{USERS}?per_page=0&sort=x&unknown=1&q=a&q=b")

    assert response.problem == (400, "invalid_parameter")
    assert {*pointers(response)} == {"/query/per_page", "/query/sort", "/query/unknown", "/query/q"}


def test_cursor_and_page_exclude_each_other(as_admin):
    UserFactory()
    cursor = as_admin.get(f"{USERS}?per_page=1").json["next_cursor"]

    response = as_admin.get(f"{USERS}?per_page=1&cursor={cursor}&page=1")

    assert response.problem == (400, "invalid_parameter")
    assert pointers(response) == ["/query/page"]


@pytest.mark.parametrize("last_id", [70, 700, 7000])  # Each length of a cursor has other bits to spare.
def test_cursor_with_any_character_changed_is_refused(client, app, last_id):
    admin = UserFactory(id=last_id, admin=True)
    UserFactory(id=last_id + 1)
    as_admin = client.as_(admin)
    cursor = as_admin.get(f"{USERS}?per_page=1").json["next_cursor"]
    changed = [cursor[:at] + new + cursor[at + 1 :] for at in range(len(cursor)) for new in "Az." if new != cursor[at]]
    changed += [cursor[:-1] + new for new in f"{ascii_letters}{digits}-_+/" if new != cursor[-1]]

    accepted = [one for one in changed if as_admin.get(USERS, query_string={"cursor": one}).status_code != 400]

    assert accepted == []


@pytest.mark.parametrize(
    "change",
    [
        lambda cursor: cursor[:-1],
        lambda cursor: cursor[:22],
        lambda cursor: cursor[::-1],
        lambda cursor: cursor * 2,
        lambda cursor: f"{cursor}....",
        lambda cursor: f"{cursor}=",
        lambda cursor: f" {cursor}",
        lambda cursor: f"!!!!{cursor}",
    ],
    ids=["shorter", "only signed", "reversed", "doubled", "dots behind", "padded", "space before", "marks before"],
)
def test_cursor_that_was_never_given_out_is_refused(as_admin, change):
    UserFactory()
    cursor = as_admin.get(f"{USERS}?per_page=1").json["next_cursor"]

    response = as_admin.get(USERS, query_string={"cursor": change(cursor)})

    assert response.problem == (400, "invalid_parameter")
    assert pointers(response) == ["/query/cursor"]


@pytest.mark.parametrize(
    "query", ["sort=name", "sort=-id", "q=a", "role=member", "is_active=true", "email=a%40b.example"]
)
def test_cursor_of_another_sort_or_filter_is_refused(as_admin, query):
    UserFactory()
    cursor = as_admin.get(f"{USERS}?per_page=1").json["next_cursor"]

    response = as_admin.get(f"{USERS}?{query}&cursor={cursor}")

    assert response.problem == (400, "invalid_parameter")
    assert pointers(response) == ["/query/cursor"]


def test_cursor_of_another_filter_value_is_refused(as_admin, admin):
    UserFactory.create_batch(2)
    cursor = as_admin.get(f"{USERS}?per_page=1&role=member").json["next_cursor"]

    response = as_admin.get(f"{USERS}?role=admin&cursor={cursor}")

    assert response.problem == (400, "invalid_parameter")


def test_cursor_of_another_list_is_refused(as_admin, member):
    PostFactory.create_batch(2, author=member)
    cursor = as_admin.get(f"{USERS}/{member.id}/posts?per_page=1").json["next_cursor"]

    response = as_admin.get(f"{USERS}?cursor={cursor}")

    assert response.problem == (400, "invalid_parameter")


def test_cursor_of_another_installation_is_refused(app, as_admin):
    UserFactory()
    cursor = as_admin.get(f"{USERS}?per_page=1").json["next_cursor"]
    app.config["SECRET_KEY"] = "another secret key, of another installation"

    response = as_admin.get(f"{USERS}?per_page=1&cursor={cursor}")

    assert response.problem == (400, "invalid_parameter")


# Filters


@pytest.fixture
def people(app):
    """Return four users who differ in everything."""
    january = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
    february = [datetime(2026, 2, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
    times = [{"created_at": created, "updated_at": updated} for created, updated in zip(january, february, strict=True)]
    return [
        UserFactory(name="Émile Zola", email="emile@example.org", external_id="X-1", support=True, **times[0]),
        UserFactory(name="Hans Groß", email="Hans@Bücher.example", **times[1]),
        UserFactory(name="100%_\\ sure", email="odd_one@example.org", suspended=True, **times[2]),
        UserFactory(name="100x/y SURE", email="even@example.org", external_id="x-1", **times[3]),
    ]


EMILE, HANS, ODD, EVEN = "Émile Zola", "Hans Groß", "100%_\\ sure", "100x/y SURE"


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"q": "zola"}, {EMILE}),
        ({"q": "ÉMILE"}, {EMILE}),
        ({"q": "émile"}, {EMILE}),
        ({"q": "e\u0301mile z"}, {EMILE}),
        ({"q": "GROSS"}, {HANS}),
        ({"q": "groß"}, {HANS}),
        ({"q": "HANS@xn--bcher-kva"}, {HANS}),
        ({"q": "%"}, {ODD}),
        ({"q": "_"}, {ODD}),
        ({"q": "\\"}, {ODD}),
        ({"q": "%_\\"}, {ODD}),
        ({"q": "/"}, {EVEN}),
        ({"q": "0%_"}, {ODD}),
        ({"q": "1__"}, set()),
        ({"q": "sure"}, {ODD, EVEN}),
        ({"q": "@example.org"}, {EMILE, ODD, EVEN}),
        ({"q": "' OR '1'='1"}, set()),
        ({"q": "x' UNION SELECT password_hash FROM users--"}, set()),
        ({"q": "sure;drop table users"}, set()),
        ({"q": "$argon2"}, set()),
        ({"q": "& | ! <-> *"}, set()),
        ({"q": "*"}, set()),
        ({"email": "EMILE@Example.ORG"}, {EMILE}),
        ({"email": "hans@bücher.example"}, {HANS}),
        ({"email": "hans@xn--bcher-kva.example"}, {HANS}),
        ({"email": "emile"}, set()),
        ({"email": "%@example.org"}, set()),
        ({"external_id": "X-1"}, {EMILE}),
        ({"external_id": "x-1"}, {EVEN}),
        ({"external_id": "X-"}, set()),
        ({"role": "support"}, {EMILE}),
        ({"role": "member"}, {HANS, ODD, EVEN}),
        ({"is_active": "false"}, {ODD}),
        ({"is_active": "true", "role": "member"}, {HANS, EVEN}),
        ({"created_after": "2026-01-02T00:00:00Z", "created_before": "2026-02-01T00:00:00Z"}, {ODD, EVEN}),
        ({"created_before": "2026-01-02T00:00:00Z"}, {EMILE}),
        ({"created_before": "2026-01-02t01:00:00+01:00"}, {EMILE}),
        ({"created_before": "2026-01-02T00:00:00.000001Z"}, {EMILE, HANS}),
        ({"created_before": "2026-01-01T23:59:60z"}, {EMILE}),
        ({"updated_after": "2026-02-03T00:00:00Z", "updated_before": "2026-03-01T00:00:00Z"}, {EVEN}),
        ({"updated_before": "2026-02-02T00:00:00-00:01"}, {EMILE, HANS}),
        ({"created_after": "0001-01-01T00:00:00+01:00", "role": "support"}, {EMILE}),
        ({"created_before": "9999-12-31T23:59:59-01:00", "role": "support"}, {EMILE}),
        ({"q": "sure", "is_active": "true"}, {EVEN}),
        ({"q": "sure", "role": "support"}, set()),
        (
            {"q": "example", "role": "member", "is_active": "true", "external_id": "x-1", "email": "even@example.org"},
            {EVEN},
        ),
    ],
)
def test_filters_find(as_admin, people, filters, expected):
    listed = as_admin.get(USERS, query_string=filters)
    numbered = as_admin.get(USERS, query_string={**filters, "page": "1"})

    assert listed.status_code == 200
    assert names(listed) == names(numbered) == expected
    assert numbered.json["total"] == len(expected)


def test_time_of_an_item_bounds_a_list_exactly(as_admin, admin):
    second = UserFactory()
    times = as_admin.get(f"{USERS}/{second.id}").json

    for name in ("created", "updated"):
        after = as_admin.get(USERS, query_string={f"{name}_after": times[f"{name}_at"]})
        before = as_admin.get(USERS, query_string={f"{name}_before": times[f"{name}_at"]})

        assert ids(after) == []
        assert ids(before) == [admin.id]


def test_filters_stay_on_the_way_to_the_next_page(as_admin, people):
    pages = pages_from(as_admin, f"{USERS}?q=EXAMPLE.ORG&is_active=true&per_page=1&sort=-name&role=member")

    assert [names(page) for page in pages] == [{EVEN}]

    pages = pages_from(as_admin, f"{USERS}?q=%40EXAMPLE.ORG&per_page=1&sort=-name&fields=name")

    assert [names(page) for page in pages] == [{EMILE}, {EVEN}, {ODD}]
    assert all(user.keys() == {"name"} for page in pages for user in page.json["users"])


def test_deleted_users_are_not_listed(as_admin):
    UserFactory(name="Gone Person", deleted=True)

    response = as_admin.get(f"{USERS}?page=1")

    assert names(response) == {"Ada Admin"}
    assert response.json["total"] == 1


def test_fields_leaves_only_those(as_admin):
    response = as_admin.get(f"{USERS}?fields=email,id,id")

    assert [list(user) for user in response.json["users"]] == [["id", "email"]]


def test_private_metadata_is_listed_for_admins_only(as_admin, as_support):
    seen_by_admin = as_admin.get(USERS).json["users"]
    seen_by_support = as_support.get(USERS).json["users"]
    asked_for = as_support.get(f"{USERS}?fields=private_metadata")

    assert all("private_metadata" in user for user in seen_by_admin)
    assert not any("private_metadata" in user for user in seen_by_support)
    assert asked_for.problem == (403, "permission_denied")


@pytest.mark.parametrize("query", ["", "?unknown=1", "?per_page=0"])
def test_member_cannot_list(as_member, query):
    response = as_member.get(f"{USERS}{query}")

    assert response.problem == (403, "permission_denied")


# One user


def test_user_is_read_with_its_etag(as_support, member):
    response = as_support.get(f"{USERS}/{member.id}")

    assert response.status_code == 200
    assert list(response.json) == [
        "id", "email", "name", "role", "is_active", "email_verified", "external_id", "metadata", "version",
        "created_at", "updated_at",
    ]  # fmt: skip
    assert response.json["id"] == member.id and response.json["email"] == member.email
    assert response.json["created_at"].endswith("Z")
    assert response.headers["ETag"] == '"1"'
    assert response.headers["Cache-Control"] == "private, no-cache"


def test_member_reads_themself_as_others_read_them(as_member, as_support, member):
    own = as_member.get(f"{USERS}/{member.id}")

    assert own.status_code == 200
    assert own.json == as_support.get(f"{USERS}/{member.id}").json
    assert own.json == as_member.get("/api/v1/me").json


def test_etag_does_not_depend_on_who_asks(client, admin, support, member):
    tags = {client.as_(user).get(f"{USERS}/{member.id}").headers["ETag"] for user in (admin, support, member)}

    assert tags == {'"1"'}


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', '"7", "1"', '"x","1"', "*"])
def test_known_version_is_not_sent_again(as_member, member, tag):
    response = as_member.get(f"{USERS}/{member.id}", headers={"If-None-Match": tag})

    assert response.status_code == 304
    assert response.headers["ETag"] == '"1"'
    assert response.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("tag", ['"2"', '""', '"1', "1", "garbage", "", '"01"', '"1 "', '"+1"'])
def test_other_version_is_sent(as_member, member, tag):
    response = as_member.get(f"{USERS}/{member.id}", headers={"If-None-Match": tag})

    assert response.status_code == 200
    assert response.json["id"] == member.id


def test_part_of_a_user_has_no_etag(as_member, member):
    response = as_member.get(f"{USERS}/{member.id}?fields=id,name", headers={"If-None-Match": '"1"'})

    assert response.status_code == 200
    assert response.json == {"id": member.id, "name": member.name}
    assert "ETag" not in response.headers


def test_head_of_a_user_says_what_get_says_without_a_body(as_member, member):
    got = as_member.get(f"{USERS}/{member.id}")

    head = as_member.head(f"{USERS}/{member.id}")
    known = as_member.head(f"{USERS}/{member.id}", headers={"If-None-Match": '"1"'})

    assert head.status_code == 200 and head.data == b""
    assert head.headers["ETag"] == got.headers["ETag"]
    assert head.headers["Content-Length"] == got.headers["Content-Length"]
    assert known.status_code == 304


@pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize("headers", [{}, {"If-Match": '"1"'}, {"If-Match": "*"}, {"If-None-Match": "*"}])
def test_other_members_user_looks_like_a_missing_one(as_member, member, other, nothing_changes, method, headers):
    bodies = {
        "PATCH": {"name": "Stolen"},
        "PUT": {"email": "x@example.com", "name": "X X", "role": "member", "is_active": True},
    }
    sent = {"headers": headers, **({"json": bodies[method]} if method in bodies else {})}

    with nothing_changes():
        foreign = as_member.send(method, f"{USERS}/{other.id}", **sent)
        missing = as_member.send(method, NOBODY, **sent)

    assert foreign.status_code == missing.status_code == 404
    if method != "HEAD":
        assert anonymous_form(foreign) == anonymous_form(missing)
        assert foreign.problem == (404, "not_found")


@pytest.mark.parametrize("state", ["deleted", "suspended"])
def test_member_cannot_tell_what_has_become_of_others(as_member, state):
    other = UserFactory(**{state: True})

    response = as_member.get(f"{USERS}/{other.id}")

    assert anonymous_form(response) == anonymous_form(as_member.get(NOBODY))


def test_ids_have_64_bits(as_admin):
    user = UserFactory(id=2**63 - 1)

    response = as_admin.get(f"{USERS}/{2**63 - 1}")

    assert response.status_code == 200
    assert response.json["id"] == user.id
    assert as_admin.patch(f"{USERS}/{user.id}", json={"name": "Big Number"}).status_code == 200


@pytest.mark.parametrize(
    "spelling",
    [
        "0", "-1", "+1", "01", "1.0", "1e0", "0x1", "1_0", "1;x", "1.json", "1,2", "%201", "1%20", "1%00", "１",
        "%D9%A1", "1/", "/1", "%2f1", "1%2f", "1%5C", "me", "9223372036854775808", "1" + "0" * 30, "9" * 5000,
        "1%20or%201=1", "..", "%2e%2e", "1;jsessionid=x", "1%0a",
    ],
)  # fmt: skip
def test_odd_spelling_of_an_id_is_not_found(as_admin, nothing_changes, spelling):
    with nothing_changes():
        answers = [as_admin.send(method, f"{USERS}/{spelling}") for method in ("GET", "DELETE")]

    assert [response.problem for response in answers] == [(404, "not_found")] * 2


# Creating


def test_admin_creates_a_user(as_admin):
    body = a_user(role="support", is_active=False, external_id="E-7", metadata={"a": 1}, private_metadata={"b": [True]})

    response = as_admin.post(USERS, json=body)

    assert response.status_code == 201
    user = response.json
    assert {name: user[name] for name in body if name != "password"} == {
        n: v for n, v in body.items() if n != "password"
    }
    assert user["version"] == 1 and user["email_verified"] is False
    assert user["created_at"] == user["updated_at"]
    assert response.headers["ETag"] == '"1"'
    assert response.headers["Location"] == f"http://localhost{USERS}/{user['id']}"
    assert response.headers["Cache-Control"] == "no-store"
    assert as_admin.get(f"{USERS}/{user['id']}").json == user


def test_what_is_not_said_of_a_new_user_has_a_default(as_admin):
    response = as_admin.post(USERS, json={"email": "new@example.com", "name": "New Person"})

    assert response.status_code == 201
    assert response.json["role"] == "member" and response.json["is_active"] is True
    assert response.json["external_id"] is None
    assert response.json["metadata"] == response.json["private_metadata"] == {}


def test_user_without_password_cannot_sign_in(client, as_admin, nothing_changes):
    as_admin.post(USERS, json={"email": "new@example.com", "name": "New Person"})

    with nothing_changes(but="throttles"):
        response = client.post(LOGIN, json={"email": "new@example.com", "password": "whatever it may be"})

    assert response.problem == (401, "invalid_credentials")


@pytest.mark.parametrize("who", ["nobody", "member", "support"])
def test_anybody_registers_where_registration_is_open(client, request, who):
    caller = client if who == "nobody" else client.as_(request.getfixturevalue(who))

    response = caller.post(USERS, json=a_user(metadata={"theme": "dark"}))

    assert response.status_code == 201
    assert response.json["role"] == "member" and response.json["is_active"] is True
    assert response.json["metadata"] == {"theme": "dark"}
    assert "private_metadata" not in response.json
    assert client.post(LOGIN, json={"email": "NEW@example.com", "password": "a good password"}).status_code == 200


@pytest.mark.parametrize("who", ["nobody", "member", "support"])
def test_nobody_registers_where_registration_is_closed(client, app, request, nothing_changes, who):
    caller = client if who == "nobody" else client.as_(request.getfixturevalue(who))
    app.config["REGISTRATION"] = "closed"

    with nothing_changes():
        response = caller.post(USERS, json=a_user())

    assert response.problem == (403, "registration_closed")


def test_admin_creates_users_where_registration_is_closed(app, as_admin):
    app.config["REGISTRATION"] = "closed"

    response = as_admin.post(USERS, json=a_user())

    assert response.status_code == 201


def test_bad_token_is_not_taken_for_nobody(client, nothing_changes):
    with nothing_changes():
        response = client.with_token("x.y.z").post(USERS, json=a_user())

    assert response.problem == (401, "invalid_token")


@pytest.mark.parametrize(
    "field",
    [
        {"role": "admin"}, {"role": "member"}, {"is_active": True}, {"is_active": False}, {"external_id": "E-1"},
        {"external_id": None}, {"private_metadata": {}},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("who", ["nobody", "member", "support"])
def test_privileged_field_is_refused_when_registering(client, request, nothing_changes, who, field):
    caller = client if who == "nobody" else client.as_(request.getfixturevalue(who))

    with nothing_changes():
        response = caller.post(USERS, json=a_user(**field))

    assert response.problem == (403, "permission_denied")
    assert pointers(response) == [f"/json/{name}" for name in field]


@pytest.mark.parametrize(
    "name",
    [
        "id", "version", "created_at", "updated_at", "deleted_at", "email_verified", "email_key", "name_key",
        "password_hash", "public_metadata", "permissions", "roles", "is_admin", "is_superuser", "token_version",
        "profile", "user", "$ne", "__class__", "a/b~c", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("who", ["nobody", "admin"])
def test_unknown_field_is_named(client, request, nothing_changes, who, name):
    caller = client if who == "nobody" else client.as_(request.getfixturevalue(who))

    with nothing_changes():
        response = caller.post(USERS, json=a_user(**{name: {"role": "admin"}}))

    assert response.problem == (422, "invalid")
    assert pointers(response) == [f"/json/{name.replace('~', '~0').replace('/', '~1')}"]
    assert response.json["errors"][0]["code"] == "unknown_field"


def test_missing_fields_are_all_named(client, nothing_changes):
    with nothing_changes():
        response = client.post(USERS, json={})

    assert response.problem == (422, "invalid")
    assert {(fault["pointer"], fault["code"]) for fault in response.json["errors"]} == {
        ("/json/email", "required"),
        ("/json/name", "required"),
    }


def test_registration_needs_a_password(client, nothing_changes):
    body = a_user()
    del body["password"]

    with nothing_changes():
        response = client.post(USERS, json=body)

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/password"]


@pytest.mark.parametrize(
    ("taken", "given"),
    [
        ("ada@example.com", "ada@example.com"),
        ("ada@example.com", "ADA@Example.Com"),
        ("ada@example.com", "ａｄａ＠ｅｘａｍｐｌｅ．ｃｏｍ"),
        ("kate@example.com", "\u212aate@example.com"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@xn--bcher-kva.example", "Ada@BÜCHER.example"),
        ("émile@example.com", "e\u0301MILE@example.com"),
        ("strasse@example.com", "STRAßE@example.com"),
    ],
)
def test_taken_address_is_taken_in_every_spelling(client, as_admin, nothing_changes, taken, given):
    UserFactory(email=taken)

    with nothing_changes():
        answers = [as_admin.post(USERS, json=a_user(email=given))]
    with nothing_changes(but="throttles"):  # A registration counts as the letter that it may cause.
        answers.append(client.post(USERS, json=a_user(email=given)))

    for response in answers:
        assert response.problem == (409, "email_taken")
        assert pointers(response) == ["/json/email"]


@pytest.mark.parametrize(
    "email",
    [
        "a", "a@", "@example.com", "a@b", "a@example", "a@@example.com", "a b@example.com", "a@exam ple.com", "a@x.",
        "a@.x.com", "a@x..com", ".a@x.com", "a.@x.com", "a..b@x.com", "a@-x.com", "a@x-.com", "a@1.2.3.4",
        "a@[1.2.3.4]", " a@x.com", "a@x.com ", "a@x.com\n", "a@x.com\r\nBcc: b@x.com", "a@x.com,b@x.com",
        "a@x.com;b@x.com",
        "<a@x.com>", "A <a@x.com>", '"a"@x.com', "a(c)@x.com", "a\\@x.com", "a:b@x.com", "m\u0131ke@x.com",
        "a\u200b@x.com", "a\u00ad@x.com", "a\u202e@x.com", "a\u0000@x.com", "a\ufffd@x.com", "a@xn--a.com",
        "a@xn--.com", "a@\u200d.com", "a@\u2028.com", f"{'a' * 65}@x.com", f"a@{'b' * 64}.com", f"a@{'b.' * 60}com",
        f"a@{'ü' * 60}.com", "ﷺ" * 7 + "@x.com", "a＠", "a@x.c_m", "a@ex_ample.com", "mailto:a@x.com",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(client, nothing_changes, email):
    with nothing_changes():
        response = client.post(USERS, json=a_user(email=email))

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/email"]


@pytest.mark.parametrize(
    "email",
    [
        "a@x.io",
        "A.b+tag@sub.Example.com",
        "o'hara@example.com",
        "=1+1@example.com",
        "用户@例え.jp",
        f"{'a' * 64}@x.com",
    ],
)
def test_address_keeps_its_spelling(client, email):
    response = client.post(USERS, json=a_user(email=email))

    assert response.status_code == 201
    assert response.json["email"] == email


@pytest.mark.parametrize(
    "name", ["👩‍👩‍👧‍👦", "José", "山田", "O'Hara; DROP TABLE users; --", "{{7*7}}", "a" * 80, "😀" * 80]
)
def test_name_comes_back_as_it_was_given(client, name):
    response = client.post(USERS, json=a_user(name=name))

    assert response.status_code == 201
    assert response.json["name"] == name


def test_name_is_kept_in_nfc_and_found_in_both_forms(as_admin):
    created = as_admin.post(USERS, json=a_user(name="Jose\u0301"))

    assert created.json["name"] == "Jos\u00e9"
    for form in ("jose\u0301", "jos\u00e9", "JOSÉ"):
        assert names(as_admin.get(USERS, query_string={"q": form})) == {"Jos\u00e9"}


@pytest.mark.parametrize("name", ["", "a", "a" * 81, " ab", "ab ", "\u3000ab", "a\u00a0", "e" + "\u0301" * 10_000])
def test_name_out_of_bounds_is_refused(client, nothing_changes, name):
    with nothing_changes():
        response = client.post(USERS, json=a_user(name=name))

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/name"]


def test_taken_external_id_is_refused(as_admin, nothing_changes):
    UserFactory(external_id="E-1")

    with nothing_changes():
        response = as_admin.post(USERS, json=a_user(external_id="E-1"))

    assert response.problem == (409, "external_id_taken")
    assert pointers(response) == ["/json/external_id"]


def test_many_users_may_have_no_external_id(as_admin):
    first = as_admin.post(USERS, json=a_user(external_id=None))
    second = as_admin.post(USERS, json=a_user(email="second@example.com", external_id=None))

    assert (first.status_code, second.status_code) == (201, 201)


@pytest.mark.parametrize(
    "password", ["", "qj4vn7z", "e\u0301" * 7, f"{LONGEST}a", "tab\tin the middle", "nul\0in the middle"]
)
def test_password_out_of_bounds_is_refused(client, nothing_changes, password):
    with nothing_changes():
        response = client.post(USERS, json=a_user(password=password))

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/password"]


@pytest.mark.parametrize(
    "password",
    [
        *("qj4vn7zx", "éàüöñßçø", LONGEST, "пароль пароль", "🔑🚪🏠🪟🛋🚿🛏🪞", " edge spaces "),
        *("all lower case letters", "4951 7308 2264"),
    ],
)
def test_password_within_bounds_signs_in_exactly_as_given(client, password):
    created = client.post(USERS, json=a_user(password=password))

    assert created.status_code == 201
    assert client.post(LOGIN, json={"email": "new@example.com", "password": password}).status_code == 200
    changed = password[:-1] + ("x" if password[-1] != "x" else "y")
    assert client.post(LOGIN, json={"email": "new@example.com", "password": changed}).status_code == 401


def test_least_password_length_is_a_setting(client, app, nothing_changes):
    app.config["PASSWORD_MIN_LENGTH"] = 15

    with nothing_changes():
        short = client.post(USERS, json=a_user(password="fifteen letter"))
    enough = client.post(USERS, json=a_user(password="fifteen letters"))

    assert short.problem == (422, "invalid")
    assert "15" in short.json["errors"][0]["detail"]
    assert enough.status_code == 201


def test_deleted_users_address_and_external_id_are_free_again(as_admin, admin):
    gone = UserFactory(email="ada@example.com", external_id="E-1", admin=True)
    as_admin.delete(f"{USERS}/{gone.id}")

    response = as_admin.post(USERS, json=a_user(email="ADA@example.com", external_id="E-1"))

    assert response.status_code == 201
    assert response.json["id"] != gone.id
    assert response.json["role"] == "member"


def test_secrets_are_in_no_answer(client, as_admin, member):
    answers = [
        as_admin.get(USERS),
        as_admin.get(f"{USERS}/{member.id}"),
        as_admin.post(USERS, json=a_user()),
        as_admin.patch(f"{USERS}/{member.id}", json={"name": "Another"}),
        as_admin.get("/api/v1/me"),
        client.post(LOGIN, json={"email": member.email, "password": PASSWORD}),
    ]

    for response in answers:
        assert b"argon2" not in response.data and b"password" not in response.data and b"_key" not in response.data


# Changing


def test_patch_keeps_what_is_absent(as_admin, member):
    before = as_admin.get(f"{USERS}/{member.id}").json

    response = as_admin.patch(f"{USERS}/{member.id}", json={"name": "Maria Member"})

    assert response.status_code == 200
    assert response.json == {**before, "name": "Maria Member", "version": 2, "updated_at": response.json["updated_at"]}
    assert response.json["updated_at"] > before["updated_at"]
    assert response.headers["ETag"] == '"2"'
    assert as_admin.get(f"{USERS}/{member.id}").json == response.json


def test_patch_is_also_read_as_a_merge_patch(as_admin, member):
    response = as_admin.patch(
        f"{USERS}/{member.id}", data=b'{"name":"Maria"}', headers={"Content-Type": "application/merge-patch+json"}
    )

    assert response.json["name"] == "Maria"


def test_null_clears_what_may_be_null(as_admin):
    user = UserFactory(external_id="E-1")

    response = as_admin.patch(f"{USERS}/{user.id}", json={"external_id": None})

    assert response.status_code == 200
    assert response.json["external_id"] is None


@pytest.mark.parametrize("field", ["email", "name", "role", "is_active", "metadata", "private_metadata"])
def test_null_is_refused_for_what_may_not_be_null(as_admin, member, nothing_changes, field):
    with nothing_changes():
        response = as_admin.patch(f"{USERS}/{member.id}", json={field: None})

    assert response.problem == (422, "invalid")
    assert pointers(response) == [f"/json/{field}"]


@pytest.mark.parametrize("field", ["metadata", "private_metadata"])
@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": ["b"]}, {"a": {"c": 1}}, {"a": {"c": 1}}),
        ({"a": {"b": 1}}, {"a": {"b": None}}, {"a": {}}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": 1}, {"a": True}, {"a": True}),
        ({"a": True}, {"a": 1}, {"a": 1}),
        ({"a": 0}, {"a": False}, {"a": False}),
        ({"a": [1]}, {"a": [True]}, {"a": [True]}),
        ({"a": {"b": 1}}, {"a": {"b": True}}, {"a": {"b": True}}),
        ({"a": 1}, {"a": 1.5}, {"a": 1.5}),
        ({"a": "x"}, {"a": ""}, {"a": ""}),
        ({"a": 1}, {"b": 2**53 - 1}, {"a": 1, "b": 2**53 - 1}),
    ],
    ids=repr,
)
def test_metadata_is_merged(as_admin, field, before, patch, after):
    column = {"metadata": "public_metadata"}.get(field, field)
    user = UserFactory(**{column: before})

    response = as_admin.patch(f"{USERS}/{user.id}", json={field: patch})

    assert response.status_code == 200
    assert orjson.dumps(response.json[field]) == orjson.dumps(after)
    assert response.json["version"] == 2
    assert orjson.dumps(as_admin.get(f"{USERS}/{user.id}").json[field]) == orjson.dumps(after)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "Nia Noor"},
        {"email": "nia@example.com"},
        {"role": "member"},
        {"is_active": True},
        {"external_id": "E-1"},
        {"metadata": {}},
        {"metadata": {"absent": None}},
        {"metadata": {"a": 1}},
        {"metadata": {"deep": {"b": {}}}},
        {"private_metadata": {"p": 1.5}},
        {"name": "Nia Noor", "role": "member", "is_active": True},
    ],
    ids=str,
)
def test_patch_that_changes_nothing_keeps_the_version(client, as_admin, nothing_changes, body):
    user = UserFactory(
        name="Nia Noor",
        email="nia@example.com",
        external_id="E-1",
        public_metadata={"a": 1, "deep": {"b": {}}},
        private_metadata={"p": 1.5},
    )
    own = client.as_(user)

    with nothing_changes():
        response = as_admin.patch(f"{USERS}/{user.id}", json=body)

    assert response.status_code == 200
    assert response.headers["ETag"] == '"1"'
    assert own.get("/api/v1/me").status_code == 200


@pytest.mark.parametrize(
    ("metadata", "pointer"),
    [
        ({"a": {"b": {"c": {}}}}, None),
        ({"a": {"b": {"c": {"d": 1}}}}, None),
        ({str(number): number for number in range(51)}, ""),
        ({"": 1}, None),
        ({"a" * 81: 1}, None),
        ({"a\u0000": 1}, None),
        ({"a": "x" * 1001}, "/a"),
        ({"a": "x\u0000"}, "/a"),
        ({"a": "x\u202e"}, "/a"),
        ({"a": [1] * 101}, "/a"),
        ({"a": [[1]]}, "/a"),
        ({"a": [{}]}, "/a"),
        ({"a": [None]}, "/a"),
        ({"a": 2**53}, "/a"),
        ({"a": -(2**53)}, "/a"),
        ({"a": 1e300}, "/a"),
        ({"a/b~c": 2**53}, "/a~1b~0c"),
        ({str(number): "x" * 1000 for number in range(20)}, ""),
    ],
)
@pytest.mark.parametrize("field", ["metadata", "private_metadata"])
def test_metadata_out_of_bounds_is_refused(as_admin, member, nothing_changes, field, metadata, pointer):
    with nothing_changes():
        answers = [
            as_admin.patch(f"{USERS}/{member.id}", json={field: metadata}),
            as_admin.post(USERS, json=a_user(**{field: metadata})),
        ]

    for response in answers:
        assert response.problem == (422, "invalid")
        if pointer is not None:
            assert pointers(response) == [f"/json/{field}{pointer}"]


def test_fault_deep_in_metadata_is_pointed_at(as_admin, member):
    response = as_admin.patch(f"{USERS}/{member.id}", json={"metadata": {"a": {"b": 2**53}}})

    assert pointers(response) == ["/json/metadata/a/b"]


def test_names_that_are_one_in_nfc_are_refused(as_admin, member, nothing_changes):
    with nothing_changes():
        response = as_admin.patch(f"{USERS}/{member.id}", json={"metadata": {"\u00e9": 1, "e\u0301": 2}})

    assert response.status_code in (400, 422)


def test_metadata_cannot_grow_beyond_its_bounds_by_patches(as_admin, nothing_changes):
    user = UserFactory(public_metadata={str(number): number for number in range(50)})

    with nothing_changes():
        response = as_admin.patch(f"{USERS}/{user.id}", json={"metadata": {"one more": 1}})

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/metadata"]


def test_null_in_new_metadata_is_refused(as_admin, nothing_changes):
    with nothing_changes():
        response = as_admin.post(USERS, json=a_user(metadata={"a": None}))

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/metadata/a"]


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', "*", '"9", "1"', '"9","1"', '"other", "1"'])
@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_change_is_made_when_the_etag_is_current(as_admin, member, method, tag):
    sent = {"json": {**a_user(role="member", is_active=True)}} if method == "PUT" else {"json": {"name": "Maria"}}
    if method == "PUT":
        del sent["json"]["password"]

    response = as_admin.send(method, f"{USERS}/{member.id}", headers={"If-Match": tag}, **sent)

    assert response.status_code == (204 if method == "DELETE" else 200)


@pytest.mark.parametrize(
    "tag",
    [
        '"2"',
        'W/"2"',
        '"2", "3"',
        '"another"',
        '""',
        f'"{"9" * 40}"',
        "1",
        '"1',
        "'1'",
        '"1" "2"',
        '"01"',
        '"1 "',
        "**",
        "",
    ],
)
def test_change_is_refused_when_the_etag_is_not_current(as_admin, member, nothing_changes, tag):
    whole = {"email": "a@example.com", "name": "Whole", "role": "member", "is_active": True}

    with nothing_changes():
        answers = [
            as_admin.patch(f"{USERS}/{member.id}", json={"name": "Maria"}, headers={"If-Match": tag}),
            as_admin.put(f"{USERS}/{member.id}", json=whole, headers={"If-Match": tag}),
            as_admin.delete(f"{USERS}/{member.id}", headers={"If-Match": tag}),
        ]

    assert [response.problem for response in answers] == [(412, "version_mismatch")] * 3


def test_of_two_changes_with_one_etag_the_second_is_refused(as_admin, member):
    first = as_admin.patch(f"{USERS}/{member.id}", json={"name": "First"}, headers={"If-Match": '"1"'})
    second = as_admin.patch(f"{USERS}/{member.id}", json={"name": "Second"}, headers={"If-Match": '"1"'})

    assert first.status_code == 200
    assert second.problem == (412, "version_mismatch")
    assert as_admin.get(f"{USERS}/{member.id}").json["name"] == "First"


def test_if_match_is_demanded_where_it_is_required(app, as_admin, member, nothing_changes):
    app.config["REQUIRE_IF_MATCH"] = True

    with nothing_changes():
        answers = [
            as_admin.patch(f"{USERS}/{member.id}", json={"name": "Maria"}),
            as_admin.put(f"{USERS}/{member.id}", json=a_user()),
            as_admin.delete(f"{USERS}/{member.id}"),
        ]

    assert [response.problem for response in answers] == [(428, "precondition_required")] * 3
    assert as_admin.patch(f"{USERS}/{member.id}", json={"name": "Maria"}, headers={"If-Match": "*"}).status_code == 200


def test_new_address_is_not_verified(client, as_admin):
    user = UserFactory(email="old@example.com", email_verified=True)

    response = as_admin.patch(f"{USERS}/{user.id}", json={"email": "new@example.com"})

    assert response.json["email"] == "new@example.com"
    assert response.json["email_verified"] is False
    assert client.post(LOGIN, json={"email": "new@example.com", "password": PASSWORD}).status_code == 200
    assert client.post(LOGIN, json={"email": "old@example.com", "password": PASSWORD}).status_code == 401


def test_other_spelling_of_the_address_stays_verified(as_admin):
    user = UserFactory(email="old@example.com", email_verified=True)

    response = as_admin.patch(f"{USERS}/{user.id}", json={"email": "OLD@Example.com"})

    assert response.json["email"] == "OLD@Example.com"
    assert response.json["email_verified"] is True
    assert response.json["version"] == 2


@pytest.mark.parametrize(
    ("body", "code"), [({"email": "OTHER@example.com"}, "email_taken"), ({"external_id": "E-1"}, "external_id_taken")]
)
def test_change_to_what_another_has_is_refused(as_admin, member, nothing_changes, body, code):
    UserFactory(email="other@example.com", external_id="E-1")
    whole = {"email": member.email, "name": member.name, "role": "member", "is_active": True}

    with nothing_changes():
        answers = [
            as_admin.patch(f"{USERS}/{member.id}", json={"name": "Changed too", **body}),
            as_admin.put(f"{USERS}/{member.id}", json={**whole, **body}),
        ]

    assert [response.problem for response in answers] == [(409, code)] * 2


def test_address_that_is_none_is_refused_in_a_change(as_admin, member, nothing_changes):
    with nothing_changes():
        response = as_admin.patch(f"{USERS}/{member.id}", json={"email": "a@b"})

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/email"]


@pytest.mark.parametrize("body", [{"role": "support"}, {"role": "admin"}, {"is_active": False}], ids=str)
def test_change_of_rights_ends_every_session(as_admin, as_member, member, body):
    sessions = [as_member, as_member]

    response = as_admin.patch(f"{USERS}/{member.id}", json=body)

    assert response.status_code == 200
    assert [session.get("/api/v1/me").problem for session in sessions] == [(401, "invalid_token")] * 2
    assert as_admin.get("/api/v1/me").status_code == 200


def test_suspended_user_can_be_made_active_again(client, as_admin):
    user = UserFactory(suspended=True)

    response = as_admin.patch(f"{USERS}/{user.id}", json={"is_active": True})

    assert response.json["is_active"] is True
    assert client.post(LOGIN, json={"email": user.email, "password": PASSWORD}).status_code == 200


@pytest.mark.parametrize("body", [{"name": "Maria Member"}, {"metadata": {"theme": "dark"}}], ids=str)
def test_member_changes_what_is_their_own(as_member, member, body):
    response = as_member.patch(f"{USERS}/{member.id}", json=body)

    assert response.status_code == 200
    assert {name: response.json[name] for name in body} == body


@pytest.mark.parametrize(
    "body",
    [
        {"role": "admin"},
        {"role": "member"},
        {"is_active": True},
        {"is_active": False},
        {"external_id": "E-1"},
        {"external_id": None},
        {"private_metadata": {}},
        {"email": "new@example.com"},
        {"name": "Allowed", "role": "admin"},
    ],
    ids=str,
)
@pytest.mark.parametrize("who", ["member", "support"])
def test_person_cannot_change_what_needs_a_permission(client, request, nothing_changes, who, body):
    person = request.getfixturevalue(who)
    own = client.as_(person)

    with nothing_changes():
        response = own.patch(f"{USERS}/{person.id}", json=body)

    assert response.problem == (403, "permission_denied")
    assert pointers(response) == [f"/json/{name}" for name in body if name != "name"]


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize(
    "name", ["id", "version", "email_verified", "password", "password_hash", "created_at", "deleted_at"]
)
def test_unknown_field_of_a_change_is_named(as_admin, member, nothing_changes, method, name):
    whole = {"email": member.email, "name": member.name, "role": "member", "is_active": True}

    with nothing_changes():
        response = as_admin.send(method, f"{USERS}/{member.id}", json={**whole, name: "x"})

    assert response.problem == (422, "invalid")
    assert pointers(response) == [f"/json/{name}"]


def test_override_header_is_not_obeyed(as_admin, member):
    response = as_admin.get(f"{USERS}/{member.id}", headers={"X-HTTP-Method-Override": "DELETE"})

    assert response.status_code == 200
    assert as_admin.get(f"{USERS}/{member.id}").status_code == 200


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_deleted_user_cannot_be_changed(as_admin, nothing_changes, method):
    gone = UserFactory(deleted=True)
    whole = {"email": "a@example.com", "name": "Whole", "role": "member", "is_active": True}

    with nothing_changes():
        response = as_admin.send(method, f"{USERS}/{gone.id}", json=whole)

    assert response.problem == (404, "not_found")


# Replacing


def test_put_replaces_all_that_can_be_written(as_admin):
    user = UserFactory(external_id="E-1", public_metadata={"a": 1}, private_metadata={"b": 2}, email_verified=True)
    body = {"email": "whole@example.com", "name": "Whole New", "role": "support", "is_active": False}

    response = as_admin.put(f"{USERS}/{user.id}", json=body)

    assert response.status_code == 200
    assert {name: response.json[name] for name in body} == body
    assert response.json["external_id"] is None
    assert response.json["metadata"] == response.json["private_metadata"] == {}
    assert response.json["email_verified"] is False
    assert response.json["version"] == 2
    assert as_admin.get(f"{USERS}/{user.id}").json == response.json


def test_put_of_what_is_there_changes_nothing(as_admin, nothing_changes):
    user = UserFactory(external_id="E-1", public_metadata={"a": 1}, private_metadata={"b": 2})
    shown = as_admin.get(f"{USERS}/{user.id}").json
    writable = ("email", "name", "role", "is_active", "external_id", "metadata", "private_metadata")

    with nothing_changes():
        response = as_admin.put(f"{USERS}/{user.id}", json={name: shown[name] for name in writable})

    assert response.status_code == 200
    assert response.json == shown


@pytest.mark.parametrize("missing", ["email", "name", "role", "is_active"])
def test_put_without_a_required_field_is_refused(as_admin, member, nothing_changes, missing):
    whole = {"email": "a@example.com", "name": "Whole", "role": "member", "is_active": True}
    del whole[missing]

    with nothing_changes():
        response = as_admin.put(f"{USERS}/{member.id}", json=whole)

    assert response.problem == (422, "invalid")
    assert pointers(response) == [f"/json/{missing}"]


def test_member_cannot_replace_themself(as_member, member, nothing_changes):
    own = as_member

    with nothing_changes():
        response = own.put(
            f"{USERS}/{member.id}", json={"email": member.email, "name": "New", "role": "member", "is_active": True}
        )

    assert response.problem == (403, "permission_denied")
    assert {"/json/role", "/json/is_active"} <= {*pointers(response)}


def test_merge_patch_is_not_read_for_a_replacement(as_admin, member, nothing_changes):
    with nothing_changes():
        response = as_admin.put(
            f"{USERS}/{member.id}", data=b"{}", headers={"Content-Type": "application/merge-patch+json"}
        )

    assert response.problem == (415, "unsupported_media_type")


# Deleting


def test_deleted_user_is_gone_everywhere(client, as_admin, as_member, member):
    post = PostFactory(author=member)

    response = as_admin.delete(f"{USERS}/{member.id}")

    assert response.status_code == 204
    assert as_admin.delete(f"{USERS}/{member.id}").problem == (404, "not_found")
    assert as_admin.get(f"{USERS}/{member.id}").problem == (404, "not_found")
    assert as_admin.get(f"{USERS}/{member.id}/posts").problem == (404, "not_found")
    assert as_admin.get(f"/api/v1/posts/{post.id}").problem == (404, "not_found")
    assert as_admin.get(USERS, query_string={"email": member.email}).json["users"] == []
    assert as_member.get("/api/v1/me").problem == (401, "invalid_token")
    assert client.post(LOGIN, json={"email": member.email, "password": PASSWORD}).problem == (
        401,
        "invalid_credentials",
    )


def test_deleting_keeps_the_row(app, as_admin, member):
    as_admin.delete(f"{USERS}/{member.id}")

    with app.app_context():
        row = db.session.get(User, member.id)
        assert row.deleted_at is not None and row.deleted_at == row.updated_at
        assert row.version == 2


def test_member_deletes_themself(client, as_member, member, other):
    own = as_member

    response = own.delete(f"{USERS}/{member.id}")

    assert response.status_code == 204
    assert own.get("/api/v1/me").problem == (401, "invalid_token")
    assert client.as_(other).get("/api/v1/me").status_code == 200


@pytest.mark.parametrize(
    ("method", "body"), [("DELETE", {}), ("PATCH", {"is_active": False}), ("PATCH", {"role": "support"}), ("PUT", None)]
)
@pytest.mark.parametrize("besides", [{}, {"suspended": True}, {"deleted": True}], ids=["alone", "suspended", "deleted"])
def test_last_active_admin_must_remain(as_admin, admin, nothing_changes, method, body, besides):
    if besides:
        UserFactory(admin=True, **besides)
    whole = {"email": admin.email, "name": admin.name, "role": "member", "is_active": True}

    with nothing_changes():
        response = as_admin.send(method, f"{USERS}/{admin.id}", json=whole if body is None else body)

    assert response.problem == (409, "last_admin")


@pytest.mark.parametrize(
    ("method", "body"), [("DELETE", {}), ("PATCH", {"is_active": False}), ("PATCH", {"role": "member"})]
)
def test_one_of_two_admins_may_go_and_the_other_may_not(as_admin, admin, method, body):
    second = UserFactory(admin=True)

    first_answer = as_admin.send(method, f"{USERS}/{second.id}", json=body)
    last_answer = as_admin.send(method, f"{USERS}/{admin.id}", json=body)

    assert first_answer.status_code in (200, 204)
    assert last_answer.problem == (409, "last_admin")


def test_admin_may_step_down_while_another_stays(as_admin, admin):
    UserFactory(admin=True)

    response = as_admin.patch(f"{USERS}/{admin.id}", json={"role": "member"})

    assert response.status_code == 200
    assert as_admin.get("/api/v1/me").problem == (401, "invalid_token")


def test_suspended_admin_may_be_deleted_by_the_last_active_one(as_admin, admin):
    suspended = UserFactory(admin=True, suspended=True)

    response = as_admin.delete(f"{USERS}/{suspended.id}")

    assert response.status_code == 204


@pytest.mark.parametrize("path", [USERS, f"{USERS}/1"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_unknown_parameter_of_a_write_is_refused(as_admin, admin, nothing_changes, method, path):
    with nothing_changes():
        response = as_admin.send(method, f"{path}?role=admin", json=a_user())

    assert response.problem in [(400, "invalid_parameter"), (405, "method_not_allowed")]
