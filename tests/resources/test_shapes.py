"""Compiled field maps give what Flask-RESTful's own marshalling gives, for whatever map and whatever object."""

from collections import UserDict, namedtuple
from types import SimpleNamespace

import flask_restful
import pytest
from flask_restful import fields
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.http.shapes import FieldMap, Restricted, compiled, shape_for
from service.errors import Forbidden
from service.permissions import Permission

NAMES = ["a", "b", "c", "id", "name", "a-b", "2nd", "", "é"]
names = st.sampled_from(NAMES)
attributes = st.one_of(
    st.none(), names, st.sampled_from(["a.b", "b.a.c", "name.upper", "missing"]), st.just(str), st.just(repr)
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.sampled_from(["5", "1.5", "", 0, False, 10**30, b"x", ...]),
)
defaults = st.one_of(st.none(), st.sampled_from(["", "x", 0, 7, False, [], {}]))


class Shout(fields.String):
    """A field with a format of its own."""

    def format(self, value):
        return super().format(value).upper()


class Fixed(fields.Raw):
    """A field with an output of its own."""

    def output(self, key, obj):
        return f"always {key}"


KINDS = [fields.String, fields.Integer, fields.Boolean, fields.Float, fields.Raw, Shout, Fixed]
simple = st.one_of(
    st.sampled_from(KINDS),
    st.builds(lambda kind, **given: kind(**given), st.sampled_from(KINDS), attribute=attributes, default=defaults),
)


def nested(maps):
    """Return the fields that hold maps."""
    one = st.builds(fields.Nested, maps, allow_null=st.booleans(), attribute=attributes, default=defaults)
    several = st.builds(fields.List, st.one_of(simple, one), attribute=attributes, default=defaults)
    return st.one_of(one, several, maps)


maps = st.recursive(
    st.dictionaries(names, simple, max_size=4),
    lambda inner: st.dictionaries(names, st.one_of(simple, nested(inner)), max_size=4),
    max_leaves=6,
)


class Plain:
    """An object with attributes, of which one is made when it is asked for and another fails."""

    def __init__(self, **given):
        vars(self).update(given)

    @property
    def id(self):
        return 42

    @property
    def c(self):
        raise AttributeError("c")


def objects(values):
    """Return things with some of the names."""
    members = st.dictionaries(names, values, max_size=5)
    attributes = members.map(lambda given: {name: value for name, value in given.items() if name not in ("id", "c")})
    return st.one_of(
        members,
        members.map(lambda given: SimpleNamespace(**given)),
        members.map(UserDict),
        attributes.map(lambda given: Plain(**given)),
        st.lists(values, max_size=3),
        st.lists(values, max_size=2).map(tuple),
    )


items = st.recursive(scalars, objects, max_leaves=8)


def exactly(value):
    """Return a value so that two are equal only if they are the same JSON, in the same order, of the same types."""
    if isinstance(value, dict):
        return [(key, exactly(inner)) for key, inner in value.items()]
    if isinstance(value, (list, tuple)):
        return [exactly(inner) for inner in value]
    return type(value), value


def outcome(function, *arguments):
    """Return what a function gives, or the kind of error it raises."""
    try:
        return exactly(function(*arguments))
    except Exception as error:
        return type(error)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(members=maps, item=objects(items).filter(lambda item: not isinstance(item, tuple)))
def test_compiled_map_equals_the_library(members, item):
    assert outcome(compiled(members), item) == outcome(flask_restful.marshal, item, members)


@pytest.mark.parametrize("name", ["class", "None", "lambda", "import", "item", "value", "field0", "a b", "", "'", "\\"])
def test_member_may_have_any_name(name):
    members = {name: fields.Raw, "again": fields.Raw(attribute=name)}
    item = SimpleNamespace(**{name: "text", "again": "another text"})

    shaped = compiled(members)(item)

    assert shaped == flask_restful.marshal(item, members) == {name: "text", "again": "text"}


@pytest.mark.parametrize("kind", [fields.String, fields.Integer, fields.Boolean, fields.Raw])
@pytest.mark.parametrize("value", [True, 1, 1.0, "1", None, 0, False, ""])
def test_values_keep_or_change_their_type_as_in_the_library(kind, value):
    item = SimpleNamespace(a=value)

    assert outcome(compiled({"a": kind}), item) == outcome(flask_restful.marshal, item, {"a": kind})


def test_map_within_a_map_is_about_the_same_object():
    members = {"id": fields.Integer, "inner": {"id": fields.Integer, "deep": {"name": fields.String}}}
    item = SimpleNamespace(id=1, name="Ann", inner=SimpleNamespace(id=2, deep=SimpleNamespace(name="Bob")))

    shaped = compiled(members)(item)

    assert shaped == {"id": 1, "inner": {"id": 1, "deep": {"name": "Ann"}}}
    assert shaped == flask_restful.marshal(item, members)


def test_named_tuple_is_one_item_and_not_a_list():
    grant = namedtuple("grant", "token user")("t", SimpleNamespace(id=1))

    shaped = compiled({"token": fields.String, "user": fields.Nested({"id": fields.Integer})})(grant)

    assert shaped == {"token": "t", "user": {"id": 1}}


# What is shown to whom

SECRET = FieldMap("Secret", {"id": fields.Integer, "note": Restricted(Permission.USERS_PRIVATE)})
HOLDERS = [
    FieldMap("Nested", {"one": fields.Nested(SECRET)}),
    FieldMap("Deep", {"two": fields.Nested({"one": fields.Nested(SECRET)})}),
    FieldMap("Listed", {"many": fields.List(fields.Nested(SECRET))}),
    FieldMap("Inline", {"one": dict(SECRET)}),
]
HOLDER = SimpleNamespace(id=1, note="secret")
HOLDER.one = HOLDER.two = HOLDER
HOLDER.many = [HOLDER]


def test_restricted_member_is_for_holders_of_its_permission():
    assert shape_for(SECRET, frozenset(), None)(HOLDER) == {"id": 1}
    assert shape_for(SECRET, frozenset({Permission.USERS_PRIVATE}), None)(HOLDER) == {"id": 1, "note": "secret"}


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: holder.name)
def test_restricted_member_is_hidden_however_deep_it_stands(holder):
    assert "secret" not in repr(shape_for(holder, frozenset(), None)(HOLDER))
    assert "secret" in repr(shape_for(holder, frozenset({Permission.USERS_PRIVATE}), None)(HOLDER))


def test_hiding_for_one_hides_for_nobody_else():
    for permissions in (frozenset(), frozenset({Permission.USERS_PRIVATE}), frozenset()):
        shaped = shape_for(HOLDERS[0], permissions, None)(HOLDER)

        assert ("note" in shaped["one"]) == bool(permissions)


def test_only_some_members_are_shown_in_the_order_of_the_map():
    shape = shape_for(SECRET, frozenset({Permission.USERS_PRIVATE}), frozenset({"note", "id"}))

    assert list(shape(HOLDER)) == ["id", "note"]
    assert shape_for(SECRET, frozenset(), frozenset({"id"}))(HOLDER) == {"id": 1}
    with pytest.raises(Forbidden):
        shape_for(SECRET, frozenset(), frozenset({"note"}))
