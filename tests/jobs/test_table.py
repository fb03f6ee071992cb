"""Tables of prompts: what they may look like, what is refused and where, and batches of their rows."""

import json
import os
import sys
import threading

import pytest

from sjd_pipelines.jobs import table as tables
from sjd_pipelines.jobs.batches import pack
from sjd_pipelines.jobs.rows import Row
from sjd_pipelines.jobs.table import Table

RED = {"id": "x", "prompt": 'a "red" dog', "seed": 3, "settings": {"temperature": 0.5, "scheduler": {"name": "sjd"}}}
CSV = """\ufeffid,prompt,negative_prompt,seed,height,settings
x,"a ""red"" dog",,3,,"{""temperature"": 0.5, ""scheduler"": ""sjd""}"
,"two
cats",fog,,8,
"""
JSON_LINES = (
    '{"id": "x", "prompt": "a \\"red\\" dog", "seed": 3, "settings": {"temperature": 0.5, "scheduler": "sjd"}}\n\n'
)
JSON_LINES += '{"prompt": "two\\ncats", "negative_prompt": "fog", "seed": null, "height": 8}'


def rows_of(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with Table(file) as table:
        rows = [row.to_json() for row in table]
        assert table.check() == len(rows)
        assert [row.to_json() for row in table] == rows
    return rows


@pytest.mark.parametrize(("name", "content"), [("a.csv", CSV), ("a.jsonl", JSON_LINES), ("noname", JSON_LINES)])
def test_the_same_rows_in_every_format(tmp_path, name, content):
    second = {"id": "000002", "prompt": "two\ncats", "negative_prompt": "fog", "height": 8}
    assert rows_of(tmp_path, name, content) == [RED, second]


def test_parquet(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"id": ["x", None], "prompt": [RED["prompt"], "cats"], "seed": [3, None]}
    columns["settings"] = [json.dumps(RED["settings"]), None]
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
    assert rows_of(tmp_path, "a.parquet", (tmp_path / "a.parquet").read_bytes()) == [
        RED,
        {"id": "000002", "prompt": "cats"},
    ]


def test_lines_of_text(tmp_path):
    rows = rows_of(tmp_path, "a.txt", "  a dog \r\n\n[brackets] {braces}\n".encode("utf-8-sig"))
    assert rows == [{"id": "000001", "prompt": "a dog"}, {"id": "000002", "prompt": "[brackets] {braces}"}]


def test_what_comes_through_a_pipe_can_be_read_again(tmp_path, monkeypatch):
    (tmp_path / "given").write_text("a dog\ntwo cats\n")
    with open(tmp_path / "given") as given:
        monkeypatch.setattr(sys, "stdin", given)
        with Table("-") as table:
            assert (table.name, table.check(), len(list(table))) == ("standard input", 2, 2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b'{"prompt": "a dog"}\n',))
    writer.start()
    with Table(pipe) as table:
        writer.join()
        assert [row.prompt for row in table] == [row.prompt for row in table] == ["a dog"]


