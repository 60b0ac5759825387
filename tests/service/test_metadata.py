"""Metadata: merged as RFC 7396 says, and kept small."""

from copy import deepcopy

import orjson
import pytest

from service import metadata
from service.errors import Invalid

# The examples of RFC 7396, appendix A, whose target and patch are both objects, and the others one level down.
EXAMPLES = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ({"x": ["a", "b"]}, {"x": ["c", "d"]}, {"x": ["c", "d"]}),
    ({"x": {"a": "b"}}, {"x": ["c"]}, {"x": ["c"]}),
    ({"x": {"a": "foo"}}, {"x": "bar"}, {"x": "bar"}),
    ({"x": [1, 2]}, {"x": {"a": "b", "c": None}}, {"x": {"a": "b"}}),
    ({"x": {"a": "b"}}, {}, {"x": {"a": "b"}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), EXAMPLES)
def test_metadata_is_merged_as_in_the_examples_of_the_standard(target, patch, result):
    before = deepcopy((target, patch))

    merged = metadata.merged(target, patch, field="public_metadata")

    assert list(merged.items()) == list(result.items())
    assert (target, patch) == before


@pytest.mark.parametrize(
    ("field", "pointer"), [("public_metadata", "/json/metadata"), ("private_metadata", "/json/private_metadata")]
)
@pytest.mark.parametrize(
    "value",
    [
        {str(number): 0 for number in range(metadata.MAX_MEMBERS + 1)},
        {"a": "x" * (metadata.MAX_BYTES - 7)},
        {"a": "é" * (metadata.MAX_BYTES // 2)},
    ],
    ids=["members", "bytes", "bytes of UTF-8"],
)
def test_what_is_too_large_is_refused_where_it_stands(field, pointer, value):
    for attempt in (
        lambda: metadata.bounded(value, field=field),
        lambda: metadata.merged({}, value, field=field),
        lambda: metadata.merged(value, {}, field=field),
    ):
        with pytest.raises(Invalid) as refusal:
            attempt()

        assert [(fault.pointer, fault.code) for fault in refusal.value.faults] == [(pointer, "too_long")]


@pytest.mark.parametrize(
    "value",
    [{}, {str(number): 0 for number in range(metadata.MAX_MEMBERS)}, {"a": "x" * (metadata.MAX_BYTES - 8)}],
    ids=["nothing", "members", "bytes"],
)
def test_what_is_just_small_enough_is_kept_as_it_is(value):
    assert metadata.bounded(value, field="public_metadata") is value
    assert len(orjson.dumps(value)) <= metadata.MAX_BYTES


def test_the_bound_is_on_what_is_left_after_the_merge():
    full = {str(number): 0 for number in range(metadata.MAX_MEMBERS)}

    exchanged = metadata.merged(full, {"0": None, "new": 1}, field="public_metadata")

    assert len(exchanged) == metadata.MAX_MEMBERS
    with pytest.raises(Invalid):
        metadata.merged(full, {"new": 1}, field="public_metadata")
