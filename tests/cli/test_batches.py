"""`aigate files` and `aigate batch`, each as a process, against a real server."""

import json


def lines(*models):
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    return "".join(json.dumps({"custom_id": str(n), "url": "/v1/chat/completions", "body": {"model": model, **body}}) + "\n" for n, model in enumerate(models))


def test_a_batch_from_file_to_output(aigate, tmp_path):
    (tmp_path / "in.jsonl").write_text(lines("sim/echo", "nobody/x", "sim/echo"))
    made = aigate("batch", "create", "in.jsonl", "--wait", "--tag", "cli-batch")
    batch = made.stdout.strip()
    assert made.returncode == 0 and batch.startswith("batch_")
    assert f"{batch} completed: 2 of 3 lines done, 1 failed, $" in made.stderr
    assert aigate("batch", "get", batch).stdout.startswith(f"{batch} completed")
    output = aigate("batch", "output", batch).stdout
    assert {json.loads(each)["custom_id"] for each in output.splitlines()} == {"0", "2"}
    assert aigate("batch", "output", batch, "--errors", "--to", "errors.jsonl").returncode == 0
    assert json.loads((tmp_path / "errors.jsonl").read_text())["response"]["status_code"] == 404
    assert aigate("batch", "cancel", batch).stdout.startswith(f"{batch} completed")
    row = next(each.split("\t") for each in aigate("batch", "list").stdout.splitlines() if each.startswith(batch))
    assert row[1:6] == ["completed", "/v1/chat/completions", "3", "2", "1"]
    assert "cli-batch" in aigate("usage").stdout


def test_an_input_that_is_refused_leaves_no_file(aigate):
    refused = aigate("batch", "create", "-", text=lines("sim/echo") * 2)
    assert refused.returncode == 1 and "the custom_id '0' of line 2 is that of line 1" in refused.stderr
    assert "stdin" not in aigate("files", "list").stdout
    assert aigate("batch", "create", "nowhere.jsonl").stderr == "aigate: nowhere.jsonl: No such file or directory\n"


def test_files_from_upload_to_deletion(aigate, tmp_path):
    (tmp_path / 'a "b".bin').write_text("content")
    file = aigate("files", "upload", 'a "b".bin').stdout.strip()
    assert aigate("files", "content", file).stdout == "content"
    row = next(each.split("\t") for each in aigate("files", "list", "--purpose", "user_data").stdout.splitlines() if each.startswith(file))
    assert row[1:4] == ['a "b".bin', "user_data", "7"]
    assert aigate("files", "delete", file).stdout == f"{file} deleted\n"
    (tmp_path / "kept").write_text("mine")
    assert aigate("files", "content", file, "--to", "kept").stderr.startswith("aigate: 404:") and (tmp_path / "kept").read_text() == "mine"
