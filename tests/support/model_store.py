"""A store of the worker without Redis."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.settings.settings import Settings
from tests.support.model import Model
from workers.store import Store
from workers.verdicts import Merged, Received, Unmergeable

if TYPE_CHECKING:
    from shared.postback.envelope import Arrival
    from shared.postback.postback import Key


class ModelStore(Store):
    """The state in models, one for each key."""

    def __init__(self) -> None:
        # A client that never connects: processing a window only calls `merge`.
        super().__init__(Settings())
        self.models: dict[Key, Model] = {}
        self.received: list[Arrival] = []

    async def merge(self, window: Sequence[Received]) -> list[Merged | Unmergeable]:
        groups: dict[Key, list[Received]] = {}
        for each in window:
            self.received.append(each.arrival)
            groups.setdefault(each.normalised.key, []).append(each)
        merged: list[Merged | Unmergeable] = []
        for key, group in groups.items():
            model = self.models.setdefault(key, Model(key))
            merged.append(model.merge(group))
        return merged
