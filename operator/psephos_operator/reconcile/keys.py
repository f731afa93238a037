"""A session's keys in Kubernetes: created once before genesis, and never again. Calls block.

A key that is lost after genesis is not replaced: another key would give every voter a second vote.
"""

from base64 import b64decode
from typing import Any

from psephos.control import SessionKeys
from psephos.control.keys import SESSION_KEY_BYTES, new_keys, signing_key
from psephos.domain.genesis import Genesis, GenesisMismatch, key_fingerprint, require_match
from psephos.platform.errors import PsephosError
from psephos_operator.builders import secrets
from psephos_operator.builders.plan import Plan
from psephos_operator.kube.client import Kube
from psephos_operator.kube.kinds import BY_NAME
from psephos_operator.reconcile.backends import new_password

_SECRET = BY_NAME["Secret"]


class KeysLost(PsephosError):
    """A required Secret is missing or lacks what it should hold. The message: one line that reveals no key."""


def keep_keys(kube: Kube, plan: Plan) -> SessionKeys:
    """Returns the session's keys before genesis; creates missing ones. Raises KeysLost for broken ones."""
    made = new_keys()
    parts = {
        secrets.session_key_name(plan): (secrets.SESSION_KEY,),
        secrets.signing_key_name(plan): (secrets.SIGNING_KEY, secrets.LOT_SEED),
    }
    for name, keys in parts.items():
        kube.create(_SECRET, secrets.made_once(plan, name, {key: made[key] for key in keys}))
    return read_keys(kube, plan)


def read_keys(kube: Kube, plan: Plan) -> SessionKeys:
    """Returns the session's keys. Raises KeysLost."""
    (session,) = _values(kube, plan, secrets.session_key_name(plan), secrets.SESSION_KEY)
    signing, seed = _values(kube, plan, secrets.signing_key_name(plan), secrets.SIGNING_KEY, secrets.LOT_SEED)
    if len(session) < SESSION_KEY_BYTES:
        raise KeysLost(f"Secret {secrets.session_key_name(plan)}: {secrets.SESSION_KEY} is too short")
    try:
        return SessionKeys(session, signing_key(signing), seed)
    except ValueError as error:
        raise KeysLost(f"Secret {secrets.signing_key_name(plan)}: {secrets.SIGNING_KEY} {error}") from None


def require_keys(kube: Kube, plan: Plan, genesis: Genesis) -> None:
    """After genesis, raises KeysLost if a key is missing or differs from the one that genesis fixed."""
    keys = read_keys(kube, plan)
    try:
        require_match(genesis, key_fingerprint=key_fingerprint(keys.session), public_key=keys.public_key)
    except GenesisMismatch as error:
        raise KeysLost(str(error)) from None


def keep_password(kube: Kube, plan: Plan) -> str:
    """Returns the password of the session's Redis user; creates it if it is missing."""
    name = secrets.redis_user_name(plan)
    found = kube.get(_SECRET, plan.namespace, name)
    if found is None:
        made = {secrets.REDIS_PASSWORD: new_password().encode()}
        kube.create(_SECRET, secrets.made_once(plan, name, made))
    (password,) = _values(kube, plan, name, secrets.REDIS_PASSWORD)
    return password.decode()


def _values(kube: Kube, plan: Plan, name: str, *keys: str) -> list[bytes]:
    found: Any = kube.get(_SECRET, plan.namespace, name)
    data = {} if found is None else found.get("data", {})
    missing = [key for key in keys if key not in data]
    if missing:
        what = "is gone" if found is None else f"has no {missing[0]}"
        raise KeysLost(
            f"Secret {name} {what}: restore it from a backup; a new key would count another session's voters"
        )
    return [b64decode(data[key]).rstrip(b"\r\n") for key in keys]
