"""Normal forms: which texts are allowed, and when two spellings mean the same."""

import re
import unicodedata

import idna

from service.errors import Fault, Invalid

# Characters that cannot be seen or that change how others are shown: controls, separators of lines, direction marks,
# zero-width spaces, tags, the replacement character. Joiners stay, because emoji and some scripts need them.
_TAGS = "\U000e0000-\U000e007f"  # Written out, since no escape for these means the same in Python and in JSON Schema.
INVISIBLE = r"\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff" + _TAGS
ONE_LINE = rf"[^\x00-\x1f\x7f-\x9f{INVISIBLE}]*"
MANY_LINES = rf"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{INVISIBLE}]*"

EMAIL_LENGTH = 120
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# What is promised to be accepted; addresses with letters beyond ASCII are accepted as well.
EMAIL_PATTERN = rf"(?=.{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+[A-Za-z](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?"
# The dotless i looks like an i, and upper-cases to one: an old way to get another person's mail.
_LOCAL_PART = re.compile(rf"[^\x00-\x20\x7f-\xa0@\"(),:;<>\[\\\]ı{INVISIBLE}]{{1,64}}")
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")


def key(text: str) -> str:
    """Return the form in which texts are compared, sorted and searched: NFKC, trimmed and case-folded."""
    folded = unicodedata.normalize("NFKC", text).strip().casefold()
    return unicodedata.normalize("NFKC", folded)  # Folding can undo the normal form (Unicode TR15).


def name_key(name: str) -> str:
    """Return a name's key, bounded so that an index can hold it."""
    return key(name)[:120]


def email_key(email: str) -> str:
    """Return the form by which an address is unique: its key, with the domain in ASCII (RFC 5891); raises Invalid."""
    local, _, domain = key(email).rpartition("@")
    try:
        if "xn--" in domain or not domain.isascii():
            domain = idna.encode(idna.decode(domain, uts46=True), uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        raise _not_an_address() from None
    found = f"{local}@{domain}"
    well_formed = _LOCAL_PART.fullmatch(local) and ".." not in f".{local}." and _DOMAIN.fullmatch(domain)
    if not well_formed or len(found) > EMAIL_LENGTH:
        raise _not_an_address()
    return found


def _not_an_address() -> Invalid:
    return Invalid(faults=[Fault("/json/email", "invalid_format", "This is not an e-mail address.")])
