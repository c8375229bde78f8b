"""Secrets in the forms that the services' files want."""

from __future__ import annotations

import base64
import codecs
import hashlib
import itertools
import re
import urllib.parse
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.fba.stack.plugins.filter.credentials import dotenv, rabbitmq_password_hash, sql_literal, url_part


@pytest.mark.parametrize("password", ["test12", "pässwörd with $pace", "x" * 200])
def test_rabbitmq_hash_is_what_the_server_computes(password: str) -> None:
    """Base64 of four bytes of salt and the SHA-256 of salt and password: https://www.rabbitmq.com/docs/passwords."""
    raw = base64.b64decode(rabbitmq_password_hash(password), validate=True)
    assert len(raw) == 4 + 32
    assert raw[4:] == hashlib.sha256(raw[:4] + password.encode()).digest()


def test_rabbitmq_hash_is_the_same_in_every_run_and_salted_per_password() -> None:
    assert rabbitmq_password_hash("one") == rabbitmq_password_hash("one")
    salts = {base64.b64decode(rabbitmq_password_hash(f"password {number}"))[:4] for number in range(20)}
    assert len(salts) == 20


def read_dotenv(text: str) -> dict[str, str]:
    """Read the way python-dotenv does, which finds its tokens with these expressions, then replaces variables whatever the quotes."""
    settings = {}
    while text.strip():
        start = re.match(r"\s*([^=#\s]+)=[^\S\r\n]*", text)
        assert start, text
        text = text[start.end() :]
        if text.startswith("'"):
            quoted, escapes = re.match(r"'((?:\\'|[^'])*)'", text), r"\\[\\']"
        elif text.startswith('"'):
            quoted, escapes = re.match(r'"((?:\\"|[^"])*)"', text), r"\\[\\'\"abfnrtv]"
        else:
            quoted, escapes = None, ""
        if quoted:
            value = re.sub(escapes, lambda match: codecs.decode(match[0], "unicode-escape"), quoted[1])
            text = text[quoted.end() :]
        else:
            line = re.match(r"[^\r\n]*", text)
            assert line
            value = re.sub(r"\s+#.*", "", line[0]).rstrip()
            text = text[line.end() :]
        end = re.match(r"[^\S\r\n]*(?:#[^\r\n]*)?(?:\r\n|\n|\r|$)", text)
        assert end, f"garbage after the value of {start[1]}: {text!r}"
        text = text[end.end() :]
        settings[start[1]] = re.sub(r"\$\{[^}]*\}", "", value)
    return settings


# Every value of up to four of these, among them every pair of awkward neighbours
CHARACTERS = ["a", " ", "'", '"', "\\", "#", "$", "`", "\n", "{", "é"]


def test_dotenv_values_come_back_as_they_were() -> None:
    for length in range(5):
        for characters in itertools.product(CHARACTERS, repeat=length):
            # The neighbours show where a quote is not closed
            settings = {"A": "".join(characters), "B": "x\"y'z", "C": "last"}
            try:
                text = dotenv(settings)
            except AnsibleFilterError:
                # Refusing is the exception and not the way out
                assert "${" in settings["A"] or (settings["A"].endswith("\\") and set(settings["A"]) & set(" '\"#$`\n")), settings["A"]
            else:
                assert read_dotenv(text) == settings, text


@pytest.mark.parametrize("value", ["pre${HOME}", "it's a trap\\"])
def test_dotenv_refuses_what_no_quoting_can_keep_and_does_not_show_it(value: str) -> None:
    with pytest.raises(AnsibleFilterError, match="DB_PASSWORD") as error:
        dotenv({"DB_PASSWORD": value})
    assert value not in str(error.value)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("plain-value_1/2:3@x", "A=plain-value_1/2:3@x\n"),
        (5432, "A=5432\n"),
        (True, "A=true\n"),
        (False, "A=false\n"),
        ("", "A=\n"),
        (["https://example.org"], """A='["https://example.org"]'\n"""),
        (None, ""),
    ],
)
def test_dotenv_forms(value: Any, line: str) -> None:
    assert dotenv({"A": value}) == line


def test_dotenv_is_sorted_so_that_order_is_no_change() -> None:
    assert dotenv({"B": 1, "A": 2}) == dotenv({"A": 2, "B": 1}) == "A=2\nB=1\n"


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("plain", "'plain'"),
        ("it's", "'it''s'"),
        ("'; DROP TABLE x; --", "'''; DROP TABLE x; --'"),
        ("back\\slash", "E'back\\\\slash'"),
        # Both at once, which is where a quote could end early
        ("\\'; x", "E'\\\\''; x'"),
    ],
)
def test_sql_literals_end_where_they_should(text: str, literal: str) -> None:
    """As quote_literal() of PostgreSQL writes them."""
    assert sql_literal(text).strip() == literal


@pytest.mark.parametrize("text", ["plain", "p@ss:w/rd?#[]", "a b+c%20", "ü", "&="])
def test_url_parts_stay_in_their_part(text: str) -> None:
    url = urllib.parse.urlsplit(f"amqp://user:{url_part(text)}@host:5671/{url_part(text)}")
    assert (url.hostname, url.port) == ("host", 5671)
    assert url.password is not None
    assert urllib.parse.unquote(url.password) == text
    assert urllib.parse.unquote(url.path) == f"/{text}"
