"""A Ray cluster of two nodes on this machine, as a program of its own: it prints its address and
ends with its standard input. For the line `kill` there it takes the second node away and prints its
id, for `restart` it kills what the head knows all from, begins it anew and prints its address. The
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
for line in sys.stdin:
    if line.strip() == "restart":
        cluster.head_node.kill_gcs_server()
        cluster.head_node.start_gcs_server()
        print(cluster.address, flush=True)
    else:
        cluster.remove_node(second, allow_graceful=False)
        print(second.node_id, flush=True)
cluster.shutdown()
