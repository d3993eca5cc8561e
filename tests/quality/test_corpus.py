"""The shipped texts are long enough, a user's text is read with care, and chunks hold every token once."""

import pytest

from ggufbench.launching.launcher import Interpreter, launch
from ggufbench.quality.chunks import LONG, chunks_of, texts_of
from ggufbench.quality.conversation import Conversation, ScoringError
from ggufbench.quality.corpus import DOMAINS, Corpus, CorpusError, corpus_for, shipped_corpus
from ggufbench.worker.job import SCORER, Job, Setting, Workload
from ggufbench.worker.protocol import Tokens, Vocabulary

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def chunked(corpus: Corpus, size: int, vocabulary: Vocabulary, n_ctx: int = 4608):
    """The chunks of a corpus whose tokens are its bytes."""
    asking = chunks_of(corpus, size, n_ctx, vocabulary)
    try:
        request = next(asking)
        while True:
            request = asking.send(Tokens(list(request.text.encode())))
    except StopIteration as stop:
        return stop.value


@pytest.mark.real
def test_the_shipped_texts_have_6000_tokens_and_4000_in_the_long_one(smollm2):
    def count(vocabulary):
        found = yield from chunks_of(shipped_corpus(), 256, 8192, vocabulary)
        return found

    conversation = Conversation(count)
    job = Job(SCORER, str(smollm2), Setting("cpu", n_ctx=8192), Workload())
    launch(job, lambda _phase: 120, interpreter=Interpreter(), answer=conversation.answer)
    (chunks,) = conversation.results
    tokens = {name: sum(len(c.ids) for c in chunks if c.domain == name) for name in DOMAINS}
    assert min(tokens.values()) > 800, tokens
    assert sum(tokens.values()) - tokens[LONG] >= 6000 and tokens[LONG] >= 4000


def test_chunks_hold_the_text_in_order_behind_the_first_token():
    corpus = Corpus("mine", {"text": "".join(chr(97 + n % 26) for n in range(100))})
    chunks = chunked(corpus, 33, Vocabulary(256, 1))
    assert [len(chunk.ids) for chunk in chunks] == [33, 33, 33], "the last 4 bytes are too few for a chunk"
    assert all(chunk.ids[0] == 1 and chunk.first == 16 and chunk.scored == 16 for chunk in chunks)
    assert bytes(token for chunk in chunks for token in chunk.ids[1:]).decode() == corpus.texts["text"][:96]


def test_the_long_text_is_one_chunk_that_ends_with_the_context():
    corpus = Corpus("mine", {LONG: "x" * 5000})
    (chunk,) = chunked(corpus, 256, Vocabulary(256, None), n_ctx=1024)
    assert (len(chunk.ids), chunk.scored) == (1024, 256)


def test_dialogues_are_written_by_the_template_of_the_model():
    with_template = dict(texts_of(shipped_corpus(), Vocabulary(256, None, chat_template=CHATML)))
    without = dict(texts_of(shipped_corpus(), Vocabulary(256, None)))
    broken = dict(
        texts_of(shipped_corpus(), Vocabulary(256, None, chat_template="{{ raise_exception('no') }}"))
    )
    assert "<|im_start|>user\nMy tomato plants" in with_template["dialogue"]
    assert without["dialogue"] == broken["dialogue"]
    assert without["dialogue"].startswith("User: My tomato plants have yellow leaves")


@pytest.mark.parametrize(
    ("vocabulary", "corpus", "words"),
    [
        (Vocabulary(256, None, tokenizes=False), Corpus("mine", {"text": "x" * 99}), "has no tokenizer"),
        (
            Vocabulary(256, None),
            Corpus("mine", {"text": "short"}),
            "mine has fewer than 16 tokens; give a longer text",
        ),
    ],
)
def test_what_cannot_be_scored(vocabulary, corpus, words):
    with pytest.raises(ScoringError, match=words):
        chunked(corpus, 32, vocabulary)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe", "is not text: not UTF-8 at byte 0"), (b" \n", "is empty; give a text of several pages")],
)
def test_unusable_texts_of_the_user(tmp_path, content, words):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=words):
        corpus_for(str(path))


def test_absent_and_too_large_texts_of_the_user(tmp_path):
    with pytest.raises(CorpusError, match=r"absent\.txt cannot be read: No such file"):
        corpus_for(str(tmp_path / "absent.txt"))
    huge = tmp_path / "huge.txt"
    with huge.open("wb") as file:
        file.truncate(2**23)
    with pytest.raises(CorpusError, match="cannot be read: it has 8388608 bytes, and the limit is 4194304"):
        corpus_for(str(huge))


def test_a_digest_changes_with_any_text():
    one, other = Corpus("a", {"text": "x"}), Corpus("a", {"text": "y"})
    assert one.digest != other.digest == Corpus("b", {"text": "y"}).digest
