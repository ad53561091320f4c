"""Minimum cut by push-relabel: highest label first, exact distances recomputed now and then.

Only the cut is wanted, so flow that cannot reach the sink is left where it stands (first phase only).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Network:
    """Nodes with a capacity from the source (`supply`) and to the sink (`demand`), and arcs between them."""

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
    """The nodes on the sink's side of a minimum cut, the smallest such set; uses the network up."""
    size = len(network.arcs)
    excess = [0] * size
    for node in range(size):
        direct = min(network.supply[node], network.demand[node])
        network.demand[node] -= direct
        excess[node] = network.supply[node] - direct
    distance = _distances(network)
    buckets = _buckets(excess, distance)
    relabels = 0
    while buckets:
        while buckets and not buckets[-1]:
            buckets.pop()
        if not buckets:
            break
        node = buckets[-1].pop()
        if not excess[node] or distance[node] != len(buckets) - 1:
            continue
        relabels += _discharge(network, node, excess, distance, buckets)
        if relabels > size:
            relabels = 0
            distance = _distances(network)
            buckets = _buckets(excess, distance)
    return [d <= size for d in _distances(network)]


def _discharge(
    network: Network,
    node: int,
    excess: list[int],
    distance: list[int],
    buckets: list[list[int]],
) -> int:
    """Push a node's excess one step nearer the sink, raising it where nothing is nearer; counts raises."""
    head, room, limit = network.head, network.room, len(distance)
    raises = 0
    while True:
        level = distance[node]
        if level == 1 and network.demand[node]:
            amount = min(excess[node], network.demand[node])
            network.demand[node] -= amount
            excess[node] -= amount
            if not excess[node]:
                return raises
        lowest = limit
        for arc in network.arcs[node]:
            if not room[arc]:
                continue
            target = head[arc]
            near = distance[target]
            if near + 1 != level:
                lowest = min(lowest, near)
                continue
            amount = min(excess[node], room[arc])
            room[arc] -= amount
            room[arc ^ 1] += amount
            excess[target] += amount
            excess[node] -= amount
            buckets[near].append(target)
            if not excess[node]:
                return raises
        raises += 1
        distance[node] = level = 1 if network.demand[node] else lowest + 1
        if level > limit:
            return raises
        while len(buckets) <= level:
            buckets.append([])


def _distances(network: Network) -> list[int]:
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


def _buckets(excess: list[int], distance: list[int]) -> list[list[int]]:
    limit = len(distance)
    buckets: list[list[int]] = []
    for node, level in enumerate(distance):
        if excess[node] and level <= limit:
            while len(buckets) <= level:
                buckets.append([])
            buckets[level].append(node)
    return buckets
