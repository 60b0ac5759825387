"""Posts: writing, reading, changing and deleting what users have written."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import InstrumentedAttribute

from models import Post, User
from models.paging import Page, PageRequest, page_of
from models.rows import delete_row, differing, insert_row, update_row
from models.statements import Record, fetch_one
from service import events
from service.errors import NotFound, VersionMismatch
from service.identity import Identity
from service.permissions import Permission, check

SORTS: dict[str, InstrumentedAttribute[Any]] = {
    "id": Post.id,
    "created_at": Post.created_at,
    "updated_at": Post.updated_at,
}
_POST = select(*(a.class_attribute for a in Post.__mapper__.column_attrs))
_BY_AUTHOR = _POST.where(Post.user_id == bindparam("user_id"))
_BY_ID = _POST.join(User, User.id == Post.user_id).where(Post.id == bindparam("post_id"), User.deleted_at.is_(None))
_LOCKED_BY_ID = _BY_ID.with_for_update(of=Post)
_AUTHOR = select(User.id).where(User.id == bindparam("user_id"), User.deleted_at.is_(None))
# Locked for reading, so that the author cannot be deleted meanwhile.
_LOCKED_AUTHOR = _AUTHOR.with_for_update(read=True)


def page_of_user(user_id: int, page: PageRequest, *, actor: Identity) -> Page:
    """Return a page of a user's posts; raises NotFound where there is no such user."""
    check(actor, Permission.POSTS_READ, owner_id=user_id)
    if fetch_one(_AUTHOR, user_id=user_id) is None:
        raise NotFound
    return page_of(_BY_AUTHOR, page, SORTS, user_id=user_id)


def write(*, actor: Identity, user_id: int, title: str, content: str) -> Record:
    """Write a post for a user; raises NotFound."""
    check(actor, Permission.POSTS_WRITE, owner_id=user_id)
    if fetch_one(_LOCKED_AUTHOR, user_id=user_id) is None:
        raise NotFound
    post = insert_row(Post, user_id=user_id, title=title, content=content)
    events.record("post.created", post, actor=actor)
    return post


def read(post_id: int, *, actor: Identity) -> Record:
    """Return a post; raises NotFound."""
    found = fetch_one(_BY_ID, post_id=post_id)
    if found is None:
        raise NotFound
    check(actor, Permission.POSTS_READ, owner_id=found.user_id)
    return found


def change(post_id: int, *, actor: Identity, expected: Collection[int] | None = None, **fields: Any) -> Record:
    """Set the given fields; `expected` holds the versions the caller has seen. Raises NotFound, VersionMismatch."""
    post = _locked(post_id, actor=actor, expected=expected)
    changed = update_row(Post, post, **fields)
    if changed.version != post.version:
        events.record("post.updated", changed, actor=actor, changed=differing(Post, post, changed, fields))
    return changed


def delete(post_id: int, *, actor: Identity, expected: Collection[int] | None = None) -> None:
    """Delete a post; raises NotFound, VersionMismatch."""
    post = _locked(post_id, actor=actor, expected=expected)
    delete_row(Post, post)
    events.record("post.deleted", post, actor=actor)


def _locked(post_id: int, *, actor: Identity, expected: Collection[int] | None) -> Record:
    """Return a post for changing, with the row locked until the unit of work ends."""
    post = fetch_one(_LOCKED_BY_ID, post_id=post_id)
    if post is None:
        raise NotFound
    check(actor, Permission.POSTS_WRITE, owner_id=post.user_id)
    if expected is not None and post.version not in expected:
        raise VersionMismatch
    return post
