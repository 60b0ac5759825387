"""Normal forms: when two spellings are one name or one address, and what is no address."""

import json
import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service import normal
from service.errors import Invalid

ADA = "ada@example.com"
LONG_LABEL = "b" * 63
# Characters that fold, compose, decompose, vanish or come apart, more often than chance would bring them.
TRICKY = st.sampled_from("ßẞſKÅİıΣςσΐǰŉﬁﷺ℡①ͅ\u0301\u0327\u0308¨\u3000\xa0\xad\u200d\uff20\uff0e\u3002@.-xn")
TEXTS = st.text(TRICKY | st.characters(exclude_categories=["Cs"]), max_size=12)
ADDRESSES = st.builds("{}@{}.{}".format, TEXTS, TEXTS, st.sampled_from(["com", "рф", "xn--p1ai", "bücher.example"]))
often = settings(max_examples=300, deadline=None)


def key_or_none(email: str) -> str | None:
    try:
        return normal.email_key(email)
    except Invalid:
        return None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Ada", "ada"),
        ("  Ada Lovelace\u3000", "ada lovelace"),
        ("Ａｄａ", "ada"),
        ("Straße", "strasse"),
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
        ("Zoe\u0308", "zoë"),
        ("\u212bngström", "ångström"),
        ("ﬁ", "fi"),
        ("İ", "i\u0307"),
        ("", ""),
    ],
)
def test_a_key_does_not_depend_on_case_width_or_composition(text, key):
    assert normal.key(text) == key


@often
@given(TEXTS)
@example("¨")
@example("\u0345\u0301")
def test_the_key_of_a_key_is_itself(text):
    key = normal.key(text)

    assert normal.key(key) == key == unicodedata.normalize("NFKC", key)


@often
@given(TEXTS)
def test_a_text_has_one_key_however_it_is_composed(text):
    forms = {normal.key(unicodedata.normalize(form, text)) for form in ("NFC", "NFD", "NFKC", "NFKD")}

    assert forms == {normal.key(text)}


@pytest.mark.parametrize("name", ["ﷺ" * 80, "a" * 200, ""])
def test_the_key_of_a_name_fits_its_index(name):
    assert len(normal.name_key(name)) <= 120


@pytest.mark.parametrize(
    ("email", "key"),
    [
        ("Ada@Example.COM", ADA),
        ("  ada@example.com\u3000", ADA),
        ("ａｄａ＠ｅｘａｍｐｌｅ．ｃｏｍ", ADA),
        ("ada\uff20example.com", ADA),
        ("ada@example\u3002com", ADA),
        ("ada@exam\xadple.com", ADA),
        ("\u212aim@example.com", "kim@example.com"),
        ("\u017fam@example.com", "sam@example.com"),
        ("zoe\u0308@example.com", "zoë@example.com"),
        ("ADAİ@example.com", "adai\u0307@example.com"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@bu\u0308cher.example", "ada@xn--bcher-kva.example"),
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example"),
        ("ada@пример.рф", "ada@xn--e1afmkfd.xn--p1ai"),
        ("ada@exampl\u0435.com", "ada@xn--exampl-8of.com"),
        ("o'brien+tag@a-b.example", "o'brien+tag@a-b.example"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
        (f"a@{LONG_LABEL}.com", f"a@{LONG_LABEL}.com"),
    ],
)
def test_spellings_of_one_address_have_one_key(email, key):
    assert normal.email_key(email) == key
    assert normal.email_key(key) == key


@pytest.mark.parametrize(
    ("domain", "encoded"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("βόλος.example", "xn--nxasmm1c.example"),
    ],
)
def test_a_domain_is_the_same_in_unicode_and_in_ascii(domain, encoded):
    assert normal.email_key(f"ada@{domain}") == normal.email_key(f"ada@{encoded}") == f"ada@{encoded}"


def test_domains_that_are_registered_apart_are_kept_apart():
    assert normal.email_key("ada@straße.example") != normal.email_key("ada@strasse.example")


@pytest.mark.parametrize(
    "email",
    [
        "",
        "@",
        "ada",
        "ada@",
        "@example.com",
        "ada@localhost",
        "ada@example.com.",
        "ada@.example.com",
        "ada@example..com",
        "ada@bücher.example.",
        "ada@-a.example",
        "ada@a-.example",
        "ada@a_b.example",
        "ada@1.2.3.4",
        "ada@[127.0.0.1]",
        "ada@xn--0.example",
        "ada@xn--.example",
        "ada@\u200dbü.example",
        f"a@{LONG_LABEL}b.com",
        "a" * 65 + "@example.com",
        "a" * 60 + "@" + "b" * 60 + ".com",
        "a@" + "ü." * 40 + "com",
        ".ada@example.com",
        "ada.@example.com",
        "a..b@example.com",
        "a b@example.com",
        "a@b@example.com",
        '"ada"@example.com',
        "ada<b>@example.com",
        "ada,bob@example.com",
        "ada\n@example.com",
        "ada@example.com\nBcc: bob@example.com",
        "ada\x00@example.com",
        "a\u2028da@example.com",
        "adaı@example.com",
        "a\xadda@example.com",
        "a\u200bda@example.com",
        "a\u202eda@example.com",
        "a\U000e0061da@example.com",
        "ad\u3164a@example.com",
        "ad\u115fa@example.com",
        "ad\u034fa@example.com",
        "ad\ud800a@example.com",
    ],
)
def test_what_is_no_address_is_refused(email):
    with pytest.raises(Invalid) as refusal:
        normal.email_key(email)

    (fault,) = refusal.value.faults
    assert (fault.pointer, fault.code) == ("/json/email", "invalid_format")


@often
@given(ADDRESSES)
@example("a@straße.com")
@example("a@ς.com")
def test_the_key_of_an_address_is_its_own_key_and_plain(email):
    key = key_or_none(email)

    assert key is None or (
        normal.email_key(key) == key
        and len(key) <= normal.EMAIL_LENGTH
        and key.count("@") == 1
        and key.rpartition("@")[2].isascii()
        and json.loads(json.dumps(key)) == key
    )


@settings(max_examples=100, deadline=None)
@given(st.from_regex(re.compile(normal.EMAIL_PATTERN, re.ASCII), fullmatch=True))
@example("ada@ab--cd.example")
def test_every_address_that_is_promised_is_accepted(email):
    assert len(email) > normal.EMAIL_LENGTH or normal.email_key(email) == email.lower()
