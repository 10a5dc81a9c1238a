"""A signed HTTP POST: what happened to be picked, in parts of a bounded size, each with an id that never changes.

The headers are those of the Standard Webhooks convention, which has libraries in many languages, and one more that
names the secret:

    webhook-id          <delivery id>.<part>, the same at every attempt: a receiver drops what it knows
    webhook-timestamp   unix seconds of this attempt
    webhook-signature   v1,<base64 of HMAC-SHA256 over "<id>.<timestamp>.<body>">
    webhook-key-id      names the secret
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Any

import msgspec

from watcher import __version__
from watcher.domain.clock import Clock
from watcher.domain.crash_points import crash_point
from watcher.domain.delivery import ImageReference, WebhookRules
from watcher.domain.errors import ApiException, ConfigError, DeliveryRefusedError
from watcher.lightly.trust import build_trust
from watcher.sinks.base import Handover, PickedSample, Receipt, SinkParts
from watcher.sinks.http import Receiver
from watcher.sinks.place import describe_place

_SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret starts with
_GONE = 410


class WebhookSink:
    """Posts to the configured address and to no other."""

    reference = ImageReference.READ_URL

    def __init__(self, rules: WebhookRules, parts: SinkParts) -> None:
        self._rules = rules
        self._key = decode_secret(rules.secret)
        self._place = describe_place(rules.url)
        self._clock: Clock = parts.clock
        self._receiver = Receiver(
            connect_timeout_s=parts.connect_timeout_s,
            timeout_s=rules.timeout_s,
            trust=build_trust(only=rules.ca_certs, besides=parts.ca_certs),
            clock=parts.clock,
            secrets=(rules.secret, rules.url),
        )

    def deliver(self, handover: Handover) -> Receipt:
        """Posts the parts that are not confirmed yet; nothing for no picks.

        Raises:
            DeliveryRefusedError: the receiver answered 410.
            WatcherError: it failed otherwise; a part whose outcome is unknown is repeated with its id.
        """
        # Parts are cut as at the first attempt, since their numbers are in the ids.
        size = int(handover.progress.get("max_picks", self._rules.max_picks))
        n_parts = -(-handover.n_picks // size)
        n_confirmed = int(handover.progress.get("n_confirmed", 0))
        if not n_confirmed:
            handover.save_progress({"n_confirmed": 0, "max_picks": size})
        for number, chunk in enumerate(handover.iter_chunks(size, n_confirmed * size), n_confirmed + 1):
            handover.check()
            self._post(handover, chunk, number, n_parts)
            crash_point("webhook.posted")
            handover.save_progress({"n_confirmed": number, "max_picks": size})
        return Receipt(location=self._place, facts={"n_parts": n_parts})

    def _post(self, handover: Handover, chunk: list[PickedSample], number: int, n_parts: int) -> None:
        body = msgspec.json.encode(build_body(handover, chunk, number=number, n_parts=n_parts))
        message_id = f"{handover.id}.{number}"
        timestamp_s = int(self._clock.now_s())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"datasource-watcher/{__version__}",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": compute_signature(
                self._key, message_id=message_id, timestamp_s=timestamp_s, body=body
            ),
            "webhook-key-id": self._rules.key_id,
        }
        what = f"webhook {self._place}, part {number} of {n_parts}"
        try:
            self._receiver.send("POST", self._rules.url, headers=headers, body=body, what=what)
        except ApiException as error:
            if error.status == _GONE:
                raise DeliveryRefusedError(
                    f"{what}: the receiver is gone for good (410): set another URL, then `watcher replay "
                    f"{handover.watch}`; or take the sink out, then `watcher drop {handover.watch} --sink` and its name"
                ) from error
            raise


def build_body(handover: Handover, chunk: list[PickedSample], *, number: int, n_parts: int) -> dict[str, Any]:
    """The body of a part; `picks` are like the lines of a manifest."""
    return {
        "type": "picks.delivered",
        "delivery_id": handover.id,
        "part": number,
        "n_parts": n_parts,
        "n_picks": handover.n_picks,
        "watch": handover.watch,
        "dataset_id": handover.dataset_id,
        "batch": handover.batch_key,
        "tag": handover.tag,
        "picks": [pick.line for pick in chunk],
    }


def compute_signature(key: bytes, *, message_id: str, timestamp_s: int, body: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256 over id, timestamp and body, with dots between them."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def decode_secret(secret: str) -> bytes:
    """The key in a secret: what is behind `whsec_` in base64, or the text itself.

    Raises:
        ConfigError: there is no base64 behind `whsec_`.
    """
    if not secret.startswith(_SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ConfigError("the secret of a webhook starts with whsec_, but no base64 follows") from None
