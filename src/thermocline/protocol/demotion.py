"""The demotion path: to which node a node demotes. Acyclic by construction.

In the kernel ``next_demotion_node()`` reads an array that ``set_migration_target_nodes()`` builds from the nearest
node outward; a cycle there would let reclaim chase its own tail. Here an edge that would close a cycle cannot be added.
"""

from __future__ import annotations


class CycleError(ValueError):
    """An edge would make the demotion path a cycle."""


class DemotionPath:
    """Which node each node demotes to. Several sources may share a target."""

    def __init__(self) -> None:
        self._target: dict[int, int] = {}

    @classmethod
    def through(cls, nodes: int) -> DemotionPath:
        """The path on which each node demotes to the next."""
        path = cls()
        for target in range(1, nodes):
            path.demote_to(target - 1, target)
        return path

    def demote_to(self, source: int, target: int) -> None:
        """Let ``source`` demote to ``target``.

        Raises
        ------
        CycleError
            Following the path from ``target`` leads back to ``source``.
        """
        if source in self.from_node(target):
            raise CycleError(f"node {source} would demote to itself by way of {self.from_node(target)}")
        self._target[source] = target

    def next_node(self, source: int) -> int | None:
        """The node that ``source`` demotes to (``next_demotion_node``), or None at the end of the path."""
        return self._target.get(source)

    def from_node(self, node: int) -> list[int]:
        """The path that begins at a node, the node itself first."""
        path = [node]
        while (node := self._target.get(node, -1)) >= 0:
            path.append(node)
        return path

    def remove(self, node: int) -> None:
        """Take a node out of the path: its sources demote to its target."""
        target = self._target.pop(node, None)
        for source in [source for source, to in self._target.items() if to == node]:
            if target is None:
                del self._target[source]
            else:
                self._target[source] = target
