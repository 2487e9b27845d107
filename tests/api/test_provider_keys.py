"""/v1/provider-keys: kept sealed, shown never, opened only for whom they are."""

import pytest
from sqlalchemy import select, update

from aigate.keeper.db.tables import provider_keys
from aigate.keeper.vault import VaultError
from tests.api.plane import run

KEY = "sk-proj-very-secret-0001"


async def rows(plane):
    return await plane.database.read(lambda connection: connection.execute(select(provider_keys)).all())


def test_a_key_lives_from_post_to_delete_and_is_never_shown(tmp_path):
    async def test(plane):
        reply = await plane.post("/v1/provider-keys", {"provider": "openai", "key": KEY, "name": "prod"})
        made = reply.json()
        assert (reply.status_code, made["provider"], made["origin"], made["name"], made["hint"]) == (201, "openai", "https://api.openai.com", "prod", "…0001")
        listed = await plane.get("/v1/provider-keys")
        assert listed.json()["data"] == [made] == [(await plane.get(f"/v1/provider-keys/{made['id']}")).json()]
        assert KEY not in reply.text + listed.text + repr(await rows(plane))
        assert await plane.provider_keys.reveal("acc_default", None, made["id"]) is not None
        for _ in range(2):
            gone = (await plane.client.delete(f"/v1/provider-keys/{made['id']}")).json()
            assert (gone["status"], gone["deleted"]) == ("revoked", True)
        assert [row.sealed for row in await rows(plane)] == [b""]
        assert await plane.provider_keys.reveal("acc_default", None, made["id"]) is None

    run(tmp_path, test)


def test_a_key_opens_for_its_owner_only(tmp_path):
    async def test(plane):
        customer = (await plane.post("/v1/sub-accounts", {"name": "acme"})).json()["id"]
        whole = (await plane.post("/v1/provider-keys", {"provider": "openai", "key": KEY})).json()["id"]
        own = (await plane.post("/v1/provider-keys", {"provider": "groq", "key": KEY, "sub_account_id": customer})).json()["id"]
        reveal = plane.provider_keys.reveal
        assert (await reveal("acc_default", customer, whole))[1] == (await reveal("acc_default", customer, own))[1] == KEY
        for account, sub_account, key_id in (
            ("acc_default", None, own),
            ("acc_default", "sa_other", own),
            ("acc_other", None, whole),
            ("acc_default", None, "pk_x"),
        ):
            assert await reveal(account, sub_account, key_id) is None

    run(tmp_path, test)


def test_a_row_that_was_pointed_elsewhere_does_not_open(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/provider-keys", {"provider": "openai", "key": KEY})).json()
        await plane.database.write(lambda connection: connection.execute(update(provider_keys).values(origin="https://evil.example")))
        with pytest.raises(VaultError):
            await plane.provider_keys.reveal("acc_default", None, made["id"])

    run(tmp_path, test)


def test_a_rotation_seals_all_anew(tmp_path):
    async def test(plane):
        made = [(await plane.post("/v1/provider-keys", {"provider": "openai", "key": f"{KEY}{number}"})).json()["id"] for number in range(3)]
        await plane.client.delete(f"/v1/provider-keys/{made[2]}")
        before = {row.id: row.sealed for row in await rows(plane)}
        assert (await plane.post("/v1/provider-keys/rotate")).json()["rotated"] == 2
        after = {row.id: row.sealed for row in await rows(plane)}
        assert [before[id_] != after[id_] for id_ in made] == [True, True, False]
        assert [(await plane.provider_keys.reveal("acc_default", None, id_))[1] for id_ in made[:2]] == [f"{KEY}0", f"{KEY}1"]

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"key": KEY}, 400, "provider"),
        ({"provider": "openai"}, 400, "key"),
        ({"provider": "nobody", "key": KEY}, 400, "provider"),
        ({"provider": "openai", "key": "short"}, 400, "key"),
        ({"provider": "openai", "key": KEY + "\r\nx-evil: 1"}, 400, "key"),
        ({"provider": "openai", "key": [KEY]}, 400, "key"),
        ({"provider": "openai", "key": KEY, "api_key": KEY}, 400, "api_key"),
        ({"provider": "openai", "key": KEY, "sub_account_id": "sa_nobody"}, 404, "sub_account_id"),
    ],
)
def test_a_wrong_body_is_told_of_without_the_key(tmp_path, body, status, param):
    async def test(plane):
        reply = await plane.post("/v1/provider-keys", body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)
        assert KEY not in reply.text
        assert await rows(plane) == []

    run(tmp_path, test)


def test_only_an_admin_may(tmp_path):
    async def test(plane):
        key = (await plane.post("/v1/sub-accounts", {"name": "acme"})).json()["key"]
        for method, path in (("POST", ""), ("GET", ""), ("GET", "/pk_1"), ("DELETE", "/pk_1"), ("POST", "/rotate")):
            reply = await plane.client.request(method, f"/v1/provider-keys{path}", headers={"authorization": f"Bearer {key}"}, json={})
            assert reply.status_code == 403
        for path in ("/pk_1", "/%00", "/pk_" + "1" * 99):
            assert (await plane.get(f"/v1/provider-keys{path}")).status_code == 404

    run(tmp_path, test)
