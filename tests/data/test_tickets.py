import itertools
import json
import re
import string
import subprocess
import sys
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.tickets import FIELDS, INSTRUCTION, SHIPPED, generate, load_pools, one_shot, score, write
from ftkit.errors import ConfigError, DataError

POOLS = load_pools()
ROWS = {split: generate(split, n, seed) for split, (n, seed) in SHIPPED.items()}
SPLITS = list(SHIPPED)
PAIRS = list(itertools.combinations(SPLITS, 2))


def products(split):
    return [product for group in POOLS[split]["goods"] for product in group["products"]]


def issues(split):
    return [issue for group in POOLS[split]["goods"] for issue in group["issues"]]


def phrases(split):
    return [phrase for kind in POOLS[split]["contact"].values() for phrase in kind]


VALUES = {
    "first name": lambda split: POOLS[split]["first_names"],
    "last name": lambda split: POOLS[split]["last_names"],
    "city": lambda split: POOLS[split]["cities"],
    "product": products,
    "issue": issues,
}


def read(row):
    """Message and facts of a row."""
    question, answer = (turn["content"] for turn in row["messages"])
    assert question.startswith(f"{INSTRUCTION}\n\n")
    return question.removeprefix(f"{INSTRUCTION}\n\n"), json.loads(answer)


def all_rows():
    return [read(row) for split in SPLITS for row in ROWS[split]]


def words(values):
    return {word for value in values for word in re.findall(r"[\w']+", value.casefold())}


# --- the files ---