DEEP = '{"prompt": "a", "settings": ' + "[" * 100_000
BAD = {
    ("a.txt", b"\n \n"): "a.txt has no rows.",
    ("a.txt", b"a dog\n\xff\n"): "a.txt, line 2: is not valid UTF-8 at byte 1.",
    ("a.txt", b"a" * (tables.LONGEST_LINE + 1)): "a.txt, line 1: is longer than 1048576 bytes.",
    ("a.jsonl", "a dog"): "a.jsonl, line 1: is not valid JSON: Expecting value",
    ("a.jsonl", "{}\n"): "a.jsonl, line 1: it has no prompt.",
    ("a.jsonl", '\n["a dog"]'): "a.jsonl, line 2: must be a JSON object.",
    ("a.jsonl", DEEP): "a.jsonl, line 1: is not valid JSON: it is nested too deeply.",
    ("a.jsonl", '{"prompt": 3}'): "a.jsonl, line 1: prompt must be a text, got 3.",
    ("a.jsonl", '{"prompt": " "}'): "a.jsonl, line 1: prompt 1 is empty; say what to draw.",
    ("a.jsonl", '{"prompt": "a\\ud800"}'): "a.jsonl, line 1: prompt 1 is not valid text: '\\ud800' at character 2.",
    ("a.jsonl", '{"prompt": "a", "promt": "b"}'): "a.jsonl, line 1: 'promt' is no column; known are id, prompt,",
    ("a.jsonl", '{"prompt": "a", "seed": 1.5}'): "a.jsonl, line 1: seed must be an integer from 0 to 2**63 - 1, got",
    ("a.jsonl", '{"prompt": "a", "seed": 1, "picture_seed": 1}'): "a.jsonl, line 1: seed and picture_seed exclude",
    ("a.jsonl", '{"prompt": "a", "height": true}'): "a.jsonl, line 1: height must be an integer from 1 to 16384, got",
    ("a.jsonl", '{"prompt": "a", "id": ""}'): "a.jsonl, line 1: id must be a printable text of 1 to 200 characters",
    ("a.jsonl", '{"prompt": "a", "settings": []}'): "a.jsonl, line 1: settings must be an object such as",
    ("a.jsonl", '{"prompt": "a", "settings": {"top": 1}}'): "a.jsonl, line 1: settings: 'top' is none; known are",
    ("a.jsonl", '{"prompt": "a", "settings": {"top_p": NaN}}'): "a.jsonl, line 1: top_p must be a number above 0",
    ("a.jsonl", '{"prompt": "a", "settings": {"scheduler": "magic"}}'): "a.jsonl, line 1: unknown scheduler 'magic'",
    ("a.jsonl", '{"prompt": "a", "settings": {"scheduler": {"name": ["sjd"]}}}'): "a.jsonl, line 1: unknown scheduler",
    ("a.jsonl", '{"prompt": "a", "settings": {"scheduler": {"window": {}}}}'): "a.jsonl, line 1: scheduler: window",
    ("a.jsonl", '{"prompt": "a", "settings": {"scheduler": "SJDScheduler"}}'): (
        "a.jsonl, line 1: unknown scheduler 'SJDScheduler'; did you mean sjd."
    ),
    ("a.jsonl", '{"prompt": "a", "id": "b"}\n{"prompt": "a", "id": "B"}'): "a.jsonl: the id 'B' is there twice;",
    ("a.csv", "id,prompt\n1,a,b"): "a.csv, line 2: has 3 cells, the first line 2.",
    ("a.csv", 'id,prompt\n1,"a'): "a.csv, line 2: unexpected end of data.",
    ("a.csv", "id,prompt,seed\n1,a,x"): "a.csv, line 2: seed must be an integer, got 'x'.",
    ("a.csv", "id,prompt,settings\n1,a,x"): "a.csv, line 2: settings: is not valid JSON: Expecting value",
    ("a.json", '[{"prompt": "a"}]'): "a.json, line 1: must be a JSON object.",
    ("a.csv", "prompt,seed,prompt\na,1,b"): "a.csv, line 1: the column 'prompt' is there twice.",
    ("a.csv", "prompt,hue\na,red"): "a.csv, line 2: 'hue' is no column; known are",
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), BAD, ids=[f"{index}" for index in range(len(BAD))])
def test_a_bad_row_is_refused_with_its_line(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    with open(name, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
    with Table(name) as table, pytest.raises(ValueError) as error:  # noqa: PT011 - compared below
        table.check()
    assert str(error.value).startswith(BAD[name, content])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_file_that_is_not_there_and_one_without_end(tmp_path):
    with pytest.raises(OSError, match="Is a device, not a file"):
        Table("/dev/zero")
    with pytest.raises(FileNotFoundError):
        Table(tmp_path / "missing.txt")


def test_ids_are_file_names_and_seeds():
    names = {row.file_stem for row in (Row(name, "a") for name in ("img_1", "../etc", "a/b", "a b", "ä", ".hidden"))}
    assert len(names) == 6
    assert "img_1" in names
    assert not any("/" in name or name.startswith(".") or not name.isprintable() for name in names)
    seeds = [Row(str(number), "a").with_seed().seed for number in range(1000)]
    assert len(set(seeds)) == 1000
    assert max(seeds) < 2**53
    assert seeds[:2] == [1398713844202615, 1072400455286334]  # a job that is continued by a later version
    assert Row("1", "a", seed=7).with_seed().seed == 7


def test_batches_are_of_one_kind_and_of_like_length():
    rows = [
        Row(str(number), "dog " * (number % 5 + 1), height=8 * (number % 2 + 1), settings={"top_k": number % 3 // 2})
        for number in range(100)
    ]
    batches = list(pack(rows, 4))
    assert sorted(row.id for batch in batches for row in batch.rows) == sorted(row.id for row in rows)
    assert all(len({row.drawn_together for row in batch.rows}) == 1 for batch in batches)
    spread = sum(max(len(row.prompt) for row in batch.rows) * len(batch.rows) for batch in batches)
    assert spread < 1.1 * sum(len(row.prompt) for row in rows)
    assert len(batches) <= 100 / 4 + 4
    assert list(pack(iter(rows), 4)) == batches
    assert [row for batch in pack(rows[::6], 4, pool=4) for row in batch.rows] == rows[::6]


def test_a_negative_prompt_of_its_own_is_no_reason_for_another_batch():
    rows = [Row("1", "a", "fog"), Row("2", "b", "rain"), Row("3", "c")]
    assert [[row.id for row in batch.rows] for batch in pack(rows, 4)] == [["1", "2"], ["3"]]
