"""The notice that a cloud gives before it takes a node away, as an autoscaler passes it on to Ray."""

import time


def announce(address: str, node_id: str, notice_s: float) -> None:
    """Ask the cluster to drain a node; it stays until somebody takes it away.

    Args:
        address: host:port of the head.
        node_id: hexadecimal.
        notice_s: announced time, s.
    """
    import ray
    from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

    client = ray._raylet.GcsClient(address=address)
    deadline_ms = int((time.time() + notice_s) * 1000)
    is_accepted, reason = client.drain_node(node_id, DRAIN_NODE_REASON_PREEMPTION, "taken back", deadline_ms)
    assert is_accepted, reason
