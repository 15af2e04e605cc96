"""One code for each template of log lines, whatever its first line in a partition was."""

from __future__ import annotations

from detectors.sequences.code_numbers import code_number
from pipeline.decode.event_codes import EventCodes
from pipeline.decode.known_codes import SeenCodes, merge_codes, seen_codes
from pipeline.decode.log_templates import LogTemplates, Template

NAMES = ("ann", "bob", "cem", "dora")


def partition_of(names: tuple[str, ...]) -> LogTemplates:
    templates = LogTemplates()
    for name in names:
        templates.code(f"login accepted for {name} from 10.0.0.1")
    return templates


def test_templates_with_the_same_text_get_one_code():
    one, other = partition_of(NAMES), partition_of(NAMES[:0:-1])
    (first,), (second,) = one.templates(), other.templates()
    assert first.text == second.text == "login accepted for <*> from <IP>"
    assert first.code != second.code
    codes = [EventCodes(templates=True), EventCodes(templates=True)]
    codes[0].restore({"codes": [first.code], "templates": one.state()})
    codes[1].restore({"codes": [second.code], "templates": other.state()})
    known = merge_codes(seen_codes(codes))
    assert known.code_of == {second.code: first.code}  # that with more lines
    assert known.name_of == dict.fromkeys(map(code_number, (first.code, second.code)), first.code)
    assert known.templates == ((first.code, first.text),)
    assert merge_codes(seen_codes(codes), {second.code}).code_of == {first.code: second.code}


def test_one_code_with_several_texts_joins_their_templates():
    a, b, c = Template("1", ("x", "<*>"), 5), Template("1", ("x", "y"), 1), Template("2", ("x", "y"), 9)
    known = merge_codes(SeenCodes((), (a, b, c)))
    assert known.code_of == {"1": "2"}
    assert known.templates == (("2", "x <*>"), ("2", "x y"))


def test_the_texts_that_a_model_keeps_are_bounded():
    codes = tuple(f"{number} {'ü' * 1500}" for number in range(4096))
    seen = SeenCodes(codes, tuple(Template(str(n), (text,), n) for n, text in enumerate(codes)))
    known = merge_codes(seen)
    assert 50 < len(known.name_of) < 200
    assert 50 < len(known.templates) < 200
    assert ("4095", codes[-1]) in known.templates  # that with the most lines


def test_a_partition_uses_the_codes_of_the_model():
    model = [("login", "login accepted for <*> from <IP>"), ("full", "disk <PATH> is full")]
    before = partition_of(NAMES[:2])
    (old,) = before.templates()
    assert before.use_known(model, {}, {"login", "full"}) == {old.code: "login"}
    assert before.code("login accepted for eva from 10.0.0.2") == "login"
    assert before.code("disk /dev/sda is full") == "full"
    assert before.code("fan /dev/sda is full") not in ("full", "login")
    assert before.text("login") == "login accepted for <*> from <IP>"

    restarted = LogTemplates()
    restarted.restore(before.state())
    assert restarted.use_known(model, {}, {"login", "full"}) == {}
    assert restarted.state() == before.state()


def test_a_code_that_stands_for_another_is_taken_once():
    templates = LogTemplates()
    first, second = templates.code("alpha one"), templates.code("beta two three")
    assert templates.use_known((), {first: "x", second: "x"}, {"x"}) == {first: "x"}
    assert templates.code("beta two three") == second
