"""``commons-events schema``: what it prints, how it exits, and what it says of bad input."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commons_events.cli._app import app

pytest.importorskip("avro", reason="the extra [avro] is not installed")
pytest.importorskip("proto_schema_parser", reason="the extra [protobuf] is not installed")

Cli = Callable[..., subprocess.CompletedProcess[str]]

EVENTS = """
from commons_events import Event

class PageSeen(Event):
    event_type = "page.seen"
    page: str
"""


def avsc(*fields: dict[str, object]) -> str:
    return json.dumps({"type": "record", "name": "User", "fields": [{"name": "id", "type": "string"}, *fields]})


@pytest.fixture
def schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with schemas: v2 adds a field with a default, v3 takes the default away."""
    files = {
        "v1.avsc": avsc(),
        "v2.avsc": avsc({"name": "age", "type": "int", "default": 0}),
        "v3.avsc": avsc({"name": "age", "type": "int"}),
        "v1.proto": 'syntax = "proto3"; message User { int32 id = 1; }',
        "v2.proto": 'syntax = "proto3"; message User { string id = 1; }',
        "broken.avsc": '{"type": "record", "name": "User", "fields": [{"name": "id", "type": "panda"}]}',
        "my_events.py": EVENTS,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_events", raising=False)
    return tmp_path


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["schema", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.usefixtures("schemas")
def test_schemas_that_are_compatible() -> None:
    assert invoke("check", "v1.avsc", "v2.avsc") == (0, "v2.avsc is compatible with v1.avsc (BACKWARD, avro).\n", "")


@pytest.mark.usefixtures("schemas")
def test_schemas_that_are_not() -> None:
    code, out, err = invoke("check", "v1.avsc", "v3.avsc", "--mode", "full")

    assert (code, err) == (1, "")
    first, second = out.splitlines()
    assert first == "v3.avsc is not compatible with v1.avsc (FULL, avro): 1 violation."
    assert second.startswith("v1.avsc BACKWARD: #/fields/1: ")
    assert "'age'" in second
    assert "(READER_FIELD_MISSING_DEFAULT_VALUE). Give it a default" in second


@pytest.mark.usefixtures("schemas")
def test_a_history_counts_in_a_transitive_mode() -> None:
    history = ["--history", "v1.avsc", "v2.avsc", "v3.avsc"]

    assert invoke("check", *history)[0] == 0
    code, out, _ = invoke("check", *history, "--mode", "BACKWARD_TRANSITIVE")
    assert code == 1
    assert "v3.avsc is not compatible with v1.avsc, v2.avsc" in out
    assert "v1.avsc BACKWARD: " in out


@pytest.mark.usefixtures("schemas")
def test_the_lenient_policy_of_json_schema(schemas: Path) -> None:
    (schemas / "a.json").write_text('{"type": "object", "properties": {"a": {"type": "string"}}}', "utf-8")
    (schemas / "b.json").write_text(
        '{"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}', "utf-8"
    )
    code, text, _ = invoke("check", "a.json", "b.json", "--type", "json")
    assert code == 1
    assert "--lenient" in text
    assert invoke("check", "a.json", "b.json", "--type", "json", "--lenient")[0] == 0


@pytest.mark.usefixtures("schemas")
def test_as_json() -> None:
    code, out, _ = invoke("check", "v1.proto", "v2.proto", "--json")

    assert code == 1
    assert json.loads(out) == {
        "compatible": False,
        "mode": "BACKWARD",
        "schema_type": "protobuf",
        "violations": [
            {
                "path": "#/User/1",
                "rule": "FIELD_SCALAR_KIND_CHANGED",
                "message": "field id (1) is string at the reader, int32 at the writer, which is written in another way",
                "advice": "Keep the type, or one that is read the same; add a field with a new number.",
                "older": "v1.proto",
                "direction": "BACKWARD",
            }
        ],
    }
    assert json.loads(invoke("check", "v1.proto", "v1.proto", "--json")[1])["violations"] == []


@pytest.mark.usefixtures("schemas")
def test_nothing_is_compared_in_the_mode_none() -> None:
    assert invoke("check", "v1.avsc", "v3.avsc", "--mode", "none")[:2] == (
        0,
        "v3.avsc was not compared with anything (NONE, avro).\n",
    )


def test_imports_are_found_beside_the_file_and_where_it_is_said(schemas: Path) -> None:
    text = 'syntax = "proto3"; import "lib/money.proto"; message Order { lib.Money total = 1; }'
    money = 'syntax = "proto3"; package lib; import "google/protobuf/any.proto"; message Money { int64 units = 1; }'
    for folder, lib in {"old": money, "new": money.replace("int64", "string")}.items():
        (schemas / folder / "lib").mkdir(parents=True)
        (schemas / folder / "order.proto").write_text(text, "utf-8")
        (schemas / folder / "lib" / "money.proto").write_text(lib, "utf-8")

    code, out, _ = invoke("check", "old/order.proto", "new/order.proto")
    assert code == 1
    assert "FIELD_SCALAR_KIND_CHANGED" in out
    assert invoke("check", "old/order.proto", "new/order.proto", "-I", "old")[0] == 0

    (schemas / "old/lib/money.proto").unlink()
    code, _, err = invoke("check", "old/order.proto", "new/order.proto")
    assert code == 2
    assert "old/order.proto: " in err
    assert "lib/money.proto" in err
    assert "--import-path" in err


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["v1.avsc", "nowhere.avsc"], "nowhere.avsc: there is no such file"),
        (["v1.avsc", "."], "this is a directory"),
        (["v1.avsc", "broken.avsc"], "broken.avsc: Avro schema: no type is called 'panda' here"),
        (["broken.avsc", "v1.avsc"], "broken.avsc: Avro schema"),
        (["v1.avsc", "v1.proto"], "different formats"),
        (["v1.avsc", "v2.avsc", "--mode", "sideways"], "mode 'sideways': there is no such mode. Write one of NONE"),
        (["v1.avsc", "v2.avsc", "--type", "thrift"], "'thrift'"),
        (["v1.avsc", "my_events:Nobody"], "my_events:Nobody: my_events has no Nobody. Its event classes: PageSeen."),
        (["no_module:Seen", "v1.avsc"], "no_module:Seen: there is no module no_module"),
    ],
)
def test_bad_input(arguments: list[str], said: str) -> None:
    code, out, err = invoke("check", *arguments)

    assert (code, out) == (2, "")
    assert err.startswith("commons-events schema check: ")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("old", "new"), [("one.json", "v1.proto"), ("v1.avsc", "one.json"), ("one.json", "avro.json")])