def test_shipped_files_are_what_the_generator_writes(tmp_path):
    shipped = resources.files("ftkit.data") / "builtin" / "tickets"
    for path in write(tmp_path):
        assert path.read_bytes() == (shipped / path.name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["test.jsonl", "train.jsonl", "validation.jsonl"]


def test_shipped_files_are_plain_json_lines():
    folder = resources.files("ftkit.data") / "builtin" / "tickets"
    for split, (n, _) in SHIPPED.items():
        text = (folder / f"{split}.jsonl").read_bytes().decode("utf-8")
        assert text.endswith("\n") and "\r" not in text
        assert [json.loads(line) for line in text.removesuffix("\n").split("\n")] == ROWS[split]
        assert len(ROWS[split]) == n


def test_module_needs_no_torch():
    code = "import sys, ftkit.data.tickets; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- the lists ---


def test_pools_are_large_and_without_repeats():
    smallest = {"train": (40, 40, 40, 30, 30), "validation": (12, 12, 12, 12, 12), "test": (30, 30, 30, 24, 20)}
    for split, (names, cities, goods, faults, templates) in smallest.items():
        pool = POOLS[split]
        lists = [pool["first_names"], pool["last_names"], pool["cities"], products(split), issues(split)]
        lists.append(pool["templates"])
        sizes = [names, names, cities, goods, faults, templates]
        for values, size in zip(lists, sizes, strict=True):
            assert len(values) == len(set(values)) >= size


@pytest.mark.parametrize("a, b", PAIRS)
def test_splits_share_no_word_of_any_value(a, b):
    for values in VALUES.values():
        assert not words(values(a)) & words(values(b))
    names = {s: POOLS[s]["first_names"] + POOLS[s]["last_names"] for s in (a, b)}
    assert not words(names[a]) & words(names[b])


@pytest.mark.parametrize("a, b", PAIRS)
@pytest.mark.parametrize("values", [products, issues, phrases, VALUES["city"]])
def test_no_value_of_one_split_lies_inside_another_splits(a, b, values):
    for x, y in itertools.product(values(a), values(b)):
        assert x.casefold() not in y.casefold() and y.casefold() not in x.casefold()


@pytest.mark.parametrize("a, b", PAIRS)
def test_splits_share_no_template_order_or_message(a, b):
    assert not words_of_templates(a) & words_of_templates(b)
    assert not set(POOLS[a]["order_letters"]) & set(POOLS[b]["order_letters"])
    facts = {s: [read(row) for row in ROWS[s]] for s in (a, b)}
    assert not {f["order"] for _, f in facts[a]} & {f["order"] for _, f in facts[b]}
    assert not {m for m, _ in facts[a]} & {m for m, _ in facts[b]}


def words_of_templates(split):
    """Each template as its words alone, so that punctuation and capitals make no difference."""
    return {tuple(re.findall(r"\w+", template.casefold())) for template in POOLS[split]["templates"]}


@pytest.mark.parametrize("split", SPLITS)
def test_each_template_uses_each_slot_once(split):
    for template in POOLS[split]["templates"]:
        slots = [slot for _, slot, _, _ in string.Formatter().parse(template) if slot is not None]
        assert sorted(slots) == sorted(FIELDS), template


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_has_names_and_cities_with_accents(split):
    names = POOLS[split]["first_names"] + POOLS[split]["last_names"]
    assert sum(not name.isascii() for name in names) >= 2
    assert sum(not city.isascii() for city in POOLS[split]["cities"]) >= 2


# --- the rows ---


def test_answers_are_one_line_with_the_keys_in_order():
    for split in SPLITS:
        for row in ROWS[split]:
            answer = row["messages"][1]["content"]
            assert tuple(json.loads(answer)) == FIELDS
            assert "\n" not in answer and "\\u" not in answer


def test_copied_facts_occur_once_and_alone():
    for message, facts in all_rows():
        for field in FIELDS[:5]:
            assert message.count(facts[field]) == 1, (field, message)
        for values, field in ((products, "product"), (issues, "issue"), (VALUES["city"], "city")):
            assert [v for s in SPLITS for v in values(s) if v in message] == [facts[field]], message
        assert re.findall(r"\b[A-Z]-\d{4}\b", message) == [facts["order"]]
        first_and_last = {n for s in SPLITS for key in ("first_names", "last_names") for n in POOLS[s][key]}
        assert sorted(first_and_last & set(re.findall(r"[\w']+", message))) == sorted(facts["name"].split())


def test_message_asks_for_one_kind_of_contact():
    speaks_of = {
        "email": re.compile(r"\be?-?mail", re.I),
        "phone": re.compile(r"phone|\b(call|ring|dial)", re.I),
        "chat": re.compile(r"chat", re.I),
    }
    for message, facts in all_rows():
        assert [kind for kind, pattern in speaks_of.items() if pattern.search(message)] == [facts["contact"]], message


def test_articles_fit_their_nouns():
    for message, _ in all_rows():
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", message, re.I), message


@pytest.mark.parametrize("split", SPLITS)
def test_values_are_dealt_evenly(split):
    n = SHIPPED[split][0]
    facts = [f for _, f in map(read, ROWS[split])]
    assert len({f["order"] for f in facts}) == n
    assert {f["issue"] for f in facts} == set(issues(split))
    columns = {
        "contact": ([f["contact"] for f in facts], ["email", "phone", "chat"]),
        "city": ([f["city"] for f in facts], POOLS[split]["cities"]),
        "product": ([f["product"] for f in facts], products(split)),
        "first name": ([f["name"].split()[0] for f in facts], POOLS[split]["first_names"]),
        "last name": ([f["name"].split()[1] for f in facts], POOLS[split]["last_names"]),
    }
    for name, (column, pool) in columns.items():
        assert set(column) == set(pool), name
        assert {column.count(value) for value in pool} <= {n // len(pool), -(-n // len(pool))}, name


def test_seed_decides_the_rows():
    assert generate("train", 50, seed=5) == generate("train", 50, seed=5)
    assert generate("train", 50, seed=5) != generate("train", 50, seed=6)
    assert generate("train", 0, seed=5) == []


@pytest.mark.parametrize("split, n", [("tset", 1), ("train", -1), ("validation", 36_001)])
def test_impossible_requests_are_refused(split, n):
    with pytest.raises(ConfigError, match=r"splits are train, validation, test.*'test'|makes 0 to"):
        generate(split, n, seed=0)


# --- the one-shot prompt ---


@pytest.mark.parametrize("style", ["turns", "inline"])
def test_one_shot_keeps_question_and_answer_and_adds_the_example(style):
    row, example = ROWS["test"][0], ROWS["train"][0]
    before = json.dumps([row, example])
    *prompt, answer = one_shot(row, example, style)["messages"]
    text = "\n".join(turn["content"] for turn in prompt)
    assert json.dumps([row, example]) == before
    assert answer == row["messages"][1]
    assert row["messages"][1]["content"] not in text
    shown, question = read(example)[0], read(row)[0]
    assert text.index(INSTRUCTION) < text.index(shown) < text.index(example["messages"][1]["content"])
    assert text.index(example["messages"][1]["content"]) < text.index(question)
    assert [turn["role"] for turn in prompt] == {"turns": ["user", "assistant", "user"], "inline": ["user"]}[style]


def test_one_shot_refuses_an_unknown_style():
    with pytest.raises(ConfigError, match="'turns' and 'inline'"):
        one_shot(ROWS["test"][0], ROWS["train"][0], "system")


# --- the score ---

VALUE = st.text(max_size=12)
ANSWER = st.fixed_dictionaries({field: VALUE for field in FIELDS})


@settings(deadline=None)
@given(ANSWER, st.booleans(), st.sampled_from([None, 2]), st.permutations(FIELDS))
def test_reference_scores_full_however_it_is_laid_out(answer, ascii_only, indent, order):
    laid_out = json.dumps({f: answer[f] for f in order}, ensure_ascii=ascii_only, indent=indent)
    assert score(f"\n {laid_out} \n", json.dumps(answer)) == {"valid_json": 1, "fields": 6, "exact_match": 1}


@settings(deadline=None)
@given(ANSWER, st.sampled_from(FIELDS), st.one_of(VALUE, st.none(), st.integers(), st.lists(VALUE, max_size=2)))
def test_one_changed_field_costs_one_field_and_the_match(answer, field, other):
    changed = answer | {field: other}
    expected = {"valid_json": 1, "fields": 6, "exact_match": 1}
    if other != answer[field]:
        expected = {"valid_json": 1, "fields": 5, "exact_match": 0}
    assert score(json.dumps(changed), json.dumps(answer)) == expected


@settings(deadline=None)
@given(ANSWER, st.sampled_from(FIELDS))
def test_a_missing_or_a_further_key_is_no_match(answer, field):
    missing = {f: answer[f] for f in FIELDS if f != field}
    assert score(json.dumps(missing), json.dumps(answer)) == {"valid_json": 1, "fields": 5, "exact_match": 0}
    further = answer | {"note": ""}
    assert score(json.dumps(further), json.dumps(answer)) == {"valid_json": 1, "fields": 6, "exact_match": 0}


@settings(deadline=None)
@given(ANSWER, st.text(alphabet=string.ascii_letters, min_size=1), st.booleans())
def test_prose_around_the_object_is_invalid(answer, prose, after):
    text = json.dumps(answer)
    assert score(f"{text} {prose}" if after else f"{prose} {text}", json.dumps(answer))["valid_json"] == 0


@pytest.mark.parametrize(
    "junk", ["", "none", "[]", '"name"', "6", "null", "{'name': 'x'}", '{"name": "x"', "[" * 99_999]
)
def test_junk_scores_nothing(junk):
    reference = ROWS["test"][0]["messages"][1]["content"]
    assert score(junk, reference) == {"valid_json": 0, "fields": 0, "exact_match": 0}


def test_case_and_accents_count():
    facts = dict.fromkeys(FIELDS, "x") | {"city": "Zürich"}
    for city in ("Zurich", "zürich"):
        assert score(json.dumps(facts | {"city": city}), json.dumps(facts))["fields"] == 5


@pytest.mark.parametrize("reference", ["", "[]", '{"name": "x"}'])
def test_a_broken_reference_is_an_error(reference):
    with pytest.raises(DataError, match="reference answer"):
        score("{}", reference)
