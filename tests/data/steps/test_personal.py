"""Personal data: what is missed, a model repeats to strangers; what is found wrongly, is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config.fields import field_specs
from core.data.steps.personal import KINDS, PersonalData, masked, passes_luhn
from core.errors import DataError
from tests.data.steps.stage import asked, play, setting, talk, text

ALL = list(KINDS.values())
# Put together here, so that no scanner takes them for real ones.
HEX = "0123456789abcdef"
TOKENS = [
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "glpat-" + "a1B2" * 5,
    "hf_" + "aB1c" * 8 + "aB",
    "sk-" + "proj-" + "aB1c" * 10,
    "AIza" + "aB1cd" * 7,
    "xoxb-" + "123456789012-abcdef",
    "sk_" + "live_" + "aB1c" * 6,
    "npm_" + "aB1c" * 9,
    "SK" + HEX * 2,
    "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0" + ".c2lnbmF0dXJl",
]


def test_each_field_says_what_it_is_and_what_it_does() -> None:
    for spec in field_specs(PersonalData):
        assert spec.help.endswith("."), spec.path
        assert spec.label[:1].isupper(), spec.path
    assert set(KINDS) <= set(PersonalData.model_fields), "each kind can be switched off"


@pytest.mark.parametrize(
    ("words", "clean"),
    [
        ("Write to jane.doe+news@mail.example.co.uk, please.", "Write to [EMAIL], please."),
        ("<a@b.org>;c_d@e.info", "<[EMAIL]>;[EMAIL]"),
        ("Call (212) 555-0123 or 650-253-0000 today.", "Call [PHONE] or [PHONE] today."),
        ("Call +49 30 901820 in Berlin", "Call [PHONE] in Berlin"),
        ("phone: 6502530000", "phone: [PHONE]"),
        ("Ring +442079460958.", "Ring [PHONE]."),
        ("card 4111 1111 1111 1111 works", "card [CARD] works"),
        ("card 5500-0055-5555-5559.", "card [CARD]."),
        ("IBAN DE89 3704 0044 0532 0130 00 AT NOON", "IBAN [IBAN] AT NOON"),
        ("GB82WEST12345698765432", "[IBAN]"),
        ("from 81.2.69.142 and 2a00:1450:4001:81b::200e", "from [IP] and [IP]"),
        ("postgres://bob:hunter2@db.internal/x", "postgres://[KEY]@db.internal/x"),
        ('API_KEY = "a1b2c3d4e5f6g7h8i9j0k"', 'API_KEY = "[KEY]"'),
        ("Authorization: Bearer abc123def456ghi789jkl", "Authorization: Bearer [KEY]"),
    ],
)
def test_personal_data_is_masked_and_nothing_around_it(words: str, clean: str) -> None:
    assert masked(words, ALL, "US") == clean


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token[:6])
def test_tokens_of_well_known_services_are_masked(token: str) -> None:
    assert masked(f"use {token} here", ALL, "US") == "use [KEY] here"


def test_a_private_key_goes_whole_also_when_its_end_is_missing() -> None:
    head, end = "-----BEGIN RSA " + "PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
    body = "\nMIIEpAIBAAKCAQEA\nq7BFUpkGp3+LQmlQ\n"
    assert masked(f"key:\n{head}{body}{end}\nthanks", ALL, "") == "key:\n[KEY]\nthanks"
    assert "MIIE" not in masked(f"{head}{body}", ALL, "")


@pytest.mark.parametrize(
    "fine",
    [
        "In 1984 there were 1,234,567 people and 3.14159265358979 of pi.",
        "The sum 3600000000000 + 62426244000 + 198472480 is large.",
        "512.3456789 386.4158898 456.7890123",
        "On 2021-05-06 12:30:45, between 1990 - 2000, pages 100-200.",
        "order 12345678901234567890, ISBN 978-3-16-148410-0",
        "4111 1111 1111 1112 is no card, nor is 0000 0000 0000 0000",
        "version 8.8.4.4 at 192.168.1.1 and 127.0.0.1, section 1.2.3.4",
        "@pytest.fixture def a(): return b @ c",
        "icon@2x.png is an image",
        "as sk-learn does; the task-force; sk-based-on-words-and-nothing-else",
        "Ask for your API key: see the documentation for details",
        "x = 2^32, 5551234567 * 3 = 16653703701",
        "DE89 3704 0044 0532 0130 01 has a wrong check digit",
        "the ratio 16:9::4:3 and 10:20:30",
        "https://example.com/path:80@home",
        "Latitude 52.520008, longitude 13.404954",
    ],
)
def test_ordinary_text_and_numbers_are_left_alone(fine: str) -> None:
    assert masked(fine, ALL, "US") == fine


def test_dropping_says_what_was_found_and_not_the_secret(tmp_path: Path) -> None:
    rows = [text("a@b.org, +442079460958 and c@d.org"), text("nothing")]
    outcome = play(PersonalData(action="drop"), rows, "text", tmp_path)
    assert outcome.dropped == [("train", 0, "e-mail address, phone number")]
    outcome = play(PersonalData(action="drop", email=False), rows, "text", tmp_path)
    assert outcome.reasons == ["phone number"]


def test_turns_calls_of_tools_and_columns_beside_the_row_are_masked_too(tmp_path: Path) -> None:
    row = talk("I am a@b.org", "Noted.")
    call = [{"type": "function", "function": {"name": "f", "arguments": {"to": "a@b.org", "n": 1}}}]
    row["messages"][1]["tool_calls"] = json.dumps(call)
    row["meta"] = {"author": "a@b.org", "id": 7}
    (clean,) = play(PersonalData(), [row], "messages", tmp_path).rows
    assert clean["messages"][0]["content"] == "I am [EMAIL]"
    call[0]["function"]["arguments"]["to"] = "[EMAIL]"  # type: ignore[index]
    assert json.loads(clean["messages"][1]["tool_calls"]) == call
    assert clean["meta"] == {"author": "[EMAIL]", "id": 7}


def test_a_row_without_a_find_is_passed_on_as_it_is(tmp_path: Path) -> None:
    row = asked("What is 2 + 2?", "4", meta={"id": 1})
    assert play(PersonalData(), [row], "prompt-completion", tmp_path).rows[0] is row


def test_settings_that_find_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'XX'"):
        PersonalData(region="XX").start(setting("text", tmp_path))
    off = dict.fromkeys(KINDS, False)
    with pytest.raises(DataError, match="No kind"):
        PersonalData(**off).start(setting("text", tmp_path))


def test_numbers_of_another_country_are_found_with_its_region() -> None:
    words = "Ruf an: 030 901820, bitte."
    assert masked(words, ALL, "DE") == "Ruf an: [PHONE], bitte."
    assert masked(words, ALL, "") == words


def test_check_digits_of_cards() -> None:
    assert passes_luhn("79927398713") and not passes_luhn("79927398710")


@given(
    st.lists(
        st.sampled_from(["a@b.org", "+442079460958", "DE89370400440532013000", "x", " ", "\n", "1"])
        | st.text(max_size=10),
        max_size=10,
    )
)
@settings(deadline=None, max_examples=60)
def test_masked_text_holds_nothing_more_to_mask(pieces: list[str]) -> None:
    once = masked(" ".join(pieces), ALL, "US")
    assert masked(once, ALL, "US") == once