def test_texts_that_show_another_format_than_the_rest(schemas: Path, old: str, new: str) -> None:
    (schemas / "one.json").write_text('{"type": "object", "properties": {}}')
    (schemas / "avro.json").write_text('{"type": "record", "name": "R", "fields": []}')
    code, _, err = invoke("check", old, new)
    assert (code, "different formats" in err) == (2, True), err


def test_texts_that_show_no_format(schemas: Path) -> None:
    (schemas / "either.json").write_text('{"type": "string"}')
    code, _, err = invoke("check", "either.json", "either.json")
    assert (code, "--type avro" in err) == (2, True), err
    code, out, _ = invoke("check", "either.json", "either.json", "--type", "json")
    assert (code, "is compatible" in out) == (0, True)


def test_files_that_are_no_text(schemas: Path) -> None:
    for data, said in {b"\xff\xfe": "not UTF-8", b"\x00": "binary", b"": "empty", b"{" * 9_000_000: "larger"}.items():
        (schemas / "odd.avsc").write_bytes(data)
        code, _, err = invoke("check", "v1.avsc", "odd.avsc")
        assert (code, said in err) == (2, True), err


@pytest.mark.usefixtures("schemas")
def test_show_writes_the_class_s_schema() -> None:
    code, out, _ = invoke("show", "my_events:PageSeen")

    assert code == 0
    assert "page" in json.loads(out)["properties"]


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["my_events:Nobody"], "my_events:Nobody: my_events has no Nobody"),
        (["my_events"], "not of the form MODULE:CLASS"),
        (["my_events:PageSeen", "--type", "thrift"], "No plugin 'thrift'"),
    ],
)
def test_show_says_what_it_cannot(arguments: list[str], said: str) -> None:
    code, out, err = invoke("show", *arguments)

    assert (code, out) == (2, "")
    assert err.startswith("commons-events schema show: ")
    assert said in err


def test_on_a_terminal_there_is_a_table_that_fits(schemas: Path, command: list[str]) -> None:
    script = schemas / "run.sh"
    script.write_text("stty cols 80; " + " ".join(f"'{part}'" for part in command) + ' "$@"', "utf-8")
    parent, child = pty.openpty()
    with subprocess.Popen(
        ["sh", script, "schema", "check", "v1.avsc", "v3.avsc"], stdin=child, stdout=child, stderr=child, cwd=schemas
    ) as process:
        os.close(child)
        written = bytearray()
        while True:
            try:
                piece = os.read(parent, 4096)
            except OSError:  # the other end was closed
                break
            if not piece:
                break
            written += piece
    os.close(parent)

    text = written.decode()
    assert process.returncode == 1
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in text
    assert "┃" in text


def test_it_runs_as_a_process_without_a_terminal(cli: Cli, schemas: Path) -> None:
    assert schemas.exists()
    done = cli("schema", "check", "v1.avsc", "v3.avsc")

    assert (done.returncode, done.stderr) == (1, "")
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in done.stdout
