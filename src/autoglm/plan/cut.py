"""Minimum cut by push-relabel: highest label first, exact distances recomputed now and then.

Only the cut is wanted, so flow that cannot reach the sink is left where it stands.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

# Raises per node before distances are taken anew; the cheapest of those tried on 8,000 nodes.
_PATIENCE = 8


@dataclass(slots=True)
class Network:
    """Nodes with capacities from the source (`supply`) and to the sink (`demand`), and arcs."""

    supply: list[int] = field(default_factory=list)
    demand: list[int] = field(default_factory=list)
    head: list[int] = field(default_factory=list)  # arc -> node it leads to; arc ^ 1 leads back
    room: list[int] = field(default_factory=list)  # arc -> residual capacity
    arcs: list[list[int]] = field(default_factory=list)  # node -> arcs that leave it

    def node(self) -> int:
        """Add a node."""
        self.supply.append(0)
        self.demand.append(0)
        self.arcs.append([])
        return len(self.arcs) - 1

    def link(self, start: int, end: int, capacity: int) -> None:
        """Add an arc: cutting it (start with the source, end with the sink) costs `capacity`."""
        self.arcs[start].append(len(self.head))
        self.arcs[end].append(len(self.head) + 1)
        self.head += (end, start)
        self.room += (capacity, 0)


def sink_side(network: Network) -> list[bool]:
    """Which nodes are on the sink's side of the minimum cut with the fewest there; uses it up."""
    return _PushRelabel(network).run()


class _PushRelabel:
    """Excess moves to nodes one step nearer the sink; a node that is stuck gets raised."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.size = len(network.arcs)
        self.excess = [0] * self.size
        self.raises = 0
        for node in range(self.size):
            direct = min(network.supply[node], network.demand[node])
            network.demand[node] -= direct
            self.excess[node] = network.supply[node] - direct
        self._measure()

    def run(self) -> list[bool]:
        while self.active:
            if not self.active[-1]:
                self.active.pop()
                continue
            node = self.active[-1].pop()
            if self.excess[node] and self.distance[node] == len(self.active) - 1:
                self._discharge(node)
                if self.raises > _PATIENCE * self.size:
                    self._measure()
        return [d <= self.size for d in distances(self.network)]

    def _measure(self) -> None:
        """Exact distances, and from them who is at which level and who has something to push."""
        self.raises = 0
        self.distance = distances(self.network)
        self.levels: dict[int, list[int]] = defaultdict(list)  # may hold stale nodes
        self.count: dict[int, int] = defaultdict(int)
        self.active: list[list[int]] = []
        for node, level in enumerate(self.distance):
            self.levels[level].append(node)
            self.count[level] += 1
            if self.excess[node] and level <= self.size:
                self._activate(node, level)

    def _activate(self, node: int, level: int) -> None:
        while len(self.active) <= level:
            self.active.append([])
        self.active[level].append(node)

    def _discharge(self, node: int) -> None:
        while self.excess[node]:
            level = self.distance[node]
            if level > self.size:
                return
            lowest = self._push(node, level)
            if self.excess[node]:
                self._raise(node, level, lowest)

    def _push(self, node: int, level: int) -> int:
        """Push what fits one level down; the lowest level that is still open otherwise."""
        network, excess, distance = self.network, self.excess, self.distance
        head, room = network.head, network.room
        left, lowest = excess[node], self.size
        if level == 1:
            amount = min(left, network.demand[node])
            network.demand[node] -= amount
            left -= amount
        for arc in network.arcs[node]:
            if not left:
                break
            if not room[arc]:
                continue
            target = head[arc]
            near = distance[target]
            if near + 1 != level:
                lowest = min(lowest, near)
                continue
            amount = min(left, room[arc])
            room[arc] -= amount
            room[arc ^ 1] += amount
            excess[target] += amount
            left -= amount
            self.active[near].append(target)
        excess[node] = left
        return lowest

    def _raise(self, node: int, level: int, lowest: int) -> None:
        self.raises += 1
        self.count[level] -= 1
        if not self.count[level]:
            self._strand(level)
            lowest = self.size
        found = min(lowest, self.size) + 1
        self.distance[node] = found
        self.count[found] += 1
        self.levels[found].append(node)
        if found <= self.size:
            while len(self.active) <= found:
                self.active.append([])

    def _strand(self, gap: int) -> None:
        """Nobody is left at `gap`, so that nothing above it can reach the sink any more."""
        dead = self.size + 1
        for level in range(gap + 1, self.size + 1):
            if not self.count[level]:
                break
            for node in self.levels[level]:
                if self.distance[node] == level:
                    self.distance[node] = dead
                    self.count[dead] += 1
            self.count[level] = 0
            del self.levels[level]


def distances(network: Network) -> list[int]:
    """Residual steps to the sink; one more than the number of nodes where it cannot be reached."""
    head, room = network.head, network.room
    far = len(network.arcs) + 1
    distance = [1 if d else far for d in network.demand]
    queue = deque(node for node, d in enumerate(distance) if d == 1)
    while queue:
        node = queue.popleft()
        level = distance[node] + 1
        for arc in network.arcs[node]:
            before = head[arc]
            if room[arc ^ 1] and level < distance[before]:
                distance[before] = level
                queue.append(before)
    return distance
