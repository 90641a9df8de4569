"""A packer and a clock, and messages for it. Times are seconds, linger is 10 s, a pack holds three."""

from collections.abc import Sequence

from sendengine.core.drafts import Pack, PackKey
from sendengine.core.packing import Packer

HI = PackKey(b'{"contents":{"en":"Hi"}}', "push", "alias", "external_id")  # 24 bytes
HO = PackKey(b'{"contents":{"en":"Ho"}}', "push", "alias", "external_id")
EVERYONE = PackKey(b'{"contents":{"en":"Hi"}}', "push", "segments")


class Lane:
    """A packer and a clock; members are names, kept as they were given so that each is one object."""

    def __init__(self, *, max_recipients: int = 3, max_bytes: int = 10_000, linger_s: float = 10) -> None:
        self.packer: Packer[str] = Packer(max_recipients=max_recipients, max_bytes=max_bytes, linger_s=linger_s)
        self.members: list[str] = []
        self.now_s = 0.0

    def add(
        self,
        ids: str,
        *,
        group: PackKey = HI,
        alone: bool = False,
        high: bool = False,
        deadline_s: float | None = None,
        named: str = "",
    ) -> str:
        member = named or f"job {len(self.members)}"
        self.members.append(member)
        self.packer.add(
            member,
            group=group,
            ids=tuple(ids.split()),
            alone=alone,
            high=high,
            deadline_s=deadline_s,
            now_s=self.now_s,
        )
        return member

    def take(self, *, prefer_normal: bool = False) -> str:
        return shown(self.packer.take(now_s=self.now_s, prefer_normal=prefer_normal))

    def expire(self, now_s: float) -> list[str]:
        """Move the clock on, and return the recipients of those who leave."""
        self.now_s = now_s
        return [" ".join(share.ids) for share in self.packer.expire(now_s)]

    def take_all(self, *, prefer_normal: bool = False) -> list[str]:
        return list(iter(lambda: self.take(prefer_normal=prefer_normal), ""))


def shown(pack: Pack[str] | None) -> str:
    return "" if pack is None else " ".join(pack.ids)


def shares(pack: Pack[str] | None) -> Sequence[tuple[str, tuple[str, ...]]]:
    assert pack is not None
    return [(share.member, share.ids) for share in pack.shares]
