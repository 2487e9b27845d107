"""/v1/account: the rate limits that all keys of the account share."""

import pytest

from aigate.core.client_key import key_digest
from aigate.keeper.db.accounts import add_account_if_missing
from tests.api.plane import SECRET, run

LIMITS = ("rate_limit_rpm", "rate_limit_tpm", "max_streams")


def test_a_patch_changes_what_it_names_and_keys_stand_for_it(tmp_path):
    async def test(plane):
        await plane.database.write(add_account_if_missing, "acc_default", 1_000)
        key = (await plane.post("/v1/keys", {"name": "web"})).json()["key"]
        digest = key_digest(SECRET, key.encode())
        limits = dict.fromkeys(LIMITS)
        for change in ({"rate_limit_rpm": 600}, {"maxStreams": 5, "rate_limit_tpm": 9}, {"rate_limit_rpm": None}, {}):
            reply = (await plane.client.patch("/v1/account", json=change)).json()
            limits |= {"max_streams" if name == "maxStreams" else name: value for name, value in change.items()}
            assert reply == {"id": "acc_default", "object": "account", "name": "default", "created_at": 1, "archive_days": None, **limits, "effective": True}
            assert (await plane.get("/v1/account")).json().items() <= reply.items()
            rates = (await plane.keys.find([digest]))[digest].rates
            assert sorted(rate.limit for rate in rates) == sorted(limit for limit in limits.values() if limit)
        for method in ("GET", "PATCH"):
            reply = await plane.client.request(method, "/v1/account", headers={"authorization": f"Bearer {key}"}, json={})
            assert reply.status_code == 403

    run(tmp_path, test)


@pytest.mark.parametrize("change", [{"rate_limit_rpm": 0}, {"max_streams": "many"}, {"rate_limit_tpm": True}, {"name": "x"}])
def test_a_wrong_body_is_a_400(tmp_path, change):
    async def test(plane):
        reply = await plane.client.patch("/v1/account", json=change)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, next(iter(change)))

    run(tmp_path, test)
