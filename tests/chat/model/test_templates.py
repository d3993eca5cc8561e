"""Chat templates from files run in a sandbox and cannot do harm."""

import time

import pytest

from ggufbench.chat import sandbox
from ggufbench.chat.model import ChatModelError
from ggufbench.chat.template import CHATML, Template

USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def template(source: str) -> Template:
    return Template(source, "<s>", "</s>", "some model")


def rendered_before_content(source: str, messages: list) -> str:
    """The text that the source makes; the content follows, because a prompt without it is an error."""
    prompt = template(source + "{{ messages[0].content }}").render(messages)
    assert prompt.endswith("Hi")
    return prompt.removesuffix("Hi")


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>Hi</s>"),
        ("{{ messages[0]['role'] }}{% if add_generation_prompt %}:{% endif %}", "user:"),
        ("{% if tools %}tools{% else %}none{% endif %}", "none"),
        ("{% if enable_thinking is defined %}x{% endif %}{{ documents }}", "None"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi"}]'),
        ("{{ strftime_now('%Y') | int > 2000 }}", "True"),
        ("{% generation %}a{% endgeneration %}", "a"),
        ("{% for m in messages %}{% break %}{% endfor %}b", "b"),
        ("  {% if true %}\nx\n  {% endif %}\n", "x\n"),
        ("{{ 'é雪' * 3 }}{{ 3 * 4 }}", "é雪é雪é雪12"),
        ("{% set n = namespace(x=0) %}{% for i in range(5) %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}",
         "10"),
        ("{% for x in 'abc' %}{{ loop.length ~ loop.last ~ x }}{% endfor %}", "3Falsea3Falseb3Truec"),
        ("{% for m in messages if m.role == 'user' %}{{ loop.index }}{% endfor %}", "1"),
        ("{{ '%s-%5.2f' | format('a', 2) }}{{ '{:>3}'.format('b') }}", "a- 2.00  b"),
        ("{{ messages[0].content | replace('H', 'J') | upper }}{{ 'a b'.split() | join('+') }}", "JIa+b"),
        ("{% set x %}a{% for i in range(3) %}{{ i }}{% endfor %}{% endset %}{{ x ~ 1 }}", "a0121"),
        ("{{ {'a': [1]} | tojson(indent=2) }}", '{\n  "a": [\n    1\n  ]\n}'),
        ("{{ 2000000 | int }}{{ range(3) | list }}{{ messages[-1:] | length }}", "2000000[0, 1, 2]1"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m('y') }}", "<y>"),
        ("{{ 20260101 | string }}{{ missing | default(20260101) }}{{ 20260101 | tojson }}", "20260101" * 3),
        ("{% macro m(x, most=1048576) %}{{ x ~ most }}{% endmacro %}{{ m(99999999) }}", "999999991048576"),
        ("{% set n = namespace(id=-20260101) %}{{ n.id | abs }}{{ dict(a=20260101).a }}", "2026010120260101"),
        ("{{ '%d|%s %%' % (20260101, 'x') }}{{ '%d' | format(20260101) }}", "20260101|x %20260101"),
        ("{{ '**%s** 20260101' % 'bold' }}{{ '%*d' % (4, 7) }}", "**bold** 20260101   7"),
        ("{{ '{} of 20260101 {:,}'.format('1', 20260101) }}", "1 of 20260101 20,260,101"),
        ("{{ [20260101, 3] | sum }}{{ [20260101] | join(', ') }}", "2026010420260101"),
        ("{{ 'a-b'.split('-', 20260101) | last }}{{ 'ab'.find('b', -20260101) }}", "b1"),
        ("{{ 'aa' | replace('a', 'b', 20260101) }}{{ 20260101.5 | round(1) }}", "bb20260101.5"),
        ("{{ 'x' | truncate(20260101) }}{{ 2 ** 20 }}{{ 20260101 * 1000000 }}", "x104857620260101000000"),
        ("{{ [1, 20260101] | tojson(indent=2) }}", "[\n  1,\n  20260101\n]"),
    ],
)  # fmt: skip
def test_expected_template_features_work(source, rendered):
    assert rendered_before_content(source, [USER]) == rendered


