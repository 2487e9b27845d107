"""`aigate keys`, `sub-accounts`, `provider-keys`, each as a process, against a real server."""

import re

from tests.conftest import wait_until


def key_of(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def id_of(done):
    return re.match(r"\w+_\w+", done.stderr).group()


def row_of(done, id_):
    return next(line.split("\t") for line in done.stdout.splitlines() if line.startswith(id_))


def test_a_customer_lives_from_create_to_delete(aigate):
    made = aigate("sub-accounts", "create", "Acme Cli", "--cap-cents", "500", "--tag", "acme", "--model", "sim/*", "--ref", "crm-9", "--hard", "--rpm", "600")
    key, sub_account = key_of(made), id_of(made)
    assert aigate("call", "sim/echo", "hi", AIGATE_KEY=key).returncode == 0
    row = wait_until(lambda: (shown := row_of(aigate("sub-accounts", "list"), sub_account)) and float(shown[4]) > 0 and shown)
    assert row[1:4] == ["Acme Cli", "crm-9", "500"] and row[6] == "600"
    assert aigate("sub-accounts", "cap", sub_account, "700").stdout.startswith(f"{sub_account} 700 cents a month, ")
    assert aigate("sub-accounts", "cap", sub_account, "none").stdout.startswith(f"{sub_account} no cap, ")
    assert "spend_cap_cents" in aigate("sub-accounts", "cap", sub_account, "lots").stderr
    twice = aigate("sub-accounts", "create", "Acme Cli")
    assert (twice.returncode, twice.stderr[:12]) == (1, "aigate: 409:")
    assert aigate("sub-accounts", "delete", sub_account).stdout == f"{sub_account} deleted\n"
    assert aigate("call", "sim/echo", "hi", AIGATE_KEY=key).stderr.startswith("aigate: 401:")


def test_a_key_is_rotated(aigate):
    made = aigate("keys", "create", "--cap-cents", "5", "--rpm", "60")
    old, key_id = key_of(made), id_of(made)
    assert row_of(aigate("keys", "list"), key_id)[8] == "5"
    new = key_of(aigate("keys", "rotate", key_id))
    assert aigate("call", "sim/echo", "hi", AIGATE_KEY=old).returncode == 0
    assert aigate("call", "sim/echo", "hi", AIGATE_KEY=new).returncode == 0
    assert aigate("call", "sim/echo", "hi", AIGATE_KEY=old).stderr.startswith("aigate: 401:")


def test_a_provider_key_is_read_from_stdin_and_never_shown(aigate, gateway):
    secret = "sk-of-a-customer-123456"
    added = aigate("provider-keys", "add", "openai", "--name", "prod", text=secret + "\n")
    key_id = added.stdout.strip()
    assert re.fullmatch(r"pk_\w+", key_id)
    listed = aigate("provider-keys", "list")
    assert row_of(listed, key_id)[1:5] == ["openai", "prod", "active", "…3456"]
    assert aigate("provider-keys", "rotate").stdout == "1 sealed anew\n"
    assert aigate("provider-keys", "delete", key_id).stdout == f"{key_id} deleted\n"
    assert secret not in added.stdout + added.stderr + listed.stdout
    assert not any(secret.encode() in path.read_bytes() for path in gateway.data_dir.glob("gate.sqlite*"))
    assert aigate("provider-keys", "add", "openai").stderr == "aigate: no key came on stdin\n"
