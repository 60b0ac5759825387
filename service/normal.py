"""Normal forms: which texts are allowed, and when two spellings mean the same."""

import re
import unicodedata

import idna

from service.errors import Fault, Invalid

# Characters that cannot be seen or that change how others are shown: controls, separators of lines, direction marks,
# fillers, zero-width spaces, tags, the replacement character. Joiners and variation selectors stay, because emoji and
# some scripts need them; an address does without.
_TAGS = "\U000e0000-\U000e007f"  # Written out, since no escape for these means the same in Python and in JSON Schema.
INVISIBLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\u3164\ufeff\uffa0\ufff9-\uffff" + _TAGS
)
ONE_LINE = rf"[^\x00-\x1f\x7f-\x9f{INVISIBLE}]*"
NO_EDGE_SPACE = rf"[^\s\x00-\x1f\x7f-\x9f{INVISIBLE}](?:{ONE_LINE}[^\s\x00-\x1f\x7f-\x9f{INVISIBLE}])?"
MANY_LINES = rf"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{INVISIBLE}]*"

NAME_LENGTH = 2, 80
EMAIL_LENGTH = 120
# What is promised to be accepted, said without look-ahead, so that a program can also make up addresses by it. Longer
# chains of dots and hyphens, letters beyond ASCII and xn-- forms are accepted as well.
_ATOM, _LABEL = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]", "[A-Za-z0-9]"
EMAIL_PATTERN = (
    rf"(?:{_ATOM}{{1,64}}|{_ATOM}{{1,20}}(?:\.{_ATOM}{{1,20}}){{1,2}})@"
    rf"(?:(?:{_LABEL}{{1,63}}|{_LABEL}{{1,20}}(?:-{_LABEL}{{1,20}}){{1,2}})\.)+[A-Za-z]{{2,63}}"
)
# The dotless i looks like an i, and upper-cases to one: an old way to get another person's mail.
_LOCAL_PART = re.compile(
    rf"[^\x00-\x20\x7f-\xa0@\"(),:;<>\[\\\]ı\u200c\u200d\ufe00-\ufe0f\ud800-\udfff{INVISIBLE}]{{1,64}}"
)
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")


def key(text: str) -> str:
    """Return the form in which texts are compared, sorted and searched: NFKC, trimmed and case-folded."""
    return _folded(text).strip()


def checked_name(name: str) -> str:
    """Return a person's name in NFC; raises Invalid where the API would refuse it."""
    name = unicodedata.normalize("NFC", name)
    least, most = NAME_LENGTH
    if not (least <= len(name) <= most and re.fullmatch(NO_EDGE_SPACE, name)):
        told = f"Use {least} to {most} characters that can be seen, with no space at either end."
        raise Invalid(faults=[Fault("/json/name", "invalid_format", told)])
    return name


def name_key(name: str) -> str:
    """Return a name's key, bounded so that an index can hold it."""
    return key(name)[:120]


def email_key(email: str) -> str:
    """Return the form by which an address is unique: its key, with the domain in ASCII (RFC 5891); raises Invalid."""
    local, _, domain = unicodedata.normalize("NFKC", email).strip().rpartition("@")
    local = _folded(local)
    try:
        # Not folded before: in a domain ß and ς are letters of their own.
        is_plain = domain.isascii() and "xn--" not in domain.lower()
        domain = domain.lower() if is_plain else idna.encode(idna.decode(domain, uts46=True), uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        raise _not_an_address() from None
    found = f"{local}@{domain}"
    well_formed = _LOCAL_PART.fullmatch(local) and ".." not in f".{local}." and _DOMAIN.fullmatch(domain)
    if not well_formed or len(found) > EMAIL_LENGTH:
        raise _not_an_address()
    return found


def _folded(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded)  # Folding can undo the normal form (Unicode TR15).


def _not_an_address() -> Invalid:
    return Invalid(faults=[Fault("/json/email", "invalid_format", "This is not an e-mail address.")])