HOSTILE = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ (raise_exception.__globals__)['os'].system('true') }}",
    "{{ strftime_now.__globals__ }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ ''['__class__']['__base__'] }}",
    "{{ '%s' | format(messages.__class__.__base__.__subclasses__()) }}",
    "{{ '{0.__class__.__base__}'.format(messages).x.y }}",
    "{% set _ = messages.append(1) %}",
    "{% set _ = messages[0].update({'role': 'x'}) %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ self._TemplateReference__context.environment.loader.x }}",
]
ENDLESS = [
    "{{ 'x' * 10000000000 }}",
    "{{ 10000000000 * ['x'] }}",
    "{{ 9 ** 999999999 }}",
    "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
    "{% set s = 'x' * 90000 %}{% for a in s %}{% for b in s %}{% endfor %}{% endfor %}",
    "{% for a in range(9000) %}{% set x %}{{ 'x' * 900000 }}{% endset %}{{ x }}{% endfor %}",
    "{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s='xx') %}{% for a in range(9) %}{% set n.s = n.s.replace('x', n.s) %}{% endfor %}",
    "{% set n = namespace(s='xx') %}{% for a in range(9) %}{% set n.s = n.s|replace('x', n.s) %}{% endfor %}",
    "{% set n = namespace(s='xx') %}{% for a in range(99) %}{% set n.s = n.s.join(n.s) %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
    "{{ 'x'.ljust(9999999999) }}", "{{ 'x' | center(9999999999) }}", "{{ 'x' | indent(9999999999) }}",
    "{{ '{:9999999999}'.format(1) }}", "{{ '{x:9999999999}'.format_map({'x': 1}) }}",
    "{{ '{:{w}}'.format(1, w='9999999999') }}",
    "{{ '%*d' % (9999999999, 1) }}", "{{ '%9999999999d' | format(1) }}",
    "{{ [1] | tojson(indent=9999999999) }}",
    "{% for a in range(1000000000) %}x{% endfor %}",
    "{% for a in range(900) %}{% for b in range(900) %}{{ 'x' * 900 }}{% endfor %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ '%09999999999d' % 1 }}", "{{ '%.9999999999f' % 1 }}", "{{ '%(a)9999999999d' % {'a': 1} }}",
    "{{ 'x'.encode() * 10000000000 }}", "{{ (1).to_bytes(9999999999, 'big') }}", "{{ lipsum(9999999999) }}",
    "{{ [1] | batch(9999999999, 0) | list }}", "{{ ('\\n' * 1000000) | indent(9999) }}",
    "{{ ('\\t' * 1000000).expandtabs(9999) }}", "{{ ('\\n' * 100000) | indent('x' * 100000) }}",
    "{{ ('{0}' * 100000).format('x' * 100000) }}", "{{ ('%(a)s' * 100000) % {'a': 'x' * 100000} }}",
    "{{ ('x' * 100000) | wordwrap(1, true, 'y' * 100000) }}", "{{ ([1] * 1000000) | tojson(indent=9999) }}",
    "{% set n = namespace(x=10) %}{% for a in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
]  # fmt: skip


@pytest.mark.parametrize("source", HOSTILE)
def test_template_cannot_reach_python(source):
    messages = [dict(USER)]
    try:
        # hidden attributes are undefined, which renders as empty
        assert rendered_before_content(source, messages) == ""
    except ChatModelError as error:
        assert_one_sentence(str(error))
    assert messages == [USER]


@pytest.mark.parametrize("source", ENDLESS)
def test_endless_template_is_stopped(source):
    start = time.monotonic()
    with pytest.raises(ChatModelError) as caught:
        template(source).render([USER])
    assert_one_sentence(str(caught.value))
    assert time.monotonic() - start < 20


def test_slow_template_is_stopped(monkeypatch):
    monkeypatch.setattr(sandbox, "_MOST_SECONDS", 0.3)
    slow = "{% set s = 'x' * 9999999 %}{% for a in range(90000) %}{% set t = s | upper %}{% endfor %}"
    with pytest.raises(ChatModelError, match=r"it takes more than 0.3 s"):
        template(slow).render([USER])


def assert_one_sentence(message: str) -> None:
    assert message.startswith("The chat template of some model fails: ")
    assert message.endswith("; set chat_template to another one.")
    assert message.isprintable()
    assert len(message) < 300


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}", "{{ missing.thing }}", "{{ missing() }}", "{{ raise_exception('no\x1b[2Jway\\n') }}",
        "{{ 1 // 0 }}", "{{ messages | nofilter }}", "(" * 5000 + "{{" + "(" * 5000,
        "{{ messages[5].content.x }}", "{{ 1 + 'x' }}", "{% extends 'x' %}",
    ],
)  # fmt: skip
def test_failing_template_message(source):
    with pytest.raises(ChatModelError) as caught:
        template(source).render([USER])
    assert_one_sentence(str(caught.value))


def test_invalid_template_is_refused_at_load(make_random):
    with pytest.raises(ChatModelError, match=r"The chat template of llama-tiny-Q8_0 fails: .*another one"):
        make_random(chat_template="{% for %}")


class TestConversationsThatATemplateRefuses:
    def test_consecutive_messages_of_a_role_are_merged(self):
        alternating = template(
            "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.content }}]{% endfor %}"
        )
        assert alternating.render([USER, USER]) == "[Hi\n\nHi]"
        assert alternating.render([SYSTEM, USER]) == "[Be brief.\n\nHi]"
        with pytest.raises(ChatModelError, match="roles must alternate"):
            alternating.render([{"role": "assistant", "content": "x"}])

    def test_accepted_conversation_is_unchanged(self):
        counted = template("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}")
        assert counted.render([USER, USER]) == "2HiHi"
        assert template(CHATML).render([SYSTEM, USER]).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


def test_tools_are_passed_to_a_template_with_tools():
    with_tools = template(
        "{% for tool in tools %}{{ tool.function.name }}{% endfor %}{{ messages[0].content }}"
    )
    assert with_tools.takes_tools
    assert with_tools.render([USER], [TOOL]) == "fHi"
    assert not template("{% if tools %}{% endif %}{{ messages[0].content }}").takes_tools
    assert not template(CHATML).takes_tools
