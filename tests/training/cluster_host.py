"""A Ray cluster of two nodes on this machine, as a program of its own: it prints its address, takes
the second node away for a line on standard input and prints its id, and ends with that input. The
first one says that it has two cards, which nobody has to use."""

import sys

from ray.cluster_utils import Cluster

SMALL = {
    "num_cpus": 2,
    "include_dashboard": False,
    "object_store_memory": 80 * 2**20,
    "node_ip_address": "127.0.0.1",
}

cluster = Cluster(initialize_head=True, connect=False, head_node_args={**SMALL, "num_gpus": 2})
second = cluster.add_node(**SMALL)
print(cluster.address, flush=True)
for _line in sys.stdin:
    cluster.remove_node(second, allow_graceful=False)
    print(second.node_id, flush=True)
cluster.shutdown()
