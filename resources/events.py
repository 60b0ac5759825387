"""Events: what happened, in the order in which it can be relied on."""

from flask_restful import fields

from resources.fields import Moment, Nullable, NullableId
from resources.http import types
from resources.http.api import Resource
from resources.http.arguments import parse_args
from resources.http.auth import current_identity, requires
from resources.http.marshal import marshal_with
from resources.http.paging import FeedParser, PageParser
from resources.http.shapes import FieldMap
from service import events, feed
from service.permissions import Permission


class Changed(fields.Raw):
    """The names of the members that changed."""

    __schema__ = {"type": "array", "items": {"type": "string"}}

    def format(self, value):
        return value.get("changed", [])


class OfActor(Nullable):
    """Something that tells of who did it; of somebody else, only those learn it who may read all events."""

    def output(self, key, obj):
        reader = current_identity()
        is_other = obj.service_account_id is not None or obj.actor_id not in (None, reader.user_id)
        return None if is_other and Permission.EVENTS_READ not in reader.permissions else getattr(obj, key)


class IdOfActor(OfActor):
    """A whole number that tells of who did it."""

    __schema__ = NullableId.__schema__


event_fields = FieldMap(
    "Event",
    {
        "id": fields.Integer,
        "type": fields.String,
        "user_id": NullableId,
        "subject_id": NullableId,
        "version": NullableId,
        "changed": Changed(attribute="data"),
        "actor_id": NullableId,
        "session_id": IdOfActor,
        "service_account_id": NullableId,
        "key_id": NullableId,
        "request_id": OfActor,
        "address": OfActor,
        "created_at": Moment,
    },
)

event_page = PageParser(feed.SORTS, event_fields)
event_feed = FeedParser(event_fields, longest_wait=feed.LONGEST_WAIT)
event_feed.add_argument("type", type=types.Choice(events.TYPES), help="Only events of this type.")
event_feed.add_argument("user_id", type=types.Id(), help="Only events of this account.")
event_feed.add_argument("actor_id", type=types.Id(), help="Only what this user did.")
event_feed.add_argument("created_after", type=types.Moment(), help="Only events after this time.")
event_feed.add_argument("created_before", type=types.Moment(), help="Only events before this time.")


class EventFeed(Resource):
    @requires(Permission.EVENTS_READ)
    @parse_args(event_feed)
    @marshal_with(event_fields, envelope="events")
    def get(self, **wanted):
        """Read what happened after an event: in one order, without a gap, nothing twice."""
        return feed.read(**wanted)


class UserEventList(Resource):
    @requires(Permission.EVENTS_READ, or_own=True)
    @parse_args(event_page)
    @marshal_with(event_fields, envelope="events")
    def get(self, user_id, page):
        """List what happened to a user's account."""
        return feed.page_of_user(user_id, page, actor=current_identity())


class MyEventList(Resource):
    @requires()
    @parse_args(event_page)
    @marshal_with(event_fields, envelope="events")
    def get(self, page):
        """List what happened to your own account."""
        return feed.page_of_user(current_identity().user_id, page, actor=current_identity())
